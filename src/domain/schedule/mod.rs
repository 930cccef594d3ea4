//! Schedules: a job or a message at the times of a cron expression, once over all nodes.

mod cron;

pub use self::cron::Cron;
use super::name::Topic;
use super::queue::{Priority, Queue};

/// Schedules of one hub.
pub const MOST_SCHEDULES: usize = 256;
/// Bytes of a schedule's name.
pub const MAX_SCHEDULE: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Letters, digits, `_` and `-`: it is part of a topic's name.
    pub name: Box<str>,
    pub cron: Cron,
    pub target: Target,
    /// JSON, in one line.
    pub data: Box<str>,
    /// Of runs that were missed, while no node was there, the last is made up for.
    pub catch_up: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Queue { queue: Queue, priority: Priority },
    Topic(Topic),
}

/// What is known of a schedule, to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub name: Box<str>,
    pub cron: Box<str>,
    pub timezone: Box<str>,
    pub target: Target,
    pub catch_up: bool,
    /// When it runs next. `None`: never, or this node has not yet read what ran last.
    pub next: Option<u64>,
    /// The time of the last run that this node knows of.
    pub last: Option<u64>,
}
