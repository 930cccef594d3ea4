//! How fast commands may come: a token bucket, four words in size.

use std::time::{Duration, Instant};

#[derive(Debug, Clone)]
pub struct Rate {
    per_second: u32,
    burst: u32,
    tokens: f32,
    seen: Instant,
}

impl Rate {
    pub fn new(per_second: u32, burst: u32, now: Instant) -> Rate {
        Rate { per_second, burst, tokens: burst as f32, seen: now }
    }

    /// Takes so many tokens, at most the burst, or says how long until they are there.
    pub fn take(&mut self, cost: u32, now: Instant) -> Result<(), Duration> {
        let cost = cost.min(self.burst) as f32;
        let passed = now.saturating_duration_since(self.seen).as_secs_f32();
        self.seen = now;
        self.tokens = (self.tokens + passed * self.per_second as f32).min(self.burst as f32);
        if self.tokens < cost {
            return Err(Duration::from_secs_f32((cost - self.tokens) / self.per_second.max(1) as f32));
        }
        self.tokens -= cost;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_then_the_rate_holds() {
        let start = Instant::now();
        let mut rate = Rate::new(100, 200, start);
        assert!((0..200).all(|_| rate.take(1, start).is_ok()));
        let wait = rate.take(1, start).unwrap_err();
        assert!(wait <= Duration::from_millis(10), "{wait:?}");
        let later = start + Duration::from_secs(1);
        assert_eq!((0..300).filter(|_| rate.take(1, later).is_ok()).count(), 100);
    }
}
