//! The log of every topic: appends and reads, by the contract of a store. The rows are in SQLite, the way to them in
//! memory. What has become too old is not given out here, and removed by `sweep`; transactions are the writer's.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use sha1::{Digest, Sha1};
use slab::Slab;

use super::cursor_table::CursorTable;
use super::entries::Entry;
use super::record::{Record, is_aged};
use super::tables::{KnownKey, MessageRow, Tables};
use crate::domain::message::{Body, Durability, Message, Publication};
use crate::domain::name::Topic;
use crate::domain::position::{Epoch, Position};
use crate::domain::store::{Append, Appended, Fence, Lives, Page, Plan, ReadFrom, ReadLimit, StoreError};
use crate::domain::topic::{Mode, Rules, TopicSettings};

/// What a message takes in the store beside its body, roughly: its row's other columns and its entry in memory.
pub const MESSAGE_OVERHEAD: u64 = 64;
/// Sources that one topic keeps a fence of.
const MAX_FENCES: usize = 256;

/// What a log may hold, and what it promises.
#[derive(Debug, Clone)]
pub struct Bounds {
    pub rules: Rules,
    /// How long an idempotency key is remembered.
    pub window: Duration,
    /// Bytes of all messages together.
    pub bytes: u64,
    pub topics: usize,
    pub keys: u64,
    pub durability: Durability,
}

pub struct Log<'c> {
    pub(super) tables: Tables<'c>,
    pub(super) cursors: CursorTable<'c>,
    pub(super) bounds: Bounds,
    /// A topic's place here is its id in the tables.
    pub(super) topics: Slab<Record>,
    pub(super) by_name: HashMap<Topic, usize>,
    /// Messages with a time to live: when it ends, topic, offset.
    pub(super) expiring: BTreeSet<(u64, usize, u64)>,
    pub(super) next_seq: u64,
    pub(super) bytes: u64,
    pub(super) keys: u64,
    /// Rows that one step of the sweep removes.
    pub sweep_rows: usize,
    /// Where the sweep goes on.
    pub(super) swept: usize,
    /// Topics whose records must stay.
    pub watched: HashSet<Topic>,
}

/// Why an item was not applied: for a reason of its own, with nothing changed, or because SQLite failed, which takes
/// the whole transaction with it.
#[derive(Debug)]
pub enum Failure {
    Refused(StoreError),
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::Sql(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Refused(error)
    }
}

impl Log<'_> {
    pub fn append(&mut self, item: &Append, now: u64) -> Result<Appended, Failure> {
        let publication = &item.publication;
        self.check(item)?;
        let id = self.topic(&publication.topic, now)?;
        if let Some(fence) = &item.fence {
            let record = &self.topics[id];
            if record.has_applied(fence) {
                return Ok(Appended::Skipped);
            }
            if !record.has_room_for(fence, MAX_FENCES) {
                return Err(StoreError::Full(format!("a topic is fed by at most {MAX_FENCES} sources")).into());
            }
        }
        let body = publication.body.as_bytes();
        let digest = publication.idempotency_key.as_ref().map(|_| Sha1::digest(body).to_vec());
        if let (Some(key), Some(digest)) = (&publication.idempotency_key, &digest)
            && let Some(at) = self.repeated(id, key, digest, now)?
        {
            self.mark(id, item.fence.as_ref())?;
            return Ok(Appended::Repeated { at, durability: self.bounds.durability });
        }

        let (at, time) = self.store(id, publication, now)?;
        if let (Some(key), Some(digest)) = (&publication.idempotency_key, digest) {
            let expires = now.saturating_add(millis(self.bounds.window));
            let known = KnownKey { digest, epoch: at.epoch.to_string(), offset: at.offset, expires, is_whole: true };
            self.tables.insert_key(id, key, &known)?;
            self.keys += 1;
        }
        self.mark(id, item.fence.as_ref())?;
        self.trim(id, now)?;
        while self.bytes > self.bounds.bytes {
            self.remove_oldest_of_all()?;
        }
        Ok(Appended::Stored { at, time, durability: self.bounds.durability })
    }

    pub fn read(&mut self, topic: &Topic, from: ReadFrom, limit: ReadLimit, now: u64) -> Result<Page, Failure> {
        let id = self.topic(topic, now)?;
        let record = &self.topics[id];
        let head = record.head();
        let kept = record.kept_for(from, millis(record.settings.age), now);
        let Plan { start, to, missing } = record.lives.plan(from, &kept);

        let mut messages: Vec<Message> = Vec::new();
        let mut bytes = 0;
        let mut end = to;
        let entries = record.entries_from(start.offset + 1).take_while(|(offset, _)| *offset <= to);
        for (offset, entry) in entries.filter(|(_, entry)| entry.is_readable(now)) {
            let is_full = messages.len() >= limit.messages as usize || bytes + entry.bytes as usize > limit.bytes;
            if is_full && !messages.is_empty() {
                // What expired before this one is told by this page; what it replaced, by nobody.
                end = if kept.mode == Mode::Latest { messages[messages.len() - 1].at.offset } else { offset - 1 };
                break;
            }
            bytes += entry.bytes as usize;
            let at = Position::new(record.lives.epoch_of(offset), offset);
            let Some(body) = self.tables.body(entry.seq)? else {
                return Err(StoreError::Broken(format!("the message at {at} is damaged in the store's file")).into());
            };
            messages.push(Message {
                topic: record.name.clone(),
                at,
                time: entry.time,
                expires: (entry.expires != 0).then_some(entry.expires),
                body: Body::from_canonical(body),
            });
        }
        let end = Position::new(start.epoch, end);
        Ok(Page { mode: kept.mode, start, messages, end, head: Position::new(record.lives.newest(), head), missing })
    }

    /// Whether a topic has a record that is not over.
    pub fn knows(&self, topic: &Topic, now: u64) -> bool {
        self.by_name.get(topic).is_some_and(|&id| !self.is_over(id, now))
    }

    fn check(&self, item: &Append) -> Result<(), StoreError> {
        let gives = self.bounds.durability;
        if let Some(asked) = item.publication.durability.filter(|&asked| asked > gives) {
            return Err(StoreError::Durability { asked, gives });
        }
        let size = item.publication.body.as_bytes().len() as u64 + MESSAGE_OVERHEAD;
        if size > self.bounds.bytes || u32::try_from(size).is_err() {
            return Err(StoreError::Full(format!("a message of {size} bytes, and {} in all", self.bounds.bytes)));
        }
        Ok(())
    }

    /// The topic of this name; begins its life if it has none.
    pub(super) fn topic(&mut self, name: &Topic, now: u64) -> Result<usize, Failure> {
        if let Some(&id) = self.by_name.get(name) {
            if !self.is_over(id, now) {
                return Ok(id);
            }
            self.remove_topic(id)?;
        }
        if self.topics.len() >= self.bounds.topics {
            return Err(StoreError::Full(format!("it holds {} topics and takes no more", self.bounds.topics)).into());
        }
        let epoch = draw_epoch()?;
        let id = self.topics.vacant_key();
        let settings = *self.bounds.rules.of(name);
        self.tables.insert_topic(id, name.as_str(), settings.mode, epoch, now)?;
        self.topics.insert(Record::new(name.clone(), settings, Lives::new(vec![(epoch, 0)]), 0, now));
        self.by_name.insert(name.clone(), id);
        Ok(id)
    }

    /// Where the same was stored under this key; an error if it was something else, or if there is no room for a key.
    fn repeated(&mut self, id: usize, key: &str, digest: &[u8], now: u64) -> Result<Option<Position>, Failure> {
        match self.tables.find_key(id, key)? {
            Some(known) if !known.is_whole => {
                Err(StoreError::Broken("this idempotency_key is damaged in the store's file".into()).into())
            }
            Some(known) if known.expires > now => {
                let epoch = known.epoch.parse().map_err(|e| StoreError::Broken(format!("idempotency table: {e}")))?;
                let at = Position::new(epoch, known.offset);
                if known.digest == digest { Ok(Some(at)) } else { Err(StoreError::Conflict { at }.into()) }
            }
            // It is replaced by the one to be written.
            Some(_) => {
                self.keys -= 1;
                Ok(None)
            }
            None if self.keys >= self.bounds.keys => {
                let text = format!("it remembers {} idempotency keys and takes no more for now", self.bounds.keys);
                Err(StoreError::Full(text).into())
            }
            None => Ok(None),
        }
    }

    /// Answers the time that it is of, too. Times never descend within a topic, though the clock does: `since` finds its
    /// first message by that. What ends by time is counted on the clock.
    fn store(&mut self, id: usize, publication: &Publication, now: u64) -> Result<(Position, u64), Failure> {
        let record = &mut self.topics[id];
        let (seq, offset) = (self.next_seq, record.head() + 1);
        let at = Position::new(record.lives.newest(), offset);
        let time = record.touched.max(now);
        record.touched = time;
        if record.settings.mode == Mode::Live {
            record.pass_to(offset, time);
            self.keep_head(id)?;
            return Ok((at, time));
        }
        let (body, key) = (publication.body.as_bytes(), publication.key.as_deref());
        let expires = publication.ttl.map_or(0, |ttl| now.saturating_add(millis(ttl)));
        self.tables.insert_message(&MessageRow { seq, topic: id, offset, time, expires, key, body })?;
        self.next_seq += 1;
        let replaced = record.push(Entry { seq, bytes: body.len() as u32, time, expires }, key);
        self.bytes += body.len() as u64 + MESSAGE_OVERHEAD;
        if expires != 0 {
            self.expiring.insert((expires, id, offset));
        }
        if let Some((offset, entry)) = replaced.filter(|(_, entry)| entry.has_row()) {
            self.forget(id, offset, entry)?;
        }
        Ok((at, time))
    }

    fn mark(&mut self, id: usize, fence: Option<&Fence>) -> Result<(), Failure> {
        if let Some(fence) = fence {
            self.tables.set_fence(id, fence)?;
            self.topics[id].mark(fence.clone());
        }
        Ok(())
    }

    /// Removes what the retention of one topic does not keep. The newest message may be as large as it is.
    fn trim(&mut self, id: usize, now: u64) -> Result<(), Failure> {
        let TopicSettings { messages, bytes, age, .. } = self.topics[id].settings;
        loop {
            let record = &self.topics[id];
            let Some((_, oldest)) = record.oldest() else { return Ok(()) };
            let is_over = record.kept() > messages
                || (record.bytes() > bytes && record.kept() > 1)
                || is_aged(oldest, millis(age), now);
            if !is_over {
                return Ok(());
            }
            self.remove_oldest(id)?;
        }
    }
}

pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn draw_epoch() -> Result<Epoch, StoreError> {
    let bits = getrandom::u64().map_err(|e| StoreError::Broken(format!("the system gives no random bits: {e}")))?;
    Ok(Epoch::from_random(bits))
}
