//! What a connection has to do with queues: what it takes, the jobs that it holds, and how they end. The desk hands jobs
//! out and calls the store; here is the worker's side, with the tags that its client knows.
//!
//! A job goes through the outbox like a message, but it cannot be left out: one that has no room is given back at once, and
//! the connection is given no more until it has drained. What bounds it is its credit.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use metrics::counter;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::connection::Connection;
use super::counters;
use super::held::{Held, Take, Work, number, tag};
use super::shard::Shard;
use crate::document::{self};
use crate::domain::command::{RequestId, Settlement, Subject};
use crate::domain::error::{Problem, Reason};
use crate::domain::event::{Event, Given};
use crate::domain::message::Body;
use crate::domain::queue::{How, Job, Queue, Settle, Settled};
use crate::domain::store::StoreError;
use crate::hub::queues::{Jobs, no_lease};
use crate::telemetry;

/// What is left with a job whose worker went.
const CLOSED: &str = "the worker's connection closed";

/// A `take` that is to be answered.
pub(super) struct AskedTake {
    pub id: Option<RequestId>,
    pub queue: Queue,
    pub credit: usize,
    pub lease: Option<Duration>,
    pub ignored: Vec<String>,
}

impl Shard {
    pub(super) fn take(self: &Rc<Self>, connection: &Rc<Connection>, asked: AskedTake) {
        let AskedTake { id, queue, credit, lease, ignored } = asked;
        let desk = match self.hub.queues() {
            Ok(desk) => desk.clone(),
            Err(problem) => return self.refuse(connection, id, "take", Subject::queue(&queue), problem),
        };
        let stay = {
            let mut slot = connection.work.borrow_mut();
            let work = slot.get_or_insert_with(|| {
                let (outlet, jobs) = desk.jobs(self.limits.held.max(1));
                let (work, changed) = Work::new(outlet);
                tokio::task::spawn_local(self.clone().bring_jobs(connection.clone(), jobs, changed));
                Box::new(work)
            });
            work.last_stay += 1;
            let (stay, outlet) = (work.last_stay, work.outlet.clone());
            // It takes its place at once, so that whatever the client says next finds it; it is given jobs when it is answered.
            let take = work.takes.entry(queue.clone()).or_insert_with(|| {
                let taker = desk.take(&queue, &connection.name, 0, lease, outlet);
                Take { number: stay, taker, credit: 0, stay }
            });
            (take.stay, take.credit) = (stay, credit);
            stay
        };
        let settings = desk.keeper().queues.settings(&queue);
        let shard = self.clone();
        self.answer_later(connection, {
            let connection = connection.clone();
            async move {
                let settings = settings.await;
                let mut slot = connection.work.borrow_mut();
                let take = slot.as_mut().and_then(|work| work.takes.get_mut(&queue)).filter(|take| take.stay == stay);
                match (settings, take) {
                    (Ok(settings), Some(take)) => {
                        let lease = lease.map(|lease| lease.min(settings.max_lease));
                        take.taker.set(credit, lease);
                        Event::Taking { id, queue, credit, lease: lease.unwrap_or(settings.lease), ignored }
                    }
                    (Ok(_), None) => {
                        let text = "another take or untake of this queue came before this one was answered";
                        shard.refused(id, "take", Subject::queue(&queue), Problem::new(Reason::Conflict, text))
                    }
                    (Err(error), take) => {
                        // What it had before stays as it was.
                        if take.is_some_and(|take| take.number == stay) {
                            slot.as_mut().map(|work| work.takes.remove(&queue));
                        }
                        shard.refused(id, "take", Subject::queue(&queue), error.into())
                    }
                }
            }
        });
    }

    /// Takes no more from a queue and gives back what it holds of it, not counted.
    pub(super) fn untake(&self, connection: &Connection, queue: &Queue) {
        let mut slot = connection.work.borrow_mut();
        let Some(work) = slot.as_mut() else { return };
        let Some(take) = work.takes.remove(queue) else { return };
        let tags: Vec<u64> = work.held.iter().filter(|(_, held)| held.queue == *queue).map(|(tag, _)| *tag).collect();
        let back = tags.into_iter().filter_map(|tag| work.let_go(tag)).map(|held| held.settle(How::Release));
        if let Ok(desk) = self.hub.queues() {
            desk.settle_unheard(queue, back.collect::<Vec<_>>());
        }
        drop(take);
    }

    /// Ends or extends deliveries, each for itself.
    pub(super) fn settle(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        id: Option<RequestId>,
        settlement: Settlement,
        mut ignored: Vec<String>,
    ) {
        let Settlement { verb, tags, how, reply } = settlement;
        let ends = !matches!(how, How::Extend { .. });
        let mut failed: Vec<(Box<str>, Problem)> = Vec::new();
        let mut parts: HashMap<Queue, Vec<(Box<str>, u64, Held)>> = HashMap::new();
        {
            let mut slot = connection.work.borrow_mut();
            for tag in tags {
                let held = slot.as_mut().zip(number(&tag)).and_then(|(work, number)| {
                    let held = if ends { work.let_go(number) } else { work.extend(number) };
                    Some((number, held?))
                });
                match held {
                    Some((number, held)) => parts.entry(held.queue.clone()).or_default().push((tag, number, held)),
                    None => failed.push((tag, no_lease())),
                }
            }
        }
        if reply.is_some() && parts.values().flatten().all(|(_, _, held)| held.asked.is_none()) {
            ignored.push("reply".into());
        }
        let calls: Vec<_> = parts
            .into_iter()
            .map(|(queue, part)| self.settle_part(connection, queue, part, how.clone(), reply.clone()))
            .collect();
        connection.settling.set(connection.settling.get() + 1);
        let (shard, worker) = (self.clone(), connection.clone());
        connection.in_flight.set(connection.in_flight.get() + 1);
        tokio::task::spawn_local(async move {
            for part in futures::future::join_all(calls).await {
                failed.extend(part);
            }
            let now = shard.now();
            for (_, problem) in &failed {
                counters::count_refused(counters::WEBSOCKET, problem.reason);
            }
            match id {
                Some(_) => {
                    let failed = failed.into_iter().map(|(tag, problem)| (tag, problem.reason)).collect();
                    worker.say(&Event::Settled { id, verb, failed, ignored }, &shard.limits, now);
                }
                None => {
                    for (tag, problem) in failed {
                        let about = Some(Subject::Tag(tag));
                        worker.say(&Event::Error { id: None, verb: Some(verb), about, problem }, &shard.limits, now);
                    }
                }
            }
            worker.settling.set(worker.settling.get() - 1);
            worker.on_answered();
        });
    }

    /// The deliveries of one queue; gives those that failed. The store is called at once, unless replies go before it.
    fn settle_part(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        queue: Queue,
        part: Vec<(Box<str>, u64, Held)>,
        how: How,
        reply: Option<Body>,
    ) -> impl Future<Output = Vec<(Box<str>, Problem)>> + use<> {
        let (shard, connection) = (self.clone(), connection.clone());
        let batch = part.iter().map(|(_, _, held)| held.settle(how.clone())).collect();
        let ends = !matches!(how, How::Extend { .. });
        let has_replies = reply.is_some() && part.iter().any(|(_, _, held)| held.asked.is_some());
        let settle = move |batch| match shard.hub.queues() {
            Ok(desk) => desk.settle(&queue, batch),
            Err(_) => Box::pin(std::future::ready(Vec::new())),
        };
        let hub = self.hub.clone();
        let begun = if has_replies { Err(batch) } else { Ok(settle(batch)) };
        async move {
            let answers = match begun {
                Ok(call) => call.await,
                Err(batch) => {
                    let reply = reply.expect("there are replies");
                    let asked = part.iter().filter_map(|(_, _, held)| held.asked.as_ref());
                    let told = asked.map(|asked| hub.publish(document::reply(asked, &reply)));
                    let told = futures::future::join_all(told).await;
                    match told.into_iter().find_map(Result::err) {
                        None => settle(batch).await,
                        // The asker was not told, so it is not done.
                        Some(problem) => {
                            let untold = StoreError::Unavailable(format!("the reply was not published: {problem}"));
                            batch.iter().map(|_| Err(untold.clone())).collect()
                        }
                    }
                }
            };
            connection.on_settled(part, ends, answers)
        }
    }

    /// Jobs come to a connection, and their leases end, until it is over.
    async fn bring_jobs(self: Rc<Self>, connection: Rc<Connection>, mut jobs: Jobs, changed: Rc<Notify>) {
        loop {
            let end = connection.work.borrow().as_ref().and_then(|work| work.ends.first().map(|(at, _)| *at));
            let ended = async {
                match end {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                arrived = jobs.next() => match arrived {
                    Some(jobs) => self.give(&connection, jobs),
                    None => return,
                },
                () = ended => self.end_leases(&connection),
                () = changed.notified() => {}
            }
        }
    }

    /// Gives jobs while there is room; the others go back, and no more come until there is.
    fn give(&self, connection: &Connection, jobs: Vec<Job>) {
        let (now, mut back) = (self.now(), Vec::new());
        let was_corked = connection.cork();
        for job in jobs {
            let mut slot = connection.work.borrow_mut();
            let Some(work) = slot.as_mut().filter(|work| connection.is_open() && work.takes.contains_key(&job.queue))
            else {
                back.push(job);
                continue;
            };
            if work.needed > 0 {
                work.takes[&job.queue].taker.free(1);
                back.push(job);
                continue;
            }
            work.last_tag += 1;
            let number = work.last_tag;
            let event = Event::Job(Given { tag: tag(number), job: Box::new(job) });
            let payload = connection.protocol.borrow_mut().codec.encode(&event);
            let Event::Job(Given { job, .. }) = event else { unreachable!("it was made here") };
            let frame = connection.framed(payload);
            if connection.offer(&frame, None, &self.limits, now) {
                work.hold(number, *job);
                continue;
            }
            work.needed = frame.len();
            connection.held_back.set(true);
            for take in work.takes.values() {
                take.taker.hold(true);
            }
            work.takes[&job.queue].taker.free(1);
            back.push(*job);
        }
        if !was_corked {
            connection.uncork(now);
        }
        let mut by_queue: HashMap<Queue, Vec<Settle>> = HashMap::new();
        for job in back {
            let settle = Settle { job: job.id, token: job.token, how: How::Release };
            by_queue.entry(job.queue).or_default().push(settle);
        }
        if let Ok(desk) = self.hub.queues() {
            by_queue.into_iter().for_each(|(queue, batch)| desk.settle_unheard(&queue, batch));
        }
    }

    /// Something was written: jobs come again if there is room for the one that had none.
    pub(super) fn resume_work(&self, connection: &Connection) {
        if !connection.held_back.get() {
            return;
        }
        let mut slot = connection.work.borrow_mut();
        let Some(work) = slot.as_mut() else { return connection.held_back.set(false) };
        if connection.has_room(work.needed, &self.limits) {
            work.needed = 0;
            connection.held_back.set(false);
            for take in work.takes.values() {
                take.taker.hold(false);
            }
        }
    }

    fn end_leases(&self, connection: &Connection) {
        let now = Instant::now();
        loop {
            let tag = {
                let mut slot = connection.work.borrow_mut();
                let Some(work) = slot.as_mut() else { return };
                let Some((_, number)) = work.ends.first().copied().filter(|(at, _)| *at <= now) else { return };
                if work.held.get(&number).is_some_and(|held| held.extending > 0) {
                    // Its answer tells the new end.
                    work.ends.retain(|(_, tag)| *tag != number);
                    continue;
                }
                let Some(held) = work.let_go(number) else { continue };
                work.free(&held);
                tag(number)
            };
            counter!(telemetry::QUEUE_LOST).increment(1);
            connection.say(&Event::Lost { tag }, &self.limits, self.now());
        }
    }

    /// The connection is over: what it holds goes back at once. It counts as a try, since the worker may have begun; where
    /// the node sends its workers away, it does not.
    pub(super) fn give_back(&self, connection: &Connection) {
        let Some(work) = connection.work.borrow_mut().take() else { return };
        let Ok(desk) = self.hub.queues() else { return };
        let how = match connection.leaving.get() {
            true => How::Release,
            false => How::Nack { delay: Some(Duration::ZERO), error: Some(CLOSED.into()) },
        };
        let mut by_queue: HashMap<Queue, Vec<Settle>> = HashMap::new();
        for held in work.held.into_values() {
            let settle = held.settle(how.clone());
            by_queue.entry(held.queue).or_default().push(settle);
        }
        by_queue.into_iter().for_each(|(queue, batch)| desk.settle_unheard(&queue, batch));
    }

    pub(super) fn refused(&self, id: Option<RequestId>, verb: &'static str, about: Subject, problem: Problem) -> Event {
        counters::count_refused(counters::WEBSOCKET, problem.reason);
        Event::Error { id, verb: Some(verb), about: Some(about), problem }
    }

    fn refuse(
        &self,
        connection: &Connection,
        id: Option<RequestId>,
        verb: &'static str,
        about: Subject,
        problem: Problem,
    ) {
        connection.say(&self.refused(id, verb, about, problem), &self.limits, self.now());
    }
}

impl Connection {
    /// Frees what is over, keeps what may be asked again, and gives what failed. What should end was let go of when it was
    /// asked for; what is extended is held as ever, unless something else has ended it meanwhile.
    fn on_settled(
        &self,
        part: Vec<(Box<str>, u64, Held)>,
        ends: bool,
        answers: Vec<Result<Settled, StoreError>>,
    ) -> Vec<(Box<str>, Problem)> {
        let mut failed = Vec::new();
        let mut slot = self.work.borrow_mut();
        let mut answers = answers.into_iter();
        for (tag, number, held) in part {
            let answer = answers.next().unwrap_or_else(|| Err(StoreError::Broken("no answer".into())));
            match answer {
                Ok(Settled::Done | Settled::Dead) => _ = slot.as_mut().map(|work| work.free(&held)),
                Ok(Settled::Extended(left)) => {
                    if let Some(work) = slot.as_mut() {
                        work.on_extended(number, Some(Instant::now() + left));
                    }
                }
                Ok(Settled::NoLease | Settled::Gone) => {
                    if let Some(work) = slot.as_mut()
                        && (work.let_go(number).is_some() || ends)
                    {
                        work.free(&held);
                    }
                    failed.push((tag, no_lease()));
                }
                Err(error) => {
                    match slot.as_mut() {
                        Some(work) if ends => work.keep(number, held),
                        Some(work) => work.on_extended(number, None),
                        None => {}
                    }
                    failed.push((tag, error.into()));
                }
            }
        }
        failed
    }
}
