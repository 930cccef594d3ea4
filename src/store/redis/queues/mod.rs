//! Queues on Redis: the contract in terms of calls of scripts, which keep each queue under keys of its own hash tag.
//!
//! What a call does is decided in Redis, in one step (`*.lua`); they agree with the pure queue of the domain. Here calls
//! wait in a line before each queue (`line`), are written (`encode`) and read (`decode`), and go over the connections of
//! the store, bounded and answered as its appends are: `Unavailable` was not sent, `Unconfirmed` was, and the level that
//! is asked for, or usual, is proven before an `Ok`. Wakes come over channels (`wakes`).

mod admin;
mod decode;
mod encode;
mod line;
mod scripts;
mod tasks;
mod wakes;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt};
use futures::stream::BoxStream;
use redis::{Cmd, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use self::line::Names;
use self::scripts::Known;
pub(super) use self::scripts::Scripts;
use self::tasks::{Answered, Gathered, PutTask, SettleTask, Task};
use crate::domain::message::Durability;
use crate::domain::queue::{
    Mark, Put, PutAnswer, Queue, QueueRules, QueueSettings, Queues, Settle, Settled, Swept, Take, Taken, Wake,
    WatchQueues,
};
use crate::domain::store::{EntryId, StoreError};
use crate::endpoint::{Chart, slot_of};
use crate::store::redis::calls::ForeignCall;
use crate::store::redis::greeting::Host;
use crate::store::redis::levels::Verdict;
use crate::store::redis::queue::{Entrance, Job, State, Weight};
use crate::store::redis::scripts::text_of;

/// Queues with settings of their own, and queues that are known to be written down, that a node remembers. Beyond it, it
/// forgets them all and asks again.
const MOST_KNOWN: usize = 10_000;
/// A take counts for this part of the bytes that it may bring.
const TAKE_SHARE: usize = 16;

pub(super) struct Keeper {
    host: Arc<Host>,
    chart: Option<Chart>,
    state: Arc<State>,
    entrance: Entrance,
    runtime: Handle,
    /// What waits before each queue that is worked at.
    lines: Mutex<HashMap<Queue, VecDeque<Task>>>,
    /// The stored settings, as they were last seen.
    known: Mutex<HashMap<Queue, Known>>,
    /// Queues that are written down in the list of all.
    registered: Mutex<HashSet<Queue>>,
    is_closed: Mutex<bool>,
    /// Told when a line is done.
    calm: Notify,
}

/// The contract's face of the keeper.
pub(super) struct RedisQueues(pub Arc<Keeper>);

impl Keeper {
    pub fn new(
        host: Arc<Host>,
        chart: Option<Chart>,
        state: Arc<State>,
        entrance: Entrance,
        runtime: Handle,
    ) -> Keeper {
        Keeper {
            host,
            chart,
            state,
            entrance,
            runtime,
            lines: Mutex::default(),
            known: Mutex::default(),
            registered: Mutex::default(),
            is_closed: Mutex::new(false),
            calm: Notify::new(),
        }
    }

    /// Takes nothing more; what it gives waits until what was taken is done, if there is anything.
    pub fn close(self: &Arc<Keeper>) -> Option<BoxFuture<'static, ()>> {
        *self.is_closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        let keeper = self.clone();
        let calm = async move {
            loop {
                let mut calm = std::pin::pin!(keeper.calm.notified());
                calm.as_mut().enable();
                if keeper.is_calm() {
                    return;
                }
                calm.await;
            }
        };
        (!self.is_calm()).then(|| calm.boxed())
    }

    fn is_calm(&self) -> bool {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn rules(&self) -> &QueueRules {
        &self.host.options.queues
    }

    fn names(&self, queue: &Queue) -> Names {
        let names = &self.host.names;
        Names::new(names.queue_base(queue.as_str()), names.wake_channel(queue.as_str()))
    }

    /// Puts tasks into the line of a queue.
    fn begin(self: &Arc<Keeper>, queue: &Queue, tasks: impl IntoIterator<Item = Task>) {
        // Under one lock with the look whether it is closed, so that closing misses none.
        let is_closed = self.is_closed.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_closed {
            let closed = || StoreError::Unavailable("the store is closed".into());
            return tasks.into_iter().for_each(|task| task.refuse(closed()));
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !lines.contains_key(queue);
        lines.entry(queue.clone()).or_default().extend(tasks);
        if is_new {
            self.runtime.spawn(line::work(self.clone(), queue.clone()));
        }
    }

    /// One task with an answer of its own.
    fn ask<T: Send + 'static>(
        self: &Arc<Keeper>,
        queue: &Queue,
        bytes: usize,
        task: impl FnOnce(tasks::Reply<T>, Weight) -> Task,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let (reply, answered) = oneshot::channel();
        match self.entrance.admit(1, bytes) {
            Ok(weight) => self.begin(queue, [task(reply, weight)]),
            Err(error) => drop(reply.send(Err(error))),
        }
        let lost = || Err(StoreError::Unconfirmed("the store was shut down meanwhile".into()));
        async move { answered.await.unwrap_or_else(|_| lost()) }.boxed()
    }

    /// One that may not be begun where the level that is usual cannot be given.
    fn ask_kept<T: Send + 'static>(
        self: &Arc<Keeper>,
        queue: &Queue,
        bytes: usize,
        task: impl FnOnce(tasks::Reply<T>, Weight) -> Task,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        match self.judge_usual() {
            Ok(()) => self.ask(queue, bytes, task),
            Err(error) => async move { Err(error) }.boxed(),
        }
    }

    fn judge_usual(&self) -> Result<(), StoreError> {
        match self.state.condition().levels.judge(None, false) {
            Verdict::Hold(error) | Verdict::Refuse(error) => Err(error),
            Verdict::Store(_) => Ok(()),
        }
    }

    /// What must be proven of what is not asked to have a level.
    fn default_need(&self) -> Option<Durability> {
        match self.state.condition().levels.judge(None, true) {
            Verdict::Store(need) => need,
            Verdict::Hold(_) | Verdict::Refuse(_) => self.host.options.durability,
        }
    }

    fn known(&self, queue: &Queue) -> Known {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(queue)
            .cloned()
            .unwrap_or_else(|| Known { digest: String::new(), settings: self.rules().of(queue).clone() })
    }

    fn note(&self, queue: &Queue, own: Known) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(queue.clone(), own);
    }

    fn forget(&self, queue: &Queue) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(queue);
    }

    /// Writes a queue into the list of all, once.
    async fn register(&self, queue: &Queue) -> Result<(), StoreError> {
        if self.registered.lock().unwrap_or_else(PoisonError::into_inner).contains(queue) {
            return Ok(());
        }
        let key = self.host.names.queues();
        let mut add = redis::cmd("ZADD");
        add.arg(&key).arg(0).arg(queue.as_str());
        self.say(add, slot_of(&key)).await?;
        let mut registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner);
        if registered.len() >= MOST_KNOWN {
            registered.clear();
        }
        registered.insert(queue.clone());
        Ok(())
    }

    /// A queue began: it may have been deleted, and taken out of the list, since it was written there.
    fn begun(self: &Arc<Keeper>, queue: &Queue) {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner).remove(queue);
        let (keeper, queue) = (self.clone(), queue.clone());
        self.runtime.spawn(async move {
            if let Err(error) = keeper.register(&queue).await {
                tracing::debug!(%queue, %error, "a queue that began is not in the list yet");
            }
        });
    }

    /// A command of one slot.
    async fn say(&self, command: Cmd, slot: u16) -> Result<Value, StoreError> {
        let (answer, answered) = oneshot::channel();
        let weight = Weight::none(&self.state);
        self.entrance.put(Job::Call(ForeignCall { command, slot, asking: false, answer, weight }));
        let lost = || Err(StoreError::Unconfirmed("the store was shut down meanwhile".into()));
        answered.await.unwrap_or_else(|_| lost()).map(|answered| answered.value)
    }
}

impl Queues for RedisQueues {
    fn put(&self, batch: Vec<Put>) -> BoxFuture<'static, Vec<Result<PutAnswer, StoreError>>> {
        let count = batch.len();
        let levels = self.0.state.condition().levels.clone();
        let verdicts: Vec<Verdict> =
            batch.iter().map(|put| levels.judge(put.durability, put.fence.is_some())).collect();
        let held = verdicts.iter().find_map(|verdict| match verdict {
            Verdict::Hold(error) => Some(error.clone()),
            Verdict::Refuse(_) | Verdict::Store(_) => None,
        });
        let bytes = batch.iter().map(|put| put.body.as_bytes().len()).sum();
        let weight = match held.map_or_else(|| self.0.entrance.admit(count, bytes), Err) {
            Ok(weight) => Arc::new(weight),
            Err(error) => return async move { vec![Err(error); count] }.boxed(),
        };
        let (gathered, answered) = Gathered::new(count);
        let mut lines: Vec<(Queue, Vec<Task>)> = Vec::new();
        for ((item, put), verdict) in batch.into_iter().enumerate().zip(verdicts) {
            let to = Gathered::seat(&gathered, item);
            let need = match verdict {
                Verdict::Store(need) => need,
                Verdict::Hold(error) | Verdict::Refuse(error) => {
                    to.answer(Err(error));
                    continue;
                }
            };
            let queue = put.queue.clone();
            let task = Task::Put(PutTask { put, need, to, _weight: weight.clone() });
            match lines.iter_mut().find(|(known, _)| *known == queue) {
                Some((_, tasks)) => tasks.push(task),
                None => lines.push((queue, vec![task])),
            }
        }
        lines.into_iter().for_each(|(queue, tasks)| self.0.begin(&queue, tasks));
        drop(gathered);
        answers(answered, count)
    }

    fn take(&self, queue: &Queue, take: Take) -> BoxFuture<'static, Result<Taken, StoreError>> {
        let bytes = take.bytes / TAKE_SHARE;
        self.0.ask_kept(queue, bytes, |reply, weight| Task::Take(take, reply, weight))
    }

    fn settle(&self, queue: &Queue, batch: Vec<Settle>) -> BoxFuture<'static, Vec<Result<Settled, StoreError>>> {
        let count = batch.len();
        let weight = match self.0.judge_usual().and_then(|()| self.0.entrance.admit(count, 0)) {
            Ok(weight) => Arc::new(weight),
            Err(error) => return async move { vec![Err(error); count] }.boxed(),
        };
        let (gathered, answered) = Gathered::new(count);
        let tasks: Vec<Task> = batch
            .into_iter()
            .enumerate()
            .map(|(item, settle)| {
                let to = Gathered::seat(&gathered, item);
                Task::Settle(SettleTask { settle, to, _weight: weight.clone() })
            })
            .collect();
        if !tasks.is_empty() {
            self.0.begin(queue, tasks);
        }
        drop(gathered);
        answers(answered, count)
    }

    fn sweep(&self, queue: &Queue) -> BoxFuture<'static, Result<Swept, StoreError>> {
        self.0.ask(queue, 0, Task::Sweep)
    }

    fn mark(&self, queue: &Queue, source: &str) -> BoxFuture<'static, Result<Option<Mark>, StoreError>> {
        let words = vec!["mark".into(), source.to_owned()];
        let asked = self.0.ask(queue, 0, |reply, weight| Task::Look(words, reply, weight));
        async move {
            let parts = asked.await?;
            Ok(parts.get(1).and_then(text_of).and_then(mark_of))
        }
        .boxed()
    }

    fn settings(&self, queue: &Queue) -> BoxFuture<'static, Result<QueueSettings, StoreError>> {
        let words = vec!["settings".into()];
        let asked = self.0.ask(queue, 0, |reply, weight| Task::Look(words, reply, weight));
        let (keeper, queue) = (self.0.clone(), queue.clone());
        async move {
            asked.await?;
            Ok(keeper.known(&queue).settings)
        }
        .boxed()
    }

    fn wakes(&self) -> (Box<dyn WatchQueues>, BoxStream<'static, Wake>) {
        wakes::open(&self.0)
    }
}

fn answers<T: Send + 'static>(answered: Answered<T>, count: usize) -> BoxFuture<'static, Vec<Result<T, StoreError>>> {
    async move {
        let lost = || StoreError::Unconfirmed("the store was shut down meanwhile".into());
        answered.await.unwrap_or_else(|_| (0..count).map(|_| Err(lost())).collect())
    }
    .boxed()
}

/// Reads what `topics::mark_of` writes.
fn mark_of(text: &str) -> Option<Mark> {
    let (life, id) = text.rsplit_once(' ')?;
    let (ms, seq) = id.split_once('-')?;
    Some(Mark { life: life.into(), id: EntryId { ms: ms.parse().ok()?, seq: seq.parse().ok()? } })
}
