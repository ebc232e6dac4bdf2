//! The log: one line for each record, as text or as JSON, through log and env_logger to the queue in
//! `log_queue.rs`. Guarantees: whatever is in a value, it cannot end a line or look like another key.

use crate::log_queue;
use crate::task::UtcMicros;
use env_logger::Target;
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, LevelFilter, Record};
use std::fmt::{Display, Write as _};
use std::io::{self, Write};

/// Starts the log. `filter` is in the syntax of `RUST_LOG`. Errors: the thread that writes the lines
/// cannot be started.
pub fn start(json: bool, filter: &str) -> io::Result<()> {
    let line: fn(&Record) -> String = if json { json_line } else { text_line };
    log_queue::start(Box::new(move |count| dropped_line(count, line)))?;
    env_logger::Builder::new()
        // Any client can cause the warnings of rustls. `RUST_LOG=rustls=warn` shows them.
        .filter_module("rustls", LevelFilter::Error)
        .parse_filters(filter)
        // The driver's debug lines show the values of a statement, which is what tasks say.
        .filter_module("tokio_postgres", LevelFilter::Info)
        .format(move |out, record| -> io::Result<()> { out.write_all(line(record).as_bytes()) })
        .target(Target::Pipe(Box::new(Lines)))
        .init();
    // A panic is a defect. Its message takes the same way as every other line.
    std::panic::set_hook(Box::new(|panic| log::error!(reason = panic.to_string().as_str(); "BUG: panic")));
    Ok(())
}

/// Gives the queue what env_logger writes, which is one whole line for each call.
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

/// Written by the thread of the queue itself, so it cannot be dropped in its turn.
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

/// Our keys for which OpenTelemetry's conventions have a name of their own, and that name.
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

/// Adds a value as it is if its text is of letters, digits and a few harmless signs, and else as a JSON
/// string.
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
    // Writing to a String does not fail.
    let _ = write!(line, "{value}");
    let text = line.get(begin..).unwrap_or_default();
    if text.is_empty() || !text.bytes().all(is_plain) {
        let json = json_string(text);
        line.truncate(begin);
        line.push_str(&json);
    }
}

/// serde_json escapes the control characters of ASCII. Everything that is not ASCII is escaped here:
/// some of those characters end a line or reverse the direction of the text.
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
