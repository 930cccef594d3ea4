//! What waits for its turn at a queue, and to whom the answers go.

use std::sync::{Arc, Mutex, PoisonError};

use redis::Value;
use tokio::sync::oneshot;

use crate::domain::message::Durability;
use crate::domain::queue::{MOST_AT_ONCE, Put, PutAnswer, QueueSettings, Settle, Settled, Swept, Take, Taken};
use crate::domain::store::StoreError;
use crate::store::redis::queue::Weight;

/// Bytes of bodies in one call, which a single job may exceed.
const CALL_BYTES: usize = 1024 * 1024;

pub type Reply<T> = oneshot::Sender<Result<T, StoreError>>;
/// Where the answers to a batch come out.
pub type Answered<T> = oneshot::Receiver<Vec<Result<T, StoreError>>>;

/// Items of several tasks of one kind go to Redis in one call, the others alone. Each keeps its share of what may wait.
pub enum Task {
    Put(PutTask),
    Settle(SettleTask),
    Take(Take, Reply<Taken>, Weight),
    Sweep(Reply<Swept>, Weight),
    /// The arguments of look.lua.
    Look(Vec<String>, Reply<Vec<Value>>, Weight),
    Change(Words, Reply<Changed>, Weight),
}

pub struct PutTask {
    pub put: Put,
    /// What must be proven before it is answered with a yes.
    pub need: Option<Durability>,
    pub to: Seat<PutAnswer>,
    pub _weight: Arc<Weight>,
}

pub struct SettleTask {
    pub settle: Settle,
    pub to: Seat<Settled>,
    pub _weight: Arc<Weight>,
}

/// The arguments of change.lua.
pub struct Words {
    pub words: Vec<Vec<u8>>,
    /// Settings that come behind them: those that hold from now on.
    pub settings: Option<QueueSettings>,
    /// A queue that is not there begins with it.
    pub begins: bool,
}

pub struct Changed {
    pub met: u64,
    /// Where to go on, if that was not all.
    pub further: Option<u64>,
}

/// The place of one item among the answers to a batch.
pub struct Seat<T> {
    batch: Arc<Gathered<T>>,
    item: usize,
}

/// Answers to a batch; they go out once the last one is there, or nobody can give one any more.
pub struct Gathered<T>(Mutex<Gathering<T>>);

struct Gathering<T> {
    answers: Vec<Option<Result<T, StoreError>>>,
    reply: Option<oneshot::Sender<Vec<Result<T, StoreError>>>>,
}

impl<T> Gathered<T> {
    pub fn new(count: usize) -> (Arc<Gathered<T>>, Answered<T>) {
        let answers = (0..count).map(|_| None).collect();
        let (reply, answered) = oneshot::channel();
        (Arc::new(Gathered(Mutex::new(Gathering { answers, reply: Some(reply) }))), answered)
    }

    pub fn seat(batch: &Arc<Gathered<T>>, item: usize) -> Seat<T> {
        Seat { batch: batch.clone(), item }
    }
}

impl<T> Drop for Gathered<T> {
    fn drop(&mut self) {
        let gathering = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        let lost = || StoreError::Unconfirmed("the store was shut down meanwhile".into());
        let answers = std::mem::take(&mut gathering.answers).into_iter();
        if let Some(reply) = gathering.reply.take() {
            let _ = reply.send(answers.map(|answer| answer.unwrap_or_else(|| Err(lost()))).collect());
        }
    }
}

impl<T> Seat<T> {
    /// The last seat that is given up sends the answers.
    pub fn answer(self, answer: Result<T, StoreError>) {
        let mut gathering = self.batch.0.lock().unwrap_or_else(PoisonError::into_inner);
        gathering.answers[self.item] = Some(answer);
    }

    pub fn is_of(&self, other: &Arc<Gathered<T>>) -> bool {
        Arc::ptr_eq(&self.batch, other)
    }

    pub fn batch(&self) -> Arc<Gathered<T>> {
        self.batch.clone()
    }
}

impl Task {
    /// Answers that it was not done.
    pub fn refuse(self, error: StoreError) {
        match self {
            Task::Put(one) => one.to.answer(Err(error)),
            Task::Settle(one) => one.to.answer(Err(error)),
            Task::Take(_, reply, _) => drop(reply.send(Err(error))),
            Task::Sweep(reply, _) => drop(reply.send(Err(error))),
            Task::Look(_, reply, _) => drop(reply.send(Err(error))),
            Task::Change(_, reply, _) => drop(reply.send(Err(error))),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Task::Put(one) => one.put.body.as_bytes().len(),
            _ => 0,
        }
    }

    pub fn is_fenced(&self) -> bool {
        matches!(self, Task::Put(one) if one.put.fence.is_some())
    }
}

/// Tasks that make one call.
#[derive(Default)]
pub struct Call {
    pub tasks: Vec<Task>,
    bytes: usize,
}

impl Call {
    /// Of tasks that were one before.
    pub fn of(tasks: Vec<Task>) -> Call {
        Call { tasks, bytes: 0 }
    }

    pub fn with(task: Task) -> Call {
        let mut call = Call::default();
        call.add(task);
        call
    }

    /// Whether a task can go with those that are here.
    pub fn takes(&self, task: &Task) -> bool {
        let is_of_a_kind = matches!(
            (self.tasks.first(), task),
            (Some(Task::Put(_)), Task::Put(_)) | (Some(Task::Settle(_)), Task::Settle(_))
        );
        is_of_a_kind && self.tasks.len() < MOST_AT_ONCE && self.bytes + task.bytes() <= CALL_BYTES
    }

    pub fn add(&mut self, task: Task) {
        self.bytes += task.bytes();
        self.tasks.push(task);
    }

    pub fn is_fenced(&self) -> bool {
        self.tasks.iter().any(Task::is_fenced)
    }

    /// What is not there yet may begin with it.
    pub fn may_begin(&self) -> bool {
        match self.tasks.first() {
            Some(Task::Put(_)) => true,
            Some(Task::Change(words, ..)) => words.begins,
            _ => false,
        }
    }

    pub fn refuse(self, error: &StoreError) {
        self.tasks.into_iter().for_each(|task| task.refuse(error.clone()));
    }
}
