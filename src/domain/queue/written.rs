//! Settings as stores keep them: a line `name=value` for each that is not as usual, durations in milliseconds. What a line
//! does not say is as usual; lines that are not known, of a later version, are passed over.

use std::fmt::Write;
use std::str::FromStr;
use std::time::Duration;

use super::{Arm, OnDead, OnFull, Priority, QueueSettings, Start, StartWhen};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no setting of a queue")]
pub struct BadLine(pub String);

pub fn write(settings: &QueueSettings) -> String {
    let usual = QueueSettings::default();
    let mut text = String::new();
    for (name, value, usual) in
        lines(settings).into_iter().zip(lines(&usual)).map(|(own, usual)| (own.0, own.1, usual.1))
    {
        if value != usual {
            writeln!(text, "{name}={value}").expect("a text takes all");
        }
    }
    text
}

pub fn read(text: &str) -> Result<QueueSettings, BadLine> {
    let mut settings = QueueSettings::default();
    for line in text.lines() {
        let bad = || BadLine(line.to_owned());
        let (name, value) = line.split_once('=').ok_or_else(bad)?;
        set(&mut settings, name, value).ok_or_else(bad)?;
    }
    Ok(settings)
}

fn lines(settings: &QueueSettings) -> Vec<(&'static str, String)> {
    let s = settings;
    let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    let start = s.start_when.as_ref();
    vec![
        ("max_messages", s.max_messages.to_string()),
        ("max_bytes", s.max_bytes.to_string()),
        ("on_full", full_word(s.on_full).into()),
        ("lease", millis(s.lease).to_string()),
        ("max_lease", millis(s.max_lease).to_string()),
        ("max_deliveries", s.max_deliveries.to_string()),
        ("backoff", list(s.backoff.iter().map(|wait| millis(*wait).to_string()))),
        ("ttl", number(s.ttl.map(millis))),
        ("delay", millis(s.delay).to_string()),
        ("dedupe_window", millis(s.dedupe_window).to_string()),
        ("dedupe_content", s.dedupe_content.to_string()),
        ("dead_messages", s.dead_messages.to_string()),
        ("dead_bytes", s.dead_bytes.to_string()),
        ("on_dead", if s.on_dead == OnDead::Halt { "halt" } else { "continue" }.into()),
        ("max_workers", number(s.max_workers.map(u64::from))),
        ("fair_every", number(s.fair_every.map(u64::from))),
        ("start_when", list(start.iter().flat_map(|start| &start.any).map(arm_word))),
        ("start_mode", if start.is_some_and(|start| start.mode == Start::Notify) { "notify" } else { "gate" }.into()),
        ("start_batch", number(start.and_then(|start| start.batch))),
        ("start_webhook", start.and_then(|start| start.webhook.as_deref()).unwrap_or_default().into()),
    ]
}

/// `None`: the value is none of this name.
fn set(settings: &mut QueueSettings, name: &str, value: &str) -> Option<()> {
    let s = settings;
    match name {
        "max_messages" => s.max_messages = value.parse().ok()?,
        "max_bytes" => s.max_bytes = value.parse().ok()?,
        "on_full" => {
            s.on_full = [OnFull::Reject, OnFull::DropOldest, OnFull::DropLowestPriority]
                .into_iter()
                .find(|on_full| full_word(*on_full) == value)?
        }
        "lease" => s.lease = duration(value)?,
        "max_lease" => s.max_lease = duration(value)?,
        "max_deliveries" => s.max_deliveries = value.parse().ok()?,
        "backoff" => s.backoff = parts(value).map(duration).collect::<Option<_>>()?,
        "ttl" => s.ttl = optional(value)?.map(Duration::from_millis),
        "delay" => s.delay = duration(value)?,
        "dedupe_window" => s.dedupe_window = duration(value)?,
        "dedupe_content" => s.dedupe_content = value.parse().ok()?,
        "dead_messages" => s.dead_messages = value.parse().ok()?,
        "dead_bytes" => s.dead_bytes = value.parse().ok()?,
        "on_dead" => s.on_dead = either(value, "continue", "halt", OnDead::Continue, OnDead::Halt)?,
        "max_workers" => s.max_workers = optional(value)?,
        "fair_every" => s.fair_every = optional(value)?,
        "start_when" => start(s).any = parts(value).map(arm).collect::<Option<_>>()?,
        "start_mode" => start(s).mode = either(value, "gate", "notify", Start::Gate, Start::Notify)?,
        "start_batch" => start(s).batch = optional(value)?,
        "start_webhook" => start(s).webhook = (!value.is_empty()).then(|| value.into()),
        _ => {}
    }
    Some(())
}

fn start(settings: &mut QueueSettings) -> &mut StartWhen {
    let none = || StartWhen { any: Vec::new(), mode: Start::Gate, batch: None, webhook: None };
    settings.start_when.get_or_insert_with(none)
}

fn full_word(on_full: OnFull) -> &'static str {
    match on_full {
        OnFull::Reject => "reject",
        OnFull::DropOldest => "drop-oldest",
        OnFull::DropLowestPriority => "drop-lowest-priority",
    }
}

fn arm_word(arm: &Arm) -> String {
    match arm {
        Arm::Count(count) => format!("count {count}"),
        Arm::Urgent { count, min_priority } => format!("urgent {count} {}", min_priority.level()),
        Arm::Oldest(age) => format!("oldest {}", millis(*age)),
    }
}

fn arm(text: &str) -> Option<Arm> {
    let words: Vec<&str> = text.split(' ').collect();
    Some(match words[..] {
        ["count", count] => Arm::Count(count.parse().ok()?),
        ["urgent", count, level] => {
            Arm::Urgent { count: count.parse().ok()?, min_priority: Priority::new(level.parse().ok()?)? }
        }
        ["oldest", age] => Arm::Oldest(duration(age)?),
        _ => return None,
    })
}

fn list(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(",")
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|part| !part.is_empty())
}

fn optional<T: FromStr>(text: &str) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }
}

fn either<T>(word: &str, one: &str, other: &str, first: T, second: T) -> Option<T> {
    if word == one { Some(first) } else { (word == other).then_some(second) }
}

fn duration(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_millis)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::queue::Preset;

    fn durations() -> impl Strategy<Value = Duration> {
        (0..100_000_000u64).prop_map(Duration::from_millis)
    }

    fn arms() -> impl Strategy<Value = Arm> {
        prop_oneof![
            (1..1000u64).prop_map(Arm::Count),
            (1..1000u64, 0..10u8)
                .prop_map(|(count, level)| Arm::Urgent { count, min_priority: Priority::new(level).unwrap() }),
            durations().prop_map(Arm::Oldest),
        ]
    }

    fn starts() -> impl Strategy<Value = StartWhen> {
        let mode = prop_oneof![Just(Start::Gate), Just(Start::Notify)];
        let webhook = proptest::option::of("https?://[a-z]{1,9}/[a-z=,;]{0,30}");
        (prop::collection::vec(arms(), 1..8), mode, proptest::option::of(1..100u64), webhook).prop_map(
            |(any, mode, batch, webhook)| StartWhen { any, mode, batch, webhook: webhook.map(String::into_boxed_str) },
        )
    }

    prop_compose! {
        fn any_settings()(
            bounds in (1..1000u64, 1024..9999u64, 0..1000u64, 0..9999u64),
            on_full in prop_oneof![Just(OnFull::Reject), Just(OnFull::DropOldest), Just(OnFull::DropLowestPriority)],
            times in (durations(), durations(), durations(), durations()),
            max_deliveries in 1..1000u32,
            backoff in prop::collection::vec(durations(), 0..20),
            ttl in proptest::option::of(durations()),
            dedupe_content in any::<bool>(),
            on_dead in prop_oneof![Just(OnDead::Continue), Just(OnDead::Halt)],
            (max_workers, fair_every) in (proptest::option::of(1..9u32), proptest::option::of(2..9u32)),
            start_when in proptest::option::of(starts()),
        ) -> QueueSettings {
            QueueSettings {
                max_messages: bounds.0, max_bytes: bounds.1, on_full, lease: times.0, max_lease: times.1, max_deliveries,
                backoff, ttl, delay: times.2, dedupe_window: times.3, dedupe_content, dead_messages: bounds.2,
                dead_bytes: bounds.3, on_dead, max_workers, fair_every, start_when,
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(settings in any_settings()) {
            prop_assert_eq!(read(&write(&settings)), Ok(settings));
        }
    }

    #[test]
    fn what_is_usual_is_not_written() {
        assert_eq!(write(&QueueSettings::default()), "");
        assert_eq!(write(&Preset::JmsQueue.settings()), "max_deliveries=7\nbackoff=1000\n");
    }

    #[test]
    fn lines_of_a_later_version_are_passed_over_and_bad_ones_named() {
        assert_eq!(read("lease=5\nnovelty=7\n").unwrap().lease, Duration::from_millis(5));
        assert_eq!(read("lease=soon"), Err(BadLine("lease=soon".into())));
        assert_eq!(read("lease"), Err(BadLine("lease".into())));
    }
}
