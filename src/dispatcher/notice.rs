//! What operators are told in the log: at most one line a minute of a kind.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::error::Reason;

/// How long a kind of line is held back after one was written.
const QUIET: Duration = Duration::from_secs(60);

/// Kinds remembered. A kind is a reason and a source, both of which are few.
const MOST_KINDS: usize = 1_000;

/// Lets one line of a kind through, then counts until its time is over.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    kinds: Mutex<HashMap<(Reason, String), Kind>>,
}

#[derive(Debug)]
struct Kind {
    told: Instant,
    held_back: u64,
}

impl Throttle {
    pub fn warn(&self, reason: Reason, source: &str, text: impl FnOnce() -> String) {
        if let Some(held_back) = self.pass(reason, source) {
            tracing::warn!(source, %reason, held_back, "{}", text());
        }
    }

    /// `Some` if a line may be written now, with the number of those held back since the last one.
    fn pass(&self, reason: Reason, source: &str) -> Option<u64> {
        let now = Instant::now();
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if kinds.len() >= MOST_KINDS {
            kinds.retain(|_, kind| now.duration_since(kind.told) < QUIET);
        }
        match kinds.get_mut(&(reason, source.to_owned())) {
            Some(kind) if now.duration_since(kind.told) < QUIET => {
                kind.held_back += 1;
                None
            }
            Some(kind) => {
                kind.told = now;
                Some(std::mem::take(&mut kind.held_back))
            }
            None => {
                kinds.insert((reason, source.to_owned()), Kind { told: now, held_back: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_minute_of_each_kind_and_the_rest_counted() {
        let throttle = Throttle::default();
        assert_eq!(throttle.pass(Reason::BadJson, "in"), Some(0));
        assert_eq!(throttle.pass(Reason::BadJson, "in"), None);
        assert_eq!(throttle.pass(Reason::BadName, "in"), Some(0));
        assert_eq!(throttle.pass(Reason::BadJson, "list"), Some(0));
        tokio::time::advance(QUIET - Duration::from_millis(1)).await;
        assert_eq!(throttle.pass(Reason::BadJson, "in"), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(throttle.pass(Reason::BadJson, "in"), Some(2));
    }
}
