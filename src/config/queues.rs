//! Rules for queues as they are written: `orders.*: like=sqs-fifo, lease=60s`, or in the file a table `[queues."orders.*"]`.
//!
//! Names and what they mean stand in `domain::queue::fields`; here is how their values are written, with units.

use std::fmt::Write;

use super::start_when;
use super::unit::{self, Kind};
use crate::domain::queue::fields::{self, FIELDS, Field, Value, unknown};
use crate::domain::queue::{Preset, QueueRules, QueueSettings};
use crate::domain::topic::{BadPattern, Pattern};

pub const TAKES: &str = "rules joined by semicolons, each PATTERN: NAME=VALUE, …; the names are those of the settings of a \
                         queue, and like";

/// What is said of queues of a pattern; the rest is as the preset has it, or as for every queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRule {
    pub pattern: Pattern,
    like: Option<Preset>,
    fields: Vec<(&'static str, Value)>,
}

impl QueueRule {
    pub fn settings(&self) -> QueueSettings {
        let mut settings = self.like.map_or_else(QueueSettings::default, Preset::settings);
        for (name, value) in &self.fields {
            Field::of(name).expect("it was read by its name").put(&mut settings, value.clone());
        }
        settings
    }
}

/// The rules for whoever keeps queues.
pub fn rules(list: &[QueueRule]) -> QueueRules {
    let rules = list.iter().map(|rule| (rule.pattern.clone(), rule.settings())).collect();
    QueueRules { defaults: QueueSettings::default(), rules }
}

/// Rules in the order in which they are written, each text one or several of them; or all that is wrong with them.
pub fn read(texts: &[String]) -> Result<Vec<QueueRule>, String> {
    super::rules::gather(texts, "queue", rule, |rule| &rule.pattern)
}

/// A rule as it would be given.
pub fn write(rules: &[QueueRule]) -> String {
    let mut out = String::new();
    for rule in rules {
        let separator = if out.is_empty() { "" } else { "; " };
        let _ = write!(out, "{separator}{}:", rule.pattern);
        let like = rule.like.map(|preset| ("like", preset.as_str().to_string()));
        let fields = rule.fields.iter().map(|(name, value)| (*name, write_value(name, value)));
        for (n, (name, text)) in like.into_iter().chain(fields).enumerate() {
            let _ = write!(out, "{} {name}={text}", if n > 0 { "," } else { "" });
        }
    }
    out
}

fn rule(text: &str) -> Result<QueueRule, String> {
    let shown: String = text.chars().take(80).collect();
    let (pattern, fields) = super::rules::split(text, is_name)
        .ok_or_else(|| format!("{shown:?} is no rule; write PATTERN: NAME=VALUE, as in \"orders.*: like=sqs-fifo\""))?;
    let fields = fields.split(',').map(str::trim).map(|field| {
        let named = field.split_once('=').ok_or_else(|| format!("{field:?} is not NAME=VALUE"));
        named.map(|(name, value)| (name.trim().to_string(), value.trim().to_string()))
    });
    fields
        .collect::<Result<Vec<_>, _>>()
        .and_then(|fields| of(pattern, &fields))
        .map_err(|why| format!("{shown:?}: {why}"))
}

/// A rule of a pattern and its fields, as a table of the file holds them; or all that is wrong with it.
pub fn of(pattern: &str, texts: &[(String, String)]) -> Result<QueueRule, String> {
    let pattern: Pattern = pattern.trim().parse().map_err(|error: BadPattern| error.to_string())?;
    if pattern.to_string().starts_with('$') {
        return Err("names of queues do not begin with '$'".into());
    }
    let mut rule = QueueRule { pattern, like: None, fields: Vec::new() };
    let mut faults = Vec::new();
    let mut given: Vec<&str> = Vec::new();
    for (name, text) in texts {
        if given.contains(&name.as_str()) {
            faults.push(format!("{name} stands twice"));
        } else if let Err(why) = put(&mut rule, name, text) {
            faults.push(why);
        }
        given.push(name);
    }
    if given.is_empty() {
        faults.push("a rule says at least one thing, such as like = \"sqs-fifo\"".into());
    }
    rule.fields.sort_by_key(|(name, _)| FIELDS.iter().position(|field| field.name == *name));
    faults.extend(rule.settings().faults());
    if faults.is_empty() { Ok(rule) } else { Err(faults.join("; ")) }
}

/// Single settings as a rule says them, in their order; the bounds are left to whoever gets them.
pub fn queue_fields(texts: &[(String, String)]) -> Result<Vec<(&'static str, Value)>, String> {
    let any: Pattern = "**".parse().map_err(|error: BadPattern| error.to_string())?;
    let mut rule = QueueRule { pattern: any, like: None, fields: Vec::new() };
    for (name, text) in texts {
        if name == "like" {
            return Err("like: a preset stands apart".into());
        }
        put(&mut rule, name, text)?;
    }
    rule.fields.sort_by_key(|(name, _)| FIELDS.iter().position(|field| field.name == *name));
    Ok(rule.fields)
}

fn put(rule: &mut QueueRule, name: &str, text: &str) -> Result<(), String> {
    match name {
        "like" => {
            let known = || Preset::ALL.map(Preset::as_str).join(", ");
            rule.like = Some(Preset::parse(text).ok_or_else(|| format!("like: {text:?} is none of {}", known()))?);
        }
        "exclusive" => {
            if text != "true" {
                return Err(format!("exclusive: {text:?} does not fit; it takes true, or max_workers"));
            }
            put(rule, "max_workers", "1")?;
        }
        _ => {
            let field = Field::of(name).ok_or_else(|| unknown(name))?;
            if rule.fields.iter().any(|(other, _)| *other == field.name) {
                return Err(format!("{} stands twice", field.name));
            }
            let value = read_value(field, text).map_err(|why| format!("{name}: {why}"))?;
            rule.fields.push((field.name, value));
        }
    }
    Ok(())
}

fn read_value(field: &Field, text: &str) -> Result<Value, String> {
    if text == "none" && field.is_optional {
        return Ok(Value::None);
    }
    let one = |kind: Kind, text: &str| {
        kind.read(&[text.to_string()]).map_err(|why| match field.is_optional {
            true => format!("{why}, or none"),
            false => why,
        })
    };
    Ok(match (field.kind, kind(field.kind)) {
        (fields::Kind::Times, Some(kind)) => {
            let waits = text.split_whitespace().map(|wait| one(kind, wait)).collect::<Result<Vec<_>, _>>()?;
            Value::Times(waits.into_iter().filter_map(duration_of).collect())
        }
        (fields::Kind::Start, _) => Value::Start(start_when::read(text)?),
        (_, Some(kind)) => match one(kind, text)? {
            unit::Value::Flag(on) => Value::Flag(on),
            unit::Value::Number(number) => Value::Number(number),
            unit::Value::Duration(time) => Value::Time(time),
            unit::Value::Text(word) => Value::Word(word),
            other => unreachable!("no setting of a queue is {other:?}"),
        },
        (_, None) => unreachable!("only start_when is of no kind"),
    })
}

fn write_value(name: &str, value: &Value) -> String {
    let kind = Field::of(name).and_then(|field| kind(field.kind)).unwrap_or(Kind::Flag);
    match value {
        Value::None => "none".into(),
        Value::Number(number) => kind.write(&unit::Value::Number(*number)),
        Value::Time(time) => kind.write(&unit::Value::Duration(*time)),
        Value::Times(times) => {
            let texts: Vec<_> = times.iter().map(|time| kind.write(&unit::Value::Duration(*time))).collect();
            texts.join(" ")
        }
        Value::Flag(on) => on.to_string(),
        Value::Word(word) => word.clone(),
        Value::Start(start) => start_when::write(start),
    }
}

/// The text of what a setting is by default, for the page of settings.
pub fn shown_default(field: &Field) -> String {
    match field.read(&QueueSettings::default()) {
        Value::Times(times) if times.is_empty() => "none".into(),
        value => write_value(field.name, &value),
    }
}

/// How it is written, in words; the bounds are told elsewhere.
pub fn takes(field: &Field) -> String {
    let takes = match field.kind {
        fields::Kind::Count => "a number".into(),
        fields::Kind::Bytes => "bytes, like 64KiB".into(),
        fields::Kind::Time => "a duration".into(),
        fields::Kind::Times => "durations: a list, or joined by spaces".into(),
        fields::Kind::Flag => "true or false".into(),
        fields::Kind::Word(words) => words.join(", "),
        fields::Kind::Start => "conditions, see above".into(),
    };
    format!("{takes}{}", if field.is_optional { "; none" } else { "" })
}

fn duration_of(value: unit::Value) -> Option<std::time::Duration> {
    match value {
        unit::Value::Duration(time) => Some(time),
        _ => None,
    }
}

/// How a value is written. The bounds are left to `QueueSettings::faults`.
fn kind(kind: fields::Kind) -> Option<Kind> {
    Some(match kind {
        fields::Kind::Count => Kind::Count { least: 0, most: 1 << 50 },
        fields::Kind::Bytes => Kind::Size { least: 0, most: 1 << 50 },
        fields::Kind::Time | fields::Kind::Times => start_when::TIME,
        fields::Kind::Flag => Kind::Flag,
        fields::Kind::Word(words) => Kind::Choice(words),
        fields::Kind::Start => return None,
    })
}

fn is_name(name: &str) -> bool {
    Field::of(name).is_some() || fields::SHORTHANDS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::queue::{Arm, OnDead, Priority, Start};
    use proptest::prelude::*;
    use std::time::Duration;

    fn one(text: &str) -> Result<Vec<QueueRule>, String> {
        read(&[text.to_string()])
    }

    #[test]
    fn rules_are_written_as_they_are_read() {
        for (text, written) in [
            ("orders.*: like=sqs-fifo, lease=60s", "orders.*: like=sqs-fifo, lease=1m"),
            (" a :max_bytes=64KiB,  on_dead=halt ; **: ttl=none", "a: max_bytes=64KiB, on_dead=halt; **: ttl=none"),
            ("a:b:like=kinesis", "a:b: like=kinesis"),
            ("a: exclusive=true", "a: max_workers=1"),
            ("a: backoff=1s 10s 1m", "a: backoff=1s 10s 1m"),
            ("a: backoff=", "a: backoff="),
            (
                "a: start_when=10 or 3 of 7 or 60s notify batch 5 to http://x.example/a%2Cb, lease=1s",
                "a: lease=1s, start_when=10 or 3 of 7 or 1m notify batch 5 to http://x.example/a%2Cb",
            ),
            ("", ""),
        ] {
            let rules = one(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
            assert_eq!(write(&rules), written);
            assert_eq!(one(written).unwrap(), rules);
        }
    }

    #[test]
    fn a_rule_is_the_preset_with_what_is_said_over_it() {
        let rules = rules(&one("a.*: like=kafka-group, lease=1s; **: start_when=10 or 3 of 7 or 2s").unwrap());
        let of = |name: &str| rules.of(&crate::domain::queue::Queue::parse(name).unwrap()).clone();
        assert_eq!((of("a.b").on_dead, of("a.b").lease), (OnDead::Halt, Duration::from_secs(1)));
        let start = of("b").start_when.unwrap();
        let min_priority = Priority::new(7).unwrap();
        let arms = [Arm::Count(10), Arm::Urgent { count: 3, min_priority }, Arm::Oldest(Duration::from_secs(2))];
        assert_eq!((&start.any[..], start.mode), (&arms[..], Start::Gate));
    }

    #[test]
    fn what_is_wrong_with_a_rule_is_told_all_together() {
        for (text, shows) in [
            ("orders.*", "PATTERN: NAME=VALUE"),
            ("orders.*: fifo", "\"fifo\" is not NAME=VALUE"),
            ("orders.*: like=fifo", "sqs-fifo"),
            ("orders.*: leese=5s", "did you mean lease?"),
            ("orders.*: lease=5", "write \"5s\""),
            ("orders.*: lease=1ms", "lease is 1ms, it takes 100ms to"),
            ("orders.*: ttl=x", "or none"),
            ("orders.*: on_full=drop", "reject, drop-oldest"),
            ("orders.*: lease=1s, lease=2s", "stands twice"),
            ("orders.*: exclusive=true, max_workers=2", "stands twice"),
            ("orders.*: start_when=ten", "10 or 3 of 7 or 60s"),
            ("$a: lease=1s", "'$'"),
            ("a: lease=1s; a: lease=2s", "has a rule already"),
        ] {
            let fault = one(text).unwrap_err();
            assert!(fault.contains(shows), "{text}: {fault}");
        }
        let faults = one("a: leese=1s, ttl=x, lease=1ms; b").unwrap_err();
        for part in ["leese", "ttl", "lease is 1ms", "\"b\""] {
            assert!(faults.contains(part), "{part}: {faults}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[a-c*.:;,= ]{0,3}(like|lease|start_when|backoff)?[a-c*.:;,=1s ]{0,14}") {
            if let Ok(rules) = one(&text) {
                prop_assert_eq!(one(&write(&rules)).unwrap(), rules);
            }
        }
    }
}
