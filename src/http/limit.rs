//! So many requests a second for each user: a token bucket, kept as the one moment at which it will
//! be full again (the generic cell rate algorithm). Bounded memory: a bucket that is full needs no
//! entry. Where even so there is no room, a user is let through uncounted: nobody is refused for
//! what others do.

use super::response::Response;
use crate::error::Error;
use crate::lock::lock;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A bucket holds what comes in this time, and at least one.
const BURST: Duration = Duration::from_secs(10);
/// Together for 65,536 users at a time, in some 3 MiB.
const SHARDS: usize = 64;
const SHARD_USERS_MAX: usize = 1024;
const SECOND: u64 = 1_000_000_000;

pub struct Limiter {
    /// In nanoseconds, as all times here: for one request to come in, and the whole bucket.
    interval: u64,
    burst: u64,
    began: Instant,
    /// By a user's hash, when the bucket is full again. Keyed, so that nobody can choose whom to
    /// share a bucket with.
    hasher: RandomState,
    shards: Vec<Mutex<HashMap<u64, u64>>>,
}

/// What a user may still ask for.
#[derive(Clone, Copy)]
pub struct Allowance {
    quota: u64,
    window_seconds: u64,
    remaining: u64,
    reset_seconds: u64,
}

impl Limiter {
    pub fn new(per_second: f64) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let interval = nanos(Duration::from_secs_f64(1.0 / per_second)).max(1);
        Self {
            interval,
            burst: rounded(nanos(BURST), interval) * interval,
            began: Instant::now(),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Counts a request. Errors: `RateLimited`, and it was not counted.
    pub fn take(&self, user_id: &str) -> (Allowance, Result<(), Error>) {
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let full_at = self.count(self.hasher.hash_one(user_id), now);
        let (outcome, missing) = match full_at {
            Ok(full_at) => (Ok(()), full_at - now),
            Err(full_at) => {
                let wait = full_at + self.interval - now - self.burst;
                (Err(Error::RateLimited(wait.div_ceil(SECOND))), full_at - now)
            }
        };
        let allowance = Allowance {
            quota: self.burst / self.interval,
            window_seconds: rounded(self.burst, SECOND),
            remaining: (self.burst - missing) / self.interval,
            reset_seconds: missing.div_ceil(SECOND),
        };
        (allowance, outcome)
    }

    /// When the bucket is full again. Errors: the same, when nothing is left in it.
    fn count(&self, key: u64, now: u64) -> Result<u64, u64> {
        let [byte, ..] = key.to_le_bytes();
        let Some(shard) = self.shards.get(usize::from(byte) % SHARDS) else {
            return Ok(now);
        };
        let mut shard = lock(shard);
        if shard.len() >= SHARD_USERS_MAX && !shard.contains_key(&key) {
            shard.retain(|_, full_at| *full_at > now);
            if shard.len() >= SHARD_USERS_MAX {
                return Ok(now);
            }
        }
        let full_at = shard.entry(key).or_insert(now);
        let next = now.max(*full_at) + self.interval;
        if next - now > self.burst {
            return Err(*full_at);
        }
        *full_at = next;
        Ok(next)
    }
}

impl Allowance {
    /// draft-ietf-httpapi-ratelimit-headers-10.
    pub fn tell<'a>(&self, response: Response<'a>) -> Response<'a> {
        let Self { quota, window_seconds, remaining, reset_seconds } = self;
        response
            .with("RateLimit-Policy", format!("\"user\";q={quota};w={window_seconds}"))
            .with("RateLimit", format!("\"user\";r={remaining};t={reset_seconds}"))
    }
}

/// To the nearest whole number, and at least one.
fn rounded(time: u64, part: u64) -> u64 {
    ((time + part / 2) / part).max(1)
}
