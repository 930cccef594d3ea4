//! Schedules as they are written: `[schedules.nightly]` with `cron`, `queue` or `topic`, and where wanted `timezone`, `data`,
//! `priority` and `catch_up`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::objects;
use crate::domain::name::Topic;
use crate::domain::queue::{Priority, Queue};
use crate::domain::schedule::{Cron, MAX_SCHEDULE, MOST_SCHEDULES, Schedule, Target};

pub const TAKES: &str = "schedules as JSON: {\"name\":\"nightly\",\"cron\":\"0 2 * * *\",\"queue\":\"jobs\",\"data\":{}}, or an array of them";

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    cron: String,
    #[serde(default = "utc")]
    timezone: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queue: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(default)]
    data: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(default = "yes")]
    catch_up: bool,
}

fn utc() -> String {
    "UTC".into()
}

fn yes() -> bool {
    true
}

pub fn read(texts: &[String]) -> Result<Vec<Schedule>, String> {
    objects::read(texts, of, |schedule: &Schedule| &schedule.name, MOST_SCHEDULES)
}

/// Schedules as they would be given.
pub fn write(list: &[Schedule]) -> String {
    let written = |schedule: &Schedule| {
        let (queue, topic, priority) = match &schedule.target {
            Target::Queue { queue, priority } => {
                let level = Some(priority.level()).filter(|_| *priority != Priority::DEFAULT);
                (Some(queue.to_string()), None, level)
            }
            Target::Topic(topic) => (None, Some(topic.to_string()), None),
        };
        Written {
            name: schedule.name.to_string(),
            cron: schedule.cron.as_str().into(),
            timezone: schedule.cron.zone().into(),
            queue,
            topic,
            data: serde_json::from_str(&schedule.data).expect("it was written as JSON"),
            priority,
            catch_up: schedule.catch_up,
        }
    };
    match list.is_empty() {
        true => String::new(),
        false => serde_json::to_string(&list.iter().map(written).collect::<Vec<_>>()).expect("plain members"),
    }
}

fn of(written: Written) -> Result<Schedule, String> {
    let Written { name, cron, timezone, queue, topic, data, priority, catch_up } = written;
    objects::check_name(&name, MAX_SCHEDULE)?;
    let cron = Cron::parse(&cron, &timezone)?;
    let target = match (queue, topic, priority) {
        (Some(queue), None, priority) => {
            let queue = Queue::parse(&queue).map_err(|error| format!("queue: {error}"))?;
            let known = |level| Priority::new(level).ok_or(format!("priority: {level} does not fit; it takes 0 to 9"));
            Target::Queue { queue, priority: priority.map_or(Ok(Priority::DEFAULT), known)? }
        }
        (None, Some(topic), None) => {
            let topic = Topic::parse(&topic).map_err(|error| format!("topic: {error}"))?;
            if topic.is_reserved() {
                return Err("topic: those that begin with '$' are the hub's own".into());
            }
            Target::Topic(topic)
        }
        (None, Some(_), Some(_)) => return Err("priority: only jobs have one, and this schedule names a topic".into()),
        _ => return Err("a schedule names a queue or a topic, one of them".into()),
    };
    Ok(Schedule { name: name.into(), cron, target, data: data.to_string().into(), catch_up })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Vec<Schedule>, String> {
        read(&[text.to_string()])
    }

    #[test]
    fn schedules_are_written_as_they_are_read() {
        for (text, written) in [
            (
                r#"{"name":"nightly","cron":"0 2 * * *","timezone":"Asia/Seoul","queue":"jobs","data":{"a":[1, 2]},"priority":7}"#,
                r#"[{"name":"nightly","cron":"0 2 * * *","timezone":"Asia/Seoul","queue":"jobs","data":{"a":[1,2]},"priority":7,"catch_up":true}]"#,
            ),
            (
                r#"{"name":"tick","cron":"* * * * *","topic":"time","catch_up":false}"#,
                r#"[{"name":"tick","cron":"* * * * *","timezone":"UTC","topic":"time","data":null,"catch_up":false}]"#,
            ),
            ("", ""),
        ] {
            let list = one(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
            assert_eq!(write(&list), written);
            assert_eq!(one(written).unwrap(), list);
        }
    }

    #[test]
    fn what_is_wrong_with_a_schedule_is_told_with_what_would_do() {
        for (members, shows) in [
            (r#""cron":"0 2 * * *""#, "a queue or a topic"),
            (r#""cron":"0 2 * * *","queue":"q","topic":"t""#, "one of them"),
            (r#""cron":"0 2 * * *","topic":"t","priority":7"#, "only jobs"),
            (r#""cron":"0 2 * * *","topic":"$t""#, "the hub's own"),
            (r#""cron":"at night","queue":"q""#, "\"0 2 * * *\""),
            (r#""cron":"0 2 * * *","timezone":"Korea","queue":"q","prio":1"#, "prio"),
            (r#""cron":"0 2 * * *","timezone":"Seoul","queue":"q""#, "Asia/Seoul"),
            (r#""cron":"0 2 * * *","queue":"q","priority":12"#, "0 to 9"),
        ] {
            let fault = one(&format!(r#"{{"name":"a",{members}}}"#)).unwrap_err();
            assert!(fault.contains(shows), "{members}: {fault}");
        }
    }
}
