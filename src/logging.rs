//! The log on standard error, through log and env_logger: one line for each record, as text or as
//! JSON. Guarantees: whatever is in a value, it cannot end a line or look like another key.

use crate::task::Instant;
use log::{
    Record,
    kv::{Error, Key, Value, VisitSource},
};
use std::io::{self, Write};

/// `filter` in the syntax of `RUST_LOG`.
pub fn start(json: bool, filter: &str) {
    let format = if json { write_json } else { write_text };
    env_logger::Builder::new()
        .parse_filters(filter)
        .format(move |out, record| format(out, record))
        .init();
    // A panic is a defect. Its message goes the same way as every other line.
    std::panic::set_hook(Box::new(|panic| {
        log::error!(reason = panic.to_string().as_str(); "BUG: panic");
    }));
}

fn write_text(out: &mut dyn Write, record: &Record) -> io::Result<()> {
    let mut line = format!(
        "{} {} {}",
        Instant::now(),
        record.level(),
        quoted(&record.args().to_string(), " ")
    );
    let mut pair = |key: &str, value: &Value| {
        line.push(' ');
        line.push_str(key);
        line.push('=');
        line.push_str(&quoted(&value.to_string(), ""));
    };
    visit(record, &mut pair);
    line.push('\n');
    out.write_all(line.as_bytes())
}

/// As it is where it is made of letters, digits and the usual signs; else as a JSON string.
fn quoted(text: &str, also_plain: &str) -> String {
    let is_plain = |char: char| {
        char.is_ascii_alphanumeric() || "-._:/{}[]+@,".contains(char) || also_plain.contains(char)
    };
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => json_string(text),
    }
}

fn write_json(out: &mut dyn Write, record: &Record) -> io::Result<()> {
    let mut line = format!(
        "{{\"timestamp\":\"{}\",\"level\":\"{}\",\"message\":{}",
        Instant::now(),
        record.level(),
        json_string(&record.args().to_string())
    );
    let mut pair = |key: &str, value: &Value| {
        let number = value.to_i64().map(|number| number.to_string());
        let number = number.or_else(|| value.to_f64().map(|number| number.to_string()));
        line.push(',');
        line.push_str(&json_string(key));
        line.push(':');
        line.push_str(&number.unwrap_or_else(|| json_string(&value.to_string())));
    };
    visit(record, &mut pair);
    line.push_str("}\n");
    out.write_all(line.as_bytes())
}

/// Control characters are escaped by JSON; those beyond ASCII that end a line or turn its
/// direction, here.
fn json_string(text: &str) -> String {
    let json = serde_json::to_string(text).unwrap_or_default();
    json.chars()
        .map(|char| match char {
            '\u{7f}'..='\u{9f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' => format!("\\u{:04x}", u32::from(char)),
            char => char.to_string(),
        })
        .collect()
}

fn visit(record: &Record, each: &mut dyn FnMut(&str, &Value)) {
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
