//! What waits for Redis: a bounded queue between whoever calls the store and the task that talks to Redis.
//!
//! Its bounds hold for what waits and for what is on its way together. A call that finds no room, or finds Redis away,
//! fails at once; nothing is kept for a Redis that may come back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::future::{BoxFuture, FutureExt};
use tokio::sync::{Notify, mpsc, oneshot};

use super::calls::{Doubt, ForeignCall};
use super::cursors::Use;
use super::levels::Levels;
use super::pages::{Ask, Stretch};
use super::topics::Outcome;
use super::witness::{Proof, Question};
use crate::domain::message::Durability;
use crate::domain::store::{Append, Appended, StoreError};

/// Calls that may wait, whatever their size.
pub(super) const CALLS: usize = 8 * 1024;

pub(super) enum Job {
    Append(Batch),
    Read(Ask, oneshot::Sender<Result<Stretch, StoreError>>, Weight),
    Cursor(Use),
    Call(ForeignCall),
    Prove(Doubt),
    Close(oneshot::Sender<()>),
}

/// The messages of one call of `append`, and what became of them so far.
pub(super) struct Batch {
    pub items: Vec<(usize, Append)>,
    pub outcomes: Vec<Option<Outcome>>,
    /// What must be proven of each before it is answered with a yes.
    pub needs: Vec<Option<Durability>>,
    pub left: usize,
    pub answer: oneshot::Sender<Vec<Outcome>>,
    /// Announced as asking: to a server of a cluster that has the keys already and the slot not yet.
    pub asking: bool,
    /// A group of its messages, once it is packed.
    pub group: u16,
    pub _weight: Weight,
}

/// A share of the bounds, given back when dropped.
pub(super) struct Weight {
    messages: usize,
    bytes: usize,
    state: Arc<State>,
}

/// What all parts of the store know of how it is.
pub(super) struct State {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    condition: Mutex<Condition>,
    /// Told when the connection was lost or came back.
    pub changed: Arc<Notify>,
}

pub(super) struct Condition {
    /// Why calls fail at once, if they do.
    pub away: Option<String>,
    /// What of its settings is not as it must be, though it works.
    pub objection: Option<String>,
    /// The life of the server, once it is known.
    pub life: Option<String>,
    /// What is wrong with the feed.
    pub feed: Option<String>,
    pub levels: Arc<Levels>,
}

/// The end of the queue that calls are put in at.
#[derive(Clone)]
pub(super) struct Entrance {
    jobs: mpsc::Sender<Job>,
    state: Arc<State>,
    most_messages: usize,
    most_bytes: usize,
}

pub(super) fn queue(state: Arc<State>, most_messages: usize, most_bytes: usize) -> (Entrance, mpsc::Receiver<Job>) {
    let (jobs, exit) = mpsc::channel(CALLS);
    (Entrance { jobs, state, most_messages, most_bytes }, exit)
}

impl State {
    pub fn new(levels: Levels) -> State {
        let objection = levels.trouble();
        let condition =
            Mutex::new(Condition { away: None, objection, life: None, feed: None, levels: Arc::new(levels) });
        let changed = Arc::default();
        State { messages: AtomicUsize::new(0), bytes: AtomicUsize::new(0), condition, changed }
    }

    /// Of one server among several, told of by this.
    pub fn told(changed: Arc<Notify>) -> State {
        State { changed, ..State::new(Levels::unknown()) }
    }

    /// The server is there.
    pub fn arrived(&self, life: &str) {
        {
            let mut condition = self.condition();
            (condition.away, condition.life) = (None, Some(life.to_owned()));
        }
        self.changed.notify_one();
    }

    /// The server is away.
    pub fn left(&self, why: String) {
        self.condition().away = Some(why);
        self.changed.notify_one();
    }

    pub fn condition(&self) -> MutexGuard<'_, Condition> {
        self.condition.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn away(&self) -> Option<StoreError> {
        self.condition().away.clone().map(StoreError::Unavailable)
    }
}

impl Entrance {
    /// Takes room for so many messages and bytes; more than there is only if nothing else waits.
    pub fn admit(&self, messages: usize, bytes: usize) -> Result<Weight, StoreError> {
        if let Some(away) = self.state.away() {
            return Err(away);
        }
        let before = self.state.messages.fetch_add(messages, Ordering::Relaxed);
        let bytes_before = self.state.bytes.fetch_add(bytes, Ordering::Relaxed);
        let weight = Weight { messages, bytes, state: self.state.clone() };
        let over = before + messages > self.most_messages || bytes_before + bytes > self.most_bytes;
        if over && before > 0 {
            return Err(StoreError::Unavailable(format!(
                "{before} messages ({bytes_before} bytes) wait for Redis already, which is the bound"
            )));
        }
        Ok(weight)
    }

    /// Puts a job into the queue. If there is no room it is refused.
    pub fn put(&self, job: Job) {
        if let Err(error) = self.jobs.try_send(job) {
            let full = StoreError::Unavailable("too many calls wait for Redis already".into());
            error.into_inner().refuse(&self.state.away().unwrap_or(full));
        }
    }

    /// Puts a read into the queue.
    pub fn ask(&self, ask: Ask) -> oneshot::Receiver<Result<Stretch, StoreError>> {
        let (answer, answered) = oneshot::channel();
        match self.admit(1, 0) {
            Ok(weight) => self.put(Job::Read(ask, answer, weight)),
            Err(error) => drop(answer.send(Err(error))),
        }
        answered
    }

    /// Asks for the end, behind everything that was asked before, and waits for it.
    pub fn close(&self) -> BoxFuture<'static, ()> {
        let (done, closed) = oneshot::channel();
        let waiting = match self.jobs.try_send(Job::Close(done)) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => None,
            Err(mpsc::error::TrySendError::Full(job)) => Some((self.jobs.clone(), job)),
        };
        async move {
            if let Some((jobs, job)) = waiting {
                let _ = jobs.send(job).await;
            }
            // An error says that the task is gone, and with it everything.
            let _ = closed.await;
        }
        .boxed()
    }
}

impl Job {
    /// Answers that it was not done.
    pub fn refuse(self, error: &StoreError) {
        match self {
            Job::Append(batch) => batch.finish_with(error),
            Job::Cursor(one) => one.refuse(error),
            Job::Call(call) => drop(call.answer.send(Err(error.clone()))),
            Job::Prove(doubt) => drop(doubt.answer.send(Proof::none(&error.to_string()))),
            Job::Read(_, answer, _) => drop(answer.send(Err(error.clone()))),
            Job::Close(done) => drop(done.send(())),
        }
    }
}

impl Batch {
    pub fn settle(&mut self, item: usize, outcome: Outcome) {
        if self.outcomes[item].is_none() {
            self.outcomes[item] = Some(outcome);
            self.left -= 1;
        }
    }

    /// What is to be proven before it can be answered.
    pub fn question(&self) -> Question {
        let mut question = Question::default();
        let stored = self.outcomes.iter().zip(&self.needs).filter(|(outcome, _)| matches!(outcome, Some(Ok(_))));
        stored.filter_map(|(_, need)| *need).for_each(|level| question.add(level));
        question
    }

    /// Takes in what was proven of what was stored in a life.
    pub fn prove(&mut self, proof: &Proof, life: &str) {
        for (outcome, need) in self.outcomes.iter_mut().zip(&self.needs) {
            let (Some(Ok(appended)), Some(level)) = (&mut *outcome, need) else { continue };
            match proof.shows(*level, life) {
                Ok(()) => match appended {
                    Appended::Stored { durability, .. } | Appended::Repeated { durability, .. } => *durability = *level,
                    Appended::Skipped => {}
                },
                Err(why) => {
                    let text = format!("the level {:?} is not proven: {why}", level.as_str());
                    *outcome = Some(Err(StoreError::Unconfirmed(text)));
                }
            }
        }
    }

    /// Answers; what has no outcome yet gets this error.
    pub fn finish_with(self, error: &StoreError) {
        let outcomes = self.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(error.clone())));
        // Whoever asked may have gone; the messages are stored all the same.
        let _ = self.answer.send(outcomes.collect());
    }
}

impl Weight {
    pub fn messages(&self) -> usize {
        self.messages
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// No share: what it belongs to is counted elsewhere.
    pub fn none(state: &Arc<State>) -> Weight {
        Weight { messages: 0, bytes: 0, state: state.clone() }
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.state.messages.fetch_sub(self.messages, Ordering::Relaxed);
        self.state.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
