//! JSON to requests.

use serde_json::value::RawValue;

use super::{jobs, openings};
use crate::document::{self, Content, Members, json_problem};
use crate::domain::command::{Command, Refusal, Request, RequestId, Subject, UseCursor};
use crate::domain::cursor::CursorName;
use crate::domain::error::{Problem, Reason};
use crate::domain::limits::Limits;
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::domain::store::ReadFrom;

/// What this hub does.
const VERBS: [&str; 14] = [
    "sub", "unsub", "pub", "commit", "history", "ping", "put", "take", "untake", "ack", "nack", "extend", "term",
    "request",
];
/// What stands for another verb.
const ALIAS: (&str, &str) = ("nak", "nack");
/// What the protocol has words for and this hub does not do.
const ABSENT: [&str; 5] = ["auth", "who", "join", "leave", "cancel"];

/// Reads one frame: an object, or an array of them.
pub fn frame(frame: &[u8], limits: &Limits) -> Vec<Result<Request, Refusal>> {
    let alone = |problem| vec![Err(Refusal { id: None, verb: None, about: None, problem })];
    match frame.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'{') => object(frame, limits),
        Some(b'[') => {
            let items: Vec<&RawValue> = match serde_json::from_slice(frame) {
                Ok(items) => items,
                Err(error) => return alone(json_problem(frame, &error)),
            };
            if let Some(problem) = openings::of_array(&items) {
                return alone(problem);
            }
            if items.is_empty() || items.len() > limits.array {
                let reason = if items.is_empty() { Reason::BadFrame } else { Reason::TooMany };
                let text = format!("an array holds 1 to {} commands, this one {}", limits.array, items.len());
                return alone(Problem::new(reason, text));
            }
            items.iter().flat_map(|item| object(item.get().as_bytes(), limits)).collect()
        }
        _ => alone(openings::of_text(frame).unwrap_or_else(|| {
            let text = r#"a frame is one JSON object with one verb, like {"sub":"news"}"#;
            match serde_json::from_slice::<&RawValue>(frame) {
                Ok(_) => Problem::new(Reason::BadFrame, text),
                Err(error) => {
                    let mut problem = json_problem(frame, &error);
                    problem.text = format!("{}; {text}", problem.text);
                    problem
                }
            }
        })),
    }
}

fn object(text: &[u8], limits: &Limits) -> Vec<Result<Request, Refusal>> {
    let mut refusal = Refusal { id: None, verb: None, about: None, problem: Problem::new(Reason::Internal, "") };
    let mut members = match Members::read(text, "a frame", limits.depth + 1) {
        Ok(members) => members,
        Err(problem) => return vec![Err(Refusal { problem, ..refusal })],
    };
    match id(&mut members) {
        Ok(id) => refusal.id = id,
        Err(problem) => return vec![Err(Refusal { problem, ..refusal })],
    }
    // The first verb is what an error is for, even if it cannot be done.
    members.rename(ALIAS.0, ALIAS.1);
    refusal.verb = VERBS.iter().chain(&ABSENT).find(|v| members.has(v)).copied();
    let verb = match verb(&members) {
        Ok(Some(verb)) => verb,
        Ok(None) => return Vec::new(),
        Err(problem) => return vec![Err(Refusal { problem, ..refusal })],
    };
    let value = members.take(verb).expect("the verb was found among the members");
    if verb == "sub" && value.get().starts_with('[') {
        return subscribe_many(value, members, refusal, limits);
    }
    let command = match verb {
        "ping" => ping(value),
        _ if jobs::VERBS.contains(&verb) => jobs::command(verb, value, &mut members, &mut refusal, limits),
        _ => subject(verb, value, &mut refusal).and_then(|topic| command(verb, topic, &mut members, limits)),
    };
    vec![match command {
        Ok(command) => Ok(Request { id: refusal.id, command, ignored: members.left() }),
        Err(problem) => Err(Refusal { problem, ..refusal }),
    }]
}

fn command(verb: &str, topic: Topic, members: &mut Members<'_>, limits: &Limits) -> Result<Command, Problem> {
    Ok(match verb {
        "sub" => {
            let from = start(members, limits)?;
            Command::Subscribe { topics: vec![topic], from, cursor: cursor(members, from)? }
        }
        "commit" => commit(topic, members)?,
        "unsub" => Command::Unsubscribe { topic },
        "pub" => Command::Publish(Content::take(members)?.publish(topic, limits)?),
        _ => {
            let limit = number(members, "limit", limits.history)?;
            let from = start(members, limits)?;
            Command::History {
                topic,
                from: from.unwrap_or(ReadFrom::Last(limit.unwrap_or(100).min(limits.history))),
                limit: limit.unwrap_or(limits.history),
            }
        }
    })
}

/// Several topics from now on: each is its own request, answered with the same id.
fn subscribe_many(
    value: &RawValue,
    mut members: Members<'_>,
    refusal: Refusal,
    limits: &Limits,
) -> Vec<Result<Request, Refusal>> {
    let fail = |problem| vec![Err(Refusal { problem, ..refusal.clone() })];
    let Ok(names) = serde_json::from_str::<Vec<String>>(value.get()) else {
        return fail(Problem::new(Reason::BadFrame, r#""sub" is a name or an array of names"#));
    };
    match start(&mut members, limits) {
        Ok(None) => {}
        Ok(Some(_)) => {
            let text =
                r#""after", "last" and "since" belong to one topic; send one frame, or one array element, for each"#;
            return fail(Problem::new(Reason::BadFrame, text));
        }
        Err(problem) => return fail(problem),
    }
    let cursor = match cursor(&mut members, None) {
        Ok(cursor) => cursor,
        Err(problem) => return fail(problem),
    };
    if names.is_empty() || names.len() > limits.subscriptions {
        let text = format!(r#""sub" takes 1 to {} names, this has {}"#, limits.subscriptions, names.len());
        return fail(Problem::new(Reason::TooMany, text));
    }
    let mut good = Vec::with_capacity(names.len());
    let mut answers = Vec::new();
    for name in names {
        match Topic::parse(&name) {
            Ok(topic) => good.push(topic),
            Err(error) => answers.push(Err(Refusal {
                about: Some(Subject::Topic(clip(&name))),
                problem: error.into(),
                ..refusal.clone()
            })),
        }
    }
    if !good.is_empty() {
        let command = Command::Subscribe { topics: good, from: None, cursor };
        answers.insert(0, Ok(Request { id: refusal.id, command, ignored: members.left() }));
    }
    answers
}

/// Finds the one verb; `None` for a pong, which needs no answer.
fn verb(members: &Members<'_>) -> Result<Option<&'static str>, Problem> {
    let mut found = VERBS.iter().chain(&ABSENT).filter(|v| members.has(v));
    match (found.next(), found.next()) {
        (Some(verb), None) if VERBS.contains(verb) => Ok(Some(verb)),
        (Some(verb), None) => Err(openings::of_object(members).unwrap_or_else(|| {
            let text = format!("{verb:?} is a verb that this hub does not do; it does {}", VERBS.join(", "));
            Problem::new(Reason::UnknownVerb, text)
        })),
        (Some(one), Some(two)) => {
            Err(Problem::new(Reason::BadFrame, format!("one frame has one verb, this has {one:?} and {two:?}")))
        }
        (None, _) if members.has("pong") => Ok(None),
        (None, _) => Err(openings::of_object(members).unwrap_or_else(|| {
            let names: Vec<_> = members.names().take(8).map(|n| format!("{n:?}")).collect();
            let had = if names.is_empty() { "nothing".to_string() } else { names.join(", ") };
            let text = format!("no verb in this frame; it has {had}; verbs are {}", VERBS.join(", "));
            Problem::new(Reason::UnknownVerb, text)
        })),
    }
}

fn id(members: &mut Members<'_>) -> Result<Option<RequestId>, Problem> {
    let Some(raw) = members.take("id") else { return Ok(None) };
    let raw = raw.get();
    let is_scalar = raw.starts_with(['"', '-']) || raw.starts_with(|c: char| c.is_ascii_digit());
    match raw {
        "null" => Ok(None),
        _ if is_scalar && raw.len() <= 64 => Ok(Some(RequestId(raw.into()))),
        _ => Err(Problem::new(Reason::BadFrame, "\"id\" is a number or a string of at most 62 bytes")),
    }
}

fn subject(verb: &str, value: &RawValue, refusal: &mut Refusal) -> Result<Topic, Problem> {
    let Ok(name) = serde_json::from_str::<String>(value.get()) else {
        let text = format!("the value of {verb:?} is the name of a topic, not {}", clip(value.get()));
        return Err(Problem::new(Reason::BadFrame, text));
    };
    refusal.about = Some(Subject::Topic(clip(&name)));
    Ok(Topic::parse(&name)?)
}

/// Where a subscription or a read begins.
fn start(members: &mut Members<'_>, limits: &Limits) -> Result<Option<ReadFrom>, Problem> {
    let after = match members.take("after").map(RawValue::get) {
        None | Some("null") => None,
        Some(raw) => {
            let text: String = serde_json::from_str(raw).map_err(|_| {
                Problem::new(Reason::BadFrame, format!("\"after\" is a position, a string, not {}", clip(raw)))
            })?;
            Some(ReadFrom::After(text.parse::<Position>()?))
        }
    };
    let last = number(members, "last", limits.history)?.map(ReadFrom::Last);
    let since = document::take_since(members, document::now())?.map(ReadFrom::Since);
    let mut given = [after, last, since].into_iter().flatten();
    match (given.next(), given.next()) {
        (_, Some(_)) => Err(Problem::new(Reason::BadFrame, "\"after\", \"last\" and \"since\" exclude one another")),
        (from, None) => Ok(from),
    }
}

/// The cursor that a subscription uses.
fn cursor(members: &mut Members<'_>, from: Option<ReadFrom>) -> Result<Option<UseCursor>, Problem> {
    let Some(name) = word(members, "cursor")? else { return Ok(None) };
    UseCursor::read(&name, word(members, "first")?.as_deref(), from).map(Some)
}

fn commit(topic: Topic, members: &mut Members<'_>) -> Result<Command, Problem> {
    let missing = |name| {
        let text = format!("{name:?} is missing, like {{\"commit\":\"news\",\"cursor\":\"phone\",\"at\":\"k3.42\"}}");
        Problem::new(Reason::BadFrame, text)
    };
    let cursor = CursorName::parse(&word(members, "cursor")?.ok_or_else(|| missing("cursor"))?)?;
    let at = word(members, "at")?.ok_or_else(|| missing("at"))?.parse::<Position>()?;
    let rewind = match members.take("rewind").map(RawValue::get) {
        None | Some("null" | "false") => false,
        Some("true") => true,
        Some(_) => return Err(Problem::new(Reason::BadFrame, "\"rewind\" is true or false")),
    };
    Ok(Command::Commit { topic, cursor, at, rewind })
}

/// Takes a string; `null` is an absent one.
fn word(members: &mut Members<'_>, name: &str) -> Result<Option<String>, Problem> {
    match members.take(name).map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some(raw) => match serde_json::from_str(raw) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Problem::new(Reason::BadFrame, format!("{name:?} is a string, not {}", clip(raw)))),
        },
    }
}

pub fn number(members: &mut Members<'_>, name: &str, most: u32) -> Result<Option<u32>, Problem> {
    match members.take(name).map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some(raw) => match raw.parse::<u32>() {
            Ok(n) if n <= most => Ok(Some(n)),
            _ => Err(Problem::new(Reason::BadFrame, format!("{name:?} is a whole number from 0 to {most}"))),
        },
    }
}

fn ping(value: &RawValue) -> Result<Command, Problem> {
    if value.get().len() > 1024 {
        return Err(Problem::new(Reason::TooLarge, "\"ping\" carries at most 1024 bytes"));
    }
    Ok(Command::Ping(value.get().into()))
}

pub fn clip(text: &str) -> Box<str> {
    text.chars().take(200).collect::<String>().into()
}
