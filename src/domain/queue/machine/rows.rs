//! What a store writes of a queue and gives back when it opens it again.

use std::collections::VecDeque;
use std::sync::Arc;

use super::index::Job;
use super::keys::{KeyId, KeyRow};
use super::{Changed, Machine, Spot};
use crate::domain::lives::Lives;
use crate::domain::queue::settings::QueueSettings;
use crate::domain::queue::{Attempt, Death, Firing, Mark, Priority, Queue, Totals};

/// What is written once for a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub lives: Lives,
    /// The newest number that was given out.
    pub last: u64,
    pub is_paused: bool,
    /// `start_when` waits for one of its arms; the gate is closed then.
    pub is_armed: bool,
    /// Jobs taken since it fired last.
    pub taken_since: u64,
    pub firings: u64,
    /// Firings that nobody has said to be told, oldest first.
    pub untold: VecDeque<Untold>,
    pub totals: Totals,
}

/// A firing as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Untold {
    pub number: u64,
    pub waiting: [u64; Priority::LEVELS],
    /// Milliseconds.
    pub oldest: u64,
    pub arm: usize,
    pub time: u64,
}

impl Header {
    pub fn new(lives: Lives) -> Header {
        Header {
            last: lives.newest_base().offset,
            lives,
            is_paused: false,
            is_armed: true,
            taken_since: 0,
            firings: 0,
            untold: VecDeque::new(),
            totals: Totals::default(),
        }
    }
}

impl Untold {
    pub fn firing(&self, queue: &Queue) -> Firing {
        let Untold { number, waiting, oldest, arm, time } = *self;
        Firing { queue: queue.clone(), number, waiting, oldest: std::time::Duration::from_millis(oldest), arm, time }
    }
}

/// A job as it is written: without its body, and without its lease. One that is in flight is written as takeable since
/// its delivery, so that it waits again when its lease is lost with the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub number: u64,
    pub time: u64,
    pub until: u64,
    pub expires: u64,
    pub bytes: u32,
    pub group: Option<Arc<str>>,
    pub tries: u16,
    pub failures: u16,
    pub priority: Priority,
    pub spot: Spot,
    pub death: Option<Death>,
}

/// A job that is here no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    pub number: u64,
    /// It has attempts that are written.
    pub has_failed: bool,
}

/// An attempt to be written with its job: the so-manieth of it, from 1. `MOST_ATTEMPTS` before it are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAttempt {
    pub number: u64,
    pub ordinal: u16,
    pub attempt: Attempt,
}

/// What a store must write, and who should be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// As they are now. A job that was put, and not changed since, is not among them: its store has written it.
    pub jobs: Vec<Row>,
    pub gone: Vec<Gone>,
    /// Of jobs that may be gone by now; those are to be left out.
    pub attempts: Vec<NewAttempt>,
    pub keys: Vec<KeyRow>,
    pub keys_gone: Vec<KeyId>,
    pub marks: Vec<(Box<str>, Mark)>,
    /// The header has changed.
    pub has_header: bool,
    /// There is something to take where there was nothing.
    pub wakes_takers: bool,
    pub has_fired: bool,
}

impl Machine {
    /// What was changed since this was called last.
    pub fn changes(&mut self) -> Changes {
        let Changed { jobs, gone, mut attempts, keys, keys_gone, marks, has_header, wakes_takers, has_fired } =
            std::mem::take(&mut self.changed);
        attempts.retain(|attempt| self.index.get(attempt.number).is_some());
        Changes {
            jobs: jobs.into_iter().filter_map(|number| self.row(number)).collect(),
            gone,
            attempts,
            keys: keys.iter().filter_map(|id| self.keys.get(id)).copied().collect(),
            keys_gone: keys_gone.into_iter().filter(|id| self.keys.get(id).is_none()).collect(),
            marks: marks
                .into_iter()
                .filter_map(|source| Some((source.clone(), self.marks.get(&source)?.clone())))
                .collect(),
            has_header,
            wakes_takers,
            has_fired,
        }
    }

    pub fn has_changes(&self) -> bool {
        let Changed { jobs, gone, attempts, keys, keys_gone, marks, has_header, wakes_takers, has_fired } =
            &self.changed;
        let is_empty =
            jobs.is_empty() && gone.is_empty() && attempts.is_empty() && keys.is_empty() && keys_gone.is_empty();
        !is_empty || !marks.is_empty() || *has_header || *wakes_takers || *has_fired
    }

    /// A job as it is written.
    pub fn row(&self, number: u64) -> Option<Row> {
        let Job { time, until, expires, bytes, group, tries, failures, priority, spot, death } =
            *self.index.get(number)?;
        let group = group.map(|id| self.groups.name(id).clone());
        let (spot, until) = match spot {
            Spot::InFlight => (Spot::Ready, self.flights.get(&number).map_or(until, |flight| flight.begun)),
            spot => (spot, until),
        };
        Some(Row { number, time, until, expires, bytes, group, tries, failures, priority, spot, death })
    }

    /// The queue that was written, in any order of its jobs. Where rows are missing, it is a queue that works all the same.
    pub fn restore(
        queue: Queue,
        settings: QueueSettings,
        header: Header,
        rows: impl IntoIterator<Item = Row>,
        keys: impl IntoIterator<Item = KeyRow>,
        marks: impl IntoIterator<Item = (Box<str>, Mark)>,
        now: u64,
    ) -> Machine {
        let mut machine = Machine::of(queue, settings, header);
        machine.changed.has_header = false;
        for row in rows {
            machine.restore_job(row);
        }
        keys.into_iter().for_each(|key| machine.keys.insert(key));
        machine.marks.extend(marks);
        machine.mend_groups(now);
        machine.was_takeable = machine.is_takeable();
        machine
    }

    /// Goes on with the deliveries, seats and claims of the same queue as it was before it was restored; those that are not
    /// written are no deliveries.
    pub fn take_over(&mut self, before: &Machine) {
        for (number, flight) in &before.flights {
            let (Some(job), Some(known)) = (self.index.get(*number), before.index.get(*number)) else { continue };
            if job.spot == Spot::Ready && job.until == flight.begun && job.tries == known.tries {
                self.index.change(*number, |job| (job.spot, job.until) = (Spot::InFlight, known.until));
                self.flights.insert(*number, flight.clone());
                self.spent.remove(number);
            }
        }
        (self.seats, self.claimed) = (before.seats.clone(), before.claimed);
        self.was_takeable = self.is_takeable();
    }

    fn restore_job(&mut self, row: Row) {
        let Row { number, time, until, expires, bytes, group, tries, failures, priority, mut spot, death } = row;
        let group = group.map(|name| self.groups.join(&name));
        if let Some(group) = group {
            let has_head = self.groups.head(group).is_some();
            match spot {
                Spot::Dead => {}
                // A group has one head, also where a row is not what it was.
                Spot::Ready | Spot::Delayed | Spot::InFlight | Spot::DeadHead if !has_head => {
                    self.groups.set_head(group, Some(number));
                }
                Spot::DeadHead => spot = Spot::Dead,
                _ => {
                    self.groups.park(group, number);
                    spot = Spot::Parked;
                }
            }
        }
        if matches!(spot, Spot::Ready) && u32::from(tries) >= self.settings.max_deliveries {
            self.spent.insert(number);
        }
        self.header.last = self.header.last.max(number);
        self.index.insert(number, Job { time, until, expires, bytes, group, tries, failures, priority, spot, death });
    }
}
