//! The settings of a queue by name: what every text form of them is made of (JSON, the configuration, the command line).
//! How a value is written is each form's own; names, kinds and what may be absent stand here once.

use std::time::Duration;

use super::{OnDead, OnFull, QueueSettings, StartWhen};
use crate::domain::nearest::nearest;

/// One setting.
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    /// It can be none.
    pub is_optional: bool,
    read: fn(&QueueSettings) -> Value,
    put: fn(&mut QueueSettings, Value),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Count,
    Bytes,
    Time,
    /// A list of durations.
    Times,
    Flag,
    /// One of these.
    Word(&'static [&'static str]),
    Start,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    None,
    /// Of `Count` and `Bytes`.
    Number(u64),
    Time(Duration),
    Times(Vec<Duration>),
    Flag(bool),
    Word(String),
    Start(StartWhen),
}

impl Field {
    pub fn of(name: &str) -> Option<&'static Field> {
        FIELDS.iter().find(|field| field.name == name)
    }

    pub fn read(&self, settings: &QueueSettings) -> Value {
        (self.read)(settings)
    }

    /// Puts a value of this field's kind, or `Value::None` where it is optional. Whether it is within the bounds is left to
    /// `QueueSettings::faults`.
    pub fn put(&self, settings: &mut QueueSettings, value: Value) {
        (self.put)(settings, value);
    }
}

/// What to say of a name that is none: the nearest that is one, or all.
pub fn unknown(name: &str) -> String {
    let shown: String = name.chars().take(40).collect();
    let names = || FIELDS.iter().map(|field| field.name).chain(SHORTHANDS);
    match nearest(name, names()) {
        Some(near) => format!("{shown:?} is no setting of a queue; did you mean {near}?"),
        None => format!("{shown:?} is no setting of a queue; there are {}", names().collect::<Vec<_>>().join(", ")),
    }
}

/// What stands for several settings, or for one in other words: a preset, and `max_workers` = 1.
pub const SHORTHANDS: [&str; 2] = ["like", "exclusive"];

const ON_FULL: &[&str] = &["reject", "drop-oldest", "drop-lowest-priority"];
const ON_DEAD: &[&str] = &["continue", "halt"];

const FITS: &str = "the value is of the field's kind";

macro_rules! field {
    ($name:ident, $kind:expr, $value:ident) => {
        Field {
            name: stringify!($name),
            kind: $kind,
            is_optional: false,
            read: |settings| Value::$value(settings.$name.clone().into()),
            put: |settings, value| match value {
                Value::$value(value) => settings.$name = fit(value),
                _ => unreachable!("{FITS}"),
            },
        }
    };
    ($name:ident, $kind:expr, $value:ident, optional) => {
        Field {
            name: stringify!($name),
            kind: $kind,
            is_optional: true,
            read: |settings| settings.$name.clone().map_or(Value::None, |value| Value::$value(value.into())),
            put: |settings, value| match value {
                Value::None => settings.$name = None,
                Value::$value(value) => settings.$name = Some(fit(value)),
                _ => unreachable!("{FITS}"),
            },
        }
    };
}

/// In the order in which they are written.
pub const FIELDS: &[Field] = &[
    field!(max_messages, Kind::Count, Number),
    field!(max_bytes, Kind::Bytes, Number),
    field!(on_full, Kind::Word(ON_FULL), Word),
    field!(lease, Kind::Time, Time),
    field!(max_lease, Kind::Time, Time),
    field!(max_deliveries, Kind::Count, Number),
    field!(backoff, Kind::Times, Times),
    field!(ttl, Kind::Time, Time, optional),
    field!(delay, Kind::Time, Time),
    field!(dedupe_window, Kind::Time, Time),
    field!(dedupe_content, Kind::Flag, Flag),
    field!(dead_messages, Kind::Count, Number),
    field!(dead_bytes, Kind::Bytes, Number),
    field!(on_dead, Kind::Word(ON_DEAD), Word),
    field!(max_workers, Kind::Count, Number, optional),
    field!(fair_every, Kind::Count, Number, optional),
    field!(start_when, Kind::Start, Start, optional),
];

/// A value as the settings hold it. One that does not fit becomes the largest, which no bound allows.
fn fit<T, U: Fit<T>>(value: T) -> U {
    U::fit(value)
}

trait Fit<T> {
    fn fit(value: T) -> Self;
}

impl<T> Fit<T> for T {
    fn fit(value: T) -> T {
        value
    }
}

impl Fit<u64> for u32 {
    fn fit(value: u64) -> u32 {
        value.try_into().unwrap_or(u32::MAX)
    }
}

impl Fit<String> for OnFull {
    fn fit(word: String) -> OnFull {
        match word.as_str() {
            "drop-oldest" => OnFull::DropOldest,
            "drop-lowest-priority" => OnFull::DropLowestPriority,
            _ => OnFull::Reject,
        }
    }
}

impl Fit<String> for OnDead {
    fn fit(word: String) -> OnDead {
        if word == "halt" { OnDead::Halt } else { OnDead::Continue }
    }
}

impl From<OnFull> for String {
    fn from(on_full: OnFull) -> String {
        ON_FULL[on_full as usize].into()
    }
}

impl From<OnDead> for String {
    fn from(on_dead: OnDead) -> String {
        ON_DEAD[on_dead as usize].into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_puts_what_it_reads() {
        let start = StartWhen { any: vec![], mode: Default::default(), batch: None, webhook: None };
        let set = QueueSettings {
            max_messages: 1,
            max_bytes: 2,
            on_full: OnFull::DropLowestPriority,
            lease: Duration::from_secs(1),
            max_lease: Duration::from_secs(2),
            max_deliveries: 9,
            backoff: vec![Duration::from_secs(3)],
            ttl: Some(Duration::from_secs(4)),
            delay: Duration::from_secs(5),
            dedupe_window: Duration::from_secs(6),
            dedupe_content: true,
            dead_messages: 3,
            dead_bytes: 4,
            on_dead: OnDead::Halt,
            max_workers: Some(5),
            fair_every: Some(6),
            start_when: Some(start),
        };
        let defaults = QueueSettings::default();
        let (mut there, mut back) = (defaults.clone(), set.clone());
        for field in FIELDS {
            assert_ne!(field.read(&set), field.read(&defaults), "{}", field.name);
            field.put(&mut there, field.read(&set));
            field.put(&mut back, field.read(&defaults));
        }
        assert_eq!((there, back), (set, defaults));
        for (words, of) in [(ON_FULL, "on_full"), (ON_DEAD, "on_dead")] {
            let field = Field::of(of).unwrap();
            for word in words {
                let mut settings = QueueSettings::default();
                field.put(&mut settings, Value::Word(word.to_string()));
                assert_eq!(field.read(&settings), Value::Word(word.to_string()));
            }
        }
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_nearest() {
        assert_eq!(unknown("leaze"), "\"leaze\" is no setting of a queue; did you mean lease?");
        assert!(unknown("colour").contains("max_messages, max_bytes"), "{}", unknown("colour"));
    }
}
