//! What a worker says, in whatever door: how long, and what went wrong.

use std::time::Duration;

use crate::domain::error::{Problem, Reason};
use crate::domain::limits::Limits;
use crate::domain::queue::{MAX_DELAY, MAX_ERROR};

/// A lease that is asked for; the queue's `max_lease` may shorten it.
const LEASES: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(12 * 3600);
/// How long a request waits if nobody says.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Checks how long a lease, or its extension, shall be.
pub fn lease(name: &str, lease: Duration) -> Result<Duration, Problem> {
    match LEASES.contains(&lease) {
        true => Ok(lease),
        false => {
            let text = format!("{name:?} is 0.1 to 43200 seconds, not {}", lease.as_secs_f64());
            Err(Problem::new(Reason::BadFrame, text))
        }
    }
}

/// Checks how long a job waits until it is tried again; 0 is at once.
pub fn delay(seconds: Option<f64>) -> Result<Duration, Problem> {
    let delay = seconds.filter(|s| *s >= 0.0).and_then(|s| Duration::try_from_secs_f64(s).ok());
    delay.filter(|delay| *delay <= MAX_DELAY).ok_or_else(|| {
        Problem::new(Reason::BadFrame, "\"delay\" is a number of seconds, 0 or more, and at most a year")
    })
}

/// Checks how long a request waits for its reply.
pub fn timeout(asked: Option<Duration>, limits: &Limits) -> Result<Duration, Problem> {
    match asked {
        Some(timeout) if timeout > limits.timeout => {
            let text = format!(
                "\"timeout\" is at most {} seconds (max_timeout), not {}; \"reply_to\" waits for as long as it takes",
                limits.timeout.as_secs_f64(),
                timeout.as_secs_f64()
            );
            Err(Problem::new(Reason::BadFrame, text))
        }
        asked => Ok(asked.unwrap_or(TIMEOUT.min(limits.timeout))),
    }
}

/// As much of an error text as is kept with a job.
pub fn error_text(text: &str) -> Box<str> {
    text[..text.floor_char_boundary(MAX_ERROR)].into()
}
