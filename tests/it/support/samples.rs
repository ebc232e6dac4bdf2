//! Reads `/metrics` into series and their values.

use crate::support::harness::{App, Setup};
use std::collections::BTreeMap;

pub fn setup() -> Setup {
    App::setup().env("ADMIN_ADDR", "127.0.0.1:0")
}

/// A name and its labels.
pub type Series = (String, BTreeMap<String, String>);

pub type Samples = BTreeMap<Series, f64>;

pub fn scrape(app: &App) -> Samples {
    let answer = app.admin("/metrics").send().expect(200);
    assert_eq!(answer.field("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = answer.text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples: Vec<_> = lines.map(|line| sample(line).expect(line)).collect();
    let count = samples.len();
    let samples: Samples = samples.into_iter().collect();
    assert_eq!(samples.len(), count, "a series is there twice: {text}");
    samples
}

/// `name value` or `name{label="value",…} value`; no value of ours has a quote or a comma in it.
fn sample(line: &str) -> Option<(Series, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix("\"}")?),
        None => (series, ""),
    };
    let mut pairs = BTreeMap::new();
    for pair in labels.split("\",").filter(|pair| !pair.is_empty()) {
        let (label, value) = pair.split_once("=\"")?;
        pairs.insert(label.to_owned(), value.to_owned());
    }
    Some(((name.to_owned(), pairs), value.parse().ok()?))
}

/// The value of the series with these labels and no others.
pub fn value(samples: &Samples, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned()));
    samples.get(&(name.to_owned(), labels.collect())).copied()
}
