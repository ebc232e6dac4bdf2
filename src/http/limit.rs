//! So many requests a second for each user: a token bucket, kept as the one moment at which it will
//! be full again (the generic cell rate algorithm). Bounded memory: a bucket that is full needs no
//! entry. Where even so there is no room, a user is let through uncounted: nobody is refused for
//! what others do.

use crate::error::Error;
use crate::panic::lock;
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

/// What a user may still ask for, as fields of draft-ietf-httpapi-ratelimit-headers-10.
pub type Allowance = [(&'static str, String); 2];

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
        // Others may have counted meanwhile, with a later `now`.
        let full_at = self.count(self.hasher.hash_one(user_id), now);
        let missing = full_at.unwrap_or_else(|full_at| full_at) - now;
        let wait = (missing + self.interval).saturating_sub(self.burst).div_ceil(SECOND);
        let outcome = full_at.map(drop).map_err(|_| Error::RateLimited(wait));
        let (quota, window) = (self.burst / self.interval, rounded(self.burst, SECOND));
        let (remaining, reset) =
            (self.burst.saturating_sub(missing) / self.interval, missing.div_ceil(SECOND));
        let policy = format!("\"user\";q={quota};w={window}");
        let state = format!("\"user\";r={remaining};t={reset}");
        ([("RateLimit-Policy", policy), ("RateLimit", state)], outcome)
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

/// To the nearest whole number, and at least one.
fn rounded(time: u64, part: u64) -> u64 {
    ((time + part / 2) / part).max(1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Limiter, SECOND, SHARD_USERS_MAX, SHARDS};

    fn entries(limiter: &Limiter) -> usize {
        limiter.shards.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }

    #[test]
    fn a_bucket_empties_and_fills() {
        let limiter = Limiter::new(2.0);
        for _ in 0..20 {
            assert!(limiter.count(1, 0).is_ok());
        }
        for now in [0, SECOND / 2 - 1] {
            assert!(limiter.count(1, now).is_err());
        }
        assert!(limiter.count(2, 0).is_ok());
        assert!(limiter.count(1, SECOND / 2).is_ok());
        assert!(limiter.count(1, SECOND / 2).is_err());
        // However long it is left alone, no more than a whole bucket.
        let later = 1000 * SECOND;
        assert_eq!((0..100).filter(|_| limiter.count(1, later).is_ok()).count(), 20);
    }

    #[test]
    fn quotas_are_what_comes_in_ten_seconds() {
        for (rate, quota, window) in
            [(0.01, 1, 100), (0.3, 3, 10), (1.0, 10, 10), (7.0, 70, 10), (1e6, 10_000_000, 10)]
        {
            let (allowance, outcome) = Limiter::new(rate).take("alice");
            assert!(outcome.is_ok());
            let [policy, state] = allowance.map(|(_, value)| value);
            assert_eq!(policy, format!("\"user\";q={quota};w={window}"), "{rate}");
            assert!(state.starts_with(&format!("\"user\";r={};t=", quota - 1)), "{rate}: {state}");
        }
    }

    #[test]
    fn many_at_once_get_no_more() {
        let limiter = Limiter::new(0.05);
        let passed = || (0..10_000).filter(|_| limiter.take("alice").1.is_ok()).count();
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(passed)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 1);
    }

    #[test]
    fn more_users_than_there_is_room_for_lock_nobody_out() {
        let limiter = Limiter::new(0.01);
        for user in 0..200_000 {
            assert!(limiter.take(&user.to_string()).1.is_ok(), "{user}");
        }
        assert_eq!(entries(&limiter), SHARDS * SHARD_USERS_MAX);
        // One that had a place is still counted.
        assert!(limiter.take("0").1.is_err());
    }

    #[test]
    fn those_that_are_full_again_make_room() {
        let limiter = Limiter::new(0.01);
        // Keys of one shard.
        let [keys, others] = [0, 1024].map(|from| (from..from + SHARD_USERS_MAX as u64).map(|key| key << 8));
        for (now, keys) in [(0, keys), (100 * SECOND, others)] {
            for key in keys {
                assert!(limiter.count(key, now).is_ok() && limiter.count(key, now).is_err(), "{now} {key}");
            }
        }
    }
}
