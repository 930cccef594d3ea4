//! Events to JSON.

use std::fmt::{Display, Write};

use bytes::Bytes;

use crate::document::{self, quote_into};
use crate::domain::command::{RequestId, Subject};
use crate::domain::event::{CursorUsed, Event, Given};
use crate::domain::store::Missing;
use crate::protocol::NATIVE;

pub fn event(event: &Event) -> Bytes {
    let mut object = Object::default();
    match event {
        Event::Hello { connection, ping, max_frame, inbox } => {
            object.text("hello", NATIVE).text("conn", connection);
            object.plain("ping", ping.as_secs_f64()).plain("max", max_frame);
            if let Some(inbox) = inbox {
                object.text("inbox", inbox.as_str());
            }
        }
        Event::Subscribed { id, topic, mode, answer, cursor, ignored } => {
            object.reply(id, "sub").text("topic", topic.as_str()).text("mode", mode.as_str());
            object.text("at", &answer.at.to_string());
            match &answer.resumed {
                None => {}
                Some(Ok(())) => _ = object.plain("resumed", true),
                Some(Err(missing)) => _ = object.plain("resumed", false).missing(missing),
            }
            if let Some(CursorUsed { name, lag, created }) = cursor {
                object.text("cursor", name.as_str()).plain("lag", lag);
                if *created {
                    object.plain("created", true);
                }
            }
            object.ignored(ignored);
        }
        Event::Unsubscribed { id, topic, ignored } => {
            object.reply(id, "unsub").text("topic", topic.as_str()).ignored(ignored);
        }
        Event::Published { id, topic, stored, durability, ignored } => {
            object.reply(id, "pub").text("topic", topic.as_str()).text("stored", &stored.to_string());
            object.text("durability", durability.as_str()).ignored(ignored);
        }
        Event::Committed { id, topic, cursor, placed, ignored } => {
            object.reply(id, "commit").text("topic", topic.as_str()).text("cursor", cursor.as_str());
            // Not `at`: what a client keeps as `at` must not run ahead of what it was given.
            object.text("committed", &placed.at.to_string()).plain("lag", placed.lag).ignored(ignored);
        }
        Event::History { id, topic, items, missing, more, ignored } => {
            object.reply(id, "history").text("topic", topic.as_str());
            if let Some(missing) = missing {
                object.missing(missing);
            }
            let items: Vec<_> = items.iter().map(document::message).collect();
            let items: Vec<_> = items.iter().map(|i| String::from_utf8_lossy(i)).collect();
            object.plain("items", format_args!("[{}]", items.join(","))).plain("more", more).ignored(ignored);
        }
        Event::Gap { topic, gap } => {
            object.text("gap", topic.as_str()).text("after", &gap.after.to_string());
            object.missing(&Missing { why: gap.why, to: gap.to }).plain("kept", gap.kept);
        }
        Event::Put { id, queue, job, durability, repeated, ignored } => {
            object.reply(id, "put").text("queue", queue.as_str()).text("job", &job.to_string());
            object.text("durability", durability.as_str());
            if *repeated {
                object.plain("repeated", true);
            }
            object.ignored(ignored);
        }
        Event::Taking { id, queue, credit, lease, ignored } => {
            object.reply(id, "take").text("queue", queue.as_str()).plain("credit", credit);
            object.plain("lease", lease.as_secs_f64()).ignored(ignored);
        }
        Event::Untaken { id, queue, ignored } => {
            object.reply(id, "untake").text("queue", queue.as_str()).ignored(ignored);
        }
        Event::Settled { id, verb, failed, ignored } => {
            object.reply(id, verb);
            if !failed.is_empty() {
                let failed = failed.iter().map(|(tag, reason)| format!("{}:\"{reason}\"", document::quote(tag)));
                object.plain("failed", format_args!("{{{}}}", failed.collect::<Vec<_>>().join(",")));
            }
            object.ignored(ignored);
        }
        Event::Replied { id, queue, job, reply, request, ignored } => {
            object.reply(id, "request").text("queue", queue.as_str()).text("job", &job.to_string());
            if let Some(request) = request {
                object.text("request", request);
            }
            object.ignored(ignored);
            if let Some(reply) = reply {
                object.members(&String::from_utf8_lossy(reply.as_bytes()));
            }
        }
        Event::Job(Given { tag, job }) => return document::job(job, tag),
        Event::Lost { tag } => _ = object.text("lost", tag),
        Event::Pong(what) => _ = object.plain("pong", what),
        Event::Error { id, verb, about, problem } => {
            object.id(id).text("error", problem.reason.as_str());
            if let Some(verb) = verb {
                object.text("for", verb);
            }
            if let Some((field, value)) = about.as_ref().map(Subject::field) {
                object.text(field, value);
            }
            object.text("text", &problem.text);
            if let Some(wait) = problem.retry_after {
                object.plain("retry_after", (wait.as_secs_f64() * 1000.0).ceil() / 1000.0);
            }
        }
    }
    object.finish()
}

/// An object under construction. Names are ours and need no escaping.
#[derive(Default)]
struct Object(String);

impl Object {
    fn name(&mut self, name: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        let _ = write!(self.0, "\"{name}\":");
    }

    /// A value that is JSON as it displays itself.
    fn plain(&mut self, name: &str, value: impl Display) -> &mut Object {
        self.name(name);
        let _ = write!(self.0, "{value}");
        self
    }

    fn text(&mut self, name: &str, value: &str) -> &mut Object {
        self.name(name);
        quote_into(&mut self.0, value);
        self
    }

    fn id(&mut self, id: &Option<RequestId>) -> &mut Object {
        if let Some(RequestId(raw)) = id {
            self.plain("id", raw);
        }
        self
    }

    fn reply(&mut self, id: &Option<RequestId>, verb: &str) -> &mut Object {
        self.id(id).text("ok", verb)
    }

    /// Members that are JSON already.
    fn members(&mut self, members: &str) {
        self.0.push(',');
        self.0.push_str(members);
    }

    fn missing(&mut self, missing: &Missing) -> &mut Object {
        if let Some(to) = missing.to {
            self.text("to", &to.to_string());
        }
        self.text("why", missing.why.as_str())
    }

    fn ignored(&mut self, names: &[String]) {
        if !names.is_empty() {
            let names: Vec<_> = names.iter().map(|n| document::quote(n)).collect();
            self.plain("ignored", format_args!("[{}]", names.join(",")));
        }
    }

    fn finish(mut self) -> Bytes {
        self.0.push('}');
        self.0.into()
    }
}
