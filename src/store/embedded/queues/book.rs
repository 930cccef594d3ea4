//! All queues of the store: each call is applied to its machine, and what the machines changed is written before the
//! commit. Transactions are the writer's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rusqlite::{Connection, Result};
use slab::Slab;

use super::table::{MOST_QUEUES, QueueTable};
use super::{Answer, Ask, Board};
use crate::domain::lives::Lives;
use crate::domain::message::{Body, Durability};
use crate::domain::queue::machine::{Machine, PutDone, Room, Took};
use crate::domain::queue::{
    Change, Due, How, MOST_ATTEMPTS, Put, PutAnswer, Queue, QueueRules, Seen, Settle, Settled, Take, Taken, Wake,
    written,
};
use crate::domain::store::StoreError;
use crate::store::Clock;
use crate::store::embedded::held::Held;
use crate::store::embedded::log::{Failure, draw_epoch, millis};

/// What queues may hold, all together.
#[derive(Debug, Clone)]
pub struct Bounds {
    pub rules: QueueRules,
    pub queues: usize,
    /// Bytes of bodies.
    pub bytes: u64,
    pub keys: u64,
    /// How long an idempotency key is remembered.
    pub window: Duration,
    /// How long a queue that holds nothing is remembered.
    pub record: Duration,
    pub durability: Durability,
}

pub struct Book<'c> {
    pub(super) table: QueueTable<'c>,
    pub(super) bounds: Bounds,
    /// A queue's place here is its id in the tables.
    pub(super) queues: Slab<Kept>,
    pub(super) by_name: BTreeMap<Queue, usize>,
    /// Bytes of all bodies, and keys.
    pub(super) bytes: u64,
    pub(super) keys: u64,
    /// Those that have changed since the last commit.
    pub(super) touched: BTreeSet<usize>,
    /// To be told when that is committed: whether it has fired.
    pub(super) wakes: BTreeSet<(bool, Queue)>,
}

pub(super) struct Kept {
    pub machine: Machine,
    /// Its own settings, as they are written.
    pub own: Option<String>,
    pub used: u64,
}

impl<'c> Book<'c> {
    pub fn open(connection: &'c Connection, is_guarded: bool, bounds: Bounds, now: u64) -> Result<Book<'c>> {
        let mut book = Book {
            table: QueueTable::prepare(connection, is_guarded)?,
            bounds: Bounds { queues: bounds.queues.min(MOST_QUEUES), ..bounds },
            queues: Slab::new(),
            by_name: BTreeMap::new(),
            bytes: 0,
            keys: 0,
            touched: BTreeSet::new(),
            wakes: BTreeSet::new(),
        };
        book.rebuild(now)?;
        Ok(book)
    }

    /// Does what a call asks, within a transaction. An error takes the whole transaction with it.
    pub fn apply(&mut self, ask: &Ask, clock: &Clock) -> Result<std::result::Result<Answer, StoreError>> {
        let now = clock.steady();
        let answered = match ask {
            Ask::Put(batch) => self.put_all(batch, now, clock).map(Answer::Put),
            Ask::Take(queue, take) => self.take(queue, take, now).map(Answer::Taken),
            Ask::Settle(queue, batch) => Ok(Answer::Settled(self.settle(queue, batch, now))),
            Ask::Sweep(queue) => {
                let swept = self.look_at(queue, now, |machine| machine.sweep(now));
                Ok(Answer::Swept(swept.unwrap_or_default()))
            }
            Ask::Mark(queue, source) => {
                Ok(Answer::Mark(self.machine(queue).and_then(|machine| machine.mark(source)).cloned()))
            }
            Ask::Settings(queue) => {
                let own = self.machine(queue).map(Machine::settings);
                Ok(Answer::Settings(Box::new(own.unwrap_or_else(|| self.bounds.rules.of(queue)).clone())))
            }
            Ask::Stats(queue) => {
                let stats = self.look_at(queue, now, |machine| machine.refresh(now).stats(now));
                Ok(Answer::Stats(stats.map(Box::new)))
            }
            Ask::List(after, limit) => {
                let names = self.by_name.keys().skip_while(|name| after.as_ref().is_some_and(|after| *name <= after));
                Ok(Answer::Listed(names.take(*limit).cloned().collect()))
            }
            Ask::Look { queue, place, skip, limit } => {
                let numbers = self.look_at(queue, now, |machine| machine.refresh(now).look(*place, *skip, *limit));
                self.see_all(queue, numbers.unwrap_or_default()).map(Answer::Looked)
            }
            Ask::Find(queue, job) => {
                let number = self.look_at(queue, now, |machine| machine.refresh(now).find(*job)).flatten();
                let seen = self.see_all(queue, number.into_iter().collect());
                seen.map(|mut seen| Answer::Found(seen.pop().map(Box::new)))
            }
            Ask::Change(queue, change) => self.change(queue, change, now).map(Answer::Changed),
        };
        match answered {
            Ok(answer) => Ok(Ok(answer)),
            Err(Failure::Refused(error)) => Ok(Err(error)),
            Err(Failure::Sql(error)) => Err(error),
        }
    }

    fn machine(&self, queue: &Queue) -> Option<&Machine> {
        self.by_name.get(queue).map(|id| &self.queues[*id].machine)
    }

    /// Does something with a queue that is there, and keeps the sums.
    fn work<T>(&mut self, queue: &Queue, now: u64, work: impl FnOnce(&mut Machine) -> T) -> Option<T> {
        let id = *self.by_name.get(queue)?;
        Some(self.work_on(id, now, work))
    }

    /// The same where nobody uses the queue by it: it may be forgotten all the same.
    fn look_at<T>(&mut self, queue: &Queue, now: u64, work: impl FnOnce(&mut Machine) -> T) -> Option<T> {
        let id = *self.by_name.get(queue)?;
        let used = self.queues[id].used;
        let done = self.work_on(id, now, work);
        self.queues[id].used = used;
        Some(done)
    }

    fn work_on<T>(&mut self, id: usize, now: u64, work: impl FnOnce(&mut Machine) -> T) -> T {
        let kept = &mut self.queues[id];
        let (before, keys) = (kept.machine.size().1, kept.machine.keys());
        let done = work(&mut kept.machine);
        kept.used = now;
        self.bytes = self.bytes - before + kept.machine.size().1;
        self.keys = self.keys - keys + kept.machine.keys();
        if kept.machine.has_changes() {
            self.touched.insert(id);
        }
        done
    }

    /// The queue of this name; it begins if it is not there.
    fn begin(&mut self, queue: &Queue, now: u64) -> Result<usize, Failure> {
        if let Some(id) = self.by_name.get(queue) {
            return Ok(*id);
        }
        if self.queues.len() >= self.bounds.queues {
            let text = format!("it holds {} queues and takes no more (max_queues)", self.bounds.queues);
            return Err(StoreError::Full(text).into());
        }
        let lives = Lives::new(vec![(draw_epoch()?, 0)]);
        let machine = Machine::new(queue.clone(), self.bounds.rules.of(queue).clone(), lives);
        let id = self.queues.insert(Kept { machine, own: None, used: now });
        self.by_name.insert(queue.clone(), id);
        self.touched.insert(id);
        Ok(id)
    }

    fn put_all(
        &mut self,
        batch: &[Put],
        now: u64,
        clock: &Clock,
    ) -> Result<Vec<std::result::Result<PutAnswer, StoreError>>, Failure> {
        let mut held = Held::default();
        let mut answers = Vec::with_capacity(batch.len());
        // A time that a put says is one on the wall; here it is as far ahead as there.
        let lead = now as i64 - clock.now() as i64;
        for given in batch {
            let moved = match given.due {
                Due::At(time) => Some(Put { due: Due::At(time.saturating_add_signed(lead)), ..given.clone() }),
                Due::Default | Due::After(_) => None,
            };
            let (name, fence, put) = (given.queue.as_str(), given.fence.as_ref(), moved.as_ref().unwrap_or(given));
            answers.push(match held.check(name, fence).and_then(|()| self.put(put, now)) {
                Ok(answer) => Ok(answer),
                Err(Failure::Refused(error)) => {
                    held.note(name, fence, &error);
                    Err(error)
                }
                Err(error) => return Err(error),
            });
        }
        Ok(answers)
    }

    fn put(&mut self, put: &Put, now: u64) -> Result<PutAnswer, Failure> {
        let gives = self.bounds.durability;
        if let Some(asked) = put.durability.filter(|asked| *asked > gives) {
            return Err(StoreError::Durability { asked, gives }.into());
        }
        let id = self.begin(&put.queue, now)?;
        let room = Room {
            keys: self.bounds.keys.saturating_sub(self.keys),
            bytes: self.bounds.bytes.saturating_sub(self.bytes),
            window: self.bounds.window,
        };
        let (done, row) = self.work_on(id, now, |machine| {
            let done = machine.put(put, now, room);
            let row = match &done {
                Ok(PutDone::Stored(job)) => machine.row(job.number()),
                _ => None,
            };
            (done, row)
        });
        let durability = gives;
        Ok(match done? {
            PutDone::Stored(job) => {
                let row = row.expect("a job that was just put is there");
                self.table.insert_job(id, &row, put.body.as_bytes())?;
                PutAnswer::Stored { job, time: now, durability }
            }
            PutDone::Repeated(job) => PutAnswer::Repeated { job, durability },
            PutDone::Skipped => PutAnswer::Skipped,
        })
    }

    fn take(&mut self, queue: &Queue, take: &Take, now: u64) -> Result<Taken, Failure> {
        let Some(&id) = self.by_name.get(queue) else { return Ok(Taken::default()) };
        let Took { lent, held, more, next, has_fired } = self.work_on(id, now, |machine| machine.take(take, now));
        let mut jobs = Vec::with_capacity(lent.len());
        for lent in lent {
            match self.table.body(id, lent.id.number())? {
                Some(body) => jobs.push(lent.with_body(queue.clone(), Body::from_canonical(body))),
                None => {
                    let error = Some("its body is damaged in the store's file".into());
                    let settle = Settle { job: lent.id, token: lent.token, how: How::Term { error } };
                    self.work_on(id, now, |machine| machine.settle(&settle, now));
                    tracing::error!(%queue, job = %lent.id, "the body of a job is damaged; it is a dead letter");
                }
            }
        }
        Ok(Taken { jobs, held, more, next, has_fired })
    }

    fn settle(&mut self, queue: &Queue, batch: &[Settle], now: u64) -> Vec<std::result::Result<Settled, StoreError>> {
        let settled =
            self.work(queue, now, |machine| batch.iter().map(|settle| machine.settle(settle, now)).collect::<Vec<_>>());
        // A queue that is not there has no jobs.
        let settled = settled.unwrap_or_else(|| vec![Settled::Gone; batch.len()]);
        settled.into_iter().map(Ok).collect()
    }

    fn see_all(&mut self, queue: &Queue, numbers: Vec<u64>) -> Result<Vec<Seen>, Failure> {
        let Some(&id) = self.by_name.get(queue) else { return Ok(Vec::new()) };
        let mut all = Vec::with_capacity(numbers.len());
        for number in numbers {
            let attempts = self.table.attempts(id, number)?;
            // A damaged one can still be seen, and be removed.
            let body = self.table.body(id, number)?.unwrap_or_else(|| (&b"\"data\":null"[..]).into());
            let mut attempts: Vec<_> = attempts.into_iter().chain(self.queues[id].machine.unwritten(number)).collect();
            attempts.drain(..attempts.len().saturating_sub(MOST_ATTEMPTS));
            all.extend(self.queues[id].machine.seen(number, Body::from_canonical(body), attempts));
        }
        Ok(all)
    }

    fn change(&mut self, queue: &Queue, change: &Change, now: u64) -> Result<u64, Failure> {
        if let Change::Settings(Some(settings)) = change {
            let id = self.begin(queue, now)?;
            self.queues[id].own = Some(written::write(settings));
            self.work_on(id, now, |machine| machine.set_settings((**settings).clone(), now));
            return Ok(1);
        }
        let Some(&id) = self.by_name.get(queue) else { return Ok(0) };
        let done = match change {
            Change::Settings(_) => {
                let settings = self.bounds.rules.of(queue).clone();
                let had = self.queues[id].own.take().is_some();
                self.work_on(id, now, |machine| machine.set_settings(settings, now));
                u64::from(had)
            }
            Change::Pause(is_paused) => u64::from(self.work_on(id, now, |machine| machine.pause(*is_paused, now))),
            Change::Edit { job, body } => {
                let bytes = u32::try_from(body.as_bytes().len()).unwrap_or(u32::MAX);
                let is_there = self.work_on(id, now, |machine| machine.edit(*job, bytes))?;
                if is_there {
                    self.table.edit(id, job.number(), body.as_bytes())?;
                }
                u64::from(is_there)
            }
            Change::Redrive { jobs, cause, limit } => {
                self.work_on(id, now, |machine| machine.redrive(jobs.as_deref(), *cause, *limit, now))
            }
            Change::Remove(job) => u64::from(self.work_on(id, now, |machine| machine.remove(*job, now))),
            Change::Purge(place) => self.work_on(id, now, |machine| machine.purge(*place, now)),
            Change::Leave { worker } => u64::from(self.work_on(id, now, |machine| machine.leave(worker, now))),
            Change::Told(number) => u64::from(self.work_on(id, now, |machine| machine.told(*number))),
            Change::Delete => {
                self.delete(id)?;
                1
            }
        };
        Ok(done)
    }

    fn delete(&mut self, id: usize) -> Result<()> {
        self.touched.insert(id);
        let Kept { machine, .. } = self.queues.remove(id);
        self.by_name.remove(machine.queue());
        self.bytes -= machine.size().1;
        self.keys -= machine.keys();
        self.table.delete_queue(id)
    }

    /// One step of what moves by itself, in all queues; those that hold nothing for long are forgotten.
    pub fn sweep(&mut self, now: u64) -> Result<bool> {
        let due: Vec<usize> =
            self.queues.iter().filter(|(_, kept)| kept.machine.must_move(now)).map(|(id, _)| id).collect();
        for id in &due {
            let used = self.queues[*id].used;
            self.work_on(*id, now, |machine| machine.refresh(now).must_move(now));
            self.queues[*id].used = used;
        }
        let record = millis(self.bounds.record);
        let is_over =
            |kept: &Kept| kept.own.is_none() && kept.used.saturating_add(record) <= now && kept.machine.is_blank();
        let over: Vec<usize> = self.queues.iter().filter(|(_, kept)| is_over(kept)).map(|(id, _)| id).collect();
        over.iter().try_for_each(|id| self.delete(*id))?;
        Ok(due.iter().any(|id| self.queues.get(*id).is_some_and(|kept| kept.machine.must_move(now))))
    }

    /// Writes what has changed, before the commit.
    pub fn seal(&mut self) -> Result<()> {
        for &id in &self.touched {
            let Some(Kept { machine, own, .. }) = self.queues.get_mut(id) else { continue };
            let changes = machine.changes();
            for row in &changes.jobs {
                self.table.put_state(id, row)?;
            }
            for attempt in &changes.attempts {
                self.table.put_attempt(id, attempt)?;
            }
            for gone in &changes.gone {
                self.table.delete_job(id, gone)?;
            }
            for key in &changes.keys {
                self.table.put_key(id, key)?;
            }
            for key in &changes.keys_gone {
                self.table.delete_key(id, key)?;
            }
            for (source, mark) in &changes.marks {
                self.table.put_mark(id, source, mark)?;
            }
            if changes.has_header {
                self.table.put_queue(id, machine.queue().as_str(), own.as_deref(), machine.header())?;
            }
            for (is_meant, has_fired) in [(changes.wakes_takers, false), (changes.has_fired, true)] {
                if is_meant {
                    self.wakes.insert((has_fired, machine.queue().clone()));
                }
            }
        }
        Ok(())
    }

    /// Tells what a commit has made true.
    pub fn committed(&mut self, board: &Board) {
        self.touched.clear();
        let wakes = std::mem::take(&mut self.wakes).into_iter();
        board.put(wakes.map(|(has_fired, queue)| if has_fired { Wake::Fired(queue) } else { Wake::Jobs(queue) }));
    }

    /// Learns anew what is there: a transaction was undone. The leases that are out stay.
    pub fn undone(&mut self, now: u64) -> Result<()> {
        if self.touched.is_empty() && self.wakes.is_empty() { Ok(()) } else { self.rebuild(now) }
    }
}
