//! Rules for topics as they are written: `chat.*: mode=live`, or in the file a table `[topics."chat.*"]`.

use std::fmt::Write;

use super::unit::{Kind, Value};
use crate::domain::topic::{BadPattern, MOST_RULES, Mode, Pattern, Rule, Slow};

pub const TAKES: &str = "rules joined by semicolons, each PATTERN: NAME=VALUE, …; the names are mode (log, live or latest), \
                         messages, bytes, age, record_age, slow (resume, conflate, drop-oldest or cut)";

/// The names of a rule's settings, each with what it takes: as for all topics.
const FIELDS: [(&str, &str); 4] = [
    ("messages", "history_messages"),
    ("bytes", "history_bytes"),
    ("age", "history_age"),
    ("record_age", "record_age"),
];

/// Rules in the order in which they are written, each text one or several of them; or all that is wrong with them.
pub fn read(texts: &[String]) -> Result<Vec<Rule>, String> {
    gather(texts, "topic", rule, |rule| &rule.pattern)
}

/// Rules of any kind, which `rule` reads one by one; `what` names what they are for.
pub(super) fn gather<R>(
    texts: &[String],
    what: &str,
    rule: impl Fn(&str) -> Result<R, String>,
    pattern: impl Fn(&R) -> &Pattern,
) -> Result<Vec<R>, String> {
    let mut rules: Vec<R> = Vec::new();
    let mut faults = Vec::new();
    for text in texts.iter().flat_map(|text| text.split(';')).map(str::trim).filter(|text| !text.is_empty()) {
        match rule(text) {
            Ok(rule) if rules.iter().any(|other| pattern(other) == pattern(&rule)) => {
                let pattern = pattern(&rule);
                faults.push(format!("{pattern} has a rule already; the first one that a {what} meets counts"));
            }
            Ok(rule) => rules.push(rule),
            Err(fault) => faults.push(fault),
        }
    }
    if rules.len() > MOST_RULES {
        faults.push(format!("{} rules are too many, at most {MOST_RULES} are taken", rules.len()));
    }
    if faults.is_empty() { Ok(rules) } else { Err(faults.join("; ")) }
}

/// A rule as it would be given.
pub fn write(rules: &[Rule]) -> String {
    let mut out = String::new();
    for rule in rules {
        let separator = if out.is_empty() { "" } else { "; " };
        let _ = write!(out, "{separator}{}:", rule.pattern);
        let number = |value: Option<u64>| value.map(Value::Number);
        let fields = [
            ("mode", rule.mode.map(|mode| Value::Text(mode.as_str().to_string()))),
            ("messages", number(rule.messages)),
            ("bytes", number(rule.bytes)),
            ("age", rule.age.map(Value::Duration)),
            ("record_age", rule.record.map(Value::Duration)),
            ("slow", rule.slow.map(|slow| Value::Text(slow.as_str().to_string()))),
        ];
        let given = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
        for (n, (name, value)) in given.enumerate() {
            let text = kind(name).map_or_else(|| Kind::Flag.write(&value), |kind| kind.write(&value));
            let _ = write!(out, "{} {name}={text}", if n > 0 { "," } else { "" });
        }
    }
    out
}

fn rule(text: &str) -> Result<Rule, String> {
    let shown: String = text.chars().take(80).collect();
    let (pattern, fields) = split(text, |name| ["mode", "slow"].contains(&name) || kind(short(name)).is_some())
        .ok_or_else(|| format!("{shown:?} is no rule; write PATTERN: NAME=VALUE, as in \"chat.*: mode=live\""))?;
    let fields = fields.split(',').map(str::trim).map(|field| {
        let named = field.split_once('=').ok_or_else(|| format!("{field:?} is not NAME=VALUE"));
        named.map(|(name, value)| (name.trim().to_string(), value.trim().to_string()))
    });
    fields
        .collect::<Result<Vec<_>, _>>()
        .and_then(|fields| of(pattern, &fields))
        .map_err(|why| format!("{shown:?}: {why}"))
}

/// A rule of a pattern and its fields, as a table of the file holds them.
pub fn of(pattern: &str, fields: &[(String, String)]) -> Result<Rule, String> {
    let mut rule = Rule::new(pattern.trim().parse().map_err(|error: BadPattern| error.to_string())?);
    let mut given: Vec<&str> = Vec::new();
    for (name, value) in fields {
        let name = short(name);
        if given.contains(&name) {
            return Err(format!("{name} stands twice"));
        }
        given.push(name);
        put(&mut rule, name, value).map_err(|why| format!("{name}: {why}"))?;
    }
    match given.is_empty() {
        true => Err("a rule says at least one thing, such as mode = \"live\"".into()),
        false => Ok(rule),
    }
}

fn put(rule: &mut Rule, name: &str, value: &str) -> Result<(), String> {
    if name == "mode" {
        let mode = Mode::parse(value).ok_or_else(|| format!("{value:?} does not fit; it takes log, live or latest"))?;
        rule.mode = Some(mode);
        return Ok(());
    }
    if name == "slow" {
        let takes = || format!("{value:?} does not fit; it takes resume, conflate, drop-oldest or cut");
        rule.slow = Some(Slow::parse(value).ok_or_else(takes)?);
        return Ok(());
    }
    let kind = kind(name)
        .ok_or("there is no such setting of a topic; there are mode, messages, bytes, age, record_age, slow")?;
    match (name, kind.read(&[value.to_string()])?) {
        ("messages", Value::Number(value)) => rule.messages = Some(value),
        ("bytes", Value::Number(value)) => rule.bytes = Some(value),
        ("age", Value::Duration(value)) => rule.age = Some(value),
        (_, Value::Duration(value)) => rule.record = Some(value),
        _ => unreachable!("the kind of {name} fits it"),
    }
    Ok(())
}

/// The bounds are those of the setting for all topics.
fn kind(name: &str) -> Option<Kind> {
    let (_, setting) = FIELDS.iter().find(|(short, _)| *short == name)?;
    super::SETTINGS.iter().find(|known| known.name == *setting).map(|setting| setting.kind)
}

/// The names of the settings for all topics are taken too.
fn short(name: &str) -> &str {
    FIELDS.iter().find(|(_, long)| *long == name).map_or(name, |(short, _)| short)
}

/// Pattern and fields. The colon may stand in names of topics and queues: the one that ends the pattern is followed by a
/// space or by a first field.
pub fn split(text: &str, is_name: impl Fn(&str) -> bool) -> Option<(&str, &str)> {
    let is_field = |rest: &str| rest.split_once('=').is_some_and(|(name, _)| is_name(name));
    text.match_indices(':')
        .map(|(at, _)| (&text[..at], &text[at + 1..]))
        .find(|(_, rest)| rest.is_empty() || rest.starts_with(char::is_whitespace) || is_field(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> Result<Vec<Rule>, String> {
        read(&[text.to_string()])
    }

    #[test]
    fn rules_are_written_as_they_are_read() {
        for (text, written) in [
            ("chat.*: mode=live", "chat.*: mode=live"),
            (" chat.* :messages=50,  age=1h ; **: mode=latest", "chat.*: messages=50, age=1h; **: mode=latest"),
            ("a:b:mode=log", "a:b: mode=log"),
            ("a: history_bytes=64KiB, record_age=2d", "a: bytes=64KiB, record_age=2d"),
            ("a:slow=cut; b: slow=drop-oldest, mode=log", "a: slow=cut; b: mode=log, slow=drop-oldest"),
            ("", ""),
        ] {
            let rules = one(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
            assert_eq!(write(&rules), written);
            assert_eq!(one(written).unwrap(), rules);
        }
        let several = read(&["a: mode=live".into(), "b: mode=latest; c: messages=1".into()]).unwrap();
        assert_eq!(several.len(), 3);
    }

    #[test]
    fn what_is_wrong_with_a_rule_is_told_all_together() {
        for (text, shows) in [
            ("chat.*", "PATTERN: NAME=VALUE"),
            ("chat.*: live", "\"live\" is not NAME=VALUE"),
            ("chat.*:", "is not NAME=VALUE"),
            ("chat.*: mode=lively", "it takes log, live or latest"),
            ("chat.*: slow=down", "it takes resume, conflate, drop-oldest or cut"),
            ("chat.*: color=red", "there is no such setting of a topic"),
            ("chat.*: messages=0", "a number from 1"),
            ("chat.*: age=5", "write \"5s\""),
            ("chat.*: mode=live, mode=log", "stands twice"),
            ("chat.ro*: mode=live", "whole segment"),
            ("a b: mode=live", "' '"),
            ("a: mode=live; a: mode=log", "has a rule already"),
        ] {
            let fault = one(text).unwrap_err();
            assert!(fault.contains(shows), "{text}: {fault}");
        }
        let faults = one("a: mode=x; b; c: mode=live").unwrap_err();
        assert!(faults.contains("\"a: mode=x\"") && faults.contains("\"b\""), "{faults}");
        let many: Vec<String> = (0..=MOST_RULES).map(|n| format!("t{n}: mode=live")).collect();
        assert!(read(&many).unwrap_err().contains("too many"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[a-c*.:;,= ]{0,3}(mode|age|messages)?[a-c*.:;,=1s ]{0,12}") {
            if let Ok(rules) = one(&text) {
                prop_assert_eq!(one(&write(&rules)).unwrap(), rules);
            }
        }
    }
}
