//! Cursors as calls of the script: which uses go into which call, how a call is written, and what its answer says.
//!
//! A call takes several uses of one lane, in their order, each with the keys of its topic. What the answers mean is
//! decided by the rules of the domain; which positions may be committed the script decides by the same rules, since it
//! must be one step with the write.

use redis::{Cmd, Value};

use super::keys::{self, Keys};
use super::pages::lives_of;
use super::queue::{Entrance, Job, Weight};
use super::scripts::{Dice, Scripts, millis, number, odd, position, refusal, text_of};
use crate::domain::cursor::{CursorError, CursorName, Extent, First, Opened, Placed};
use crate::domain::lives::Lives;
use crate::domain::position::Position;
use crate::domain::store::StoreError;
use crate::store::cursors::{Answer, Ask, Queue, Reply};

/// How many uses one call takes, so that it holds Redis up for about a millisecond.
const CALL_USES: usize = 64;

/// A use that waits for Redis.
pub(super) struct Use {
    pub ask: Ask,
    pub reply: Reply,
    /// Announced as asking: to a server of a cluster that has the keys already and the slot not yet.
    pub asking: bool,
    pub _weight: Weight,
}

/// Uses of one lane, in their order.
pub(super) struct CursorCall {
    pub lane: u16,
    pub asking: bool,
    uses: Vec<Use>,
}

impl Queue for Entrance {
    fn put(&self, ask: Ask, reply: Reply) {
        match self.admit(1, 0) {
            Ok(weight) => Entrance::put(self, Job::Cursor(Use { ask, reply, asking: false, _weight: weight })),
            Err(error) => drop(reply.send(Err(error.into()))),
        }
    }
}

impl Use {
    /// Answers that it was not done.
    pub fn refuse(self, error: &StoreError) {
        let _ = self.reply.send(Err(error.clone().into()));
    }

    /// Answers what Redis said of it.
    pub fn settle(self, answer: Result<Answer, CursorError>) {
        let _ = self.reply.send(answer);
    }
}

impl CursorCall {
    pub fn new(lane: u16, first: Use) -> CursorCall {
        CursorCall { lane, asking: first.asking, uses: vec![first] }
    }

    pub fn takes(&self, lane: u16, asking: bool) -> bool {
        self.lane == lane && self.asking == asking && self.uses.len() < CALL_USES
    }

    pub fn add(&mut self, one: Use) {
        self.uses.push(one);
    }

    /// Writes the call as cursor.lua reads it.
    pub fn encode(&self, names: &Keys, scripts: &Scripts, dice: &mut Dice) -> Cmd {
        let mut keys = Vec::with_capacity(4 * self.uses.len());
        let mut settings = Vec::with_capacity(self.uses.len());
        for Use { ask, .. } in &self.uses {
            let (topic, owner) = (ask.topic(), ask.owner());
            let base = names.base(names.group_of(topic));
            keys.extend([keys::log(&base, topic), keys::meta(&base, topic), keys::vals(&base, topic)]);
            keys.push(keys::cursors(&base, topic, owner));
            settings.push(*scripts.rules.of(topic));
        }
        let bounds = &scripts.cursors;
        let mut cmd = scripts.cursor.call(&keys, scripts, &settings);
        cmd.arg(millis(bounds.grain())).arg(millis(bounds.lifetime())).arg(bounds.each).arg(self.uses.len());
        for Use { ask, .. } in &self.uses {
            let fresh = dice.epoch().to_string();
            let (kind, name, words) = words_of(ask);
            cmd.arg(kind).arg(fresh).arg(name).arg(&words);
        }
        cmd
    }

    /// Tells each use what became of it.
    pub fn settle(self, answer: Value, most: usize) {
        match answer {
            Value::Array(parts) if parts.len() == self.uses.len() => {
                for (one, part) in self.uses.into_iter().zip(parts) {
                    let answer = decode(&one.ask, part, most);
                    one.settle(answer);
                }
            }
            Value::ServerError(error) => {
                let error = refusal(&format!("{} {}", error.code(), error.details().unwrap_or_default()));
                self.refuse(&error);
            }
            other => self.refuse(&StoreError::Unconfirmed(odd(&format!("{other:?}")).to_string())),
        }
    }

    pub fn refuse(self, error: &StoreError) {
        self.uses.into_iter().for_each(|one| one.refuse(error));
    }
}

fn words_of(ask: &Ask) -> (&'static str, &str, [String; 2]) {
    let none = String::new;
    match ask {
        Ask::Open { key, first } => {
            let words = match first {
                First::Newest => ["newest".into(), none()],
                First::Oldest => ["oldest".into(), none()],
                First::At(at) => ["at".into(), at.to_string()],
            };
            ("open", key.name.as_str(), words)
        }
        Ask::Commit { key, at, rewind } => {
            ("commit", key.name.as_str(), [at.to_string(), u8::from(*rewind).to_string()])
        }
        Ask::Find { key } => ("find", key.name.as_str(), [none(), none()]),
        Ask::Remove { key } => ("remove", key.name.as_str(), [none(), none()]),
        Ask::List { .. } => ("list", "", [none(), none()]),
    }
}

fn decode(ask: &Ask, part: Value, most: usize) -> Result<Answer, CursorError> {
    if let Some(text) = text_of(&part).and_then(|text| text.strip_prefix('E')) {
        return Err(refusal(text).into());
    }
    let Value::Array(parts) = part else { return Err(odd(&format!("{part:?}")).into()) };
    let code = parts.first().and_then(text_of).unwrap_or_default().to_owned();
    match (code.as_str(), ask) {
        ("F", _) => return Err(CursorError::TooMany(most)),
        ("A", Ask::Find { .. }) => return Ok(Answer::Found(None)),
        ("A", Ask::Remove { .. }) => return Ok(Answer::Removed(false)),
        ("A", Ask::List { .. }) => return Ok(Answer::Listed(Vec::new())),
        ("D", Ask::Remove { .. }) => return Ok(Answer::Removed(true)),
        _ => {}
    }
    let odd_answer = || CursorError::from(odd(&format!("{parts:?}")));
    let topic = Known::read(&parts).ok_or_else(odd_answer)?;
    match (code.as_str(), ask) {
        ("U", Ask::Commit { at, .. }) => Err(CursorError::Unknown { at: *at, head: topic.extent().head() }),
        ("B", Ask::Commit { at, .. }) => {
            let stands = parts.get(3).and_then(text_of).and_then(position).ok_or_else(odd_answer)?;
            Err(CursorError::Behind { at: *at, stands })
        }
        ("L", Ask::List { after, limit, .. }) => {
            let mut listed = parts.get(3).and_then(|all| topic.list(all)).ok_or_else(odd_answer)?;
            listed.retain(|(name, _)| after.as_ref().is_none_or(|after| name > after));
            listed.sort_unstable_by(|one, other| one.0.cmp(&other.0));
            listed.truncate(*limit);
            Ok(Answer::Listed(listed))
        }
        ("N" | "O", ask) => {
            let placed = parts.get(3).zip(parts.get(4)).and_then(|(at, used)| topic.placed(at, used));
            let placed = placed.ok_or_else(odd_answer)?;
            match ask {
                Ask::Open { .. } => Ok(Answer::Opened(Opened { placed, created: code == "N" })),
                Ask::Commit { .. } => Ok(Answer::Placed(placed)),
                Ask::Find { .. } => Ok(Answer::Found(Some(placed))),
                _ => Err(odd_answer()),
            }
        }
        _ => Err(odd_answer()),
    }
}

/// What an answer tells of the topic.
struct Known {
    lives: Lives,
    head: u64,
}

impl Known {
    fn read(parts: &[Value]) -> Option<Known> {
        Some(Known { lives: lives_of(parts.get(1)?)?, head: number(parts.get(2)?)? })
    }

    /// What is kept of it does not matter to where cursors stand.
    fn extent(&self) -> Extent<'_> {
        Extent { lives: &self.lives, oldest: self.head + 1, head: self.head }
    }

    fn placed(&self, at: &Value, used: &Value) -> Option<Placed> {
        let at: Position = position(text_of(at)?)?;
        Some(Placed { at, lag: self.extent().lag(at), used: number(used)? })
    }

    fn list(&self, all: &Value) -> Option<Vec<(CursorName, Placed)>> {
        let Value::Array(all) = all else { return None };
        all.chunks_exact(3)
            .map(|one| Some((CursorName::parse(text_of(&one[0])?).ok()?, self.placed(&one[1], &one[2])?)))
            .collect()
    }
}
