//! Reads: a page of a topic out of what the script tells of it.
//!
//! Where a page begins depends on the lives of the topic, and that rule is the domain's (`Lives::plan`). So the script is
//! asked for a stretch by a guess and tells, in the same atomic step, what the plan needs. The guess is right unless the
//! asked-for position is of a life that is gone; then the script is asked again, from where the plan says.

use bytes::Bytes;
use redis::{Cmd, Value};

use super::keys::{self, Keys};
use super::scripts::{Dice, Scripts, number, odd, refusal, text_of};
use crate::domain::message::{Body, Message};
use crate::domain::name::Topic;
use crate::domain::position::{Epoch, MAX_OFFSET, Position};
use crate::domain::store::{Kept, Lives, Page, Plan, ReadFrom, ReadLimit, StoreError};
use crate::domain::topic::Mode;

/// What the script is asked for.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub topic: Topic,
    pub guess: Guess,
    pub limit: ReadLimit,
    /// Announced as asking, like a batch.
    pub asking: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Guess {
    After(u64),
    Last(u32),
    Since(u64),
}

/// What the script answers: a stretch of the log, and the state of the topic at that moment.
#[derive(Debug)]
pub(super) struct Stretch {
    lives: Lives,
    head: u64,
    oldest: u64,
    first: u64,
    cut: bool,
    /// All of (`from`, `to`] that is kept and has not expired is in `messages`.
    from: u64,
    to: u64,
    messages: Vec<Read>,
}

/// A message as the script gives it.
#[derive(Debug)]
struct Read {
    offset: u64,
    time: u64,
    body: Bytes,
    expires: Option<u64>,
}

/// What is to be done with a stretch.
pub(super) enum Judged {
    Page(Page),
    /// The page begins elsewhere: ask for what follows this offset.
    Again(u64),
    /// A page on which everything has expired, but there is more: what follows its end belongs to it.
    Further(Page),
}

impl Ask {
    pub fn new(topic: &Topic, from: ReadFrom, limit: ReadLimit) -> Ask {
        let guess = match from {
            ReadFrom::After(position) => Guess::After(position.offset),
            ReadFrom::Last(count) => Guess::Last(count),
            ReadFrom::Since(time) => Guess::Since(time),
        };
        Ask { topic: topic.clone(), guess, limit, asking: false }
    }

    pub fn encode(&self, names: &Keys, scripts: &Scripts, dice: &mut Dice) -> Cmd {
        let base = names.base(names.group_of(&self.topic));
        let keys = [keys::log(&base, &self.topic), keys::meta(&base, &self.topic), keys::vals(&base, &self.topic)];
        let mut cmd = scripts.read.call(&keys, scripts, &[*scripts.rules.of(&self.topic)]);
        cmd.arg(dice.epoch().to_string());
        match self.guess {
            Guess::After(offset) => cmd.arg("after").arg(offset),
            Guess::Last(count) => cmd.arg("last").arg(count),
            Guess::Since(time) => cmd.arg("since").arg(time.min(MAX_OFFSET)),
        };
        cmd.arg(self.limit.messages.max(1)).arg(self.limit.bytes);
        cmd
    }
}

impl Stretch {
    pub fn decode(answer: Value) -> Result<Stretch, StoreError> {
        match answer {
            Value::ServerError(error) => Err(unread(error.code(), error.details().unwrap_or_default())),
            Value::Array(parts) => Stretch::decode_parts(parts).ok_or_else(|| odd("no stretch of a topic")),
            other => Err(odd(&format!("{other:?}"))),
        }
    }

    fn decode_parts(parts: Vec<Value>) -> Option<Stretch> {
        let [lives, head, oldest, first, cut, from, to, messages] = <[Value; 8]>::try_from(parts).ok()?;
        let lives = lives_of(&lives)?;
        let Value::Array(messages) = messages else { return None };
        let messages: Option<Vec<_>> = messages
            .into_iter()
            .map(|message| {
                let Value::Array(fields) = message else { return None };
                let [offset, time, body, expires] = <[Value; 4]>::try_from(fields).ok()?;
                let Value::BulkString(body) = body else { return None };
                Some(Read {
                    offset: number(&offset)?,
                    time: number(&time)?,
                    body: Bytes::from(body),
                    expires: Some(number(&expires)?).filter(|expires| *expires != 0),
                })
            })
            .collect();
        Some(Stretch {
            lives,
            head: number(&head)?,
            oldest: number(&oldest)?,
            first: number(&first)?,
            cut: number(&cut)? == 1,
            from: number(&from)?,
            to: number(&to)?,
            messages: messages?,
        })
    }

    /// Judges what was read for `from`.
    pub fn judge(self, topic: &Topic, mode: Mode, from: ReadFrom) -> Judged {
        let kept = Kept { mode, oldest: self.oldest, head: self.head, first: self.first, cut: self.cut };
        let Plan { start, to, missing } = self.lives.plan(from, &kept);
        // The stretch must not begin after the page, nor spend its room on what lies before it.
        let wasted = self.messages.iter().any(|read| read.offset <= start.offset);
        if self.from > start.offset && start.offset < to || wasted && self.to < to {
            return Judged::Again(start.offset);
        }
        let end = self.to.min(to).max(start.offset);
        let messages: Vec<Message> = self
            .messages
            .into_iter()
            .filter(|read| (start.offset + 1..=end).contains(&read.offset))
            .map(|Read { offset, time, body, expires }| Message {
                topic: topic.clone(),
                at: Position::new(start.epoch, offset),
                time,
                expires,
                body: Body::from_canonical(body),
            })
            .collect();
        let only_expired = messages.is_empty() && end < to;
        let head = Position::new(self.lives.newest(), self.head);
        let page = Page { mode, start, messages, end: Position::new(start.epoch, end), head, missing };
        if only_expired { Judged::Further(page) } else { Judged::Page(page) }
    }
}

/// The lives of a topic as its record holds them.
pub(super) fn lives_of(value: &Value) -> Option<Lives> {
    let known: Option<Vec<(Epoch, u64)>> = text_of(value)?
        .split(',')
        .map(|life| {
            let (epoch, base) = life.split_once(':')?;
            Some((epoch.parse().ok()?, base.parse().ok()?))
        })
        .collect();
    Some(Lives::new(known.filter(|lives| !lives.is_empty())?))
}

/// A read that Redis refuses; nothing can have been stored by it.
fn unread(code: &str, details: &str) -> StoreError {
    match refusal(&format!("{code} {details}")) {
        StoreError::Unconfirmed(text) => StoreError::Broken(text),
        other => other,
    }
}
