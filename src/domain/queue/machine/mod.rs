//! The pure queue: what one queue knows of its jobs but for their bodies, and what each call does to it.
//!
//! No I/O and no clock: `now` is an argument, milliseconds since 1970. What a call has changed is gathered and goes out by
//! `changes`, so that a store can write it in the same commit; whoever keeps the bodies adds and removes them by that.
//! `restore` makes the same queue again of what was written, save that what was in flight waits again.
//!
//! `index` has the jobs in all their orders, `groups` who is whose head, `keys` what was put before, `due` what moves by
//! itself, `start` when a queue fires, `seats` who may take; the other files have one call or two each.

mod bury;
mod change;
mod due;
mod groups;
mod index;
mod keys;
mod look;
mod put;
mod rows;
mod seats;
mod settle;
mod start;
mod take;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub use self::keys::{KEY, KeyId, KeyRow};
pub use self::put::{PutDone, Room};
pub use self::rows::{Changes, Gone, Header, NewAttempt, Row, Untold};
pub use self::take::{Lent, Took};

use self::groups::Groups;
use self::index::Index;
use self::keys::Keys;
use self::seats::Seats;
use super::settings::QueueSettings;
use super::{JobId, Mark, OF_TOPIC, Place, Queue};
use crate::domain::lives::Lives;
use crate::domain::position::Position;

/// Sources that one queue keeps a mark of: each topic that is bound to it, each partition of ingest, each schedule.
pub const MOST_MARKS: usize = 10_000;
/// Firings that wait to be told; beyond it the oldest are forgotten, which their numbers show.
pub const MOST_UNTOLD: usize = 100;

#[derive(Debug, Clone)]
pub struct Machine {
    queue: Queue,
    settings: QueueSettings,
    header: Header,
    index: Index,
    groups: Groups,
    keys: Keys,
    marks: BTreeMap<Box<str>, Mark>,
    seats: Seats,
    flights: HashMap<u64, Flight>,
    /// Until when the oldest firing is somebody's to tell.
    claimed: u64,
    /// Jobs that a process took along on their last try: to be buried.
    spent: BTreeSet<u64>,
    changed: Changed,
    /// Whether there was something to take when the last call ended.
    was_takeable: bool,
}

/// A delivery that is out; its lease ends at the job's `until`.
#[derive(Debug, Clone)]
struct Flight {
    token: u64,
    begun: u64,
    worker: Box<str>,
}

/// What was changed since `changes` was called last.
#[derive(Debug, Clone, Default)]
struct Changed {
    jobs: BTreeSet<u64>,
    gone: Vec<Gone>,
    attempts: Vec<NewAttempt>,
    keys: Vec<KeyId>,
    keys_gone: Vec<KeyId>,
    marks: BTreeSet<Box<str>>,
    has_header: bool,
    wakes_takers: bool,
    has_fired: bool,
}

/// Where a job is, as the machine and the rows tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spot {
    Ready,
    Parked,
    Delayed,
    InFlight,
    Dead,
    /// Dead, and the head of its group as ever: nothing behind it is given out.
    DeadHead,
}

impl Spot {
    pub fn place(self) -> Place {
        match self {
            Spot::Ready => Place::Ready,
            Spot::Parked => Place::Parked,
            Spot::Delayed => Place::Delayed,
            Spot::InFlight => Place::InFlight,
            Spot::Dead | Spot::DeadHead => Place::Dead,
        }
    }

    pub fn is_dead(self) -> bool {
        matches!(self, Spot::Dead | Spot::DeadHead)
    }
}

impl Machine {
    /// A queue that begins.
    pub fn new(queue: Queue, settings: QueueSettings, lives: Lives) -> Machine {
        Machine::of(queue, settings, Header::new(lives))
    }

    fn of(queue: Queue, settings: QueueSettings, header: Header) -> Machine {
        Machine {
            queue,
            settings,
            header,
            index: Index::default(),
            groups: Groups::default(),
            keys: Keys::default(),
            marks: BTreeMap::new(),
            seats: Seats::default(),
            flights: HashMap::new(),
            claimed: 0,
            spent: BTreeSet::new(),
            changed: Changed { has_header: true, ..Changed::default() },
            was_takeable: false,
        }
    }

    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    pub fn settings(&self) -> &QueueSettings {
        &self.settings
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn mark(&self, source: &str) -> Option<&Mark> {
        self.marks.get(source)
    }

    /// The id of a job that is or was here.
    pub fn id_of(&self, number: u64) -> JobId {
        JobId(Position::new(self.header.lives.epoch_of(number), number))
    }

    /// Jobs with a body, dead or not, and the bytes of these.
    pub fn size(&self) -> (u64, u64) {
        (self.index.len() as u64, self.index.bytes + self.index.dead_bytes)
    }

    /// Keys that are remembered.
    pub fn keys(&self) -> u64 {
        self.keys.len() as u64
    }

    /// Nothing is in it, and nothing of it must be remembered.
    pub fn is_blank(&self) -> bool {
        self.index.len() == 0
            && self.keys.len() == 0
            && self.header.untold.is_empty()
            && !self.header.is_paused
            && self.seats.is_empty()
            && !self.marks.keys().any(|source| source.starts_with(OF_TOPIC))
    }

    /// Whether a `take` by somebody who may take would be given a job.
    pub fn is_takeable(&self) -> bool {
        self.index.ready_len() > 0 && !self.header.is_paused && self.is_open()
    }

    /// The number of a job, if the id is that of one that is here.
    fn number_of(&self, job: JobId) -> Option<u64> {
        let is_here = self.index.get(job.number()).is_some() && self.id_of(job.number()) == job;
        is_here.then_some(job.number())
    }

    /// To be called at the end of each call: judges `start_when`, and whether somebody should be woken up.
    fn finish(&mut self, now: u64) {
        self.judge(now);
        let is_takeable = self.is_takeable();
        self.changed.wakes_takers |= is_takeable && !self.was_takeable;
        self.was_takeable = is_takeable;
    }
}
