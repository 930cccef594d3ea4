//! Bindings as they are written: `[bindings.audit]` with `topics`, `queue`, and where wanted `filter` and `priority`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::objects;
use crate::domain::binding::{Binding, Condition, MAX_BINDING, MOST_BINDINGS, MOST_CONDITIONS};
use crate::domain::queue::{Priority, Queue};
use crate::domain::topic::{BadPattern, Pattern};

pub const TAKES: &str =
    "bindings as JSON: {\"name\":\"audit\",\"topics\":\"orders.**\",\"queue\":\"jobs\"}, or an array of them";

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    topics: String,
    queue: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    filter: BTreeMap<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
}

pub fn read(texts: &[String]) -> Result<Vec<Binding>, String> {
    objects::read(texts, of, |binding: &Binding| &binding.name, MOST_BINDINGS)
}

/// Bindings as they would be given.
pub fn write(list: &[Binding]) -> String {
    let written = |binding: &Binding| Written {
        name: binding.name.to_string(),
        topics: binding.topics.to_string(),
        queue: binding.queue.to_string(),
        filter: binding
            .filter
            .iter()
            .filter_map(|condition| {
                let text = condition.to_string();
                // A tag's name may hold an `=`.
                let (of, is) = text.split_at(condition.of_len());
                Some((of.to_string(), Value::from(is.strip_prefix('=')?)))
            })
            .collect(),
        priority: Some(binding.priority.level()).filter(|_| binding.priority != Priority::DEFAULT),
    };
    match list.is_empty() {
        true => String::new(),
        false => serde_json::to_string(&list.iter().map(written).collect::<Vec<_>>()).expect("plain members"),
    }
}

fn of(written: Written) -> Result<Binding, String> {
    objects::check_name(&written.name, MAX_BINDING)?;
    let topics: Pattern = written.topics.parse().map_err(|error: BadPattern| format!("topics: {error}"))?;
    if written.topics.starts_with('$') {
        return Err("topics: those of the hub itself, which begin with '$', are not bound".into());
    }
    let queue = Queue::parse(&written.queue).map_err(|error| format!("queue: {error}"))?;
    let mut filter = Vec::new();
    for (of, is) in &written.filter {
        conditions(of, is, &mut filter).map_err(|why| format!("filter: {why}"))?;
    }
    if filter.len() > MOST_CONDITIONS {
        return Err(format!("filter: {} conditions are too many, at most {MOST_CONDITIONS} are taken", filter.len()));
    }
    let priority = match written.priority {
        Some(level) => {
            Priority::new(level).ok_or_else(|| format!("priority: {level} does not fit; it takes 0 to 9"))?
        }
        None => Priority::DEFAULT,
    };
    Ok(Binding { name: written.name.into(), topics, queue, filter, priority })
}

/// A text, `true` for "there is one", or a table of tags.
fn conditions(of: &str, is: &Value, filter: &mut Vec<Condition>) -> Result<(), String> {
    match is {
        Value::String(text) => filter.push(Condition::parse(of, text)?),
        Value::Bool(true) => filter.push(Condition::parse(of, "*")?),
        Value::Object(tags) if of == "tags" => {
            for (tag, is) in tags {
                conditions(&format!("tags.{tag}"), is, filter)?;
            }
        }
        _ => return Err(format!("{of} is a text, a text with * at its end for what begins so, or true for any")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Vec<Binding>, String> {
        read(&[text.to_string()])
    }

    #[test]
    fn bindings_are_written_as_they_are_read() {
        for (text, written) in [
            (
                r#"{"name":"audit","topics":"orders.**","queue":"jobs"}"#,
                r#"[{"name":"audit","topics":"orders.**","queue":"jobs"}]"#,
            ),
            (
                r#"[{"name":"a","topics":"a","queue":"q","filter":{"tags":{"x=y":"1"},"name":"o*","key":true},"priority":7}]"#,
                r#"[{"name":"a","topics":"a","queue":"q","filter":{"key":"*","name":"o*","tags.x=y":"1"},"priority":7}]"#,
            ),
            ("", ""),
        ] {
            let list = one(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
            assert_eq!(write(&list), written);
            let mut again = one(written).unwrap();
            again.iter_mut().for_each(|binding| binding.filter.sort_by_key(ToString::to_string));
            let mut list = list;
            list.iter_mut().for_each(|binding| binding.filter.sort_by_key(ToString::to_string));
            assert_eq!(again, list);
        }
    }

    #[test]
    fn what_is_wrong_with_a_binding_is_told_with_what_would_do() {
        for (members, shows) in [
            (r#""topics":"a""#, "queue"),
            (r#""topics":"a.**.b","queue":"q""#, "at the end only"),
            (r#""topics":"$queue.**","queue":"q""#, "not bound"),
            (r#""topics":"a","queue":"$q""#, "'$'"),
            (r#""topics":"a","queue":"q","priority":10"#, "0 to 9"),
            (r#""topics":"a","queue":"q","filter":{"data":"x"}"#, "tags.NAME"),
            (r#""topics":"a","queue":"q","filter":{"name":1}"#, "name is a text"),
            (r#""topics":"a","queue":"q","prioritty":1"#, "prioritty"),
        ] {
            let fault = one(&format!(r#"{{"name":"a",{members}}}"#)).unwrap_err();
            assert!(fault.contains(shows), "{members}: {fault}");
        }
        assert!(one(r#"{"name":"a.b","topics":"a","queue":"q"}"#).unwrap_err().contains("A-Z a-z"));
        assert!(one("audit").unwrap_err().contains("not JSON"));
        let twice = r#"[{"name":"a","topics":"a","queue":"q"},{"name":"a","topics":"b","queue":"q"}]"#;
        assert!(one(twice).unwrap_err().contains("two of the name \"a\""));
    }
}
