//! "Authentication" in the contract: which token is which user, what is refused, and in which order
//! a request is checked.

use crate::support::{
    harness::{App, Directory, eventually},
    http::{Connection, Response},
    token::{HEADER, SECRET, base64url, now, segment, sign, sign_parts, sign_text, token},
};
use serde_json::{Value, json};

const OTHER_SECRET: &str = "another secret, which is 44 bytes long, fine";
const THIRD_SECRET: &str = "a third secret, that nobody has ever told it";

/// Requests the list of alice's tasks with this token.
fn with_token(app: &App, token: &str) -> Response {
    app.get("/api/alice/tasks").bearer(token).send()
}

#[track_caller]
pub fn assert_missing(response: Response) {
    let response = response.expect_problem(401, "AUTH_MISSING");
    assert_eq!(response.field("WWW-Authenticate"), Some("Bearer"));
}

#[track_caller]
pub fn assert_invalid(case: &str, response: Response) {
    assert_eq!(response.status, 401, "{case}: {}", response.text());
    assert_eq!(response.json()["error_code"], "AUTH_INVALID", "{case}");
    let challenge = response.field("WWW-Authenticate");
    assert_eq!(challenge, Some("Bearer error=\"invalid_token\""), "{case}");
}

#[test]
fn a_request_without_a_bearer_token_is_auth_missing() {
    let app = App::spawn();
    let token = token("alice");
    assert_missing(app.get("/api/alice/tasks").send());
    for credentials in ["Basic YWxpY2U6cHc=", "Basic", "Digest x=y", "Token x", "BearerX y.z.a", &token] {
        assert_missing(app.get("/api/alice/tasks").header("Authorization", credentials).send());
    }
    assert_missing(app.get("/api/alice/tasks").header("X-Authorization", &token).send());
    assert_missing(app.get("/api/alice/tasks").header("Cookie", &format!("token={token}")).send());
    assert_missing(app.get(&format!("/api/alice/tasks?access_token={token}")).send());
}

#[test]
fn the_scheme_is_bearer_in_any_case() {
    let app = App::spawn();
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        let credentials = format!("{scheme} {}", token("alice"));
        app.get("/api/alice/tasks").header("Authorization", &credentials).send().expect(200);
        app.get("/api/alice/tasks").header("aUTHORIZATION", &credentials).send().expect(200);
    }
}

#[test]
fn two_authorization_fields_are_auth_invalid() {
    let app = App::spawn();
    let good = format!("Bearer {}", token("alice"));
    for (first, second) in [(&good, &good), (&good, &"Basic x".to_owned()), (&"Basic x".to_owned(), &good)] {
        let request = app.get("/api/alice/tasks").header("Authorization", first);
        assert_invalid("two", request.header("authorization", second).send());
    }
}

#[test]
fn a_malformed_token_is_auth_invalid() {
    let app = App::spawn();
    let good = token("alice");
    let parts: Vec<_> = good.split('.').collect();
    let (header, payload, tag) = (parts[0], parts[1], parts[2]);
    let changed = base64url(json!({"user_id": "alice", "exp": now() + 7200}).to_string().as_bytes());
    for (case, token) in [
        ("one character", "x".to_owned()),
        ("dots", "..".to_owned()),
        ("one part", header.to_owned()),
        ("two parts", format!("{header}.{payload}")),
        ("empty tag", format!("{header}.{payload}.")),
        ("four parts", format!("{good}.{tag}")),
        ("five parts", format!("{good}.{tag}.{tag}")),
        ("empty payload", format!("{header}..{tag}")),
        ("another payload", format!("{header}.{changed}.{tag}")),
        ("cut tag", good[..good.len() - 2].to_owned()),
        ("longer tag", format!("{good}AA")),
        ("padded tag", format!("{good}=")),
        ("two tokens", format!("{good} {good}")),
        ("with a comma", format!("{good}, Bearer {good}")),
        ("quoted", format!("\"{good}\"")),
        ("plain base64", good.replace('-', "+").replace('_', "/") + "+"),
        ("no base64", format!("{header}.{payload}.!{}", &tag[1..])),
        ("upper case", good.to_uppercase()),
        ("signed four parts", sign_parts(SECRET, &format!("{header}.{payload}.{payload}"))),
        ("signed payload with a sign", sign_parts(SECRET, &format!("{header}.{payload}!"))),
        ("signed payload of a wrong length", sign_parts(SECRET, &format!("{header}.eyJhI"))),
        ("payload no JSON", sign_text(SECRET, HEADER, "alice")),
        ("payload no object", sign_text(SECRET, HEADER, "[]")),
        ("payload empty", sign_text(SECRET, HEADER, "")),
        ("payload null", sign_text(SECRET, HEADER, "null")),
        (
            "header no JSON",
            sign_text(SECRET, "HS256", &json!({"user_id": "alice", "exp": now() + 99}).to_string()),
        ),
        (
            "header empty",
            sign_text(SECRET, "{}", &json!({"user_id": "alice", "exp": now() + 99}).to_string()),
        ),
    ] {
        assert_invalid(case, with_token(&app, &token));
    }
    for credentials in ["Bearer", "Bearer ", "bearer  "] {
        let status = app.get("/api/alice/tasks").header("Authorization", credentials).send().status;
        assert_eq!(status, 401, "{credentials:?}");
    }
}

#[test]
fn the_key_decides_the_algorithm_never_the_token() {
    let app = App::spawn();
    let payload = json!({"user_id": "alice", "exp": now() + 3600}).to_string();
    let unsigned =
        |header: &str| format!("{}.{}.", base64url(header.as_bytes()), base64url(payload.as_bytes()));
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"None","typ":"JWT"}"#, r#"{"alg":""}"#, HEADER] {
        assert_invalid(header, with_token(&app, &unsigned(header)));
    }
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"NONE"}"#,
        r#"{"alg":"HS384"}"#,
        r#"{"alg":"HS512"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"ES256"}"#,
        r#"{"alg":"EdDSA"}"#,
        r#"{"alg":"Ed25519"}"#,
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","crit":[]}"#,
    ] {
        assert_invalid(header, with_token(&app, &sign_text(SECRET, header, &payload)));
    }
    // Keys that a token itself names are ignored: only the service's own key counts.
    let brought = json!({"alg": "HS256", "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/",
        "jwk": {"kty": "oct", "k": base64url(OTHER_SECRET.as_bytes())}});
    let token = sign_text(OTHER_SECRET, &brought.to_string(), &payload);
    assert_invalid("jwk", with_token(&app, &token));
    for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"HS256","typ":"JWT","kid":"any"}"#] {
        with_token(&app, &sign_text(SECRET, header, &payload)).expect(200);
    }
}

/// The service remembers at most 4,096 valid tokens. Then it forgets all of them and verifies them anew.
#[test]
fn more_tokens_than_are_remembered_are_judged_as_before() {
    let app = App::spawn();
    let mut connection = Connection::open(&app.address).unwrap();
    let mut ask = |token: &str, user: &str| {
        connection.write(&app.get(&format!("/api/{user}/tasks")).bearer(token).bytes());
        connection.read("GET").unwrap().status
    };
    let exp = now() + 3600;
    let token =
        |number: usize| sign(SECRET, &json!({"user_id": "alice", "exp": exp, "jti": number.to_string()}));
    for number in 0..4100 {
        // The path is another user's, because the answer 403 needs no database.
        assert_eq!(ask(&token(number), "bob"), 403, "{number}");
    }
    for number in [0, 1, 4095, 4096, 4099] {
        assert_eq!((ask(&token(number), "alice"), ask(&token(number), "bob")), (200, 403), "{number}");
        assert_eq!(ask(&format!("{}x", token(number)), "alice"), 401, "{number}");
    }
}

#[test]
fn a_token_is_good_from_nbf_to_exp_with_a_leeway_of_five_seconds() {
    let app = App::spawn();
    let far = 10_413_792_000_i64; // the year 2300
    // The token is made just before it is sent, and the margins are far from the edge.
    type Claims = fn(i64) -> Value;
    let cases: [(&str, Claims, bool); 19] = [
        ("expired for 2 s", |now| json!({"exp": now - 2}), true),
        ("expired for 8 s", |now| json!({"exp": now - 8}), false),
        ("expired long ago", |_| json!({"exp": 1}), false),
        ("exp 0", |_| json!({"exp": 0}), false),
        ("exp negative", |_| json!({"exp": -1}), false),
        ("no exp", |_| json!({}), false),
        ("exp null", |_| json!({"exp": null}), false),
        ("exp a string", |now| json!({"exp": (now + 60).to_string()}), false),
        ("exp true", |_| json!({"exp": true}), false),
        ("exp in 2286", |_| json!({"exp": 9_999_999_999_i64}), true),
        ("exp after 2^32", |_| json!({"exp": 1_i64 << 33}), true),
        ("nbf past", |now| json!({"exp": now + 60, "nbf": now - 60}), true),
        ("nbf in 2 s", |now| json!({"exp": now + 60, "nbf": now + 2}), true),
        ("nbf in 12 s", |now| json!({"exp": now + 60, "nbf": now + 12}), false),
        ("nbf after exp", |now| json!({"exp": now + 60, "nbf": now + 600}), false),
        ("nbf a string", |now| json!({"exp": now + 60, "nbf": "0"}), false),
        ("iat far ahead", |now| json!({"exp": now + 60, "iat": now + 1_000_000}), true),
        ("iat long ago", |now| json!({"exp": now + 60, "iat": 1}), true),
        ("iat with a fraction", |now| json!({"exp": now + 60, "iat": 1_700_000_000.5}), true),
    ];
    for (case, claims, good) in cases {
        let mut claims = claims(now());
        claims["user_id"] = "alice".into();
        let response = with_token(&app, &sign(SECRET, &claims));
        if good {
            assert_eq!(response.status, 200, "{case}: {}", response.text());
        } else {
            assert_invalid(case, response);
        }
    }
    let token = sign(SECRET, &json!({"user_id": "alice", "exp": far, "nbf": far}));
    assert_invalid("both in 2300", with_token(&app, &token));
}

#[test]
fn the_leeway_can_be_set_from_0_to_60_seconds() {
    for (leeway, good, bad) in [("0", 5, -5), ("60", -50, -70)] {
        let app = App::setup().env("JWT_LEEWAY_SECONDS", leeway).spawn();
        let with_exp = |exp| with_token(&app, &sign(SECRET, &json!({"user_id": "alice", "exp": exp})));
        with_exp(now() + good).expect(200);
        // The latest `nbf` that is accepted. While the test runs, the clock moves only further past it.
        for _ in 0..5 {
            let edge = now() + leeway.parse::<i64>().unwrap();
            let nbf = json!({"user_id": "alice", "exp": now() + 3600, "nbf": edge});
            with_token(&app, &sign(SECRET, &nbf)).expect(200);
        }
        assert_invalid(leeway, with_exp(now() + bad));
        let nbf = json!({"user_id": "alice", "exp": now() + 3600, "nbf": now() - bad});
        assert_invalid(leeway, with_token(&app, &sign(SECRET, &nbf)));
    }
}

#[test]
fn the_user_is_the_claim_user_id_or_where_it_is_absent_sub() {
    let app = App::spawn();
    let cases = [
        ("user_id", r#""user_id":"alice""#, 200),
        ("sub", r#""sub":"alice""#, 200),
        ("user_id goes first", r#""sub":"bob","user_id":"alice""#, 200),
        ("user_id goes first, and is not sub", r#""sub":"alice","user_id":"bob""#, 403),
        ("neither", r#""name":"alice""#, 401),
        ("user_id null", r#""user_id":null,"sub":"alice""#, 401),
        ("user_id a number", r#""user_id":1,"sub":"alice""#, 401),
        ("user_id a list", r#""user_id":["alice"],"sub":"alice""#, 401),
        ("user_id an object", r#""user_id":{},"sub":"alice""#, 401),
        // serde_json accepts these as text when it reads into a `Value`.
        (
            "user_id a raw value",
            r#""user_id":{"$serde_json::private::RawValue":"\"alice\""},"sub":"alice""#,
            401,
        ),
        ("user_id true", r#""user_id":true,"sub":"alice""#, 401),
        ("user_id empty", r#""user_id":"","sub":"alice""#, 401),
        ("user_id with U+0000", r#""user_id":"alice\u0000","sub":"alice""#, 401),
        ("user_id with a lone surrogate", r#""user_id":"\ud800","sub":"alice""#, 401),
        ("sub null", r#""sub":null"#, 401),
        ("sub a number", r#""sub":1"#, 401),
        ("sub empty", r#""sub":"""#, 401),
        ("another case", r#""user_id":"Alice""#, 403),
        ("with a space", r#""user_id":"alice ""#, 403),
        ("a name in another case", r#""User_id":"alice""#, 401),
        ("escaped", r#""\u0075ser_id":"\u0061lice""#, 200),
        ("more claims", r#""user_id":"alice","iss":"i","aud":["a"],"jti":"j","x":{"y":[]}"#, 200),
        ("an aud", r#""user_id":"alice","aud":"a""#, 200),
    ];
    for (case, claims, status) in cases {
        let payload = format!("{{\"exp\":{},{claims}}}", now() + 60);
        let response = with_token(&app, &sign_text(SECRET, HEADER, &payload));
        assert_eq!(response.status, status, "{case}: {}", response.text());
        if status == 401 {
            assert_invalid(case, response);
        }
    }
}

/// A signed token must also have only one meaning, and its `typ`, if there is one, must be that of a JWT.
#[test]
fn a_token_is_json_in_utf8_that_says_each_thing_once() {
    let app = App::spawn();
    let payload = |more: &str| format!(r#"{{"user_id":"alice","exp":{}{more}}}"#, now() + 60);
    let exp = format!(r#","exp":{}"#, now() + 60);
    for (case, header, payload, good) in [
        ("exp twice", HEADER, payload(&exp), false),
        ("user_id twice", HEADER, payload(r#","user_id":"alice""#), false),
        ("alg twice", r#"{"alg":"HS256","alg":"HS256"}"#, payload(""), false),
        ("typ at+jwt", r#"{"alg":"HS256","typ":"at+jwt"}"#, payload(""), true),
        ("typ application/jwt", r#"{"alg":"HS256","typ":"application/jwt"}"#, payload(""), true),
        ("typ application/at+jwt", r#"{"alg":"HS256","typ":"application/at+jwt"}"#, payload(""), true),
        ("typ application/jose", r#"{"alg":"HS256","typ":"application/jose"}"#, payload(""), false),
        ("typ of something else", r#"{"alg":"HS256","typ":"JOSE"}"#, payload(""), false),
    ] {
        let token = sign_text(SECRET, header, &payload);
        let response = with_token(&app, &token);
        if good {
            assert_eq!(response.status, 200, "{case}: {}", response.text());
        } else {
            assert_invalid(case, response);
        }
    }
    let latin_1: Vec<u8> = payload("").bytes().map(|byte| if byte == b'l' { 0xe9 } else { byte }).collect();
    let signed = format!("{}.{}", base64url(HEADER.as_bytes()), base64url(&latin_1));
    assert_invalid("not UTF-8", with_token(&app, &sign_parts(SECRET, &signed)));
}

#[test]
fn a_configured_issuer_and_audience_must_be_there_and_match() {
    let app = App::setup().env("JWT_ISSUER", "https://issuer").env("JWT_AUDIENCE", "tasks").spawn();
    let (iss, aud) = ("https://issuer", "tasks");
    for (case, claims, good) in [
        ("both", json!({"iss": iss, "aud": aud}), true),
        ("aud in a list", json!({"iss": iss, "aud": ["other", aud]}), true),
        ("aud alone in a list", json!({"iss": iss, "aud": [aud]}), true),
        ("no iss", json!({"aud": aud}), false),
        ("no aud", json!({"iss": iss}), false),
        ("neither", json!({}), false),
        ("another iss", json!({"iss": "https://issuer/", "aud": aud}), false),
        ("iss in another case", json!({"iss": "HTTPS://issuer", "aud": aud}), false),
        ("iss in a list", json!({"iss": [iss], "aud": aud}), false),
        ("iss null", json!({"iss": null, "aud": aud}), false),
        ("another aud", json!({"iss": iss, "aud": "task"}), false),
        ("aud empty list", json!({"iss": iss, "aud": []}), false),
        ("other auds", json!({"iss": iss, "aud": ["a", "b"]}), false),
        ("aud null", json!({"iss": iss, "aud": null}), false),
    ] {
        let mut claims = claims;
        claims["user_id"] = "alice".into();
        claims["exp"] = (now() + 60).into();
        let response = with_token(&app, &sign(SECRET, &claims));
        if good {
            assert_eq!(response.status, 200, "{case}: {}", response.text());
        } else {
            assert_invalid(case, response);
        }
    }
}

#[test]
fn the_previous_secret_is_accepted_and_no_other() {
    let app = App::setup().env("JWT_SECRET_KEY_PREVIOUS", OTHER_SECRET).spawn();
    let claims = || json!({"user_id": "alice", "exp": now() + 60});
    with_token(&app, &sign(SECRET, &claims())).expect(200);
    with_token(&app, &sign(OTHER_SECRET, &claims())).expect(200);
    assert_invalid("third", with_token(&app, &sign(THIRD_SECRET, &claims())));
    let expired = json!({"user_id": "alice", "exp": now() - 60});
    assert_invalid("expired", with_token(&app, &sign(OTHER_SECRET, &expired)));
    let app = App::spawn();
    assert_invalid("no previous", with_token(&app, &sign(OTHER_SECRET, &claims())));
}

#[test]
fn better_auth_secret_counts_where_jwt_secret_key_is_unset() {
    let claims = || json!({"user_id": "alice", "exp": now() + 60});
    let setup = || App::setup().env("BETTER_AUTH_SECRET", OTHER_SECRET);
    let app = setup().unset("JWT_SECRET_KEY").spawn();
    with_token(&app, &sign(OTHER_SECRET, &claims())).expect(200);
    let app = setup().spawn();
    with_token(&app, &sign(SECRET, &claims())).expect(200);
    assert_invalid("the other", with_token(&app, &sign(OTHER_SECRET, &claims())));
}

#[test]
fn a_hangup_signal_reads_the_secret_files_again_and_a_bad_one_keeps_the_old() {
    let files = Directory::create();
    let path = files.write("secret", SECRET);
    let setup = App::setup().unset("JWT_SECRET_KEY").env("JWT_SECRET_KEY_FILE", &path);
    let app = setup.spawn();
    let status =
        |secret| with_token(&app, &sign(secret, &json!({"user_id": "alice", "exp": now() + 60}))).status;
    assert_eq!((status(SECRET), status(OTHER_SECRET)), (200, 401));
    files.write("secret", OTHER_SECRET);
    app.signal("HUP");
    eventually("the new secret", || status(OTHER_SECRET) == 200);
    assert_eq!(status(SECRET), 401);
    files.write("secret", "too short");
    app.signal("HUP");
    app.wait_for_log(|line| !line.contains(" INFO ") && line.contains("JWT_SECRET_KEY"));
    assert_eq!((status(OTHER_SECRET), status("too short")), (200, 401));
    assert!(!app.log_so_far().contains("too short"), "{}", app.log_so_far());
}

#[test]
fn why_a_token_was_refused_stands_in_the_log_and_not_in_the_answer() {
    // With a second secret the log must still give the right reason.
    let app = App::setup().env("JWT_SECRET_KEY_PREVIOUS", OTHER_SECRET).spawn();
    let user = segment("alice");
    let mut bodies = Vec::new();
    let mut reasons = Vec::new();
    for (id, token) in [
        ("expired", sign(SECRET, &json!({"user_id": user, "exp": 1}))),
        ("unsigned", sign(THIRD_SECRET, &json!({"user_id": user, "exp": now() + 60}))),
        ("nobody", sign(SECRET, &json!({"exp": now() + 60}))),
    ] {
        let request = app.get("/api/alice/tasks").bearer(&token).header("X-Request-Id", id);
        let mut body = request.send().expect(401).json();
        body["request_id"].take();
        body["timestamp"].take();
        bodies.push(body);
        let line = app.wait_for_log(|line| line.contains(&format!("request_id={id} ")));
        assert!(line.contains("error_code=AUTH_INVALID"), "{line}");
        let (_, reason) = line.split_once("reason=").expect(&line);
        reasons.push(reason.to_owned());
    }
    assert!(bodies[0] == bodies[1] && bodies[1] == bodies[2], "{bodies:?}");
    assert!(reasons[0] != reasons[1] && reasons[1] != reasons[2], "{reasons:?}");
}

/// The error message of a JSON parser may quote its input.
#[test]
fn the_log_quotes_no_token() {
    let app = App::spawn();
    let reason = "the token's header is not a JSON object";
    for (id, text) in [
        ("text", "\"expired at noon\""),
        ("object", "{\"alg\": \"HS256\", \"typ\": {\"noon\": 1}}"),
        ("no-json", "noon"),
    ] {
        let token = sign_text(SECRET, text, "{}");
        let request = app.get("/api/alice/tasks").bearer(&token).header("X-Request-Id", id);
        request.send().expect_problem(401, "AUTH_INVALID");
        let line = app.wait_for_log(|line| line.contains(&format!("request_id={id} ")));
        assert!(line.contains(reason) && !line.contains("noon"), "{line}");
    }
}
