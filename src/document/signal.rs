//! What the hub tells by itself: firings and figures of queues, runs of schedules.

use std::fmt::Write;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::body::compact;
use crate::domain::message::{Body, Publication};
use crate::domain::queue::{Arm, Firing, Queue, Stats, Totals};

/// What is told of a firing. `arm` is the condition that came true, where the settings still have it.
pub fn firing(firing: &Firing, arm: Option<&Arm>) -> Body {
    let Firing { queue, number, waiting, oldest, time, .. } = firing;
    let (sum, oldest) = (waiting.iter().sum::<u64>(), oldest.as_secs_f64());
    let mut out = format!(r#""data":{{"queue":"{queue}","number":{number},"waiting":{sum},"by_priority":{waiting:?}"#);
    let _ = write!(out, r#","oldest":{oldest}"#);
    let _ = match arm {
        Some(Arm::Count(count)) => write!(out, r#","why":{{"count":{count}}}"#),
        Some(Arm::Urgent { count, min_priority }) => {
            write!(out, r#","why":{{"count":{count},"min_priority":{}}}"#, min_priority.level())
        }
        Some(Arm::Oldest(age)) => write!(out, r#","why":{{"oldest":{}}}"#, age.as_secs_f64()),
        None => Ok(()),
    };
    let _ = write!(out, r#","time":{time}}}"#);
    Body::from_canonical(out.into())
}

/// What happened in a queue a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    pub put: f64,
    pub taken: f64,
    pub acked: f64,
    pub died: f64,
}

/// What is told of a queue tick by tick; the first tick knows no rates.
pub fn figures(queue: &Queue, seen: &Stats, rates: Option<Rates>) -> Body {
    let mut data = json!({ "queue": queue.as_str(), "stats": stats(seen) });
    if let Some(Rates { put, taken, acked, died }) = rates {
        data["rates"] = json!({ "put": put, "taken": taken, "acked": acked, "died": died });
    }
    Body::from_canonical(format!("\"data\":{data}").into())
}

/// The totals in a message of figures.
pub fn told_totals(body: &Body) -> Option<Totals> {
    let message: Value = serde_json::from_slice(&[&b"{"[..], body.as_bytes(), b"}"].concat()).ok()?;
    let totals = &message["data"]["stats"]["totals"];
    let of = |name: &str| totals[name].as_u64();
    Some(Totals {
        put: of("put")?,
        repeated: of("repeated")?,
        taken: of("taken")?,
        acked: of("acked")?,
        nacked: of("nacked")?,
        lease_ended: of("lease_ended")?,
        died: of("died")?,
        redriven: of("redriven")?,
        forgotten: of("forgotten")?,
    })
}

/// What is known of a queue, as every door tells it.
pub fn stats(stats: &Stats) -> Value {
    let mut out = Map::new();
    let mut set = |name: &str, value: Value| _ = out.insert(name.into(), value);
    set("waiting", json!(stats.waiting));
    set("parked", stats.parked.into());
    set("delayed", stats.delayed.into());
    set("in_flight", stats.in_flight.into());
    set("dead", stats.dead.into());
    set("bytes", stats.bytes.into());
    set("dead_bytes", stats.dead_bytes.into());
    if let Some(oldest) = stats.oldest {
        set("oldest", oldest.as_secs_f64().into());
    }
    set("paused", stats.paused.into());
    if let Some(open) = stats.gate_open {
        set("gate_open", open.into());
    }
    set("firings", stats.firings.into());
    set("seats", stats.seats.iter().map(|worker| worker.to_string()).collect::<Vec<_>>().into());
    let totals = stats.totals;
    set(
        "totals",
        json!({
            "put": totals.put, "repeated": totals.repeated, "taken": totals.taken, "acked": totals.acked,
            "nacked": totals.nacked, "lease_ended": totals.lease_ended, "died": totals.died,
            "redriven": totals.redriven, "forgotten": totals.forgotten,
        }),
    );
    Value::Object(out)
}

/// A body of nothing but this data, which is JSON.
pub fn data(json: &str) -> Body {
    let mut out = String::from("\"data\":");
    compact(json, &mut out);
    Body::from_canonical(out.into())
}

/// What is noted of a run of a schedule: its time, and the job or the message that it was.
pub fn run(due: u64, led_to: Option<(&str, &str)>) -> Body {
    let mut out = format!(r#""data":{{"run":{due}"#);
    if let Some((what, id)) = led_to {
        let _ = write!(out, r#","{what}":"{id}""#);
    }
    out.push('}');
    Body::from_canonical(out.into())
}

/// The time that such a note tells.
pub fn read_run(body: &Body) -> Option<u64> {
    #[derive(Deserialize)]
    struct Note {
        data: Run,
    }
    #[derive(Deserialize)]
    struct Run {
        run: Option<u64>,
    }
    let object = [b"{", &body.as_bytes()[..], b"}"].concat();
    serde_json::from_slice::<Note>(&object).ok()?.data.run
}

/// A message as a publisher hands it in.
pub fn published(publication: &Publication) -> Bytes {
    let mut out = format!(r#"{{"topic":"{}","#, publication.topic).into_bytes();
    out.extend_from_slice(publication.body.as_bytes());
    out.push(b'}');
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::queue::Priority;
    use std::time::Duration;

    #[test]
    fn the_note_of_a_run_is_read_as_it_was_written() {
        assert_eq!(read_run(&run(1_795_331_083_000, Some(("job", "k3.41")))), Some(1_795_331_083_000));
        assert_eq!(read_run(&run(7, None)), Some(7));
        assert_eq!(read_run(&data("{ \"run\": null }")), None);
        assert_eq!(read_run(&data("1")), None);
    }

    #[test]
    fn a_firing_says_what_it_saw_and_which_condition_came_true() {
        let mut waiting = [0; Priority::LEVELS];
        (waiting[4], waiting[7]) = (6, 3);
        let queue = Queue::parse("jobs").unwrap();
        let seen =
            Firing { queue, number: 3, waiting, oldest: Duration::from_millis(1500), arm: 0, time: 1_795_331_083_000 };
        let min_priority = Priority::new(7).unwrap();
        for (arm, why) in [
            (Some(Arm::Count(9)), json!({"count": 9})),
            (Some(Arm::Urgent { count: 3, min_priority }), json!({"count": 3, "min_priority": 7})),
            (Some(Arm::Oldest(Duration::from_secs(60))), json!({"oldest": 60})),
            (None, Value::Null),
        ] {
            let body = firing(&seen, arm.as_ref());
            let text = format!("{{{}}}", String::from_utf8_lossy(body.as_bytes()));
            let data = &serde_json::from_str::<Value>(&text).unwrap()["data"];
            assert_eq!(data["why"], why);
            assert_eq!((&data["waiting"], &data["oldest"], &data["number"]), (&json!(9), &json!(1.5), &json!(3)));
            assert_eq!(data["by_priority"], json!([0, 0, 0, 0, 6, 0, 0, 3, 0, 0]));
        }
    }
}
