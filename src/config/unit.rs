//! What a setting's text can be, how it is read, checked and written: durations, sizes, counts, addresses, words.

use std::net::SocketAddr;
use std::time::Duration;

use super::queues::{self, QueueRule};
use super::rules;
use super::{bindings, schedules};
use crate::domain::binding::Binding;
use crate::domain::schedule::Schedule;
use crate::domain::topic::Rule;

/// What is written for a setting. Reading checks; what was read fits the setting's slot.
#[derive(Clone, Copy)]
pub enum Kind {
    Flag,
    Count {
        least: u64,
        most: u64,
    },
    Size {
        least: u64,
        most: u64,
    },
    Duration {
        least: Duration,
        most: Duration,
    },
    /// `IP:PORT`, or the one word that stands for none.
    Address {
        or: Option<&'static str>,
    },
    Choice(&'static [&'static str]),
    Text {
        takes: &'static str,
        check: fn(&str) -> Result<(), String>,
    },
    List {
        takes: &'static str,
        check: fn(&str) -> Result<(), String>,
    },
    /// Rules for topics.
    Rules,
    /// Rules for queues.
    Queues,
    Bindings,
    Schedules,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Flag(bool),
    Number(u64),
    Duration(Duration),
    Address(Option<SocketAddr>),
    Text(String),
    List(Vec<String>),
    Rules(Vec<Rule>),
    Queues(Vec<QueueRule>),
    Bindings(Vec<Binding>),
    Schedules(Vec<Schedule>),
}

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const DURATIONS: [(&str, u64); 5] = [("ms", 1), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

impl Kind {
    /// Reads the texts given for one setting: one, or several for a list.
    pub fn read(self, texts: &[String]) -> Result<Value, String> {
        if let Kind::List { check, .. } = self {
            let items = texts.iter().flat_map(|t| t.split(',')).map(str::trim).filter(|t| !t.is_empty());
            return items.map(|item| check(item).map(|()| item.to_string())).collect::<Result<_, _>>().map(Value::List);
        }
        if let Kind::Rules = self {
            return rules::read(texts).map(Value::Rules);
        }
        if let Kind::Queues = self {
            return queues::read(texts).map(Value::Queues);
        }
        if let Kind::Bindings = self {
            return bindings::read(texts).map(Value::Bindings);
        }
        if let Kind::Schedules = self {
            return schedules::read(texts).map(Value::Schedules);
        }
        let [text] = texts else { return Err(format!("takes one value, {} are given", texts.len())) };
        self.read_one(text.trim())
    }

    fn read_one(self, text: &str) -> Result<Value, String> {
        let wrong = || format!("{text:?} does not fit; it takes {}", self.takes());
        match self {
            Kind::Flag => text.parse().map(Value::Flag).map_err(|_| wrong()),
            Kind::Count { least, most } => {
                let number = text.parse().map_err(|_| wrong())?;
                (least..=most).contains(&number).then_some(Value::Number(number)).ok_or_else(wrong)
            }
            Kind::Size { least, most } => {
                let bytes = size(text).ok_or_else(wrong)?;
                (least..=most).contains(&bytes).then_some(Value::Number(bytes)).ok_or_else(wrong)
            }
            Kind::Duration { least, most } => {
                let duration = duration(text).ok_or_else(|| match text.parse::<f64>() {
                    Ok(_) => format!("{text:?} has no unit: write \"{text}s\" for seconds; it takes {}", self.takes()),
                    Err(_) => wrong(),
                })?;
                (least..=most).contains(&duration).then_some(Value::Duration(duration)).ok_or_else(wrong)
            }
            Kind::Address { or } if or == Some(text) => Ok(Value::Address(None)),
            Kind::Address { .. } => text.parse().map(|address| Value::Address(Some(address))).map_err(|_| wrong()),
            Kind::Choice(words) => words.contains(&text).then(|| Value::Text(text.to_string())).ok_or_else(wrong),
            Kind::Text { check, .. } => check(text).map(|()| Value::Text(text.to_string())),
            Kind::List { .. } | Kind::Rules | Kind::Queues | Kind::Bindings | Kind::Schedules => {
                unreachable!("lists are read above")
            }
        }
    }

    /// What can be written, in words.
    pub fn takes(self) -> String {
        match self {
            Kind::Flag => "true or false".to_string(),
            Kind::Count { least, most } => format!("a number from {least} to {most}"),
            Kind::Size { least, most } => {
                format!("bytes from {} to {}, like 64KiB or 1MiB", write_size(least), write_size(most))
            }
            Kind::Duration { least, most } => {
                let (least, most) = (write_duration(least), write_duration(most));
                format!("a duration from {least} to {most}, like 500ms, 5s, 10m, 1h or 7d")
            }
            Kind::Address { or: None } => "IP:PORT, like 127.0.0.1:8080 or [::]:8080".to_string(),
            Kind::Address { or: Some(word) } => format!("IP:PORT, like 127.0.0.1:8080, or \"{word}\""),
            Kind::Choice(words) => words.join(", "),
            Kind::Text { takes, .. } | Kind::List { takes, .. } => takes.to_string(),
            Kind::Rules => rules::TAKES.to_string(),
            Kind::Queues => queues::TAKES.to_string(),
            Kind::Bindings => bindings::TAKES.to_string(),
            Kind::Schedules => schedules::TAKES.to_string(),
        }
    }

    /// The word for the value in `--help`.
    pub fn placeholder(self) -> &'static str {
        match self {
            Kind::Flag => "BOOL",
            Kind::Count { .. } => "N",
            Kind::Size { .. } => "BYTES",
            Kind::Duration { .. } => "DURATION",
            Kind::Address { .. } => "ADDR",
            Kind::Choice(_) => "WORD",
            Kind::Text { .. } => "TEXT",
            Kind::List { .. } => "LIST",
            Kind::Rules | Kind::Queues => "RULES",
            Kind::Bindings | Kind::Schedules => "JSON",
        }
    }

    /// A value as it would be given in a variable or on the command line.
    pub fn write(self, value: &Value) -> String {
        match value {
            Value::Flag(on) => on.to_string(),
            Value::Number(bytes) if matches!(self, Kind::Size { .. }) => write_size(*bytes),
            Value::Number(number) => number.to_string(),
            Value::Duration(duration) => write_duration(*duration),
            Value::Address(Some(address)) => address.to_string(),
            Value::Address(None) => match self {
                Kind::Address { or: Some(word) } => word.to_string(),
                _ => String::new(),
            },
            Value::Text(text) => text.clone(),
            Value::List(items) => items.join(","),
            Value::Rules(list) => rules::write(list),
            Value::Queues(list) => queues::write(list),
            Value::Bindings(list) => bindings::write(list),
            Value::Schedules(list) => schedules::write(list),
        }
    }
}

fn size(text: &str) -> Option<u64> {
    let (digits, unit) =
        SIZES.iter().find_map(|(name, bytes)| Some((text.strip_suffix(name)?, *bytes))).unwrap_or((text, 1));
    whole(digits)?.checked_mul(unit)
}

fn duration(text: &str) -> Option<Duration> {
    let (digits, unit) = DURATIONS.iter().find_map(|(name, ms)| Some((text.strip_suffix(name)?, *ms)))?;
    if let Some(number) = whole(digits) {
        return number.checked_mul(unit).map(Duration::from_millis);
    }
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let seconds = digits.parse::<f64>().ok().filter(|_| plain)? * unit as f64 / 1000.0;
    Duration::try_from_secs_f64(seconds).ok()
}

fn whole(digits: &str) -> Option<u64> {
    let digits = digits.trim_end();
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn write_size(bytes: u64) -> String {
    let (name, unit) =
        SIZES.iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit)).unwrap_or(&SIZES[3]);
    format!("{}{name}", bytes / unit)
}

fn write_duration(duration: Duration) -> String {
    let ms = duration.as_millis() as u64;
    let largest = DURATIONS[1..].iter().find(|(_, unit)| ms >= *unit && ms.is_multiple_of(*unit));
    let (name, unit) = largest.unwrap_or(&DURATIONS[0]);
    format!("{}{name}", ms / unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANY_SIZE: Kind = Kind::Size { least: 0, most: u64::MAX };
    const ANY_DURATION: Kind = Kind::Duration { least: Duration::ZERO, most: Duration::MAX };

    #[test]
    fn sizes_and_durations_are_read_by_table() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("512B", 512), ("64KiB", 65_536), ("4 MiB", 4 << 20), ("1GiB", 1 << 30)]
        {
            assert_eq!(ANY_SIZE.read(&[text.into()]), Ok(Value::Number(bytes)), "{text}");
        }
        for (text, ms) in
            [("500ms", 500), ("5s", 5_000), ("1.5s", 1_500), ("2m", 120_000), ("1h", 3_600_000), ("7d", 604_800_000)]
        {
            assert_eq!(ANY_DURATION.read(&[text.into()]), Ok(Value::Duration(Duration::from_millis(ms))), "{text}");
        }
        for text in ["", "-1", "64KB", "64kib", "1e3", "KiB", "99999999999999999999GiB"] {
            assert!(ANY_SIZE.read(&[text.into()]).is_err(), "{text}");
        }
        for text in ["", "5", "-5s", "5 apples", "s", "infs", "1e3s", "5S"] {
            assert!(ANY_DURATION.read(&[text.into()]).is_err(), "{text}");
        }
        assert!(ANY_DURATION.read(&["25".into()]).unwrap_err().contains("\"25s\""));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(bytes: u64, ms in 0u64..1 << 40) {
            for (kind, value) in [(ANY_SIZE, Value::Number(bytes)), (ANY_DURATION, Value::Duration(Duration::from_millis(ms)))] {
                prop_assert_eq!(kind.read(&[kind.write(&value)]).unwrap(), value);
            }
        }
    }
}
