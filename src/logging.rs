//! The log: formats each record as one line of text or JSON, and passes it through log and env_logger to the
//! queue in `log_queue.rs`. Guarantees: no value, whatever it contains, can end a line or look like another key.

use crate::log_queue;
use crate::task::UtcMicros;
use env_logger::Target;
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, LevelFilter, Record};
use std::fmt::{Display, Write as _};
use std::io::{self, Write};

/// Starts the log. `filter` has the syntax of `RUST_LOG`. Errors: the writing thread cannot be started.
pub fn start(json: bool, filter: &str) -> io::Result<()> {
    let line: fn(&Record) -> String = if json { json_line } else { text_line };
    log_queue::start(Box::new(move |count| dropped_line(count, line)))?;
    env_logger::Builder::new()
        // Warnings of rustls are hidden, because any client can cause them. `RUST_LOG=rustls=warn` shows them.
        .filter_module("rustls", LevelFilter::Error)
        .parse_filters(filter)
        // The driver's debug lines are never shown, because they contain the values of statements, and so the texts
        // of tasks.
        .filter_module("tokio_postgres", LevelFilter::Info)
        .format(move |out, record| -> io::Result<()> { out.write_all(line(record).as_bytes()) })
        .target(Target::Pipe(Box::new(Lines)))
        .init();
    // The message of a panic, which is a defect, is logged like every other line.
    std::panic::set_hook(Box::new(|panic| log::error!(reason = panic.to_string().as_str(); "BUG: panic")));
    Ok(())
}

/// Passes what env_logger writes to the queue. Each call of `write` gets one whole line.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        log_queue::push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line that says how many lines were dropped. The writing thread writes it directly, not through the queue, so
/// this line itself cannot be dropped.
fn dropped_line(count: u64, line: fn(&Record) -> String) -> String {
    let pairs = [("lines", count)];
    let mut record = Record::builder();
    let record = record.level(Level::Warn).target("tinytasks::log_queue").key_values(&pairs);
    line(&record.args(format_args!("log lines were dropped, because nobody read them in time")).build())
}

/// Most lines of requests fit into this many bytes.
const LINE_BYTES: usize = 256;

fn text_line(record: &Record) -> String {
    let mut line = String::with_capacity(LINE_BYTES);
    let _ = write!(line, "{} {} ", UtcMicros::now(), record.level());
    push_plain_or_json(&mut line, record.args(), " ");
    each_pair(record, &mut |key, value| {
        line.extend([" ", key, "="]);
        push_plain_or_json(&mut line, value, "");
    });
    line + "\n"
}

/// Keys of this service for which OpenTelemetry's semantic conventions have another name, and that name.
const ATTRIBUTES: [(&str, &str); 7] = [
    ("client", "client.address"),
    ("method", "http.request.method"),
    ("route", "http.route"),
    ("status", "http.response.status_code"),
    ("user_id", "user.id"),
    ("error_code", "error.type"),
    ("reason", "error.message"),
];

fn json_line(record: &Record) -> String {
    let (level, body) = (record.level(), json_string(&record.args().to_string()));
    let now = UtcMicros::now();
    let mut line = format!(r#"{{"timestamp":"{now}","severity_text":"{level}","body":{body}"#);
    each_pair(record, &mut |key, value| {
        let attribute = ATTRIBUTES.iter().find(|(ours, _)| *ours == key);
        let key = attribute.map_or(key, |(_, attribute)| attribute);
        let is_number = value.to_f64().is_some();
        let value = value.to_string();
        line.push_str(&format!(r#","{key}":{}"#, if is_number { value } else { json_string(&value) }));
    });
    line + "}\n"
}

/// Appends a value: as it is if its text consists of letters, digits and a few harmless characters, otherwise as a
/// JSON string. `also_plain` has further harmless characters.
fn push_plain_or_json(line: &mut String, value: &dyn Display, also_plain: &str) {
    let is_plain = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.' | b'_' | b':' | b'/' | b'{' | b'}' | b'[' | b']' | b'+' | b'@' | b','
            )
            || also_plain.as_bytes().contains(&byte)
    };
    let begin = line.len();
    // Writing to a String cannot fail.
    let _ = write!(line, "{value}");
    let text = line.get(begin..).unwrap_or_default();
    if text.is_empty() || !text.bytes().all(is_plain) {
        let json = json_string(text);
        line.truncate(begin);
        line.push_str(&json);
    }
}

/// A JSON string in ASCII. serde_json escapes the control characters of ASCII. All other characters outside ASCII
/// are escaped here, because some of them end a line or reverse the direction of the text.
fn json_string(text: &str) -> String {
    let json = serde_json::to_string(text).unwrap_or_default();
    let mut escaped = String::with_capacity(json.len());
    for char in json.chars() {
        match char {
            ' '..='~' => escaped.push(char),
            _ => char.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }),
        }
    }
    escaped
}

fn each_pair(record: &Record, each: &mut dyn FnMut(&str, &Value)) {
    struct Visitor<'a>(&'a mut dyn FnMut(&str, &Value));
    impl<'kvs> VisitSource<'kvs> for Visitor<'_> {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
            (self.0)(key.as_str(), &value);
            Ok(())
        }
    }
    // `Visitor` returns no error.
    let _ = record.key_values().visit(&mut Visitor(each));
}
