//! `ADMIN_ADDR`: the metrics, that no client can make them grow, that dashboard and alerts name what
//! there is; and the probes.

use crate::support::{
    certificates::make_pair,
    harness::{App, Directory, eventually},
    http::Connection,
    locks::Blocked,
    samples::{Samples, Series, scrape, setup, value},
    token::{SECRET, now, sign, token},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

const REQUESTS: &str = "http_server_request_duration_seconds";

fn answered(samples: &Samples, method: &str, route: &str, status: &str) -> Option<f64> {
    let labels =
        [("http_request_method", method), ("http_route", route), ("http_response_status_code", status)];
    value(samples, &format!("{REQUESTS}_count"), &labels)
}

#[test]
fn requests_are_counted_by_method_route_and_status() {
    let app = setup().spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    for (method, target, route) in [
        ("GET", "/", "/"),
        ("GET", "/docs", "/docs"),
        ("GET", "/docs/docs.js", "/docs/{asset}"),
        ("HEAD", "/openapi.json", "/openapi.json"),
        ("OPTIONS", "/health", "/health"),
        ("QUERY", "/health", "/health"),
        ("GET", "/nothing/here", ""),
    ] {
        let status = app.request(method, target).send().status.to_string();
        let method = if method == "QUERY" { "_OTHER" } else { method };
        eventually(target, || answered(&scrape(&app), method, route, &status) >= Some(1.0));
    }
    for _ in 0..3 {
        alice.on_task("GET", id).send().expect(200);
    }
    alice.on_task("GET", id).header("If-None-Match", "*").send().expect(304);
    alice.request("GET", "/tasks").send().expect(200);
    let samples = scrape(&app);
    let item = "/api/{user_id}/tasks/{task_id}";
    assert_eq!(answered(&samples, "GET", item, "200"), Some(3.0));
    assert_eq!(answered(&samples, "GET", item, "304"), Some(1.0));
    assert_eq!(answered(&samples, "POST", "/api/{user_id}/tasks", "201"), Some(1.0));
    assert_eq!(answered(&samples, "GET", "/api/{user_id}/tasks", "200"), Some(1.0));
    // The admin's own are not in it.
    let of_admin =
        |((_, labels), _): (&Series, _)| labels.get("http_route").is_some_and(|route| route == "/metrics");
    assert!(!samples.iter().any(of_admin));
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(value(&samples, "tinytasks_build_info", &version), Some(1.0));
    let started = value(&samples, "process_start_time_seconds", &[]).unwrap();
    assert!((now() as f64 - started).abs() < 120.0, "{started}");
    assert!(value(&samples, "process_resident_memory_bytes", &[]) > Some(1e6));
}

#[test]
fn a_histogram_adds_up() {
    let app = setup().spawn();
    app.user("alice").create("t");
    app.get("/").send().expect(200);
    let samples = scrape(&app);
    let mut families = 0;
    for ((name, labels), count) in samples.iter().filter(|((name, _), _)| name.ends_with("_count")) {
        let family = name.strip_suffix("_count").unwrap();
        families += 1;
        let bucket = |bound: &str| {
            let mut labels = labels.clone();
            labels.insert("le".to_owned(), bound.to_owned());
            samples.get(&(format!("{family}_bucket"), labels)).copied()
        };
        assert_eq!(bucket("+Inf"), Some(*count), "{name} {labels:?}");
        let bounds = ["0.001", "0.0025", "0.005", "0.01", "0.1", "1", "10", "+Inf"];
        let counts: Vec<_> = bounds.iter().map(|bound| bucket(bound).expect(bound)).collect();
        assert!(counts.is_sorted(), "{counts:?}");
        let sum = samples[&(format!("{family}_sum"), labels.clone())];
        assert!(sum >= 0.0 && sum <= count * 30.0, "{name} {labels:?}: {sum}");
    }
    assert!(families > 3);
}

/// Sends requests in which all names differ from those of the other rounds.
fn hostile_round(app: &App, round: usize) {
    let user = format!("eve\"}} 1\n{round}");
    for method in [format!("M{round}"), "get".to_owned() + &"x".repeat(round), format!("__{round}")] {
        app.request(&method, "/health").send();
        app.request(&method, &format!("/{round}")).send();
    }
    for target in [
        format!("/{round}"),
        format!("/api/{round}/tasks"),
        format!("/api/{round}/tasks/{round}?x={round}"),
        format!("/%22%7D%0a{round}"),
        format!("/docs/{round}"),
        format!("/%zz{round}"),
    ] {
        app.get(&target).send();
        app.get(&target).bearer(&format!("{round}.{round}.{round}")).send();
        app.get(&target).bearer(&token(&user)).send();
    }
    app.user(&user).post(json!({"title": user})).expect(201);
    app.user(&user).request("GET", &format!("/tasks?limit={round}")).send();
    let claims = json!({"exp": now() + 60, "iss": user, "user_id": [user]});
    app.get("/api/a/tasks").bearer(&sign(SECRET, &claims)).send();
    app.get("/")
        .header("X-Request-Id", &user.replace('\n', ""))
        .header("Origin", &format!("x{round}"))
        .send();
    for raw in [format!("{round} / HTTP/1.1\r\n\r\n"), format!("GET / HTTP/9.{round}\r\n\r\n")] {
        let mut connection = Connection::open(&app.address).unwrap();
        connection.write(raw.as_bytes());
        connection.read("GET").unwrap().expect(400);
    }
}

#[test]
fn nothing_that_a_client_sends_adds_a_series() {
    let app = setup().spawn();
    hostile_round(&app, 1);
    let series = |samples: &Samples| samples.keys().cloned().collect::<BTreeSet<_>>();
    let before = series(&scrape(&app));
    for round in 2..12 {
        hostile_round(&app, round);
    }
    let after = series(&scrape(&app));
    assert_eq!(after.difference(&before).collect::<Vec<_>>(), Vec::<&Series>::new());
    // Each label's value is a text of the service.
    for (_, labels) in &after {
        for (label, value) in labels {
            let fits = |char: char| char.is_ascii_alphanumeric() || "/{}_.+".contains(char);
            assert!(value.len() < 40 && value.chars().all(fits), "{label}={value}");
        }
    }
}

#[test]
fn refused_tokens_are_counted_by_reason() {
    let app = setup().env("JWT_ISSUER", "https://issuer").env("JWT_AUDIENCE", "tinytasks").spawn();
    let claims = |change: Value| {
        let mut claims = json!({"exp": now() + 600, "user_id": "alice", "iss": "https://issuer"});
        claims["aud"] = json!("tinytasks");
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        // A null in the table means that the claim is left out.
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        sign(SECRET, &claims)
    };
    let good = claims(json!({}));
    app.get("/api/alice/tasks").bearer(&good).send().expect(200);
    let other = "another secret that is long enough as well";
    let (_, rest) = good.split_once('.').unwrap();
    // {"alg":"none"}
    let unsigned = format!("eyJhbGciOiJub25lIn0.{rest}");
    let tokens = [
        ("expired", claims(json!({"exp": 1}))),
        ("signature", sign(other, &json!({"exp": now() + 60, "user_id": "alice"}))),
        ("not_yet_valid", claims(json!({"nbf": now() + 600}))),
        ("issuer", claims(json!({"iss": "https://other"}))),
        ("audience", claims(json!({"aud": "other"}))),
        ("algorithm", unsigned),
        ("claims", claims(json!({"user_id": 7}))),
        ("claims", claims(json!({"user_id": ""}))),
        ("claims", claims(json!({"exp": null}))),
        ("malformed", "x".to_owned()),
        ("malformed", "x".repeat(9000)),
    ];
    let mut wanted = BTreeMap::from([("missing", 2.0), ("forbidden", 1.0), ("unknown_key", 0.0)]);
    for (reason, token) in &tokens {
        *wanted.entry(*reason).or_default() += 1.0;
        app.get("/api/alice/tasks").bearer(token).send().expect(401);
    }
    app.get("/api/alice/tasks").send().expect(401);
    app.get("/api/alice/tasks").header("Authorization", "Basic eDp5").send().expect(401);
    app.get("/api/bob/tasks").bearer(&good).send().expect(403);
    let samples = scrape(&app);
    for (reason, count) in wanted {
        let seen = value(&samples, "tinytasks_auth_failures_total", &[("reason", reason)]);
        assert_eq!(seen, Some(count), "{reason}\n{}", app.log_so_far());
    }
}

#[test]
fn connections_and_refusals_of_the_gate_are_counted() {
    let app = setup().env("MAX_CONNECTIONS", "5").env("DATABASE_POOL_SIZE", "3").spawn();
    let state = |state| value(&scrape(&app), "tinytasks_gate_connections", &[("state", state)]);
    app.user("alice").create("t");
    app.get(&format!("/?{}", "x".repeat(9000))).send().expect(414);
    app.get("/").header("X", &"x".repeat(17_000)).send().expect(431);
    app.post("/").header("Content-Length", "1000000000000").send().expect(413);
    app.get("/").header("Transfer-Encoding", "x").send().expect(400);
    // The last answers have reached their clients, and the connections are closed.
    eventually("no connection", || (state("idle"), state("busy")) == (Some(0.0), Some(0.0)));
    let mut idle = [1, 2].map(|_| Connection::open(&app.address).unwrap());
    let mut half = Connection::open(&app.address).unwrap();
    half.write(b"GET / HTTP/1.1\r\nHost");
    eventually("three connections", || (state("idle"), state("busy")) == (Some(2.0), Some(1.0)));
    for connection in &mut idle {
        connection.write(&app.get("/").bytes());
        connection.read("GET").unwrap().expect(200);
    }
    eventually("idle again", || (state("idle"), state("busy")) == (Some(2.0), Some(1.0)));
    // Two of the connections find a free place, and two take the places of idle ones.
    let mut busy = Vec::new();
    for count in 2..=5 {
        let mut connection = Connection::open(&app.address).unwrap();
        connection.write(b"GET / HTTP/1.1\r\nHost");
        busy.push(connection);
        eventually("one more is busy", || state("busy") == Some(f64::from(count)));
    }
    assert!(idle.iter_mut().all(Connection::is_at_end));
    app.get("/").send().expect(503);
    let samples = scrape(&app);
    drop((busy, half));
    for reason in ["URI_TOO_LONG", "HEADERS_TOO_LARGE", "PAYLOAD_TOO_LARGE", "VALIDATION_ERROR"] {
        let seen = value(&samples, "tinytasks_gate_refusals_total", &[("reason", reason)]);
        assert_eq!(seen, Some(1.0), "{reason}");
    }
    let no_room = [("reason", "SERVICE_UNAVAILABLE")];
    assert_eq!(value(&samples, "tinytasks_gate_refusals_total", &no_room), Some(1.0));
    assert_eq!(value(&samples, "tinytasks_gate_connections_max", &[]), Some(5.0));
    assert_eq!(value(&samples, "tinytasks_db_pool_connections_max", &[]), Some(3.0));
    assert!(value(&samples, "tinytasks_db_pool_wait_seconds_count", &[]) >= Some(1.0));
    assert_eq!(value(&samples, "tinytasks_database_up", &[]), Some(1.0));
}

#[test]
fn a_connection_of_the_pool_is_busy_while_a_statement_runs() {
    let app = setup().env("DATABASE_POOL_SIZE", "3").spawn();
    let state = |state| value(&scrape(&app), "tinytasks_db_pool_connections", &[("state", state)]);
    eventually("the pool is filled", || (state("idle"), state("busy")) == (Some(3.0), Some(0.0)));
    let blocked = Blocked::patch(&app);
    assert_eq!((state("idle"), state("busy")), (Some(2.0), Some(1.0)));
    blocked.finish().unwrap().expect(200);
}

fn deployed(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

/// Every expression of the dashboard and of the rules.
fn expressions() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("expr").map(|expr| expr.as_str().unwrap().to_owned()));
                // The query that fills a variable: label_values(metric, label).
                let query = members.get("query").and_then(Value::as_str);
                found.extend(query.filter(|query| query.contains('(')).map(str::to_owned));
                members.values().for_each(|member| collect(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let dashboard = fs::read_to_string(deployed("grafana/tinytasks.json")).unwrap();
    let mut found = Vec::new();
    collect(&serde_json::from_str(&dashboard).unwrap(), &mut found);
    assert!(found.len() >= 10, "{found:?}");
    let rules = fs::read_to_string(deployed("prometheus/tinytasks.rules.yml")).unwrap();
    let before = found.len();
    for line in rules.lines().filter_map(|line| line.trim_start().strip_prefix("expr: ")) {
        assert!(!line.starts_with(['|', '>', '\'', '"']), "on one line, and plain: {line}");
        found.push(line.to_owned());
    }
    assert_eq!(found.len() - before, rules.matches("expr:").count());
    assert!(found.len() - before >= 6);
    found
}

/// The names in an expression outside of strings, and its `label="value"` pairs.
fn names(expression: &str) -> (BTreeSet<String>, Vec<(String, String)>) {
    let (mut bare, mut pairs) = (String::new(), Vec::new());
    for (index, part) in expression.split('"').enumerate() {
        if index % 2 == 0 {
            bare += part;
            continue;
        }
        // Only for `=` the value must exist; `!=` and patterns may name others.
        let is_equal = bare.ends_with('=') && !bare.ends_with("!=");
        let label = bare.trim_end_matches('=').rsplit(|char: char| !char.is_alphanumeric() && char != '_');
        if let Some(label) = label.clone().next().filter(|_| is_equal) {
            pairs.push((label.to_owned(), part.to_owned()));
        }
    }
    let is_part = |char: char| char.is_alphanumeric() || "_$".contains(char);
    let words = bare.split(|char| !is_part(char)).map(str::to_owned);
    let is_name = |word: &String| word.starts_with(|char: char| char.is_alphabetic() || char == '_');
    (words.filter(is_name).collect(), pairs)
}

#[test]
fn dashboard_and_alerts_name_what_there_is() {
    /// The words of PromQL, the variables of Grafana, and the labels that Prometheus adds to each series.
    const KNOWN: [&str; 21] = [
        "sum",
        "max",
        "min",
        "rate",
        "increase",
        "changes",
        "resets",
        "time",
        "by",
        "on",
        "and",
        "or",
        "unless",
        "clamp_min",
        "histogram_quantile",
        "group_left",
        "label_values",
        "bool",
        "up",
        "job",
        "instance",
    ];
    let app = setup().spawn();
    hostile_round(&app, 1);
    let mut samples = scrape(&app);
    // HTTPS has a metric more.
    let directory = Directory::create();
    let [cert, key] = make_pair(&directory, "first");
    let https = setup().env("TLS_CERT_FILE", &cert).env("TLS_KEY_FILE", &key).unhealthy().spawn();
    samples.extend(scrape(&https));
    let metrics: BTreeSet<_> = samples.keys().map(|(name, _)| name.as_str()).collect();
    let labels: BTreeSet<_> = samples.keys().flat_map(|(_, labels)| labels.iter()).collect();
    for expression in expressions() {
        let (names, pairs) = names(&expression);
        for name in names {
            // A duration's unit: `5m`.
            let is_label = labels.iter().any(|(label, _)| **label == name);
            let is_there = KNOWN.contains(&name.as_str()) || metrics.contains(name.as_str()) || is_label;
            assert!(is_there, "{name} is no metric and no label: {expression}");
        }
        for (label, value) in pairs.into_iter().filter(|(label, _)| !["job", "instance"].contains(&&**label))
        {
            assert!(labels.contains(&(&label, &value)), "{label}={value}: {expression}");
        }
    }
}

/// Runs promtool, the program of Prometheus, which `scripts/test` provides.
fn promtool(args: &[&str], input: &[u8]) {
    let mut command = Command::new("promtool");
    command.args(args).current_dir(deployed("prometheus"));
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.expect("promtool is missing: run ./scripts/test, which installs it");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{args:?}\n{}\n{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn prometheus_reads_the_metrics_and_the_alerts_fire_when_they_should() {
    let app = setup().spawn();
    hostile_round(&app, 1);
    promtool(&["check", "metrics"], &app.admin("/metrics").send().expect(200).body);
    promtool(&["check", "rules", "tinytasks.rules.yml"], b"");
    // promtool reads only rules, so the expressions of the dashboard are written as rules.
    let readable =
        |expression: &String| expression.replace("$__rate_interval", "5m").replace("$instance", ".*");
    let panels = expressions().into_iter().filter(|expression| !expression.starts_with("label_values"));
    let rules: Vec<_> = panels
        .enumerate()
        .map(|(index, expression)| json!({"record": format!("panel:{index}"), "expr": readable(&expression)}))
        .collect();
    let directory = Directory::create();
    let groups = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    promtool(&["check", "rules", &directory.write("dashboard.json", &groups.to_string())], b"");
    promtool(&["test", "rules", "tinytasks.test.yml"], b"");
}
