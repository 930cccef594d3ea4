//! The line before one queue: what waits for Redis, in the order in which it was asked for.
//!
//! One round is under way at a time. What waits meanwhile goes with the next one, put together into calls that are sent one
//! behind the other, so nothing waits longer than for an answer. A call that goes by settings which are not the stored ones
//! (any more) is answered with these, having done nothing, and is sent again.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use redis::Value;
use tokio::sync::oneshot;

use super::Keeper;
use super::decode::{self, Parts};
use super::encode::encode;
use super::scripts::Known;
use super::tasks::{Call, Changed, Gathered, Seat, Task};
use crate::domain::message::Durability;
use crate::domain::queue::written;
use crate::domain::queue::{PutAnswer, Queue};
use crate::domain::store::StoreError;
use crate::endpoint::slot_of;
use crate::store::redis::calls::{Answered, Doubt, ForeignCall, Told};
use crate::store::redis::queue::{Job, Weight};
use crate::store::redis::scripts::{Dice, refusal, text_of};
use crate::store::redis::witness::{Proof, Question};

/// Calls of one round.
const ROUND: usize = 8;
/// How often a round is sent while others change the settings of the queue.
const TRIES: usize = 8;

/// The names of a queue in Redis.
pub struct Names {
    pub base: String,
    pub keys: Vec<String>,
    pub channel: String,
    pub slot: u16,
}

impl Names {
    pub fn new(base: String, channel: String) -> Names {
        // In the order of head.lua.
        let own = [
            "ready", "delayed", "leases", "dead", "parked", "groups", "bodies", "jobs", "st", "cfg", "expiring",
            "failures", "seats", "marks", "untold",
        ];
        let keys = own.iter().map(|name| format!("{base}{name}")).collect();
        let slot = slot_of(&base);
        Names { base, keys, channel, slot }
    }

    /// There while the queue is.
    pub fn state(&self) -> &str {
        &self.keys[8]
    }
}

/// Works until nothing waits any more.
pub async fn work(keeper: Arc<Keeper>, queue: Queue) {
    let names = keeper.names(&queue);
    let mut dice = Dice::default();
    while let Some(round) = keeper.next_round(&queue) {
        let line = Line { keeper: &keeper, queue: &queue, names: &names };
        line.go(round, &mut dice).await;
    }
}

/// Puts what waits together into the calls of one round. Of fenced puts one call goes at a time: what follows one that
/// failed must fail too.
pub fn pack(waiting: &mut VecDeque<Task>) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    while let Some(task) = waiting.pop_front() {
        let is_full = calls.len() == ROUND || task.is_fenced() && calls.iter().any(Call::is_fenced);
        match calls.last_mut() {
            Some(call) if call.takes(&task) => call.add(task),
            _ if is_full => {
                waiting.push_front(task);
                break;
            }
            _ => calls.push(Call::with(task)),
        }
    }
    calls
}

struct Line<'a> {
    keeper: &'a Arc<Keeper>,
    queue: &'a Queue,
    names: &'a Names,
}

impl Line<'_> {
    async fn go(&self, mut calls: Vec<Call>, dice: &mut Dice) {
        if calls.iter().any(Call::may_begin)
            && let Err(error) = self.keeper.register(self.queue).await
        {
            // Of the jobs themselves nothing was sent.
            let error = match error {
                StoreError::Unconfirmed(text) => StoreError::Unavailable(text),
                error => error,
            };
            let (may_begin, others): (Vec<Call>, Vec<Call>) = calls.into_iter().partition(Call::may_begin);
            may_begin.into_iter().for_each(|call| call.refuse(&error));
            calls = others;
        }
        for _ in 0..TRIES {
            let known = self.keeper.known(self.queue);
            let sent: Vec<(Call, oneshot::Receiver<Told>)> =
                calls.into_iter().map(|call| self.send(call, &known, dice)).collect();
            calls = Vec::new();
            for (call, answered) in sent {
                let lost = || Err(StoreError::Unconfirmed("the store was shut down meanwhile".into()));
                match answered.await.unwrap_or_else(|_| lost()) {
                    Ok(answered) => match self.learn(&answered.value) {
                        Some(Ok(())) => calls.push(call),
                        Some(Err(error)) => call.refuse(&error),
                        None => self.settle(call, answered, &known),
                    },
                    Err(error) => self.fail(call, error),
                }
            }
            if calls.is_empty() {
                return;
            }
        }
        let error = StoreError::Unavailable("the settings of the queue change faster than it can be used".into());
        calls.into_iter().for_each(|call| self.fail(call, error.clone()));
    }

    fn send(&self, call: Call, known: &Known, dice: &mut Dice) -> (Call, oneshot::Receiver<Told>) {
        let (answer, answered) = oneshot::channel();
        let host = &self.keeper.host;
        let command = encode(&call, &host.scripts.queues, self.names, known, &host.options.retention, dice);
        let weight = Weight::none(&self.keeper.state);
        self.keeper.entrance.put(Job::Call(ForeignCall {
            command,
            slot: self.names.slot,
            asking: false,
            answer,
            weight,
        }));
        (call, answered)
    }

    /// Takes the stored settings in, if they are what was answered.
    fn learn(&self, value: &Value) -> Option<Result<(), StoreError>> {
        let mut parts = Parts::of(value, "V")?;
        let digest = parts.next().and_then(text_of).unwrap_or_default().to_string();
        let text = parts.next().and_then(text_of).unwrap_or_default();
        if digest.is_empty() {
            self.keeper.forget(self.queue);
            return Some(Ok(()));
        }
        match written::read(text) {
            Ok(settings) => {
                self.keeper.note(self.queue, Known { digest, settings });
                Some(Ok(()))
            }
            Err(error) => {
                let text = format!("the stored settings of the queue {} cannot be read: {error}", self.queue);
                Some(Err(StoreError::Broken(text)))
            }
        }
    }

    /// No answer came, or an error.
    fn fail(&self, call: Call, error: StoreError) {
        let mut held = Vec::new();
        for task in call.tasks {
            if let Task::Put(one) = &task
                && let Some(fence) = &one.put.fence
            {
                held.push((one.to.batch(), fence.source.clone()));
            }
            task.refuse(error.clone());
        }
        self.hold(held);
    }

    /// Of these batches no later item of these sources is put.
    fn hold(&self, held: Vec<(Arc<Gathered<PutAnswer>>, Box<str>)>) {
        if held.is_empty() {
            return;
        }
        let is_held =
            |task: &Task| match task {
                Task::Put(one) => one.put.fence.as_ref().is_some_and(|fence| {
                    held.iter().any(|(batch, source)| one.to.is_of(batch) && *source == fence.source)
                }),
                _ => false,
            };
        for task in self.keeper.take_waiting(self.queue, is_held) {
            task.refuse(StoreError::Unavailable("an earlier entry of its source was not stored".into()));
        }
    }

    /// Hands answers out; those that need a proof get it first, while the line goes on.
    fn settle(&self, call: Call, answered: Answered, known: &Known) {
        let Answered { value, life, writes } = answered;
        let mut tasks = call.tasks;
        let odd = || StoreError::Unconfirmed(format!("Redis answers something unexpected: {value:?}"));
        let default = self.keeper.default_need();
        match tasks.first() {
            Some(Task::Put(_)) => {
                let answers = decode::put(&value, writes).filter(|(_, answers)| answers.len() == tasks.len());
                let Some((has_begun, answers)) = answers else { return self.fail(Call::of(tasks), odd()) };
                if has_begun {
                    self.keeper.begun(self.queue);
                }
                let (mut held, mut unproven) = (Vec::new(), Vec::new());
                for (task, answer) in tasks.into_iter().zip(answers) {
                    let Task::Put(one) = task else { continue };
                    if let (Some(fence), Err(error)) = (&one.put.fence, &answer)
                        && error.passes()
                    {
                        held.push((one.to.batch(), fence.source.clone()));
                    }
                    match one.need {
                        Some(level) if answer.is_ok() => unproven.push((one.to, answer, level)),
                        _ => one.to.answer(answer),
                    }
                }
                self.hold(held);
                self.prove_puts(unproven, life);
            }
            Some(Task::Settle(_)) => {
                let Some(answers) = decode::settle(&value).filter(|answers| answers.len() == tasks.len()) else {
                    return self.fail(Call::of(tasks), odd());
                };
                self.proven(default, life, move |proof| {
                    for (task, answer) in tasks.into_iter().zip(answers) {
                        if let Task::Settle(one) = task {
                            one.to.answer(proof.clone().map(|()| answer));
                        }
                    }
                });
            }
            _ => match tasks.pop() {
                Some(Task::Take(take, reply, weight)) => {
                    let taken = decode::take(&value, self.queue, &take, known.settings.max_deliveries);
                    let Some(taken) = taken else { return drop(reply.send(Err(odd()))) };
                    let need = default.filter(|_| !taken.jobs.is_empty());
                    self.proven(need, life, move |proof| {
                        let _ = reply.send(proof.map(|()| taken));
                        drop(weight);
                    });
                }
                Some(Task::Sweep(reply, weight)) => {
                    let _ = reply.send(decode::swept(&value, self.queue).ok_or_else(odd));
                    drop(weight);
                }
                Some(Task::Look(_, reply, weight)) => {
                    let parts = if let Value::Array(parts) = value { Ok(parts) } else { Err(odd()) };
                    let _ = reply.send(parts);
                    drop(weight);
                }
                Some(Task::Change(_, reply, weight)) => {
                    let refused = text_of(&value).and_then(|text| text.strip_prefix('E')).map(refusal);
                    let changed = changed(&value).ok_or_else(|| refused.unwrap_or_else(odd));
                    let need = default.filter(|_| changed.is_ok());
                    self.proven(need, life, move |proof| {
                        let _ = reply.send(proof.and(changed));
                        drop(weight);
                    });
                }
                _ => {}
            },
        }
    }

    fn prove_puts(&self, unproven: Vec<(Seat<PutAnswer>, Result<PutAnswer, StoreError>, Durability)>, life: Arc<str>) {
        if unproven.is_empty() {
            return;
        }
        let mut question = Question::default();
        unproven.iter().for_each(|(_, _, level)| question.add(*level));
        let asked = self.ask(question);
        self.keeper.runtime.spawn(async move {
            let proof = asked.await.unwrap_or_else(|_| Proof::none("the store was shut down meanwhile"));
            for (to, answer, level) in unproven {
                to.answer(shown(&proof, level, &life).and(answer).map(|answer| match answer {
                    PutAnswer::Stored { job, time, .. } => PutAnswer::Stored { job, time, durability: level },
                    PutAnswer::Repeated { job, .. } => PutAnswer::Repeated { job, durability: level },
                    PutAnswer::Skipped => PutAnswer::Skipped,
                }));
            }
        });
    }

    /// Does something once a level is proven, or is known not to be.
    fn proven(
        &self,
        need: Option<Durability>,
        life: Arc<str>,
        then: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) {
        let Some(level) = need else { return then(Ok(())) };
        let mut question = Question::default();
        question.add(level);
        let asked = self.ask(question);
        self.keeper.runtime.spawn(async move {
            let proof = asked.await.unwrap_or_else(|_| Proof::none("the store was shut down meanwhile"));
            then(shown(&proof, level, &life));
        });
    }

    fn ask(&self, question: Question) -> oneshot::Receiver<Proof> {
        let (answer, asked) = oneshot::channel();
        let key = format!("{}witness", self.names.base);
        self.keeper.entrance.put(Job::Prove(Doubt { question, key, slot: self.names.slot, answer }));
        asked
    }
}

fn shown(proof: &Proof, level: Durability, life: &str) -> Result<(), StoreError> {
    let text = |why: String| format!("the level {:?} is not proven: {why}", level.as_str());
    proof.shows(level, life).map_err(|why| StoreError::Unconfirmed(text(why)))
}

fn changed(value: &Value) -> Option<Changed> {
    let mut parts = Parts::of(value, "C")?;
    let met = parts.number()?;
    Some(Changed { met, further: parts.maybe()? })
}

impl Keeper {
    /// What is to be done next at a queue; `None`: nothing, and whoever asked is done.
    fn next_round(&self, queue: &Queue) -> Option<Vec<Call>> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = lines.get_mut(queue).map(pack).filter(|calls| !calls.is_empty());
        if calls.is_none() {
            lines.remove(queue);
            self.calm.notify_waiters();
        }
        calls
    }

    fn take_waiting(&self, queue: &Queue, which: impl Fn(&Task) -> bool) -> Vec<Task> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiting) = lines.get_mut(queue) else { return Vec::new() };
        let (taken, rest): (Vec<Task>, Vec<Task>) = std::mem::take(waiting).into_iter().partition(which);
        *waiting = rest.into();
        taken
    }
}
