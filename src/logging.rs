//! The log on standard error, through log and env_logger: one line for each record, as text or as
//! JSON. Guarantees: whatever is in a value, it cannot end a line or look like another key.

use crate::task::UtcMicros;
use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Record};
use std::io::{self, Write};

/// `filter` in the syntax of `RUST_LOG`.
pub fn start(json: bool, filter: &str) {
    let line = if json { json_line } else { text_line };
    env_logger::Builder::new()
        .parse_filters(filter)
        // Its debug lines have the values of a statement in them: what tasks say.
        .filter_module("tokio_postgres", LevelFilter::Info)
        .format(move |out, record| -> io::Result<()> { out.write_all(line(record).as_bytes()) })
        .init();
    // A panic is a defect. Its message goes the same way as every other line.
    std::panic::set_hook(Box::new(|panic| log::error!(reason = panic.to_string().as_str(); "BUG: panic")));
}

fn text_line(record: &Record) -> String {
    let mut line = String::with_capacity(256) + &format!("{} {} ", UtcMicros::now(), record.level());
    push_plain_or_json(&mut line, &record.args().to_string(), " ");
    each_pair(record, &mut |key, value| {
        line.extend([" ", key, "="]);
        push_plain_or_json(&mut line, &value.to_string(), "");
    });
    line + "\n"
}

/// Our keys, and OpenTelemetry's for the same, where it has one.
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

/// As it is where it is made of letters, digits and the usual signs; else as a JSON string.
fn push_plain_or_json(line: &mut String, text: &str, also_plain: &str) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:/{}[]+@,".contains(&byte);
    let is_plain = |byte: u8| is_plain(byte) || also_plain.as_bytes().contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        line.push_str(text);
    } else {
        line.push_str(&json_string(text));
    }
}

/// JSON escapes ASCII's control characters. Those beyond, some of which end a line or turn its
/// direction, are escaped here with all that is not ASCII.
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
    // The visitor gives no error.
    let _ = record.key_values().visit(&mut Visitor(each));
}
