//! Seeded noise through the real port: the service survives, every answer is well-formed, and there
//! are exactly the answers that the reference expects. `TINYTASKS_FUZZ_SEED` and
//! `TINYTASKS_FUZZ_REQUESTS` choose other noise, and more of it.

use crate::support::{
    harness::{App, number},
    http::is_request_id,
    raw::{End, Raw, beside_a_victim},
    reference::{Meaning, Random, Verdict, is_refusal, read, stream},
};
use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    thread,
    time::Instant,
};

const THREADS: u64 = 4;

/// What the bytes after the last whole request are.
#[derive(Debug, PartialEq)]
enum Rest {
    Nothing,
    /// The beginning of a request. If no continuation can make it a valid one, the service may answer 400 at once.
    Begun,
    Refused(u16),
}

/// All whole requests in the bytes, and what follows them.
fn expected(bytes: &[u8]) -> (Vec<Meaning>, Rest) {
    let (mut requests, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        match read(&bytes[at..]) {
            Verdict::Incomplete => return (requests, Rest::Begun),
            Verdict::Refused(status) => return (requests, Rest::Refused(status)),
            Verdict::Whole(meaning, length) => {
                at += length;
                let is_last = meaning.is_last;
                requests.push(meaning);
                if is_last {
                    break;
                }
            }
        }
    }
    (requests, Rest::Nothing)
}

fn assert_answered(app: &App, bytes: &[u8], random: &mut Random) -> u64 {
    let context = || String::from_utf8_lossy(bytes).into_owned();
    let (requests, rest) = expected(bytes);
    let mut raw = Raw::open(app);
    let (one, other) = bytes.split_at(random.below(bytes.len() + 1));
    let _ = raw.send(one) && raw.send(other);
    raw.finish();
    let methods: Vec<_> = requests.iter().map(|request| request.method.as_str()).collect();
    let (answers, end) = raw.answers(&methods);
    assert_eq!(end, End::Closed, "{:?}", context());
    let is_hopeless = rest == Rest::Begun && answers.len() > requests.len();
    let refusal = match rest {
        Rest::Refused(status) => Some(status),
        Rest::Begun if is_hopeless => Some(400),
        Rest::Begun | Rest::Nothing => None,
    };
    let wanted = requests.len() + usize::from(refusal.is_some());
    assert_eq!(answers.len(), wanted, "{requests:?} {refusal:?} {answers:?}: {:?}", context());
    for (answer, request) in answers.iter().zip(&requests) {
        assert!([200, 204, 400, 401, 403, 404, 405].contains(&answer.status), "{answer:?}: {:?}", context());
        assert_eq!(answer.field("Connection").is_some(), request.is_last, "{answer:?}: {:?}", context());
        if answer.status == 400 {
            // This 400 is about the content of a request, because after one about the framing the connection ends.
            assert!(!answer.text().contains("framing"), "{answer:?}: {:?}", context());
        }
        if let [id] = request.values("X-Request-Id").as_slice()
            && std::str::from_utf8(id).is_ok_and(is_request_id)
        {
            assert_eq!(answer.field("X-Request-Id").unwrap().as_bytes(), *id, "{:?}", context());
        }
    }
    if let Some(status) = refusal {
        let answer = answers.last().unwrap();
        assert!(
            is_refusal(answer.status, status) || answer.status == 400,
            "{answer:?} for {status}: {:?}",
            context()
        );
        assert_eq!(answer.field("Connection"), Some("close"), "{:?}", context());
    }
    wanted as u64
}

#[test]
fn noise_is_answered_as_the_reference_expects() {
    let requests = number("TINYTASKS_FUZZ_REQUESTS", 6000);
    let seed = number("TINYTASKS_FUZZ_SEED", 1);
    let mut app = App::spawn();
    let (start, done) = (Instant::now(), AtomicU64::new(0));
    beside_a_victim(&app, || {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (app, done) = (&app, &done);
                scope.spawn(move || {
                    let mut random = Random::new(seed.wrapping_mul(THREADS).wrapping_add(thread));
                    while done.load(SeqCst) < requests {
                        let bytes = stream(&mut random);
                        let answers = assert_answered(app, &bytes, &mut random);
                        done.fetch_add(answers.max(1), SeqCst);
                    }
                });
            }
        });
    });
    assert!(app.is_running());
    let log = app.log_so_far();
    assert!(!log.contains("BUG"), "{log}");
    eprintln!("seed {seed}: {done:?} requests, {:.1} s", start.elapsed().as_secs_f64());
}
