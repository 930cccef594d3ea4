//! The desk: where jobs are handed in, and handed out to whoever of this node has credit. It knows the contract of whoever
//! keeps queues, never which store that is.
//!
//! Each queue that somebody of this node takes from, or settles in, has a *line* (who waits, and what they may still be
//! given) and a *clerk* (the task that makes the calls). Within a node jobs go one by one, in turn, to those who have
//! credit; over nodes by demand, since each takes as much as its workers have credit for, at most `MOST_AT_ONCE` in one
//! call. Nothing is taken that nobody has credit for. It is looked for jobs when a wake comes, when the store said that
//! something changes, and each second where there is credit, since wakes may be lost.

mod clerk;
mod line;
mod requests;
mod sweeper;
mod taker;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use futures::{FutureExt, StreamExt};
use metrics::{counter, gauge, histogram};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use self::line::{Line, MOST_WAITING};
pub use self::requests::{REPLIES, Reply, Requests, Wording, inbox, request_name};
use self::sweeper::Schedule;
pub use self::taker::{Jobs, Taker};
use crate::domain::error::{Problem, Reason};
use crate::domain::queue::{Firing, Put, PutAnswer, Queue, QueueKeeper, Settle, Settled, Wake, WatchQueues};
use crate::domain::store::StoreError;
use crate::telemetry;

/// Where firings are told: a topic, a webhook.
pub trait Tell: Send + Sync + 'static {
    /// Tells a firing that is this node's to tell now. When it has been told, the queue is: `Change::Told`.
    fn tell(&self, firing: Firing);

    /// Whether a webhook may be told: there is something to sign with, and it may go there. Else why not.
    fn judge_webhook(&self, _url: &str) -> Result<(), String> {
        Err("this hub posts to no webhooks".into())
    }
}

/// A handle; its parts run on the runtime that it was opened on.
pub struct Desk {
    shared: Arc<Shared>,
}

struct Shared {
    keeper: QueueKeeper,
    /// What this node takes under, where several workers of it share a call.
    name: Box<str>,
    runtime: Handle,
    places: Mutex<HashMap<Queue, Arc<Place>>>,
    schedule: Schedule,
    watched: Mutex<HashMap<Queue, Watched>>,
    watcher: Box<dyn WatchQueues>,
    teller: Mutex<Option<Arc<dyn Tell>>>,
    closed: AtomicBool,
    /// A clerk has ended.
    retired: Notify,
}

/// One queue's line, and how its clerk is woken.
struct Place {
    queue: Queue,
    line: Mutex<Line>,
    changed: Notify,
    settings_changed: AtomicBool,
}

/// What a queue's wakes are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Takers,
    Start,
}

#[derive(Debug, Default)]
struct Watched {
    takers: bool,
    start: bool,
}

impl Desk {
    /// Opens the desk on the present runtime. Called once for a keeper: the wakes are its own.
    pub fn open(keeper: QueueKeeper) -> Desk {
        let (watcher, mut wakes) = keeper.queues.wakes();
        let shared = Arc::new(Shared {
            keeper,
            name: format!("node-{:08x}", random() as u32).into(),
            runtime: Handle::current(),
            places: Mutex::default(),
            schedule: Schedule::default(),
            watched: Mutex::default(),
            watcher,
            teller: Mutex::default(),
            closed: AtomicBool::new(false),
            retired: Notify::new(),
        });
        // Neither keeps the desk alive: with the last handle both end.
        let weak = Arc::downgrade(&shared);
        shared.runtime.spawn(async move {
            while let Some(wake) = wakes.next().await {
                let Some(shared) = weak.upgrade() else { return };
                shared.on_wake(wake);
            }
        });
        shared.runtime.spawn(sweeper::run(Arc::downgrade(&shared)));
        Desk { shared }
    }

    /// Both contracts of whoever keeps the queues: what operators see and do, marks, settings.
    pub fn keeper(&self) -> &QueueKeeper {
        &self.shared.keeper
    }

    /// Puts jobs, fenced or not, and answers item by item. The work starts with the call.
    pub fn put(&self, batch: Vec<Put>) -> BoxFuture<'static, Vec<Result<PutAnswer, StoreError>>> {
        for put in &batch {
            self.shared.schedule.touch(&put.queue);
        }
        let (begun, stored) = (std::time::Instant::now(), self.keeper().queues.put(batch));
        async move {
            let answers = stored.await;
            histogram!(telemetry::QUEUE_PUT_SECONDS).record(begun.elapsed());
            let stored = answers.iter().filter(|answer| matches!(answer, Ok(PutAnswer::Stored { .. }))).count();
            counter!(telemetry::QUEUE_PUT).increment(stored as u64);
            answers
        }
        .boxed()
    }

    /// Ends or extends deliveries, item by item, whoever took them. The work starts with the call.
    pub fn settle(&self, queue: &Queue, batch: Vec<Settle>) -> BoxFuture<'static, Vec<Result<Settled, StoreError>>> {
        let mut answers = Vec::with_capacity(batch.len());
        self.shared.at(queue, |line| {
            for settle in batch {
                let (answer, answered) = oneshot::channel();
                answers.push(answered);
                match line.settlements.len() < MOST_WAITING {
                    true => line.settlements.push((settle, Some(answer))),
                    false => {
                        let text = format!("{MOST_WAITING} settlements of {queue} wait for the store already");
                        let _ = answer.send(Err(StoreError::Unavailable(text)));
                    }
                }
            }
        });
        let gone = || Err(StoreError::Unavailable("the node shuts down".into()));
        async move { join_all(answers).await.into_iter().map(|answer| answer.unwrap_or_else(|_| gone())).collect() }
            .boxed()
    }

    /// The same where nobody waits for the answer.
    pub fn settle_unheard(&self, queue: &Queue, batch: impl IntoIterator<Item = Settle>) {
        self.shared.at(queue, |line| line.settlements.extend(batch.into_iter().map(|settle| (settle, None))));
    }

    /// Settings were changed here: takers go by them from now on.
    pub fn refresh(&self, queue: &Queue) {
        if let Some(place) = self.shared.places().get(queue) {
            place.settings_changed.store(true, Ordering::Relaxed);
            place.changed.notify_one();
        }
        self.shared.schedule.renew(queue);
    }

    /// Who tells firings from now on. Without a teller they stay untold, and are only logged.
    pub fn set_teller(&self, teller: Arc<dyn Tell>) {
        *self.shared.teller.lock().unwrap_or_else(PoisonError::into_inner) = Some(teller);
    }

    /// Whether queues may name this webhook, and why not.
    pub fn judge_webhook(&self, url: &str) -> Result<(), String> {
        let teller = self.shared.teller.lock().unwrap_or_else(PoisonError::into_inner).clone();
        teller.map_or_else(|| Err("this hub tells no firings".into()), |teller| teller.judge_webhook(url))
    }

    /// Hands out nothing more: waiting takers end, and what is still taken for them is given back.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        for place in self.shared.places().values() {
            place.line().leave_all();
            place.changed.notify_one();
        }
    }

    /// Waits until everything that was given back or settled has been told to the store. After `close`.
    pub async fn finish(&self) {
        loop {
            let retired = self.shared.retired.notified();
            let mut retired = std::pin::pin!(retired);
            retired.as_mut().enable();
            if self.shared.places().is_empty() {
                return;
            }
            retired.await;
        }
    }

    /// Sets the gauges of what the desk holds.
    pub fn measure(&self) {
        let takers: usize = self.shared.places().values().map(|place| place.line().takers()).sum();
        gauge!(telemetry::QUEUE_TAKERS).set(takers as f64);
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.close();
        self.shared.schedule.end();
    }
}

impl Shared {
    fn places(&self) -> MutexGuard<'_, HashMap<Queue, Arc<Place>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Works on the line of a queue, whose clerk begins if there is none.
    fn at<T>(self: &Arc<Self>, queue: &Queue, work: impl FnOnce(&mut Line) -> T) -> (T, Arc<Place>) {
        self.schedule.touch(queue);
        let mut places = self.places();
        let place = places.entry(queue.clone()).or_insert_with(|| {
            let place = Arc::new(Place {
                queue: queue.clone(),
                line: Mutex::new(Line::new()),
                changed: Notify::new(),
                settings_changed: AtomicBool::new(false),
            });
            self.runtime.spawn(clerk::serve(self.clone(), place.clone()));
            place
        });
        let place = place.clone();
        // Under both locks, so that no clerk ends between the two.
        let done = work(&mut place.line());
        drop(places);
        place.changed.notify_one();
        (done, place)
    }

    /// Takes an idle place away. `false`: somebody came meanwhile.
    fn retire(&self, place: &Place) -> bool {
        let mut places = self.places();
        let is_idle = place.line().is_idle();
        if is_idle {
            places.remove(&place.queue);
            // Before another clerk can watch for the same.
            self.unwatch(&place.queue, Why::Takers);
        }
        is_idle
    }

    fn on_wake(&self, wake: Wake) {
        match wake {
            Wake::Jobs(queue) => self.wake(&queue),
            Wake::Fired(queue) => self.sweep_soon(&queue),
            Wake::Lost => {
                for place in self.places().values() {
                    place.line().wake();
                    place.changed.notify_one();
                }
                self.schedule.hurry_all();
            }
        }
    }

    /// There may be something to take.
    fn wake(&self, queue: &Queue) {
        if let Some(place) = self.places().get(queue) {
            place.line().wake();
            place.changed.notify_one();
        }
    }

    fn sweep_soon(&self, queue: &Queue) {
        self.schedule.hurry(queue);
    }

    fn has_takers(&self, queue: &Queue) -> bool {
        self.places().get(queue).is_some_and(|place| place.line().has_takers())
    }

    fn watch(&self, queue: &Queue, why: Why) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = watched.entry(queue.clone()).or_default();
        let was = entry.takers || entry.start;
        *entry.of(why) = true;
        if !was {
            self.watcher.watch(queue);
        }
    }

    fn unwatch(&self, queue: &Queue, why: Why) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = watched.get_mut(queue) else { return };
        *entry.of(why) = false;
        if !entry.takers && !entry.start {
            watched.remove(queue);
            self.watcher.unwatch(queue);
        }
    }

    fn tell(&self, firing: Firing) {
        let teller = self.teller.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match teller {
            Some(teller) => teller.tell(firing),
            None => {
                tracing::info!(queue = %firing.queue, number = firing.number, "start_when has come true; nobody tells it")
            }
        }
    }
}

impl Watched {
    fn of(&mut self, why: Why) -> &mut bool {
        match why {
            Why::Takers => &mut self.takers,
            Why::Start => &mut self.start,
        }
    }
}

impl Place {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands for a desk where the store keeps no queues.
pub fn absent() -> Problem {
    Problem::new(Reason::NotFound, "this hub's store keeps no queues")
}

/// What answers a client whose delivery is over.
pub fn no_lease() -> Problem {
    let text = "this delivery is over: its lease ended, or it was settled before; the job may be with another worker";
    Problem::new(Reason::NoLease, text)
}

/// Random bits; where the machine has none, the clock's, which still tell one call from the next.
fn random() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        since.as_nanos() as u64
    })
}

#[cfg(test)]
mod tests;
