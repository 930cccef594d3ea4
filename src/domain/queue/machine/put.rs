//! Putting jobs in: what was put before, room, and the job's first place.

use std::time::Duration;

use super::index::Job;
use super::keys::{KeyRow, Kind, content_of, id_of};
use super::settle::millis;
use super::{MOST_MARKS, Machine, Spot};
use crate::domain::queue::{Death, Due, JobId, MAX_DELAY, Mark, OnFull, Priority, Put};
use crate::domain::store::{Fence, StoreError};

/// What the store leaves to one put.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Keys that may be remembered beside those that are, and bytes of bodies beside those that are kept.
    pub keys: u64,
    pub bytes: u64,
    /// How long an idempotency key is remembered.
    pub window: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutDone {
    /// Its body, and the row of it, are to be written.
    Stored(JobId),
    Repeated(JobId),
    Skipped,
}

impl Machine {
    pub fn put(&mut self, put: &Put, now: u64, room: Room) -> Result<PutDone, StoreError> {
        self.move_due(now);
        let done = self.put_one(put, now, room);
        self.finish(now);
        done
    }

    fn put_one(&mut self, put: &Put, now: u64, room: Room) -> Result<PutDone, StoreError> {
        if let Some(fence) = &put.fence {
            match self.marks.get(&fence.source) {
                Some(mark) if mark.life == fence.life && mark.id >= fence.id => return Ok(PutDone::Skipped),
                None if self.marks.len() >= MOST_MARKS => {
                    return Err(StoreError::Full(format!("a queue is fed by at most {MOST_MARKS} sources")));
                }
                _ => {}
            }
        }
        let keys = self.keys_of(put, now, room.window);
        let content = put.idempotency_key.as_ref().map(|_| content_of(put.body.as_bytes()));
        let repeated = keys.iter().find_map(|key| self.keys.find(&key.id, now)).copied();
        if let Some(known) = repeated {
            let job = self.id_of(known.number);
            if known.content.is_some() && known.content != content {
                return Err(StoreError::Conflict { at: job.0 });
            }
            // The window of a de-duplication key is that of the first put. Where there is no room for a key, the answer is
            // right all the same.
            let own: Vec<KeyRow> = keys.into_iter().filter(|key| key.content.is_some()).collect();
            let _ = self.remember(&own, known.number, now, room);
            self.enter_mark(put.fence.as_ref());
            self.header.totals.repeated += 1;
            self.changed.has_header = true;
            return Ok(PutDone::Repeated(job));
        }
        self.check_room(put, room)?;
        let number = self.header.last + 1;
        self.remember(&keys, number, now, room)?;
        self.make_room(put, now);
        self.enter(put, number, now);
        self.enter_mark(put.fence.as_ref());
        Ok(PutDone::Stored(self.id_of(number)))
    }

    /// The keys that a put goes by, in the order in which they are asked for, with the ends of their windows.
    fn keys_of(&self, put: &Put, now: u64, idempotency: Duration) -> Vec<KeyRow> {
        let end = |window: Duration| now.saturating_add(millis(window));
        let window = self.settings.dedupe_window;
        let mut keys = Vec::new();
        if let Some(key) = &put.idempotency_key {
            let content = Some(content_of(put.body.as_bytes()));
            let id = id_of(Kind::Idempotency, key.as_bytes());
            keys.push(KeyRow { id, content, number: 0, expires: end(idempotency) });
        }
        let dedupe = match &put.dedupe {
            Some(dedupe) => Some((id_of(Kind::Dedupe, dedupe.key.as_bytes()), dedupe.window.unwrap_or(window))),
            None if self.settings.dedupe_content => Some((id_of(Kind::Content, put.body.as_bytes()), window)),
            None => None,
        };
        if let Some((id, window)) = dedupe.filter(|(_, window)| !window.is_zero()) {
            keys.push(KeyRow { id, content: None, number: 0, expires: end(window) });
        }
        keys
    }

    /// Writes down what these keys stand for, those that stand for nothing yet.
    fn remember(&mut self, keys: &[KeyRow], number: u64, now: u64, room: Room) -> Result<(), StoreError> {
        let new: Vec<KeyRow> = keys.iter().filter(|key| self.keys.find(&key.id, now).is_none()).copied().collect();
        if new.len() as u64 > room.keys {
            return Err(StoreError::Full("it remembers as many keys of queues as it may; come back later".into()));
        }
        for key in new {
            self.keys.insert(KeyRow { number, ..key });
            self.changed.keys.push(key.id);
        }
        Ok(())
    }

    /// Whether there is room, or can be made.
    fn check_room(&self, put: &Put, room: Room) -> Result<(), StoreError> {
        let size = put.body.as_bytes().len() as u64;
        let (most, most_bytes) = (self.settings.max_messages, self.settings.max_bytes);
        if size > most_bytes || u32::try_from(size).is_err() {
            let text = format!("a job of {size} bytes, and the queue takes {most_bytes} in all (max_bytes)");
            return Err(StoreError::TooLarge(text));
        }
        if size > room.bytes {
            return Err(StoreError::Full("all queues together hold as many bytes as they may".into()));
        }
        let excess = (self.index.live_len() + 1).saturating_sub(most);
        let excess_bytes = (self.index.bytes + size).saturating_sub(most_bytes);
        if excess == 0 && excess_bytes == 0 {
            return Ok(());
        }
        let droppable = match self.settings.on_full {
            OnFull::Reject => 0,
            OnFull::DropOldest => Priority::LEVELS,
            OnFull::DropLowestPriority => put.priority.level() as usize + 1,
        };
        let sum = |levels: &[u64]| levels[..droppable].iter().sum::<u64>();
        if sum(&self.index.ready_jobs) >= excess && sum(&self.index.ready_bytes) >= excess_bytes {
            return Ok(());
        }
        Err(StoreError::Full(format!("the queue holds {} jobs of {} bytes", self.index.live_len(), self.index.bytes)))
    }

    /// Makes dead letters of what has to make room.
    fn make_room(&mut self, put: &Put, now: u64) {
        let size = put.body.as_bytes().len() as u64;
        while self.index.live_len() >= self.settings.max_messages || self.index.bytes + size > self.settings.max_bytes {
            let victim = match self.settings.on_full {
                OnFull::Reject => None,
                OnFull::DropOldest => self.index.oldest(Priority(Priority::LEVELS as u8 - 1)),
                OnFull::DropLowestPriority => self.index.least(put.priority),
            };
            let Some(victim) = victim else { return };
            self.bury(victim, Death::Dropped, now);
        }
    }

    fn enter(&mut self, put: &Put, number: u64, now: u64) {
        let group = put.group.as_deref().map(|name| self.groups.join(name));
        let due = match put.due {
            _ if group.is_some() => now,
            Due::Default => now.saturating_add(millis(self.settings.delay)),
            Due::After(delay) => now.saturating_add(millis(delay.min(MAX_DELAY))),
            Due::At(time) => time.clamp(now, now.saturating_add(millis(MAX_DELAY))),
        };
        let (spot, until) = match group {
            Some(group) if self.groups.head(group).is_some() => {
                self.groups.park(group, number);
                (Spot::Parked, 0)
            }
            Some(group) => {
                self.groups.set_head(group, Some(number));
                (Spot::Ready, now)
            }
            None if due > now => (Spot::Delayed, due),
            None => (Spot::Ready, now),
        };
        let ttl = put.ttl.or(self.settings.ttl);
        let job = Job {
            time: now,
            until,
            expires: ttl.map_or(0, |ttl| now.saturating_add(millis(ttl).max(1))),
            bytes: put.body.as_bytes().len() as u32,
            group,
            tries: 0,
            failures: 0,
            priority: put.priority,
            spot,
            death: None,
        };
        self.index.insert(number, job);
        self.header.last = number;
        self.header.totals.put += 1;
        self.changed.has_header = true;
    }

    fn enter_mark(&mut self, fence: Option<&Fence>) {
        if let Some(fence) = fence {
            self.marks.insert(fence.source.clone(), Mark { life: fence.life.clone(), id: fence.id });
            self.changed.marks.insert(fence.source.clone());
        }
    }
}
