//! Frames about queues to commands.

use std::time::Duration;

use serde_json::value::RawValue;

use super::decode::{clip, number};
use crate::document::{self, Content, JobTerms, Members};
use crate::domain::command::{Asking, Command, Refusal, Settlement, Subject};
use crate::domain::error::{Problem, Reason};
use crate::domain::limits::Limits;
use crate::domain::name::Topic;
use crate::domain::queue::{How, MOST_AT_ONCE, Queue};

/// The verbs of queues; `nak` is taken for `nack`.
pub const VERBS: [&str; 8] = ["put", "take", "untake", "ack", "nack", "extend", "term", "request"];
/// Bytes of a tag.
const TAG: usize = 64;

pub fn command(
    verb: &'static str,
    value: &RawValue,
    members: &mut Members<'_>,
    refusal: &mut Refusal,
    limits: &Limits,
) -> Result<Command, Problem> {
    match verb {
        "put" => {
            let queue = queue(verb, value, refusal)?;
            let content = Content::take(members)?;
            Ok(Command::Put(Box::new(content.put(queue, JobTerms::take(members)?, limits)?)))
        }
        "take" => {
            let queue = queue(verb, value, refusal)?;
            let credit = number(members, "credit", limits.credit as u32)?.unwrap_or(1) as usize;
            Ok(Command::Take { queue, credit, lease: lease(members, "lease")? })
        }
        "untake" => Ok(Command::Untake { queue: queue(verb, value, refusal)? }),
        "request" => {
            let queue = queue(verb, value, refusal)?;
            let reply_to = members.text("reply_to")?.map(|name| inbox(&name)).transpose()?;
            let timeout = timeout(members, limits)?;
            let put = Content::take(members)?.put(queue, JobTerms::take(members)?, limits)?;
            Ok(Command::Request(Box::new(Asking { put, timeout, reply_to })))
        }
        _ => settlement(verb, value, members, refusal),
    }
}

fn settlement(
    verb: &'static str,
    value: &RawValue,
    members: &mut Members<'_>,
    refusal: &mut Refusal,
) -> Result<Command, Problem> {
    let tags = tags(verb, value)?;
    refusal.about = tags.first().cloned().map(Subject::Tag);
    let how = match verb {
        "ack" => How::Ack,
        "nack" => How::Nack { delay: delay(members)?, error: error(members)? },
        "term" => How::Term { error: error(members)? },
        _ => How::Extend { by: lease(members, "by")? },
    };
    let reply = match verb {
        "ack" => members.take("reply").map(document::reply_body),
        _ => None,
    };
    Ok(Command::Settle(Settlement { verb, tags, how, reply }))
}

fn tags(verb: &str, value: &RawValue) -> Result<Vec<Box<str>>, Problem> {
    let raw = value.get();
    let tags = match raw.starts_with('[') {
        true => serde_json::from_str::<Vec<Box<str>>>(raw).ok(),
        false => serde_json::from_str::<Box<str>>(raw).ok().map(|tag| vec![tag]),
    };
    let is_good = |tags: &Vec<Box<str>>| tags.iter().all(|tag| tag.len() <= TAG);
    match tags.filter(is_good) {
        Some(tags) if (1..=MOST_AT_ONCE).contains(&tags.len()) => Ok(tags),
        Some(tags) => {
            let text = format!("{verb:?} takes 1 to {MOST_AT_ONCE} tags, here are {}", tags.len());
            Err(Problem::new(Reason::TooMany, text))
        }
        None => {
            let text = format!("the value of {verb:?} is the \"tag\" of a job, or an array of them, not {}", clip(raw));
            Err(Problem::new(Reason::BadFrame, text))
        }
    }
}

fn queue(verb: &str, value: &RawValue, refusal: &mut Refusal) -> Result<Queue, Problem> {
    let Ok(name) = serde_json::from_str::<String>(value.get()) else {
        let text = format!("the value of {verb:?} is the name of a queue, not {}", clip(value.get()));
        return Err(Problem::new(Reason::BadFrame, text));
    };
    refusal.about = Some(Subject::Queue(clip(&name)));
    Ok(Queue::parse(&name)?)
}

fn inbox(name: &str) -> Result<Topic, Problem> {
    let topic = Topic::parse(name)?;
    match topic.is_inbox() && !topic.is_inbox_of_node() {
        true => Ok(topic),
        false => {
            let text = "\"reply_to\" is an inbox that nobody can guess, like the one in \"hello\": $inbox. and one \
                        segment of at least 22 bytes";
            Err(Problem::new(Reason::Forbidden, text))
        }
    }
}

fn timeout(members: &mut Members<'_>, limits: &Limits) -> Result<Duration, Problem> {
    let timeout = members.take("timeout").map(|raw| document::seconds("timeout", raw)).transpose()?;
    document::timeout(timeout, limits)
}

/// A lease as a client may ask for it.
fn lease(members: &mut Members<'_>, name: &str) -> Result<Option<Duration>, Problem> {
    let Some(raw) = members.take(name).filter(|raw| raw.get() != "null") else { return Ok(None) };
    document::seconds(name, raw).and_then(|lease| document::lease(name, lease)).map(Some)
}

fn delay(members: &mut Members<'_>) -> Result<Option<Duration>, Problem> {
    let Some(raw) = members.take("delay").filter(|raw| raw.get() != "null") else { return Ok(None) };
    document::delay(serde_json::from_str(raw.get()).ok()).map(Some)
}

fn error(members: &mut Members<'_>) -> Result<Option<Box<str>>, Problem> {
    Ok(members.text("text")?.map(|text| document::error_text(&text)))
}
