//! Appends as calls of the script: which messages go into which call, how a call is written, and what its answer says.
//!
//! A call takes many topics of one lane. In a Redis Cluster a lane must be a group, whose keys lie in one slot; on a
//! single Redis there is one lane for everything. Calls of a lane are sent in order; that keeps the order of topics.
//! They are all on their way before the first is answered. So that no fenced entry is stored after one before it failed
//! with an earlier call, it tells the mark of that one, and the script looks whether the topic has got so far.

use std::collections::HashMap;

use redis::{Cmd, Value};

use super::keys::{self, Keys};
use super::lives::Known;
use super::scripts::{self, Dice, Scripts, millis, number, odd, position, refusal, text_of};
use crate::domain::message::Durability;
use crate::domain::name::Topic;
use crate::domain::position::{Epoch, Position};
use crate::domain::store::{Append, Appended, Fence, StoreError};
use crate::domain::topic::TopicSettings;

/// How much one call takes at most (a single larger message goes alone), so that it holds Redis up for about a millisecond.
const CALL_MESSAGES: usize = 128;
const CALL_BYTES: usize = 1024 * 1024;

/// Where the result of an item is wanted: which batch, which item of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub batch: usize,
    pub item: usize,
}

pub(super) type Outcome = Result<Appended, StoreError>;

/// Messages of one lane, sorted by group and topic.
#[derive(Default)]
pub(super) struct Call {
    pub lane: u16,
    pub asking: bool,
    groups: Vec<(u16, Vec<TopicPart>)>,
    found: HashMap<Topic, (usize, usize)>,
    messages: usize,
    bytes: usize,
}

struct TopicPart {
    topic: Topic,
    items: Vec<Item>,
}

struct Item {
    place: Place,
    append: Append,
    /// The mark of the entry that must have been dealt with before this one.
    after: Option<Mark>,
}

/// A fence as the script compares it.
pub(super) type Mark = String;

/// What must be kept of a call to understand its answer: where the items of each topic belong.
pub(super) struct Asked {
    topics: Vec<Vec<Place>>,
}

impl Call {
    pub fn new(lane: u16, asking: bool) -> Call {
        Call { lane, asking, ..Call::default() }
    }

    pub fn has_room(&self, append: &Append) -> bool {
        self.messages < CALL_MESSAGES && self.bytes + append.publication.body.as_bytes().len() <= CALL_BYTES
    }

    pub fn add(&mut self, group: u16, place: Place, append: Append, after: Option<Mark>) {
        self.messages += 1;
        self.bytes += append.publication.body.as_bytes().len();
        let topic = append.publication.topic.clone();
        let (g, t) = *self.found.entry(topic.clone()).or_insert_with(|| {
            let g = self.groups.iter().position(|(number, _)| *number == group).unwrap_or_else(|| {
                self.groups.push((group, Vec::new()));
                self.groups.len() - 1
            });
            self.groups[g].1.push(TopicPart { topic, items: Vec::new() });
            (g, self.groups[g].1.len() - 1)
        });
        self.groups[g].1[t].items.push(Item { place, append, after });
    }

    /// Writes the call as append.lua reads it.
    pub fn encode(&self, names: &Keys, scripts: &Scripts, lives: &Known, dice: &mut Dice) -> (Cmd, Asked) {
        let mut keys = Vec::new();
        let bases: Vec<String> = self.groups.iter().map(|(group, _)| names.base(*group)).collect();
        for ((_, topics), base) in self.groups.iter().zip(&bases) {
            keys.push(keys::wild(base));
            for part in topics {
                keys.extend([keys::log, keys::meta, keys::vals].map(|key| key(base, &part.topic)));
                keys.extend(part.idempotency_keys().map(|key| keys::idempotency(base, &part.topic, key)));
            }
        }
        // Few of the rules' settings are those of a call's topics.
        let mut settings: Vec<TopicSettings> = Vec::new();
        let mut number = |topic: &Topic| {
            let own = scripts.rules.of(topic);
            settings.iter().position(|known| known == own).unwrap_or_else(|| {
                settings.push(*own);
                settings.len() - 1
            })
        };
        let numbers = self.groups.iter().flat_map(|(_, topics)| topics).map(|part| number(&part.topic));
        let mut numbers = numbers.collect::<Vec<usize>>().into_iter();
        let mut cmd = scripts.append.call(&keys, scripts, &settings);
        // All groups of a call are served by one server, in one life.
        let life = self.groups.first().map_or("", |(group, _)| lives.of(*group));
        cmd.arg(names.feed()).arg(life).arg(self.groups.len());
        let mut asked = Vec::new();
        for ((_, topics), base) in self.groups.iter().zip(&bases) {
            cmd.arg(base).arg(topics.len());
            for part in topics {
                part.encode(&mut cmd, numbers.next().expect("one for each topic"), dice.epoch());
                asked.push(part.items.iter().map(|item| item.place).collect());
            }
        }
        (cmd, Asked { topics: asked })
    }
}

impl TopicPart {
    fn idempotency_keys(&self) -> impl Iterator<Item = &str> {
        self.items.iter().filter_map(|item| item.append.publication.idempotency_key.as_deref())
    }

    fn encode(&self, cmd: &mut Cmd, settings: usize, fresh: Epoch) {
        let args: usize = self.items.iter().map(Item::arguments).sum();
        // Lua counts from one.
        cmd.arg(self.topic.as_str()).arg(settings + 1).arg(fresh.to_string());
        cmd.arg(self.items.len()).arg(args).arg(self.idempotency_keys().count());
        self.items.iter().for_each(|item| item.encode(cmd));
    }
}

impl Item {
    fn arguments(&self) -> usize {
        let Append { publication, fence } = &self.append;
        2 + usize::from(publication.ttl.is_some())
            + 2 * usize::from(fence.is_some())
            + usize::from(self.after.is_some())
            + usize::from(self.later().is_some())
            + usize::from(publication.key.is_some())
    }

    fn later(&self) -> Option<&str> {
        self.append.fence.as_ref()?.later.as_deref().filter(|later| !later.is_empty())
    }

    fn encode(&self, cmd: &mut Cmd) {
        let Append { publication, fence } = &self.append;
        let flags = u8::from(publication.ttl.is_some())
            + 2 * u8::from(publication.idempotency_key.is_some())
            + 4 * u8::from(fence.is_some())
            + 8 * u8::from(self.after.is_some())
            + 16 * u8::from(publication.key.is_some())
            + 32 * u8::from(self.later().is_some())
            + 64 * u8::from(fence.as_ref().is_some_and(|fence| fence.under.is_some()));
        cmd.arg(flags).arg(&publication.body.as_bytes()[..]);
        if let Some(ttl) = publication.ttl {
            cmd.arg(millis(ttl));
        }
        if let Some(fence) = fence {
            cmd.arg(&*fence.source).arg(mark_of(fence));
        }
        if let Some(after) = &self.after {
            cmd.arg(after);
        }
        if let Some(later) = self.later() {
            cmd.arg(later);
        }
        if let Some(key) = &publication.key {
            cmd.arg(&**key);
        }
    }
}

pub(super) fn mark_of(fence: &Fence) -> Mark {
    format!("{} {:020}-{:020}", fence.life, fence.id.ms, fence.id.seq)
}

impl Asked {
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.topics.iter().flatten().copied()
    }

    /// The outcome of each item, by the answer to the call. What every write has is told of each that was stored.
    pub fn decode(&self, answer: &Value, durability: Durability) -> Vec<(Place, Outcome)> {
        match answer {
            Value::Array(parts) => self.decode_parts(parts, durability).unwrap_or_else(|| {
                // It was carried out, whatever this answer means.
                let error = StoreError::Unconfirmed("Redis answers something unexpected".into());
                self.places().map(|place| (place, Err(error.clone()))).collect()
            }),
            Value::ServerError(error) => {
                let error = refusal(&format!("{} {}", error.code(), error.details().unwrap_or_default()));
                self.places().map(|place| (place, Err(error.clone()))).collect()
            }
            other => {
                let error = StoreError::Unconfirmed(odd(&format!("{other:?}")).to_string());
                self.places().map(|place| (place, Err(error.clone()))).collect()
            }
        }
    }

    fn decode_parts(&self, parts: &[Value], durability: Durability) -> Option<Vec<(Place, Outcome)>> {
        let mut parts = parts.iter();
        let mut outcomes = Vec::new();
        for places in &self.topics {
            let time = number(parts.next()?)?;
            let epoch: Epoch = scripts::parse(parts.next()?)?;
            for place in places {
                outcomes.push((*place, outcome(parts.next()?, epoch, time, durability)?));
            }
        }
        Some(outcomes)
    }
}

fn outcome(part: &Value, epoch: Epoch, time: u64, durability: Durability) -> Option<Outcome> {
    if let Value::Int(offset) = part {
        let at = Position::new(epoch, u64::try_from(*offset).ok()?);
        return Some(Ok(Appended::Stored { at, time, durability }));
    }
    let text = text_of(part)?;
    let rest = text.get(1..)?;
    Some(match text.as_bytes()[0] {
        b'R' => Ok(Appended::Repeated { at: position(rest)?, durability }),
        b'C' => Err(StoreError::Conflict { at: position(rest)? }),
        b'S' => Ok(Appended::Skipped),
        b'E' => Err(refusal(rest)),
        _ => return None,
    })
}
