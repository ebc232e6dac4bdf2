//! Tokens by the keys of a JWKS, as Better Auth signs and publishes them; how the file is followed;
//! and `token --explain`, which says what a request would be told.

use crate::support::{
    harness::{App, Directory, Outcome, binary, eventually, run, run_binary},
    jwks::{AUDIENCE, ISSUER, JwksFile, Key, claims, jwks},
    token::{HEADER, SECRET, base64url, now, sign, sign_text},
};
use jwt_simple::algorithms::{HS256Key, MACLike};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    thread,
    time::Duration,
};

fn status(app: &App, token: &str) -> u16 {
    app.get("/api/alice/tasks").bearer(token).send().status
}

#[track_caller]
fn assert_refused(app: &App, case: &str, token: &str) {
    let response = app.get("/api/alice/tasks").bearer(token).send();
    assert_eq!(response.status, 401, "{case}: {}", response.text());
    assert_eq!(response.json()["error_code"], "AUTH_INVALID", "{case}");
}

#[test]
fn a_token_is_verified_by_the_key_that_its_kid_names() {
    let (first, second, stranger) = (Key::new("first"), Key::new("second"), Key::new("first"));
    let app = JwksFile::of(&[&first, &second]).setup().spawn();
    assert_eq!((status(&app, &first.token()), status(&app, &second.token())), (200, 200));
    let named = |kid: Value| first.sign(json!({"alg": "EdDSA", "kid": kid}), &claims());
    for (case, token) in [
        ("another's kid", named("second".into())),
        ("unknown kid", named("third".into())),
        ("empty kid", named("".into())),
        ("kid a number", named(1.into())),
        ("kid a list", named(json!(["first"]))),
        ("no kid, two keys", first.token_without_kid()),
        ("kid null, two keys", named(Value::Null)),
        ("the kid of a stranger's key", stranger.token()),
    ] {
        assert_refused(&app, case, &token);
    }
    app.get("/api/bob/tasks").bearer(&first.token()).send().expect_problem(403, "AUTH_FORBIDDEN");
    // No key was skipped, so no log line says that keys were skipped.
    assert!(!app.log_so_far().contains("skipped"), "{}", app.log_so_far());
}

#[test]
fn the_metrics_tell_an_unknown_key_from_a_wrong_signature() {
    let (key, stranger) = (Key::new("first"), Key::new("first"));
    let app = JwksFile::of(&[&key, &Key::new("second")]).setup().env("ADMIN_ADDR", "127.0.0.1:0").spawn();
    let unknown = key.sign(json!({"alg": "EdDSA", "kid": "third"}), &claims());
    for token in [&unknown, &key.token_without_kid(), &stranger.token()] {
        assert_eq!(status(&app, token), 401);
    }
    assert_eq!(status(&app, &sign(SECRET, &claims())), 401);
    let text = app.admin("/metrics").send().expect(200).text();
    for line in ["unknown_key\"} 2", "signature\"} 1", "algorithm\"} 1"] {
        assert!(
            text.contains(&format!("tinytasks_auth_failures_total{{reason=\"{line}\n")),
            "{line}: {text}"
        );
    }
}

#[test]
fn a_token_without_kid_is_verified_where_the_set_has_a_single_key() {
    let (key, stranger) = (Key::new("only"), Key::new("only"));
    let app = JwksFile::of(&[&key]).setup().spawn();
    assert_eq!((status(&app, &key.token()), status(&app, &key.token_without_kid())), (200, 200));
    assert_refused(&app, "stranger", &stranger.token_without_kid());
    assert_refused(&app, "unknown kid", &key.sign(json!({"alg": "EdDSA", "kid": "x"}), &claims()));
    let mut nameless = key.entry();
    nameless.as_object_mut().unwrap().remove("kid");
    let app = JwksFile::new(&json!({"keys": [nameless]}).to_string()).setup().spawn();
    assert_eq!(status(&app, &key.token_without_kid()), 200);
    assert_refused(&app, "a kid for a key without", &key.token());
}

/// RFC 8725 sections 2.1 and 3.1. Tested with and without a configured secret.
#[test]
fn the_key_decides_the_algorithm_and_never_the_token() {
    let (key, stranger) = (Key::new("only"), Key::new("only"));
    let public = key.pair.public_key();
    let file = JwksFile::of(&[&key]);
    let payload = &claims().to_string();
    let hmac = |secret: &[u8], header: &Value| {
        let signed =
            format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(payload.as_bytes()));
        let tag = HS256Key::from_bytes(secret).authentication_tag(signed.as_bytes());
        format!("{signed}.{}", base64url(&tag))
    };
    for app in [file.setup().spawn(), file.setup().env("JWT_SECRET_KEY", SECRET).spawn()] {
        for header in [json!({"alg": "EdDSA", "kid": "only"}), json!({"alg": "Ed25519", "kid": "only"})] {
            assert_eq!(status(&app, &key.sign(header, &claims())), 200);
        }
        let (pem, x) = (public.to_pem(), key.x());
        for secret in [
            &public.to_bytes(),
            &public.to_der(),
            pem.as_bytes(),
            pem.trim().as_bytes(),
            x.as_bytes(),
            key.entry().to_string().as_bytes(),
            fs::read(&file.path).unwrap().as_slice(),
            b"",
        ] {
            for header in [json!({"alg": "HS256"}), json!({"alg": "HS256", "kid": "only"})] {
                assert_refused(&app, "public key as secret", &hmac(secret, &header));
            }
            assert_refused(&app, "tag for signature", &hmac(secret, &json!({"alg": "EdDSA", "kid": "only"})));
        }
        for alg in
            ["none", "None", "HS256", "HS512", "RS256", "ES256", "Ed448", "eddsa", "ed25519", "ED25519", ""]
        {
            let header = json!({"alg": alg, "kid": "only"});
            assert_refused(&app, alg, &key.sign(header.clone(), &claims()));
            let signed =
                format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(payload.as_bytes()));
            assert_refused(&app, alg, &format!("{signed}."));
        }
        let unsigned = key.token();
        let (unsigned, _) = unsigned.rsplit_once('.').unwrap();
        for signature in ["", "AA", &base64url(&[0; 64]), &base64url(&[0; 63]), &base64url(&[0; 65])] {
            assert_refused(&app, "no signature", &format!("{unsigned}.{signature}"));
        }
        for brought in [
            json!({"jwk": stranger.entry()}),
            json!({"jwk": stranger.entry().to_string()}),
            json!({"jku": "http://127.0.0.1:1/"}),
            json!({"x5u": "http://127.0.0.1:1/"}),
            json!({"x5c": [base64url(&stranger.pair.public_key().to_der())]}),
        ] {
            for kid in [json!("only"), json!("another"), Value::Null] {
                let mut header = brought.clone();
                header["alg"] = "EdDSA".into();
                header["kid"] = kid;
                assert_refused(&app, "brought", &stranger.sign(header, &claims()));
            }
        }
        for crit in [json!(["exp"]), json!(["b64"]), json!([])] {
            let header = json!({"alg": "EdDSA", "kid": "only", "crit": crit, "b64": false});
            assert_refused(&app, "crit", &key.sign(header, &claims()));
        }
    }
}

#[test]
fn claims_are_judged_as_under_a_secret() {
    let key = Key::new("only");
    let app = JwksFile::of(&[&key]).setup().spawn();
    // The token is made just before it is sent.
    type Changes = fn(i64) -> Value;
    let cases: [(&str, Changes, u16); 17] = [
        ("as it is", |_| json!({}), 200),
        ("aud in a list", |_| json!({"aud": ["other", AUDIENCE]}), 200),
        ("another iss", |_| json!({"iss": "https://auth.example/"}), 401),
        ("iss null", |_| json!({"iss": null}), 401),
        ("iss *", |_| json!({"iss": "*"}), 401),
        ("another aud", |_| json!({"aud": ISSUER}), 401),
        ("other auds", |_| json!({"aud": ["a", "b"]}), 401),
        ("no aud in the list", |_| json!({"aud": []}), 401),
        ("aud null", |_| json!({"aud": null}), 401),
        ("expired for 2 s", |now| json!({"exp": now - 2}), 200),
        ("expired", |now| json!({"exp": now - 60}), 401),
        ("exp null", |_| json!({"exp": null}), 401),
        ("nbf ahead", |now| json!({"nbf": now + 60}), 401),
        ("iat ahead", |now| json!({"iat": now + 60}), 200),
        ("user_id goes first", |_| json!({"user_id": "alice", "sub": "bob"}), 200),
        ("user_id goes first, and is not sub", |_| json!({"user_id": "bob"}), 403),
        ("user_id null", |_| json!({"user_id": null}), 401),
    ];
    for (case, changes, wanted) in cases {
        let mut claims = claims();
        claims.as_object_mut().unwrap().extend(changes(now()).as_object().unwrap().clone());
        let token = key.sign(json!({"alg": "EdDSA", "kid": "only"}), &claims);
        assert_eq!(status(&app, &token), wanted, "{case}");
    }
    for name in ["iss", "aud", "exp", "sub"] {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        assert_refused(&app, name, &key.sign(json!({"alg": "EdDSA", "kid": "only"}), &claims));
    }
}

#[test]
fn an_asterisk_waives_issuer_or_audience() {
    let key = Key::new("only");
    let file = JwksFile::of(&[&key]);
    let token = |claims: Value| {
        let mut claims = claims;
        claims["sub"] = "alice".into();
        claims["exp"] = (now() + 60).into();
        key.sign(json!({"alg": "EdDSA", "kid": "only"}), &claims)
    };
    let app = file.setup().env("JWT_ISSUER", "*").spawn();
    assert_eq!(status(&app, &token(json!({"aud": AUDIENCE}))), 200);
    assert_eq!(status(&app, &token(json!({"aud": AUDIENCE, "iss": "any"}))), 200);
    assert_refused(&app, "aud stays", &token(json!({"iss": ISSUER})));
    let app = file.setup().env("JWT_AUDIENCE", "*").spawn();
    assert_eq!(status(&app, &token(json!({"iss": ISSUER}))), 200);
    assert_eq!(status(&app, &token(json!({"iss": ISSUER, "aud": ["any"]}))), 200);
    assert_refused(&app, "iss stays", &token(json!({"aud": AUDIENCE})));
    let app = file.setup().env("JWT_ISSUER", "*").env("JWT_AUDIENCE", "*").spawn();
    assert_eq!(status(&app, &token(json!({}))), 200);
}

#[test]
fn hs256_tokens_are_good_beside_a_jwks_only_where_there_is_a_secret() {
    let key = Key::new("only");
    let file = JwksFile::of(&[&key]);
    let previous = "a previous secret, of more than 32 bytes";
    let app = file.setup().env("JWT_SECRET_KEY", SECRET).env("JWT_SECRET_KEY_PREVIOUS", previous).spawn();
    for secret in [SECRET, previous] {
        assert_eq!(status(&app, &sign(secret, &claims())), 200);
        let named = sign_text(secret, r#"{"alg":"HS256","kid":"unknown"}"#, &claims().to_string());
        assert_eq!(status(&app, &named), 200);
    }
    assert_eq!(status(&app, &key.token()), 200);
    let foreign = json!({"sub": "alice", "iss": "other", "aud": AUDIENCE, "exp": now() + 60});
    assert_refused(&app, "another iss", &sign(SECRET, &foreign));
    let app = file.setup().spawn();
    assert_refused(&app, "no secret", &sign(SECRET, &claims()));
    assert_refused(&app, "empty secret", &sign("", &claims()));
    assert_eq!(status(&app, &key.token()), 200);
}

#[test]
fn other_keys_are_passed_over_with_a_line_in_the_log() {
    let (key, private, for_encryption) = (Key::new("good"), Key::new("private"), Key::new("enc"));
    let with = |key: &Key, name: &str, value: &str| {
        let mut entry = key.entry();
        entry[name] = value.into();
        entry
    };
    let small_order = json!({"kty": "OKP", "crv": "Ed25519", "kid": "weak", "x": base64url(&[0; 32])});
    let keys = json!([
        {"kty": "RSA", "kid": "rsa", "n": base64url(&[0xc5; 256]), "e": "AQAB", "alg": "RS256", "use": "sig"},
        {"kty": "EC", "kid": "ec", "crv": "P-256", "x": base64url(&[1; 32]), "y": base64url(&[2; 32])},
        {"kty": "oct", "kid": "oct", "k": base64url(SECRET.as_bytes())},
        {"kty": "OKP", "kid": "x25519", "crv": "X25519", "x": base64url(&[9; 32])},
        with(&private, "d", &base64url(&[7; 32])),
        with(&for_encryption, "use", "enc"),
        small_order,
        {"kty": "OKP", "kid": "short", "crv": "Ed25519", "x": base64url(&[9; 31])},
        {"kid": "nothing"},
        "no object",
        with(&key, "createdAt", "2026-01-01"),
    ]);
    let app = JwksFile::new(&json!({"keys": keys, "more": 1}).to_string()).setup().spawn();
    let line = app.wait_for_log(|line| line.contains("JWKS has keys"));
    assert!(line.contains("skipped=10"), "{line}");
    assert_eq!((status(&app, &key.token()), status(&app, &key.token_without_kid())), (200, 200));
    assert_refused(&app, "private", &private.token());
    assert_refused(&app, "for encryption", &for_encryption.token());
    assert_refused(&app, "oct", &sign_text(SECRET, r#"{"alg":"HS256","kid":"oct"}"#, &claims().to_string()));
    assert_eq!(app.log_so_far().matches("JWKS has keys").count(), 1);
    for entry in [with(&key, "alg", "EdDSA"), with(&key, "alg", "Ed25519"), with(&key, "use", "sig")] {
        let file = JwksFile::new(&json!({"keys": [entry]}).to_string());
        assert_eq!(explain(&key.token(), &file.variables()).code, Some(0), "{entry}");
    }
}

#[test]
fn an_unknown_kid_has_the_file_read_again_and_a_removed_key_is_refused_from_then_on() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let file = JwksFile::of(&[&old]);
    let app = file.setup().spawn();
    let (old_token, new_token) = (old.token(), new.token());
    // Sent twice, because the second time the token is remembered.
    assert_eq!((status(&app, &old_token), status(&app, &old_token)), (200, 200));
    file.replace(&jwks(&[&old, &new]));
    assert_eq!(status(&app, &new_token), 200, "at once");
    assert_eq!((status(&app, &old_token), status(&app, &old_token)), (200, 200));
    file.replace(&jwks(&[&new]));
    eventually("the removed key is refused", || status(&app, &old_token) == 401);
    assert_eq!(status(&app, &new_token), 200);
    // The file is read at most once a second. In between, a token of a new key is refused; afterwards it is
    // accepted.
    let third = Key::new("third");
    assert_refused(&app, "not there yet", &third.token());
    file.replace(&jwks(&[&new, &third]));
    eventually("the third key", || status(&app, &third.token()) == 200);
}

#[test]
fn a_changed_file_is_taken_over_also_with_its_old_time() {
    let (old, new) = (Key::new("same"), Key::new("same"));
    let file = JwksFile::of(&[&old]);
    let time = fs::metadata(&file.path).unwrap().modified().unwrap();
    let app = file.setup().spawn();
    assert_eq!((status(&app, &old.token()), status(&app, &new.token())), (200, 401));
    let path = file.write("new", &jwks(&[&new]));
    File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    fs::rename(&path, &file.path).unwrap();
    eventually("the new key", || status(&app, &new.token()) == 200);
    assert_refused(&app, "the old key", &old.token());
    // The file is also read while no requests come, so the first token is verified with the new keys.
    file.replace(&jwks(&[&old]));
    thread::sleep(Duration::from_millis(2500));
    assert_eq!((status(&app, &old.token()), status(&app, &new.token())), (200, 401));
}

#[test]
fn a_bad_new_file_keeps_the_old_with_one_line_in_the_log() {
    let (key, next) = (Key::new("only"), Key::new("next"));
    let file = JwksFile::of(&[&key]);
    let app = file.setup().spawn();
    let kept = || app.log_so_far().matches("set of keys kept as it was").count();
    for (count, content) in
        [(1, "{".to_owned()), (2, r#"{"keys":[]}"#.to_owned()), (3, format!("\"{SECRET}\""))]
    {
        file.replace(&content);
        eventually("the line", || {
            assert_eq!(status(&app, &key.token()), 200);
            kept() >= count
        });
        // The unknown kid makes the service read the same file once more.
        assert_refused(&app, "unknown kid", &next.token());
        assert_eq!(kept(), count, "once each");
    }
    fs::remove_file(&file.path).unwrap();
    eventually("the line", || {
        assert_eq!(status(&app, &key.token()), 200);
        kept() == 4
    });
    assert!(!app.log_so_far().contains(SECRET));
    file.replace(&jwks(&[&next]));
    eventually("the next key", || status(&app, &next.token()) == 200);
    assert_refused(&app, "removed", &key.token());
    assert_eq!(kept(), 4);
}

#[test]
fn a_hangup_signal_reads_the_jwks_without_a_request() {
    let (key, next) = (Key::new("only"), Key::new("next"));
    let file = JwksFile::of(&[&key]);
    let app = file.setup().spawn();
    assert_eq!(status(&app, &key.token()), 200);
    file.replace("{");
    app.signal("HUP");
    let line = app.wait_for_log(|line| line.contains("token secrets kept as they were"));
    assert!(line.contains("JWT_JWKS_FILE"), "{line}");
    assert_eq!(status(&app, &key.token()), 200);
    file.replace(&jwks(&[&next]));
    app.signal("HUP");
    app.wait_for_log(|line| line.contains("secrets read again"));
    assert_eq!((status(&app, &next.token()), status(&app, &key.token())), (200, 401));
}

/// Exit code 2 and one line for each of these variables, whatever is started.
#[track_caller]
fn assert_complains(variables: &[(&str, &str)], names: &[&str]) {
    let outcomes = [
        run_binary(&["serve"], &[variables, &[("DATABASE_URL", "postgres://u@127.0.0.1:1/db")]].concat()),
        run_binary(&["check"], &[variables, &[("DATABASE_URL", "postgres://u@127.0.0.1:1/db")]].concat()),
        explain("", variables),
    ];
    for outcome in outcomes {
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{outcome:?}");
        let mut seen: Vec<_> = outcome.stderr.lines().filter_map(|line| line.split(": ").next()).collect();
        seen.sort_unstable();
        assert_eq!(seen, names, "{outcome:?}");
        assert!(!outcome.stderr.contains(SECRET), "{outcome:?}");
    }
}

#[test]
fn a_bad_jwks_at_start_is_exit_code_2_and_one_line_that_names_the_variable() {
    let (key, private) = (Key::new("only"), Key::new("private"));
    let mut with_d = private.entry();
    with_d["d"] = base64url(&[7; 32]).into();
    for content in [
        "".to_owned(),
        "{".to_owned(),
        "{}".to_owned(),
        "[]".to_owned(),
        key.entry().to_string(),
        r#"{"keys":[]}"#.to_owned(),
        r#"{"keys":null}"#.to_owned(),
        r#"{"keys":[{"kty":"RSA"}]}"#.to_owned(),
        json!({"keys": [with_d]}).to_string(),
        format!("{} {{}}", jwks(&[&key])),
        format!("\"{SECRET}\""),
        SECRET.to_owned(),
    ] {
        assert_complains(&JwksFile::new(&content).variables(), &["JWT_JWKS_FILE"]);
    }
    let good = JwksFile::of(&[&key]);
    let variables = good.variables();
    let but = |name: &str, value| {
        let with = |&(known, old)| (known, if known == name { value } else { old });
        variables.iter().map(with).collect::<Vec<_>>()
    };
    assert_complains(&but("JWT_JWKS_FILE", "/nothing/here"), &["JWT_JWKS_FILE"]);
    assert_complains(&but("JWT_JWKS_FILE", "/"), &["JWT_JWKS_FILE"]);
    assert_complains(&but("JWT_ISSUER", ""), &["JWT_ISSUER"]);
    assert_complains(&but("JWT_AUDIENCE", ""), &["JWT_AUDIENCE"]);
    assert_complains(&variables[..1], &["JWT_AUDIENCE", "JWT_ISSUER"]);
    assert_complains(&but("JWT_JWKS_FILE", ""), &["JWT_SECRET_KEY"]);
    assert_complains(&[&variables, &[("JWT_SECRET_KEY", "weak")][..]].concat(), &["JWT_SECRET_KEY"]);
}

#[test]
fn a_token_is_made_only_with_a_secret() {
    let file = JwksFile::of(&[&Key::new("only")]);
    let outcome = run_binary(&["token", "--user", "alice"], &file.variables());
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{outcome:?}");
    assert!(outcome.stderr.starts_with("JWT_SECRET_KEY: "), "{outcome:?}");
    let variables = [&file.variables(), &[("JWT_SECRET_KEY", SECRET)][..]].concat();
    let outcome = run_binary(&["token", "--user", "alice"], &variables);
    assert_eq!(explain(&outcome.stdout, &variables).code, Some(0), "{outcome:?}");
}

/// The output of `token --explain` for this standard input.
fn explain(input: &str, variables: &[(&str, &str)]) -> Outcome {
    let directory = Directory::create();
    let stdin = File::open(directory.write("stdin", input)).unwrap();
    let mut command = binary(&directory);
    command.args(["token", "--explain"]).envs(variables.iter().copied()).stdin(stdin);
    run(command)
}

#[test]
fn explain_says_who_and_until_when_or_what_the_log_of_a_request_says() {
    let key = Key::new("only");
    let file = JwksFile::of(&[&key]);
    let app = file.setup().env("JWT_SECRET_KEY", SECRET).spawn();
    let variables = [&file.variables(), &[("JWT_SECRET_KEY", SECRET)][..]].concat();
    let signed = |changes: Value| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        claims
    };
    let header = || json!({"alg": "EdDSA", "kid": "only"});
    let far = signed(json!({"exp": 4_102_444_800_i64}));
    for (token, wanted) in [
        (key.sign(header(), &far), "accepted: user \"alice\", until 2100-01-01T00:00:00Z\n"),
        (
            format!("\n  {}\r\n\n", sign(SECRET, &far)),
            "accepted: user \"alice\", until 2100-01-01T00:00:00Z\n",
        ),
        (key.sign(header(), &signed(json!({"sub": "a\"\n\u{1b}b", "exp": u64::MAX}))), ""),
        (key.sign(header(), &signed(json!({"more": "x".repeat(5000)}))), "accepted: user \"alice\", until 2"),
    ] {
        let outcome = explain(&token, &variables);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
        assert!(outcome.stdout.starts_with(wanted) && outcome.stdout.lines().count() == 1, "{outcome:?}");
        assert!(!outcome.stdout.contains('\u{1b}'), "{outcome:?}");
    }
    let mut reasons = Vec::new();
    for (index, token) in [
        "x".to_owned(),
        key.sign(header(), &signed(json!({"exp": 1}))),
        key.sign(header(), &signed(json!({"iss": "x"}))),
        key.sign(header(), &signed(json!({"aud": "x"}))),
        key.sign(header(), &signed(json!({"nbf": now() + 600}))),
        key.sign(header(), &signed(json!({"exp": null}))),
        key.sign(header(), &signed(json!({"user_id": 1}))),
        key.sign(json!({"alg": "EdDSA", "kid": "x"}), &claims()),
        key.sign(json!({"alg": "EdDSA", "kid": "only", "crit": []}), &claims()),
        key.sign(json!({"alg": "RS256", "kid": "only"}), &claims()),
        Key::new("only").token(),
        sign_text("another secret that nobody has told it", HEADER, &claims().to_string()),
    ]
    .into_iter()
    .enumerate()
    {
        let outcome = explain(&token, &variables);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(1), ""), "{outcome:?}");
        let reason = outcome.stdout.strip_prefix("refused: ").unwrap().lines().next().unwrap().to_owned();
        let id = format!("case{index}");
        app.get("/api/alice/tasks").bearer(&token).header("X-Request-Id", &id).send().expect(401);
        let line = app.wait_for_log(|line| line.contains(&format!("request_id={id} ")));
        assert!(line.contains(&reason), "{reason}: {line}");
        assert!(!outcome.stdout.contains(SECRET) && !outcome.stdout.contains(&key.x()), "{outcome:?}");
        let lines: Vec<_> = outcome.stdout.lines().collect();
        assert!(lines.len() == 2 && lines[1].starts_with("remedy: "), "{outcome:?}");
        let payload = token.split('.').nth(1).unwrap_or("no payload");
        assert!(!outcome.stdout.contains(payload), "{outcome:?}");
        reasons.push(reason);
    }
    reasons.sort_unstable();
    reasons.dedup();
    assert_eq!(reasons.len(), 12, "each has its own: {reasons:?}");
    let outcome = explain("", &variables);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stdout.starts_with("refused: "), "{outcome:?}");
}
