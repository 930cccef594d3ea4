//! What the scripts answer, in the words of the contract.

use std::time::Duration;

use redis::Value;

use crate::domain::message::{Body, Durability};
use crate::domain::position::{Epoch, Position};
use crate::domain::queue::{
    Attempt, AttemptEnd, Death, Firing, Held, Job, JobId, Place, Priority, PutAnswer, Queue, Seen, Settled, Stats,
    Swept, Take, Taken, Totals,
};
use crate::domain::store::StoreError;
use crate::store::redis::scripts::{number, parse, position, refusal, text_of};

/// Reads the parts of an answer one after the other; `None` is the end, or something unexpected.
pub struct Parts<'a>(std::slice::Iter<'a, Value>);

impl<'a> Parts<'a> {
    /// Those behind the letter that an answer begins with.
    pub fn of(value: &'a Value, letter: &str) -> Option<Parts<'a>> {
        let Value::Array(parts) = value else { return None };
        let mut parts = parts.iter();
        (text_of(parts.next()?)? == letter).then_some(Parts(parts))
    }

    pub fn next(&mut self) -> Option<&'a Value> {
        self.0.next()
    }

    fn is_over(&self) -> bool {
        self.0.len() == 0
    }

    pub fn number(&mut self) -> Option<u64> {
        number(self.next()?)
    }

    /// What may be -1 for nothing.
    pub fn maybe(&mut self) -> Option<Option<u64>> {
        Some(match self.next()? {
            Value::Int(number) => u64::try_from(*number).ok(),
            other => Some(parse(other)?),
        })
    }

    fn text(&mut self) -> Option<&'a str> {
        text_of(self.next()?)
    }

    fn id(&mut self) -> Option<JobId> {
        let offset = self.number()?;
        let epoch: Epoch = self.text()?.parse().ok()?;
        Some(JobId(Position::new(epoch, offset)))
    }

    fn priority(&mut self) -> Option<Priority> {
        Priority::new(u8::try_from(self.number()?).ok()?)
    }

    fn group(&mut self) -> Option<Option<Box<str>>> {
        Some(Some(self.text()?).filter(|group| !group.is_empty()).map(Box::from))
    }

    fn body(&mut self) -> Option<Body> {
        match self.next()? {
            Value::BulkString(bytes) => Some(Body::from_canonical(bytes.clone().into())),
            _ => None,
        }
    }
}

/// Also whether the queue began with it.
pub fn put(value: &Value, durability: Durability) -> Option<(bool, Vec<Result<PutAnswer, StoreError>>)> {
    let mut parts = Parts::of(value, "P")?;
    let time = parts.number()?;
    let epoch: Epoch = parts.text()?.parse().ok()?;
    let has_begun = parts.number()? == 1;
    let mut answers = Vec::new();
    while let Some(part) = parts.next() {
        if let Value::Int(number) = part {
            let job = JobId(Position::new(epoch, u64::try_from(*number).ok()?));
            answers.push(Ok(PutAnswer::Stored { job, time, durability }));
            continue;
        }
        let text = text_of(part)?;
        let rest = text.get(1..)?;
        answers.push(match text.as_bytes()[0] {
            b'R' => Ok(PutAnswer::Repeated { job: JobId(position(rest)?), durability }),
            b'C' => Err(StoreError::Conflict { at: position(rest)? }),
            b'S' => Ok(PutAnswer::Skipped),
            b'E' => Err(refusal(rest)),
            _ => return None,
        });
    }
    Some((has_begun, answers))
}

pub fn settle(value: &Value) -> Option<Vec<Settled>> {
    let mut parts = Parts::of(value, "S")?;
    let mut settled = Vec::new();
    while !parts.is_over() {
        let text = parts.text()?;
        settled.push(match text {
            "D" => Settled::Done,
            "B" => Settled::Dead,
            "N" => Settled::NoLease,
            "G" => Settled::Gone,
            _ => Settled::Extended(Duration::from_millis(text.strip_prefix('X')?.parse().ok()?)),
        });
    }
    Some(settled)
}

pub fn take(value: &Value, queue: &Queue, take: &Take, max_tries: u32) -> Option<Taken> {
    let mut parts = Parts::of(value, "T")?;
    let held = match parts.text()? {
        "paused" => Some(Held::Paused),
        "gate" => Some(Held::Gate),
        "seats" => Some(Held::Seats),
        _ => None,
    };
    let (more, next, has_fired) = (parts.number()? == 1, parts.maybe()?, parts.number()? == 1);
    let lease = Duration::from_millis(parts.number()?);
    let mut jobs = Vec::new();
    while !parts.is_over() {
        jobs.push(Job {
            queue: queue.clone(),
            id: parts.id()?,
            token: take.token,
            tries: u32::try_from(parts.number()?).ok()?,
            max_tries,
            lease,
            priority: parts.priority()?,
            group: parts.group()?,
            time: parts.number()?,
            body: parts.body()?,
        });
    }
    Some(Taken { jobs, held, more, next: next.map(Duration::from_millis), has_fired })
}

pub fn swept(value: &Value, queue: &Queue) -> Option<Swept> {
    let mut parts = Parts::of(value, "W")?;
    let moved = usize::try_from(parts.number()?).ok()?;
    let (more, takeable, next) = (parts.number()? == 1, parts.number()? == 1, parts.maybe()?);
    let mut fired = None;
    if !parts.is_over() {
        fired = Some(Firing {
            queue: queue.clone(),
            number: parts.number()?,
            oldest: Duration::from_millis(parts.number()?),
            arm: usize::try_from(parts.number()?).ok()?,
            time: parts.number()?,
            waiting: levels(&mut parts)?,
        });
    }
    Some(Swept { moved, more, takeable, next: next.map(Duration::from_millis), fired })
}

fn levels(parts: &mut Parts) -> Option<[u64; Priority::LEVELS]> {
    let mut waiting = [0; Priority::LEVELS];
    for level in &mut waiting {
        *level = parts.number()?;
    }
    Some(waiting)
}

pub fn stats(value: &Value) -> Option<Stats> {
    let mut parts = Parts::of(value, "N")?;
    let mut stats = Stats {
        parked: parts.number()?,
        delayed: parts.number()?,
        in_flight: parts.number()?,
        dead: parts.number()?,
        bytes: parts.number()?,
        dead_bytes: parts.number()?,
        oldest: parts.maybe()?.map(Duration::from_millis),
        paused: parts.number()? == 1,
        gate_open: parts.maybe()?.map(|open| open == 1),
        firings: parts.number()?,
        totals: Totals {
            put: parts.number()?,
            repeated: parts.number()?,
            taken: parts.number()?,
            acked: parts.number()?,
            nacked: parts.number()?,
            lease_ended: parts.number()?,
            died: parts.number()?,
            redriven: parts.number()?,
            forgotten: parts.number()?,
        },
        waiting: levels(&mut parts)?,
        seats: Vec::new(),
    };
    while !parts.is_over() {
        stats.seats.push(parts.text()?.into());
    }
    Some(stats)
}

pub fn seen(value: &Value) -> Option<Vec<Seen>> {
    let mut parts = Parts::of(value, "J")?;
    let mut seen = Vec::new();
    while !parts.is_over() {
        let id = parts.id()?;
        let place = match parts.number()? {
            0 => Place::Ready,
            1 => Place::Parked,
            2 => Place::Delayed,
            3 => Place::InFlight,
            _ => Place::Dead,
        };
        let (priority, group) = (parts.priority()?, parts.group()?);
        let (tries, time) = (u32::try_from(parts.number()?).ok()?, parts.number()?);
        let until = Some(parts.number()?).filter(|_| !matches!(place, Place::Ready | Place::Parked));
        let expires = Some(parts.number()?).filter(|expires| *expires > 0);
        let death = Death::parse(parts.text()?);
        let Value::Array(failures) = parts.next()? else { return None };
        let attempts = failures.iter().map(attempt).collect::<Option<_>>()?;
        let body = parts.body()?;
        seen.push(Seen { id, place, priority, group, tries, time, until, expires, death, attempts, body });
    }
    Some(seen)
}

fn attempt(value: &Value) -> Option<Attempt> {
    let Value::Array(parts) = value else { return None };
    let mut parts = Parts(parts.iter());
    let (time, worker) = (parts.number()?, parts.text()?.into());
    let end = match parts.text()? {
        "nack" => AttemptEnd::Nack,
        "term" => AttemptEnd::Term,
        _ => AttemptEnd::Lease,
    };
    Some(Attempt { time, worker, end, error: parts.text()?.strip_prefix('+').map(Box::from) })
}
