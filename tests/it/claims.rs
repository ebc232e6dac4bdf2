//! Which parts of a token may refuse it, and which may not: claims that do not count, the shape of
//! the header, the length, and several keys of one name.

use crate::support::{
    harness::{App, Directory},
    token::{HEADER, SECRET, base64url, now, sign_parts, sign_text},
};
use jwt_simple::algorithms::{Ed25519KeyPair, EdDSAKeyPairLike};
use serde_json::{Value, json};

fn status(app: &App, token: &str) -> u16 {
    app.get("/api/alice/tasks").bearer(token).send().status
}

#[test]
fn a_claim_that_does_not_count_cannot_refuse() {
    let app = App::spawn();
    for name in ["iat", "jti", "iss", "aud", "sub", "nonce", "azp", "scope", "roles", "salt"] {
        for value in ["null", "5", "-1", "1.5", "1e300", "true", "\"x\"", "[]", "[1,null]", "{}", "[[{}]]"] {
            let payload = format!(r#"{{"user_id":"alice","exp":{},"{name}":{value}}}"#, now() + 60);
            assert_eq!(status(&app, &sign_text(SECRET, HEADER, &payload)), 200, "{name}: {value}");
        }
    }
}

#[test]
fn a_claim_that_counts_is_of_its_type() {
    let app = App::setup().env("JWT_ISSUER", "i").env("JWT_AUDIENCE", "a").spawn();
    let exp = now() + 60;
    for (case, claims, wanted) in [
        ("all good", json!({"user_id": "alice", "exp": exp, "iss": "i", "aud": "a"}), 200),
        ("exp with a fraction", json!({"user_id": "alice", "exp": 9e9 + 0.5, "iss": "i", "aud": "a"}), 200),
        (
            "odd entries beside the audience",
            json!({"user_id": "alice", "exp": exp, "iss": "i", "aud": [1, "a", {}]}),
            200,
        ),
        ("nbf negative", json!({"user_id": "alice", "exp": exp, "iss": "i", "aud": "a", "nbf": -5}), 200),
        ("nbf null", json!({"user_id": "alice", "exp": exp, "iss": "i", "aud": "a", "nbf": null}), 401),
        ("nbf a list", json!({"user_id": "alice", "exp": exp, "iss": "i", "aud": "a", "nbf": [0]}), 401),
        ("exp a list", json!({"user_id": "alice", "exp": [exp], "iss": "i", "aud": "a"}), 401),
        ("iss a number", json!({"user_id": "alice", "exp": exp, "iss": 1, "aud": "a"}), 401),
        ("iss in a list", json!({"user_id": "alice", "exp": exp, "iss": ["i"], "aud": "a"}), 401),
        ("aud an object", json!({"user_id": "alice", "exp": exp, "iss": "i", "aud": {"a": "a"}}), 401),
        ("aud in a list of lists", json!({"user_id": "alice", "exp": exp, "iss": "i", "aud": [["a"]]}), 401),
        ("sub a number, no user_id", json!({"sub": 5, "exp": exp, "iss": "i", "aud": "a"}), 401),
    ] {
        let seen = status(&app, &sign_text(SECRET, HEADER, &claims.to_string()));
        assert_eq!(seen, wanted, "{case}: {}", app.log_so_far());
    }
}

#[test]
fn the_header_and_the_claims_are_json_objects() {
    let app = App::spawn();
    let payload = json!({"user_id": "alice", "exp": now() + 60}).to_string();
    // serde would fill the members of an object from an array, by position.
    let claims = format!(r#"["alice","alice",{},0,null,null]"#, now() + 60);
    for (header, payload, wanted) in [
        (r#"{"alg":"HS256"}"#, &payload, 200),
        (" \n{\"alg\":\"HS256\"}\r\t", &payload, 200),
        // A claim that the service does not read changes nothing, whatever its type.
        (r#"{"alg":"HS256","kid":1,"jku":2,"jwk":{},"x5u":[],"x5c":"","cty":null,"salt":3}"#, &payload, 200),
        (r#"["HS256",null,null]"#, &payload, 401),
        (r#"["HS256",null,null,null]"#, &payload, 401),
        (r#"["HS256"]"#, &payload, 401),
        (r#""HS256""#, &payload, 401),
        ("[]", &payload, 401),
        (r#"{"alg":"HS256"}{}"#, &payload, 401),
        (r#"{"alg":"HS256","crit":null}"#, &payload, 401),
        (r#"{"alg":"HS256","typ":1}"#, &payload, 401),
        (HEADER, &claims, 401),
    ] {
        assert_eq!(status(&app, &sign_text(SECRET, header, payload)), wanted, "{header} {payload}");
    }
}

/// RFC 7519 section 7.2: header and claims must be UTF-8, also in members that are not read.
#[test]
fn the_header_and_the_claims_are_utf_8() {
    let app = App::spawn();
    let header = |text: &[u8]| base64url(&[br#"{"alg":"HS256","x":""#, text, br#""}"#].concat());
    let exp = now() + 60;
    let claims = |text: &[u8]| {
        let start = format!(r#"{{"user_id":"alice","exp":{exp},"x":""#);
        base64url(&[start.as_bytes(), text, br#""}"#].concat())
    };
    let (good, bad) = ("\u{e9}".as_bytes(), b"\xff".as_slice());
    for (header, claims, wanted) in [
        (header(good), claims(good), 200),
        (header(bad), claims(good), 401),
        (header(good), claims(bad), 401),
    ] {
        let token = sign_parts(SECRET, &format!("{header}.{claims}"));
        assert_eq!(status(&app, &token), wanted, "{token}");
    }
}

#[test]
fn a_token_may_be_as_long_as_the_head_allows() {
    let app = App::spawn();
    let groups = |bytes: usize| {
        let claims = json!({"user_id": "alice", "exp": now() + 60, "groups": "x".repeat(bytes)});
        sign_text(SECRET, HEADER, &claims.to_string())
    };
    let long_header = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "x".repeat(9000));
    let payload = json!({"user_id": "alice", "exp": now() + 60}).to_string();
    for token in [groups(6200), groups(7500), groups(11_500), sign_text(SECRET, &long_header, &payload)] {
        // Sent twice, because a long token is not remembered and must be accepted the second time too.
        assert_eq!((status(&app, &token), status(&app, &token)), (200, 200), "{} bytes", token.len());
    }
    assert_eq!(status(&app, &groups(12_500)), 431);
}

fn jwk(pair: &Ed25519KeyPair, more: Value) -> Value {
    let x = base64url(&pair.public_key().to_bytes());
    let mut jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
    jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    jwk
}

fn signed_by(pair: &Ed25519KeyPair, header: Value) -> String {
    let payload = json!({"sub": "alice", "exp": now() + 60}).to_string();
    let signed = format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(payload.as_bytes()));
    let signature = pair.key_pair().as_ref().sk.sign(&signed, None);
    format!("{signed}.{}", base64url(signature.as_ref()))
}

#[test]
fn every_key_for_signatures_that_a_kid_fits_is_tried() {
    let [first, second, third, other_use] = [0; 4].map(|_| Ed25519KeyPair::generate());
    let keys = json!({"keys": [
        jwk(&first, json!({"kid": "same"})),
        jwk(&other_use, json!({"kid": "same", "use": "enc"})),
        jwk(&second, json!({"kid": "same", "use": "sig"})),
        jwk(&third, json!({"kid": "other"})),
    ]});
    let files = Directory::create();
    let path = files.write("jwks.json", &keys.to_string());
    let setup = App::setup().unset("JWT_SECRET_KEY").env("JWT_JWKS_FILE", &path);
    let app = setup.env("JWT_ISSUER", "*").env("JWT_AUDIENCE", "*").spawn();
    let header = || json!({"alg": "EdDSA", "kid": "same"});
    for (case, pair, wanted) in
        [("first", &first, 200), ("second", &second, 200), ("third", &third, 401), ("enc", &other_use, 401)]
    {
        assert_eq!(status(&app, &signed_by(pair, header())), wanted, "{case}");
    }
    let without_kid = signed_by(&first, json!({"alg": "EdDSA"}));
    assert_eq!(status(&app, &without_kid), 401);
}

#[test]
fn there_is_no_user_that_no_url_can_name() {
    let app = App::spawn();
    for user_id in [".", ".."] {
        let payload = json!({"user_id": user_id, "exp": now() + 60}).to_string();
        let token = sign_text(SECRET, HEADER, &payload);
        for path in ["alice", "%2e", "%2E%2E", ".", ".."] {
            let answer = app.get(&format!("/api/{path}/tasks")).bearer(&token).send();
            answer.expect_problem(401, "AUTH_INVALID");
        }
        for arguments in
            [&["token", "--user", user_id][..], &["export", "--user", user_id], &["purge", "--user", user_id]]
        {
            let variables = [("JWT_SECRET_KEY", SECRET), ("DATABASE_URL", &*app.database.url)];
            let outcome = crate::support::harness::run_binary(arguments, &variables);
            assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{outcome:?}");
        }
    }
    for user_id in ["...", ".x", "x..", ". "] {
        app.user(user_id).create("t");
    }
    let line = app.wait_for_log(|line| line.contains("AUTH_INVALID"));
    assert!(line.contains(". or .."), "{line}");
}
