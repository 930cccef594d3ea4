//! Times that doors take, for reads that begin at one: RFC 3339, or so many seconds ago.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::members::{Members, string};
use crate::domain::error::{Problem, Reason};

/// This node's clock: milliseconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// Takes `since` out of a frame: a number of seconds ago, or a string with a time.
pub fn take_since(members: &mut Members<'_>, now: u64) -> Result<Option<u64>, Problem> {
    match members.take("since") {
        None => Ok(None),
        Some(raw) if raw.get() == "null" => Ok(None),
        Some(raw) if raw.get().starts_with('"') => time(&string("since", raw)?).map(Some),
        Some(raw) => ago(number(raw), now, raw.get()).map(Some),
    }
}

/// The same as the text of a URL's parameter.
pub fn since(text: &str, now: u64) -> Result<u64, Problem> {
    match text.parse::<f64>() {
        Ok(seconds) => ago(Some(seconds), now, text),
        Err(_) => time(text),
    }
}

fn number(raw: &RawValue) -> Option<f64> {
    serde_json::from_str(raw.get()).ok()
}

fn ago(seconds: Option<f64>, now: u64, text: &str) -> Result<u64, Problem> {
    let ago = seconds.filter(|seconds| *seconds >= 0.0).and_then(|s| Duration::try_from_secs_f64(s).ok());
    let ago = ago.ok_or_else(|| wrong(text))?;
    Ok(now.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)))
}

fn time(text: &str) -> Result<u64, Problem> {
    millis(text).ok_or_else(|| wrong(text))
}

/// RFC 3339 as milliseconds since 1970; nothing of ours is older.
pub fn millis(text: &str) -> Option<u64> {
    let time: Timestamp = text.parse().ok()?;
    Some(u64::try_from(time.as_millisecond()).unwrap_or(0))
}

fn wrong(text: &str) -> Problem {
    let shown: String = text.chars().take(40).collect();
    let text = format!(
        "\"since\" is a time with its zone, like 2026-11-25T12:00:00Z (in a URL a + is written %2B), or a number of \
         seconds ago, not {shown:?}"
    );
    Problem::new(Reason::BadFrame, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_seconds_ago_are_read_by_table() {
        for (text, expected) in [
            ("1970-01-01T00:00:02Z", 2_000),
            ("1970-01-01T00:00:02.5Z", 2_500),
            ("1970-01-01T09:00:02+09:00", 2_000),
            ("1969-01-01T00:00:00Z", 0),
            ("0", 1_000_000),
            ("60", 940_000),
            ("1.5", 998_500),
            ("1e9", 0),
        ] {
            assert_eq!(since(text, 1_000_000), Ok(expected), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "-1",
            "NaN",
            "inf",
            "1h",
            "2026-11-25",
            "2026-11-25T12:00:00",
            "2026-11-25T12:00:00 09:00",
        ] {
            let problem = since(text, 0).unwrap_err();
            assert!(problem.text.contains("2026-11-25T12:00:00Z"), "{text}: {problem}");
        }
    }

    #[test]
    fn a_frame_says_seconds_as_a_number_and_a_time_as_a_string() {
        let take = |frame: &str| take_since(&mut Members::read(frame.as_bytes(), "", 2).unwrap(), 5_000);
        assert_eq!(take(r#"{"since":2}"#), Ok(Some(3_000)));
        assert_eq!(take(r#"{"since":"1970-01-01T00:00:01Z"}"#), Ok(Some(1_000)));
        assert_eq!((take("{}"), take(r#"{"since":null}"#)), (Ok(None), Ok(None)));
        for frame in [r#"{"since":"2"}"#, r#"{"since":true}"#, r#"{"since":-1}"#, r#"{"since":[]}"#] {
            assert!(take(frame).is_err(), "{frame}");
        }
    }
}
