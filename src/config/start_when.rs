//! When a queue starts, in one line: `10 or 3 of 7 or 60s notify batch 5 to http://…`.

use std::fmt::Write;
use std::time::Duration;

use super::unit::{Kind, Value};
use crate::domain::queue::{Arm, Priority, Start, StartWhen};

pub const TAKES: &str = "conditions joined by \"or\": so many jobs (10), so many of a priority or a higher one (3 of 7), or the \
                         age of the oldest (60s), as in \"10 or 3 of 7 or 60s\"; behind them, where wanted, \"notify\", \
                         \"batch N\" and \"to URL\"";

pub const TIME: Kind = Kind::Duration { least: Duration::ZERO, most: Duration::from_secs(1000 * 24 * 3600) };
const COUNT: Kind = Kind::Count { least: 0, most: 1 << 50 };

pub fn read(text: &str) -> Result<StartWhen, String> {
    let wrong = || format!("{text:?} does not fit; it takes {TAKES}");
    let mut words = text.split_whitespace().peekable();
    let mut start = StartWhen { any: Vec::new(), mode: Start::Gate, batch: None, webhook: None };
    loop {
        let word = words.next().ok_or_else(wrong)?;
        start.any.push(match words.next_if_eq(&"of") {
            Some(_) => {
                let level = words.next().and_then(|level| level.parse().ok()).and_then(Priority::new);
                Arm::Urgent { count: number(word).ok_or_else(wrong)?, min_priority: level.ok_or_else(wrong)? }
            }
            None => match (number(word), time(word)) {
                (Some(count), _) => Arm::Count(count),
                (_, Some(age)) => Arm::Oldest(age),
                _ => return Err(wrong()),
            },
        });
        if words.next_if_eq(&"or").is_none() {
            break;
        }
    }
    if words.next_if_eq(&"notify").is_some() {
        start.mode = Start::Notify;
    }
    if words.next_if_eq(&"batch").is_some() {
        start.batch = Some(words.next().and_then(number).ok_or_else(wrong)?);
    }
    if words.next_if_eq(&"to").is_some() {
        start.webhook = Some(words.next().ok_or_else(wrong)?.into());
    }
    match words.next() {
        None => Ok(start),
        Some(_) => Err(wrong()),
    }
}

pub fn write(start: &StartWhen) -> String {
    let mut out = String::new();
    for (n, arm) in start.any.iter().enumerate() {
        out.push_str(if n > 0 { " or " } else { "" });
        let _ = match arm {
            Arm::Count(count) => write!(out, "{count}"),
            Arm::Urgent { count, min_priority } => write!(out, "{count} of {}", min_priority.level()),
            Arm::Oldest(age) => write!(out, "{}", TIME.write(&Value::Duration(*age))),
        };
    }
    if start.mode == Start::Notify {
        out.push_str(" notify");
    }
    if let Some(batch) = start.batch {
        let _ = write!(out, " batch {batch}");
    }
    if let Some(url) = &start.webhook {
        // What separates rules and their fields has another way of being written in a URL.
        let _ = write!(out, " to {}", url.replace(',', "%2C").replace(';', "%3B").replace(char::is_whitespace, "%20"));
    }
    out
}

fn number(word: &str) -> Option<u64> {
    match COUNT.read(&[word.to_string()]) {
        Ok(Value::Number(number)) => Some(number),
        _ => None,
    }
}

fn time(word: &str) -> Option<Duration> {
    match TIME.read(&[word.to_string()]) {
        Ok(Value::Duration(time)) => Some(time),
        _ => None,
    }
}
