//! Jobs as every door gives them out: what the queue knows, then the body as it was put.

use std::fmt::Write;

use bytes::Bytes;

use super::body::quote_into;
use crate::domain::queue::{Attempt, AttemptEnd, Job, Place, Priority, Queue, Seen};

/// A job for whoever took it, under the tag of its delivery.
pub fn job(job: &Job, tag: &str) -> Bytes {
    let mut out = String::with_capacity(job.body.as_bytes().len() + 200);
    let Job { queue, id, tries, max_tries, time, .. } = job;
    // Names, ids and tags hold nothing that JSON would escape.
    let _ = write!(out, r#"{{"queue":"{queue}","job":"{id}","tag":"{tag}","try":{tries},"max":{max_tries}"#);
    let _ = write!(out, r#","lease":{}"#, job.lease.as_secs_f64());
    terms(&mut out, job.priority, job.group.as_deref());
    let _ = write!(out, r#","time":{time},"#);
    closed(out, job.body.as_bytes())
}

/// A job for whoever looks at it.
pub fn seen(queue: &Queue, seen: &Seen) -> Bytes {
    let mut out = String::with_capacity(seen.body.as_bytes().len() + 300);
    let Seen { id, tries, time, .. } = seen;
    let _ = write!(out, r#"{{"queue":"{queue}","job":"{id}","place":"{}","tries":{tries}"#, place(seen.place));
    terms(&mut out, seen.priority, seen.group.as_deref());
    let _ = write!(out, r#","time":{time}"#);
    for (name, value) in [("until", seen.until), ("expires", seen.expires)] {
        if let Some(value) = value {
            let _ = write!(out, r#","{name}":{value}"#);
        }
    }
    if let Some(death) = seen.death {
        let _ = write!(out, r#","cause":"{}""#, death.as_str());
    }
    if let Some(error) = seen.attempts.last().and_then(|attempt| attempt.error.as_deref()) {
        out.push_str(",\"error\":");
        quote_into(&mut out, error);
    }
    out.push_str(",\"attempts\":[");
    for (i, attempt) in seen.attempts.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_attempt(&mut out, attempt);
    }
    out.push_str("],");
    closed(out, seen.body.as_bytes())
}

/// The words for places, in queries and in answers.
pub fn place(place: Place) -> &'static str {
    match place {
        Place::Ready => "ready",
        Place::Parked => "parked",
        Place::Delayed => "delayed",
        Place::InFlight => "in-flight",
        Place::Dead => "dead",
    }
}

/// The place that a word names.
pub fn parse_place(word: &str) -> Option<Place> {
    [Place::Ready, Place::Parked, Place::Delayed, Place::InFlight, Place::Dead].into_iter().find(|p| place(*p) == word)
}

fn terms(out: &mut String, priority: Priority, group: Option<&str>) {
    if priority != Priority::DEFAULT {
        let _ = write!(out, r#","priority":{}"#, priority.level());
    }
    if let Some(group) = group {
        out.push_str(",\"group\":");
        quote_into(out, group);
    }
}

fn write_attempt(out: &mut String, attempt: &Attempt) {
    let end = match attempt.end {
        AttemptEnd::Nack => "nack",
        AttemptEnd::Term => "term",
        AttemptEnd::Lease => "lease",
    };
    let _ = write!(out, r#"{{"time":{},"end":"{end}","worker":"#, attempt.time);
    quote_into(out, &attempt.worker);
    if let Some(error) = &attempt.error {
        out.push_str(",\"error\":");
        quote_into(out, error);
    }
    out.push('}');
}

fn closed(out: String, body: &[u8]) -> Bytes {
    let mut out = out.into_bytes();
    out.extend_from_slice(body);
    out.push(b'}');
    out.into()
}
