//! The settings of a queue as a JSON document: reads what somebody wrote, all its faults together, and writes all that holds.

use std::fmt::Write;
use std::time::Duration;

use serde_json::value::RawValue;

use super::body::{quote, quote_into};
use super::members::Members;
use crate::domain::error::{Problem, Reason};
use crate::domain::nearest::nearest;
use crate::domain::queue::fields::{FIELDS, Field, Kind, Value, unknown};
use crate::domain::queue::{Arm, Preset, Priority, QueueSettings, Start, StartWhen};

/// An object, the conditions in it, and each of them.
const DEPTH: usize = 4;
/// Faults that are told at once.
const MOST_TOLD: usize = 20;

/// Reads settings. What is not said is as in the preset that `like` names, or else as in `base`; null stands for none.
pub fn read_settings(text: &[u8], base: &QueueSettings) -> Result<QueueSettings, Problem> {
    let mut members = Members::read(text, "the settings of a queue", DEPTH)?;
    let mut faults = Vec::new();
    let mut settings = match members.text("like").map_err(|problem| problem.text).and_then(|word| like(word.as_deref()))
    {
        Ok(Some(preset)) => preset.settings(),
        Ok(None) => base.clone(),
        Err(fault) => {
            faults.push(fault);
            base.clone()
        }
    };
    match members.take("exclusive").map(RawValue::get) {
        None => {}
        Some(_) if members.has("max_workers") => {
            faults.push("\"exclusive\" is \"max_workers\" of 1 in other words; send one".into());
        }
        Some("true") => settings.max_workers = Some(1),
        Some("false") => settings.max_workers = None,
        Some(_) => faults.push("\"exclusive\" is true or false".into()),
    }
    for field in FIELDS {
        let Some(raw) = members.take(field.name) else { continue };
        match value(field, raw) {
            Ok(value) => field.put(&mut settings, value),
            Err(fault) => faults.push(fault),
        }
    }
    faults.extend(members.names().map(unknown));
    settings.keep_hidden(base);
    faults.extend(settings.faults());
    if faults.is_empty() {
        return Ok(settings);
    }
    let more = faults.len().saturating_sub(MOST_TOLD);
    faults.truncate(MOST_TOLD);
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    Err(Problem::new(Reason::BadFrame, format!("{}{rest}", faults.join("; "))))
}

/// All settings that hold, on one line: what `read_settings` makes the same of, whatever its base.
pub fn write_settings(settings: &QueueSettings) -> String {
    let all: Vec<_> = FIELDS.iter().map(|field| (field.name, field.read(settings))).collect();
    write_some(None, &all)
}

/// A document that says these and no others, over a preset where there is one.
pub fn write_some(like: Option<&str>, fields: &[(&str, Value)]) -> String {
    let mut out = String::from("{");
    if let Some(preset) = like {
        out.push_str("\"like\":");
        quote_into(&mut out, preset);
    }
    for (name, value) in fields {
        if out.len() > 1 {
            out.push(',');
        }
        quote_into(&mut out, name);
        out.push(':');
        write_value(&mut out, value);
    }
    out.push('}');
    out
}

fn like(word: Option<&str>) -> Result<Option<Preset>, String> {
    let Some(word) = word else { return Ok(None) };
    Preset::parse(word).map(Some).ok_or_else(|| {
        let shown: String = word.chars().take(40).collect();
        let known = Preset::ALL.map(Preset::as_str);
        let near = nearest(word, known).map_or(String::new(), |near| format!("; did you mean {near}?"));
        format!("\"like\" is one of {}, not {shown:?}{near}", known.join(", "))
    })
}

fn value(field: &Field, raw: &RawValue) -> Result<Value, String> {
    let text = raw.get();
    if text == "null" && field.is_optional {
        return Ok(Value::None);
    }
    let number = || serde_json::from_str(text).ok().map(Value::Number);
    let (read, takes) = match field.kind {
        Kind::Count => (number(), "a whole number"),
        Kind::Bytes => (number(), "a whole number of bytes"),
        Kind::Time => (time(text).map(Value::Time), "a number of seconds"),
        Kind::Times => {
            let list: Option<Vec<&RawValue>> = serde_json::from_str(text).ok();
            let times = list.and_then(|list| list.into_iter().map(|raw| time(raw.get())).collect());
            (times.map(Value::Times), "a list of seconds, like [1, 10, 60]")
        }
        Kind::Flag => (serde_json::from_str(text).ok().map(Value::Flag), "true or false"),
        Kind::Word(words) => {
            let word: Option<String> = serde_json::from_str(text).ok();
            let word = word.filter(|word| words.contains(&word.as_str()));
            return word.map(Value::Word).ok_or_else(|| wrong(field, &words.join(", "), text));
        }
        Kind::Start => return start_when(text).map(Value::Start),
    };
    read.ok_or_else(|| wrong(field, takes, text))
}

fn wrong(field: &Field, takes: &str, text: &str) -> String {
    let shown: String = text.chars().take(40).collect();
    let or_none = if field.is_optional { ", or null" } else { "" };
    format!("{:?} is {takes}{or_none}, not {shown}", field.name)
}

fn start_when(text: &str) -> Result<StartWhen, String> {
    let takes =
        "\"start_when\" is an object like {\"any\":[{\"count\":10},{\"count\":3,\"min_priority\":7},{\"oldest\":60}]}";
    let mut members = Members::read(text.as_bytes(), "start_when", DEPTH).map_err(|_| format!("{takes}, or null"))?;
    let list: Option<Vec<&RawValue>> = members.take("any").and_then(|raw| serde_json::from_str(raw.get()).ok());
    let any = list.ok_or(takes)?.into_iter().map(|raw| arm(raw.get())).collect::<Result<_, _>>()?;
    let mode = match members.text("mode").map_err(|problem| problem.text)?.as_deref() {
        None | Some("gate") => Start::Gate,
        Some("notify") => Start::Notify,
        Some(_) => return Err("\"mode\" of \"start_when\" is gate or notify".into()),
    };
    let batch = match members.take("batch").map(RawValue::get) {
        None | Some("null") => None,
        Some(text) => Some(serde_json::from_str(text).map_err(|_| "\"batch\" of \"start_when\" is a whole number")?),
    };
    let webhook = members.text("webhook").map_err(|problem| problem.text)?.map(Into::into);
    nothing_left(&members, "\"start_when\" has any, mode, batch and webhook")?;
    Ok(StartWhen { any, mode, batch, webhook })
}

fn arm(text: &str) -> Result<Arm, String> {
    let takes = "a condition of \"start_when\" is {\"count\":10}, {\"count\":3,\"min_priority\":7} or {\"oldest\":60}";
    let mut members = Members::read(text.as_bytes(), "a condition", DEPTH).map_err(|_| takes)?;
    let count: Option<u64> = members.take("count").map(|raw| number(raw, takes)).transpose()?;
    let level: Option<u8> = members.take("min_priority").map(|raw| number(raw, takes)).transpose()?;
    let oldest = members.take("oldest").map(|raw| time(raw.get()).ok_or(takes)).transpose()?;
    nothing_left(&members, takes)?;
    match (count, level, oldest) {
        (Some(count), None, None) => Ok(Arm::Count(count)),
        (Some(count), Some(level), None) => {
            let min_priority = Priority::new(level).ok_or("\"min_priority\" is a whole number from 0 to 9")?;
            Ok(Arm::Urgent { count, min_priority })
        }
        (None, None, Some(age)) => Ok(Arm::Oldest(age)),
        _ => Err(takes.into()),
    }
}

fn number<T: serde::de::DeserializeOwned>(raw: &RawValue, takes: &str) -> Result<T, String> {
    serde_json::from_str(raw.get()).map_err(|_| takes.to_string())
}

fn nothing_left(members: &Members<'_>, takes: &str) -> Result<(), String> {
    match members.left().first() {
        Some(name) => Err(format!("{takes}; {name:?} is not known")),
        None => Ok(()),
    }
}

/// Seconds with their thousandths: what is finer is rounded, as stores count in milliseconds.
fn time(text: &str) -> Option<Duration> {
    let seconds: f64 = serde_json::from_str(text).ok()?;
    let fits = (0.0..1e12).contains(&seconds);
    fits.then(|| Duration::from_millis((seconds * 1000.0).round() as u64))
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::None => out.push_str("null"),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::Time(time) => write_time(out, *time),
        Value::Times(times) => {
            out.push('[');
            for (i, time) in times.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                write_time(out, *time);
            }
            out.push(']');
        }
        Value::Flag(on) => out.push_str(if *on { "true" } else { "false" }),
        Value::Word(word) => quote_into(out, word),
        Value::Start(start) => write_start(out, start),
    }
}

fn write_time(out: &mut String, time: Duration) {
    let ms = time.as_millis() as u64;
    let _ = match ms % 1000 {
        0 => write!(out, "{}", ms / 1000),
        _ => write!(out, "{}", ms as f64 / 1000.0),
    };
}

fn write_start(out: &mut String, start: &StartWhen) {
    out.push_str("{\"any\":[");
    for (i, arm) in start.any.iter().enumerate() {
        out.push_str(if i > 0 { "," } else { "" });
        let _ = match arm {
            Arm::Count(count) => write!(out, "{{\"count\":{count}}}"),
            Arm::Urgent { count, min_priority } => {
                write!(out, "{{\"count\":{count},\"min_priority\":{}}}", min_priority.level())
            }
            Arm::Oldest(age) => {
                out.push_str("{\"oldest\":");
                write_time(out, *age);
                write!(out, "}}")
            }
        };
    }
    let mode = if start.mode == Start::Gate { "gate" } else { "notify" };
    let _ = write!(out, "],\"mode\":\"{mode}\"");
    if let Some(batch) = start.batch {
        let _ = write!(out, ",\"batch\":{batch}");
    }
    if let Some(webhook) = &start.webhook {
        let _ = write!(out, ",\"webhook\":{}", quote(webhook));
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::queue::{OnDead, OnFull};
    use proptest::option;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<QueueSettings, Problem> {
        read_settings(text.as_bytes(), &QueueSettings::default())
    }

    fn arms() -> impl Strategy<Value = Arm> {
        prop_oneof![
            (1u64..1 << 53).prop_map(Arm::Count),
            (1u64..1 << 53, 0u8..10)
                .prop_map(|(count, level)| Arm::Urgent { count, min_priority: Priority::new(level).unwrap() }),
            (1u64..1 << 40).prop_map(|ms| Arm::Oldest(Duration::from_millis(ms))),
        ]
    }

    prop_compose! {
        fn starts()(
            any in prop::collection::vec(arms(), 1..8),
            notify: bool,
            batch in option::of(1u64..1 << 60),
            webhook in option::of("https?://[a-z]{1,9}/[a-z\"\\\\é]{0,20}"),
        ) -> StartWhen {
            let mode = if notify { Start::Notify } else { Start::Gate };
            StartWhen { any, mode, batch, webhook: webhook.map(Into::into) }
        }
    }

    prop_compose! {
        fn all_settings()(
            numbers in (1u64..100_000_000, 1024u64..1 << 40, 0u64..10_000_000, 0u64..1 << 40),
            on_full in prop_oneof![Just(OnFull::Reject), Just(OnFull::DropOldest), Just(OnFull::DropLowestPriority)],
            halt: bool,
            dedupe_content: bool,
            (lease, more) in (100u64..43_200_000).prop_flat_map(|lease| (Just(lease), lease..=43_200_000)),
            max_deliveries in 1u32..1000,
            backoff in prop::collection::vec(0u64..86_400_000, 0..20),
            ttl in option::of(1u64..31_536_000_000),
            delay in 0u64..31_536_000_000,
            window in 0u64..86_400_000,
            max_workers in option::of(1u32..1000),
            fair_every in option::of(2u32..1_000_000),
            start_when in option::of(starts()),
        ) -> QueueSettings {
            let ms = Duration::from_millis;
            QueueSettings {
                max_messages: numbers.0,
                max_bytes: numbers.1,
                on_full,
                lease: ms(lease),
                max_lease: ms(more),
                max_deliveries,
                backoff: backoff.into_iter().map(ms).collect(),
                ttl: ttl.map(ms),
                delay: ms(delay),
                dedupe_window: ms(window),
                dedupe_content,
                dead_messages: numbers.2,
                dead_bytes: numbers.3,
                on_dead: if halt { OnDead::Halt } else { OnDead::Continue },
                max_workers,
                fair_every,
                start_when,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same_whatever_the_base(settings in all_settings(), base in all_settings()) {
            let written = write_settings(&settings);
            prop_assert_eq!(read_settings(written.as_bytes(), &base).map_err(|p| p.text), Ok(settings));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\{(\"(like|lease|backoff|start_when|any)\":[\\[\\]{}0-9a-z\",:.]{0,8},?){0,3}\\}?") {
            let _ = read(&text);
        }
    }

    #[test]
    fn what_is_not_said_is_as_the_preset_or_the_base_has_it() {
        let settings = read(r#"{"like":"sqs-fifo","lease":60}"#).unwrap();
        assert_eq!(settings, QueueSettings { lease: Duration::from_secs(60), ..Preset::SqsFifo.settings() });
        let base = Preset::JmsQueue.settings();
        assert_eq!(read_settings(b"{}", &base).as_ref(), Ok(&base));
        let settings = read_settings(br#"{"ttl":null,"exclusive":true}"#, &Preset::SqsStandard.settings()).unwrap();
        assert_eq!((settings.ttl, settings.max_workers), (None, Some(1)));
    }

    #[test]
    fn a_webhook_that_is_hidden_is_kept_where_what_is_shown_is_written_back() {
        let start = |webhook: &str| format!(r#"{{"start_when":{{"any":[{{"count":1}}],"webhook":"{webhook}"}}}}"#);
        let settings = read(&start("https://a.example/x?key=secret")).unwrap();
        let shown = write_settings(&settings.shown());
        assert!(shown.contains("https://a.example/***") && !shown.contains("secret"), "{shown}");
        assert_eq!(read_settings(shown.as_bytes(), &settings), Ok(settings.clone()));
        read_settings(start("https://b.example/***").as_bytes(), &settings).unwrap_err();
    }

    #[test]
    fn all_faults_are_told_together_each_with_what_would_do() {
        for (text, shows) in [
            ("[]", "one JSON object"),
            (r#"{"leese":5}"#, "did you mean lease?"),
            (r#"{"colour":"red"}"#, "there are max_messages"),
            (r#"{"like":"sqs"}"#, "sqs-standard, sqs-fifo"),
            (r#"{"like":"sqs-fifoo"}"#, "did you mean sqs-fifo?"),
            (r#"{"lease":"60s"}"#, "a number of seconds, not \"60s\""),
            (r#"{"lease":0}"#, "lease is 0ns"),
            (r#"{"lease":null}"#, "a number of seconds"),
            (r#"{"ttl":"x"}"#, "a number of seconds, or null"),
            (r#"{"max_messages":1.5}"#, "a whole number"),
            (r#"{"max_workers":99999999999}"#, "it takes 1 to 1000"),
            (r#"{"backoff":5}"#, "[1, 10, 60]"),
            (r#"{"on_full":"drop"}"#, "reject, drop-oldest, drop-lowest-priority"),
            (r#"{"exclusive":true,"max_workers":2}"#, "send one"),
            (r#"{"start_when":{"count":10}}"#, r#"{"any":["#),
            (r#"{"start_when":{"any":[{"count":10,"oldest":1}]}}"#, r#"{"count":10}"#),
            (r#"{"start_when":{"any":[{"count":10,"min_priority":10}]}}"#, "from 0 to 9"),
            (r#"{"start_when":{"any":[{"count":0}]}}"#, "more than 0"),
            (r#"{"start_when":{"any":[{"count":1}],"webhook":"ftp://x"}}"#, "https:// or http://"),
            (r#"{"start_when":{"any":[{"count":1}],"webhook":"https://x/***"}}"#, "write it whole"),
            (r#"{"start_when":{"any":[{"count":1}],"when":1}}"#, "\"when\" is not known"),
        ] {
            let problem = read(text).expect_err(text);
            assert_eq!(problem.reason, Reason::BadFrame);
            assert!(problem.text.contains(shows), "{text}: {problem}");
        }
        let problem = read(r#"{"leese":5,"ttl":"x","lease":0,"like":"y"}"#).unwrap_err();
        for shows in ["leese", "\"ttl\"", "lease is 0ns", "\"like\""] {
            assert!(problem.text.contains(shows), "{shows}: {problem}");
        }
    }

    #[test]
    fn seconds_are_written_as_people_write_them() {
        let settings = QueueSettings { lease: Duration::from_millis(1_500), ..QueueSettings::default() };
        let written = write_settings(&settings);
        assert!(
            written.contains(r#""lease":1.5,"#) && written.contains(r#""backoff":[1,10,60,300],"ttl":null"#),
            "{written}"
        );
    }
}
