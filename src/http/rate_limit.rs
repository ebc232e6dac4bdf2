//! Limits the requests per second of each user. Each user has a token bucket, stored as the moment at which it
//! will be full again (the generic cell rate algorithm, ITU-T I.371). A full bucket needs no entry in the
//! table. The table has a fixed number of entries; a user for whom there is no room is not limited, so no user
//! is refused because of what other users do.

use crate::error::Error;
use crate::limits::{RATE_BURST, RATE_USERS_MAX};
use crate::threads::lock;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const SECOND: u64 = 1_000_000_000;

/// The rate limits of all users. All times in this file are in nanoseconds.
pub struct RateLimiter {
    /// The time in which a bucket gains one request.
    interval: u64,
    /// The time in which an empty bucket becomes full.
    burst: u64,
    began: Instant,
    /// Has a random key, so that nobody can find a user id with the same hash as another user's.
    hasher: RandomState,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    /// The hash of each user's id, and the moment at which the user's bucket is full again.
    full_at: HashMap<u64, u64>,
    /// When full buckets were last removed. This is done at most once a second, because it takes a millisecond.
    swept_at: Option<u64>,
}

/// The number of requests that a user has left, as the two fields of draft-ietf-httpapi-ratelimit-headers-10.
pub type Allowance = [(&'static str, String); 2];

/// The verdict on one request.
struct Counted {
    /// The moment at which the user's bucket is full again.
    full_at: u64,
    is_allowed: bool,
}

impl RateLimiter {
    /// A limiter that allows `per_second` requests per second on average, and at once as many as accrue in
    /// [`RATE_BURST`].
    pub fn new(per_second: f64) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let interval = nanos(Duration::from_secs_f64(1.0 / per_second)).max(1);
        Self {
            interval,
            burst: rounded_quotient(nanos(RATE_BURST), interval) * interval,
            began: Instant::now(),
            hasher: RandomState::new(),
            buckets: Mutex::default(),
        }
    }

    /// Counts a request of this user. Errors: `RateLimited`; the refused request is not counted.
    pub fn count(&self, user_id: &str) -> (Allowance, Result<(), Error>) {
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let Counted { full_at, is_allowed } = self.count_at(self.hasher.hash_one(user_id), now);
        let missing = full_at.saturating_sub(now);
        let wait_seconds = (missing + self.interval).saturating_sub(self.burst).div_ceil(SECOND);
        let outcome = if is_allowed { Ok(()) } else { Err(Error::RateLimited(wait_seconds)) };
        let (quota, window) = (self.burst / self.interval, rounded_quotient(self.burst, SECOND));
        let remaining = self.burst.saturating_sub(missing) / self.interval;
        let policy = format!("\"user\";q={quota};w={window}");
        let state = format!("\"user\";r={remaining};t={}", missing.div_ceil(SECOND));
        ([("RateLimit-Policy", policy), ("RateLimit", state)], outcome)
    }

    fn count_at(&self, key: u64, now: u64) -> Counted {
        let mut buckets = lock(&self.buckets);
        if !buckets.has_room_for(key, now) {
            return Counted { full_at: now, is_allowed: true };
        }
        let full_at = buckets.full_at.entry(key).or_insert(now);
        let next = now.max(*full_at) + self.interval;
        if next - now > self.burst {
            return Counted { full_at: *full_at, is_allowed: false };
        }
        *full_at = next;
        Counted { full_at: next, is_allowed: true }
    }
}

impl Buckets {
    fn has_room_for(&mut self, key: u64, now: u64) -> bool {
        if self.full_at.len() < RATE_USERS_MAX || self.full_at.contains_key(&key) {
            return true;
        }
        if self.swept_at.is_none_or(|swept_at| now >= swept_at + SECOND) {
            self.swept_at = Some(now);
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        self.full_at.len() < RATE_USERS_MAX
    }
}

/// The quotient, rounded to the nearest whole number, but at least 1.
fn rounded_quotient(time: u64, part: u64) -> u64 {
    ((time + part / 2) / part).max(1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{RATE_USERS_MAX, RateLimiter, SECOND};

    fn is_allowed(limiter: &RateLimiter, key: u64, now: u64) -> bool {
        limiter.count_at(key, now).is_allowed
    }

    #[test]
    fn a_bucket_empties_and_fills() {
        let limiter = RateLimiter::new(2.0);
        for _ in 0..20 {
            assert!(is_allowed(&limiter, 1, 0));
        }
        for now in [0, SECOND / 2 - 1] {
            assert!(!is_allowed(&limiter, 1, now));
        }
        assert!(is_allowed(&limiter, 2, 0));
        assert!(is_allowed(&limiter, 1, SECOND / 2));
        assert!(!is_allowed(&limiter, 1, SECOND / 2));
        // A bucket never holds more than the burst, however long it has been filling.
        let later = 1000 * SECOND;
        assert_eq!((0..100).filter(|_| is_allowed(&limiter, 1, later)).count(), 20);
    }

    #[test]
    fn a_quota_is_what_accrues_in_ten_seconds() {
        for (rate, quota, window) in
            [(0.01, 1, 100), (0.3, 3, 10), (1.0, 10, 10), (7.0, 70, 10), (1e6, 10_000_000, 10)]
        {
            let (allowance, outcome) = RateLimiter::new(rate).count("alice");
            assert!(outcome.is_ok());
            let [policy, state] = allowance.map(|(_, value)| value);
            assert_eq!(policy, format!("\"user\";q={quota};w={window}"), "{rate}");
            assert!(state.starts_with(&format!("\"user\";r={};t=", quota - 1)), "{rate}: {state}");
        }
    }

    #[test]
    fn many_threads_at_once_get_no_more_than_one() {
        let limiter = RateLimiter::new(0.05);
        let passed = || (0..10_000).filter(|_| limiter.count("alice").1.is_ok()).count();
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(passed)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 1);
    }

    #[test]
    fn more_users_than_there_is_room_for_lock_nobody_out() {
        let limiter = RateLimiter::new(0.01);
        for user in 0..200_000 {
            assert!(limiter.count(&user.to_string()).1.is_ok(), "{user}");
        }
        assert_eq!(limiter.buckets.lock().unwrap().full_at.len(), RATE_USERS_MAX);
        // A user who has an entry is still limited.
        assert!(limiter.count("0").1.is_err());
    }

    #[test]
    fn full_buckets_make_room() {
        let limiter = RateLimiter::new(0.01);
        let users = RATE_USERS_MAX as u64;
        for (now, keys) in [(0, 0..users), (100 * SECOND, users..2 * users)] {
            for key in keys {
                assert!(is_allowed(&limiter, key, now) && !is_allowed(&limiter, key, now), "{now} {key}");
            }
        }
    }
}
