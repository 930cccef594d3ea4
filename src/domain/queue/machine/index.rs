//! The jobs of one queue in all the orders that are asked for, with their counts and bytes. Small: a job that waits takes
//! about 120 bytes here. Knows nothing of groups, leases or settings.

use std::collections::{BTreeMap, BTreeSet};

use super::Spot;
use crate::domain::queue::{Death, Priority};

/// What is known of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    pub time: u64,
    /// Since when it can be taken, when it is due, when its lease ends, or when it died; 0 behind a head.
    pub until: u64,
    /// When its time to live ends; 0: never.
    pub expires: u64,
    pub bytes: u32,
    pub group: Option<GroupId>,
    /// Deliveries, and how many of these failed.
    pub tries: u16,
    pub failures: u16,
    pub priority: Priority,
    pub spot: Spot,
    pub death: Option<Death>,
}

/// The place of a group among those of its queue, plus one.
pub type GroupId = std::num::NonZeroU32;

/// In the order in which jobs are taken: the highest priority first, in it the lowest number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(u64);

const NUMBER_BITS: u32 = 56;

impl Rank {
    fn new(priority: Priority, number: u64) -> Rank {
        let level = Priority::LEVELS as u64 - 1 - u64::from(priority.level());
        Rank(level << NUMBER_BITS | number)
    }

    fn number(self) -> u64 {
        self.0 & ((1 << NUMBER_BITS) - 1)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    jobs: BTreeMap<u64, Job>,
    ready: BTreeSet<Rank>,
    delayed: BTreeSet<(u64, u64)>,
    leases: BTreeSet<(u64, u64)>,
    dead: BTreeSet<(u64, u64)>,
    /// Those with a time to live that are neither in flight nor dead.
    expiring: BTreeSet<(u64, u64)>,
    /// Takeable and parked.
    pub waiting: [u64; Priority::LEVELS],
    /// Takeable, and the bytes of these.
    pub ready_jobs: [u64; Priority::LEVELS],
    pub ready_bytes: [u64; Priority::LEVELS],
    pub parked: u64,
    /// Bytes of those that are not dead, and of the dead.
    pub bytes: u64,
    pub dead_bytes: u64,
}

impl Index {
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    pub fn delayed_len(&self) -> usize {
        self.delayed.len()
    }

    pub fn in_flight_len(&self) -> usize {
        self.leases.len()
    }

    pub fn dead_len(&self) -> usize {
        self.dead.len()
    }

    /// Jobs that are not dead.
    pub fn live_len(&self) -> u64 {
        (self.jobs.len() - self.dead.len()) as u64
    }

    pub fn waiting_len(&self) -> u64 {
        self.waiting.iter().sum()
    }

    pub fn get(&self, number: u64) -> Option<&Job> {
        self.jobs.get(&number)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, &Job)> {
        self.jobs.iter().map(|(number, job)| (*number, job))
    }

    pub fn insert(&mut self, number: u64, job: Job) {
        let before = self.jobs.insert(number, job);
        debug_assert!(before.is_none(), "numbers are given out once");
        self.count(number, &job, true);
    }

    pub fn remove(&mut self, number: u64) -> Option<Job> {
        let job = self.jobs.remove(&number)?;
        self.count(number, &job, false);
        Some(job)
    }

    /// Changes a job that is here, in all orders.
    pub fn change(&mut self, number: u64, change: impl FnOnce(&mut Job)) {
        let Some(mut job) = self.jobs.get(&number).copied() else { return };
        self.count(number, &job, false);
        change(&mut job);
        self.count(number, &job, true);
        self.jobs.insert(number, job);
    }

    /// Enters a job into the orders and sums of its spot, or takes it out of them.
    fn count(&mut self, number: u64, job: &Job, is_in: bool) {
        let level = job.priority.level() as usize;
        let bytes = u64::from(job.bytes);
        match job.spot {
            Spot::Ready => {
                set(&mut self.ready, Rank::new(job.priority, number), is_in);
                add(&mut self.waiting[level], 1, is_in);
                add(&mut self.ready_jobs[level], 1, is_in);
                add(&mut self.ready_bytes[level], bytes, is_in);
            }
            Spot::Parked => {
                add(&mut self.waiting[level], 1, is_in);
                add(&mut self.parked, 1, is_in);
            }
            Spot::Delayed => set(&mut self.delayed, (job.until, number), is_in),
            Spot::InFlight => set(&mut self.leases, (job.until, number), is_in),
            Spot::Dead | Spot::DeadHead => set(&mut self.dead, (job.until, number), is_in),
        }
        add(if job.spot.is_dead() { &mut self.dead_bytes } else { &mut self.bytes }, bytes, is_in);
        if job.expires > 0 && matches!(job.spot, Spot::Ready | Spot::Parked | Spot::Delayed) {
            set(&mut self.expiring, (job.expires, number), is_in);
        }
    }

    /// Of what can be taken, the one that comes next.
    pub fn first(&self) -> Option<u64> {
        self.ready.first().map(|rank| rank.number())
    }

    /// The one with the lowest number of a priority.
    pub fn first_of(&self, priority: Priority) -> Option<u64> {
        let (from, to) = (Rank::new(priority, 0), Rank::new(priority, (1 << NUMBER_BITS) - 1));
        self.ready.range(from..=to).next().map(|rank| rank.number())
    }

    /// The one with the lowest number of all that can be taken, of these priorities.
    pub fn oldest(&self, most: Priority) -> Option<u64> {
        (0..=most.level()).filter_map(Priority::new).filter_map(|priority| self.first_of(priority)).min()
    }

    /// The lowest number of the lowest priority, not above this one.
    pub fn least(&self, most: Priority) -> Option<u64> {
        (0..=most.level()).filter_map(Priority::new).find_map(|priority| self.first_of(priority))
    }

    /// Numbers in the order in which they will be taken.
    pub fn ready(&self) -> impl Iterator<Item = u64> {
        self.ready.iter().map(|rank| rank.number())
    }

    pub fn delayed(&self) -> impl Iterator<Item = (u64, u64)> {
        self.delayed.iter().copied()
    }

    pub fn leases(&self) -> impl Iterator<Item = (u64, u64)> {
        self.leases.iter().copied()
    }

    pub fn dead(&self) -> impl Iterator<Item = (u64, u64)> {
        self.dead.iter().copied()
    }

    pub fn expiring(&self) -> impl Iterator<Item = (u64, u64)> {
        self.expiring.iter().copied()
    }
}

fn set<T: Ord>(set: &mut BTreeSet<T>, value: T, is_in: bool) {
    if is_in {
        set.insert(value);
    } else {
        set.remove(&value);
    }
}

fn add(sum: &mut u64, value: u64, is_in: bool) {
    if is_in {
        *sum += value;
    } else {
        *sum -= value;
    }
}
