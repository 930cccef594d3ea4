//! What a job has beside the content of a message: when, in which order, and whether it was there before.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::value::RawValue;

use super::members::Members;
use super::moment::{millis, now};
use crate::domain::error::{Problem, Reason};
use crate::domain::message::Body;
use crate::domain::name::Topic;
use crate::domain::queue::{Dedupe, Due, MAX_DELAY, MAX_GROUP, Priority, Put};

/// How long a de-duplication key may be remembered.
const MOST_WINDOW: Duration = Duration::from_secs(24 * 3600);
const MOST_NESTING: usize = 128;

/// The terms on which a job is put, still unchecked against one another.
#[derive(Debug, Default)]
pub struct JobTerms<'a> {
    pub priority: Option<Priority>,
    pub delay: Option<Duration>,
    /// Milliseconds since 1970.
    pub deliver_at: Option<u64>,
    pub group: Option<Cow<'a, str>>,
    pub dedupe: Option<Cow<'a, str>>,
    pub dedupe_window: Option<Duration>,
}

impl<'a> JobTerms<'a> {
    pub const NAMES: [&'static str; 6] = ["priority", "delay", "deliver_at", "group", "dedupe", "dedupe_window"];

    /// Takes them out of the members of a document or frame.
    pub fn take(members: &mut Members<'a>) -> Result<JobTerms<'a>, Problem> {
        let number = |raw: &RawValue| serde_json::from_str::<f64>(raw.get()).ok();
        Ok(JobTerms {
            priority: members
                .take("priority")
                .map(|raw| priority(serde_json::from_str(raw.get()).ok(), raw.get()))
                .transpose()?,
            delay: members.take("delay").map(|raw| wait("delay", number(raw))).transpose()?,
            deliver_at: members.text("deliver_at")?.map(|text| moment(&text)).transpose()?,
            group: members.text("group")?,
            dedupe: members.text("dedupe")?,
            dedupe_window: members.take("dedupe_window").map(|raw| wait("dedupe_window", number(raw))).transpose()?,
        })
    }

    /// Takes one of `NAMES` as plain text: a field of a stream entry, a parameter of a URL. Other names are a fault of the
    /// caller's.
    pub fn put(&mut self, name: &str, text: &'a str) -> Result<(), Problem> {
        fn once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), Problem> {
            match slot.replace(value) {
                None => Ok(()),
                Some(_) => Err(bad(format!("the field {name:?} stands twice"))),
            }
        }
        match name {
            "priority" => once(&mut self.priority, name, priority(text.parse().ok(), text)?),
            "delay" => once(&mut self.delay, name, wait(name, text.parse().ok())?),
            "deliver_at" => once(&mut self.deliver_at, name, moment(text)?),
            "group" => once(&mut self.group, name, text.into()),
            "dedupe" => once(&mut self.dedupe, name, text.into()),
            "dedupe_window" => once(&mut self.dedupe_window, name, wait(name, text.parse().ok())?),
            _ => unreachable!("{name} is none of the terms of a job"),
        }
    }

    /// Checks what goes together, and puts it to a job.
    pub(super) fn of(self, put: Put) -> Result<Put, Problem> {
        let words = [("group", &self.group), ("dedupe", &self.dedupe)].map(|(name, word)| (name, word.as_deref()));
        for (name, word) in words.into_iter().chain([("idempotency_key", put.idempotency_key.as_deref())]) {
            check_word(name, word)?;
        }
        let due = match (self.delay, self.deliver_at) {
            (None, None) => Due::Default,
            (Some(_), Some(_)) => return Err(bad("\"delay\" and \"deliver_at\" say one thing in two ways; send one")),
            _ if self.group.is_some() => {
                let text = "a job of a \"group\" waits for those before it and takes no \"delay\" or \"deliver_at\"; leave \
                            one of them out";
                return Err(bad(text));
            }
            (Some(delay), None) if delay > MAX_DELAY => return Err(too_far("delay")),
            (Some(delay), None) => Due::After(delay),
            (None, Some(at)) if at.saturating_sub(now()) > MAX_DELAY.as_millis() as u64 => {
                return Err(too_far("deliver_at"));
            }
            (None, Some(at)) => Due::At(at),
        };
        let dedupe = match (self.dedupe, self.dedupe_window) {
            (None, None) => None,
            (None, Some(_)) => {
                return Err(bad("\"dedupe_window\" is the time for which a \"dedupe\" key is remembered"));
            }
            (Some(_), Some(window)) if window > MOST_WINDOW => {
                return Err(bad("\"dedupe_window\" is at most 1 day (86400 seconds)"));
            }
            (Some(key), window) => Some(Dedupe { key: key.into(), window }),
        };
        let priority = self.priority.unwrap_or_default();
        Ok(Put { priority, due, group: self.group.map(Into::into), dedupe, ..put })
    }
}

/// What a job says of the request that it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub reply_to: Topic,
    pub request: String,
}

/// Whether somebody waits for an answer to this job, and where.
pub fn asked(body: &Body) -> Option<Asked> {
    let object = [b"{", &body.as_bytes()[..], b"}"].concat();
    let mut members = Members::read(&object, "a job", MOST_NESTING).ok()?;
    let reply_to = Topic::parse(&members.text("reply_to").ok()??).ok()?;
    Some(Asked { reply_to, request: members.text("request").ok()??.into_owned() })
}

fn check_word(name: &str, word: Option<&str>) -> Result<(), Problem> {
    match word {
        Some("") => Err(bad(format!("{name:?} is empty; leave it out instead"))),
        Some(word) if word.len() > MAX_GROUP => {
            let text = format!("{name:?} has {} bytes, at most {MAX_GROUP} are taken", word.len());
            Err(Problem::new(Reason::TooLarge, text))
        }
        Some(word) if name == "group" && word.contains(char::is_control) => {
            Err(bad("\"group\" is a name and holds no control characters"))
        }
        _ => Ok(()),
    }
}

fn priority(level: Option<u8>, shown: &str) -> Result<Priority, Problem> {
    level.and_then(Priority::new).ok_or_else(|| {
        let shown: String = shown.chars().take(40).collect();
        bad(format!("\"priority\" is a whole number from 0 to 9, the highest is taken first; not {shown}"))
    })
}

/// Seconds, none at all among them.
fn wait(name: &str, seconds: Option<f64>) -> Result<Duration, Problem> {
    let wait = seconds.filter(|s| *s >= 0.0).and_then(|s| Duration::try_from_secs_f64(s).ok());
    wait.ok_or_else(|| bad(format!("{name:?} is a number of seconds, 0 or more")))
}

fn moment(text: &str) -> Result<u64, Problem> {
    millis(text).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        let takes = "\"deliver_at\" is a time with its zone, like 2026-11-25T12:00:00Z (in a URL a + is written %2B)";
        bad(format!("{takes}, not {shown:?}"))
    })
}

fn too_far(name: &str) -> Problem {
    bad(format!("{name:?} lies at most 365 days ahead"))
}

fn bad(text: impl Into<String>) -> Problem {
    Problem::new(Reason::BadFrame, text)
}

#[cfg(test)]
mod tests {
    use super::super::reply::address;
    use super::super::{Document, Item, fields, one};
    use super::*;
    use crate::domain::limits::Limits;

    fn job(document: Result<Document, Problem>) -> (Put, Vec<String>) {
        match document.unwrap() {
            Document { item: Item::Job(put), ignored } => (put, ignored),
            other => panic!("no job: {other:?}"),
        }
    }

    fn entry(list: &[(&str, &str)]) -> Result<Document, Problem> {
        fields(list.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())), &Limits::default())
    }

    #[test]
    fn the_document_and_the_stream_entry_give_the_same_job() {
        let json = r#"{"queue":"jobs","data":{"n": 1},"priority":7,"group":"g","dedupe":"k","dedupe_window":60,"ttl":1.5,
                       "durability":"disk","idempotency_key":"i"}"#;
        let list = [
            ("queue", "jobs"),
            ("data", "{\"n\": 1}"),
            ("priority", "7"),
            ("group", "g"),
            ("dedupe", "k"),
            ("dedupe_window", "60"),
            ("ttl", "1.5"),
            ("durability", "disk"),
            ("idempotency_key", "i"),
        ];
        let (put, ignored) = job(one(json.as_bytes(), &Limits::default()));
        assert_eq!((&put, &ignored), (&job(entry(&list)).0, &Vec::new()));
        assert_eq!(put.priority.level(), 7);
        assert_eq!(put.group.as_deref(), Some("g"));
        assert_eq!(put.dedupe, Some(Dedupe { key: "k".into(), window: Some(Duration::from_secs(60)) }));
        assert_eq!(put.body.as_bytes(), r#""ttl":1.5,"data":{"n":1}"#);
    }

    #[test]
    fn a_delay_is_seconds_and_a_time_is_rfc_3339() {
        for (name, text, due) in [
            ("delay", "0", Due::After(Duration::ZERO)),
            ("delay", "2.5", Due::After(Duration::from_millis(2_500))),
            ("deliver_at", "1970-01-01T00:00:02Z", Due::At(2_000)),
            ("deliver_at", "1970-01-01T09:00:02+09:00", Due::At(2_000)),
        ] {
            let (put, _) = job(entry(&[("queue", "jobs"), ("data", "1"), (name, text)]));
            assert_eq!(put.due, due, "{name} {text}");
        }
        assert_eq!(job(entry(&[("queue", "jobs"), ("data", "1")])).0.due, Due::Default);
    }

    #[test]
    fn what_only_jobs_have_is_ignored_in_a_message_and_said_so() {
        let document = entry(&[("topic", "a"), ("data", "1"), ("priority", "x"), ("group", "g")]).unwrap();
        assert_eq!(document.ignored, ["priority", "group"]);
        let document = one(br#"{"topic":"a","data":1,"delay":5}"#, &Limits::default()).unwrap();
        assert_eq!(document.ignored, ["delay"]);
        assert_eq!(job(one(br#"{"queue":"a","data":1,"at":"x"}"#, &Limits::default())).1, ["at"]);
    }

    #[test]
    fn words_have_a_bound_and_stand_once() {
        let long = "x".repeat(MAX_GROUP + 1);
        for name in ["group", "dedupe", "idempotency_key"] {
            let problem = entry(&[("queue", "a"), ("data", "1"), (name, &long)]).unwrap_err();
            assert_eq!(problem.reason, Reason::TooLarge, "{problem}");
        }
        for name in JobTerms::NAMES {
            let value = if name == "deliver_at" { "1970-01-01T00:00:02Z" } else { "1" };
            let problem = entry(&[("queue", "a"), ("data", "1"), (name, value), (name, value)]).unwrap_err();
            assert!(problem.text.contains("twice"), "{problem}");
        }
    }

    #[test]
    fn a_request_stays_with_its_job_and_nobody_can_make_one_up() {
        let (put, _) = job(one(br#"{"queue":"jobs","data":1}"#, &Limits::default()));
        let reply_to = Topic::parse("$inbox.c9").unwrap();
        let body = address(&put.body, &reply_to, "r7");
        assert_eq!(body.as_bytes(), r#""reply_to":"$inbox.c9","request":"r7","data":1"#);
        assert_eq!(asked(&body), Some(Asked { reply_to, request: "r7".into() }));
        let text = br#"{"queue":"jobs","data":{"reply_to":"a"},"reply_to":"a","request":"r"}"#;
        let (put, ignored) = job(one(text, &Limits::default()));
        assert_eq!((asked(&put.body), ignored), (None, vec!["reply_to".to_string(), "request".to_string()]));
    }
}
