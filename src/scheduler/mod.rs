//! The scheduler: puts a job, or publishes a message, at the times of each schedule. Every node does it by its own clock, and
//! a fence of the schedule with the time of the run lets one of them through.
//!
//! What ran last is told on `$schedule.NAME`, which keeps it: there a node that begins sees what it has missed. The first
//! note there says since when there is such a schedule, so nothing from before is made up for. A clock that goes back repeats
//! no run; one that jumps forward makes those that it jumped over late, like any others that were missed.

mod board;
mod note;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use metrics::counter;

pub use self::board::Board;
use crate::document;
use crate::domain::message::Publication;
use crate::domain::queue::{Put, PutAnswer};
use crate::domain::schedule::{Schedule, Target};
use crate::domain::store::{Append, Appended, EntryId, Fence, StoreError};
use crate::hub::Hub;
use crate::telemetry;

/// How long the clock on the wall is trusted to go on as it goes.
const LOOK: Duration = Duration::from_secs(10);
/// How late a run may be and still be on time.
const LATE: Duration = Duration::from_secs(60);
/// How long a run that failed waits to be tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The clock on the wall. Tests move one by hand.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970.
    fn now(&self) -> u64;

    /// Ends when so much time is over, or before.
    fn wait(&self, time: Duration) -> BoxFuture<'static, ()>;
}

/// That of this machine.
pub struct Wall;

impl Clock for Wall {
    fn now(&self) -> u64 {
        document::now()
    }

    fn wait(&self, time: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(time).boxed()
    }
}

/// Runs the schedules until the future is dropped; the board shows them.
pub fn start(
    hub: &Hub,
    schedules: Vec<Schedule>,
    clock: Arc<dyn Clock>,
) -> (Board, impl Future<Output = ()> + Send + 'static) {
    let board = Board::new(&schedules);
    let running = schedules.into_iter().map(|schedule| {
        let keeper = Keeper { schedule, hub: hub.clone(), clock: clock.clone(), board: board.clone() };
        keeper.run()
    });
    let running = join_all(running);
    (board, async move { _ = running.await })
}

/// Keeps one schedule.
struct Keeper {
    schedule: Schedule,
    hub: Hub,
    clock: Arc<dyn Clock>,
    board: Board,
}

impl Keeper {
    async fn run(self) {
        let Schedule { name, cron, catch_up, .. } = &self.schedule;
        let noted = loop {
            match note::last(&self.hub, name).await {
                Ok(noted) => break noted,
                Err(error) => {
                    tracing::warn!(schedule = %name, %error, "what ran last cannot be read; it is tried again");
                    self.clock.wait(AGAIN).await;
                }
            }
        };
        let mut last = noted.since;
        self.board.set_last(name, noted.run);
        loop {
            let next = cron.next_after(last);
            self.board.set_next(name, next);
            let Some(next) = next else { return };
            let now = self.clock.now();
            if next > now {
                self.clock.wait(Duration::from_millis(next - now).min(LOOK)).await;
                continue;
            }
            // Of several that are due the last: it stands for all that were missed.
            let due = cron.last_until(now).unwrap_or(next).max(next);
            let is_missed = Duration::from_millis(now - due) > LATE;
            if is_missed && !catch_up {
                tracing::warn!(schedule = %name, due, "a run was missed, and catch_up is off");
                last = due;
                continue;
            }
            match self.fire(due).await {
                Ok(is_ours) => {
                    last = due;
                    self.board.set_last(name, Some(due));
                    if is_ours {
                        counter!(telemetry::SCHEDULE_RUNS).increment(1);
                        tracing::info!(schedule = %name, due, is_missed, "a schedule ran");
                    }
                }
                Err(error) => {
                    tracing::warn!(schedule = %name, due, %error, "a run failed; it is tried again");
                    self.clock.wait(AGAIN).await;
                }
            }
        }
    }

    /// Whether this node was the one to do it.
    async fn fire(&self, due: u64) -> Result<bool, StoreError> {
        let Schedule { name, target, data, .. } = &self.schedule;
        let fence = Some(Fence::new(format!("schedule:{name}"), "1", EntryId { ms: due, seq: 0 }));
        let body = document::data(data);
        let no_answer = || StoreError::Broken("no answer".into());
        let (is_ours, led_to) = match target {
            Target::Queue { queue, priority } => {
                let put = Put { priority: *priority, fence, ..Put::new(queue.clone(), body) };
                match self.hub.put(vec![put]).await.pop().ok_or_else(no_answer)?? {
                    PutAnswer::Stored { job, .. } => (true, Some(("job", job.to_string()))),
                    PutAnswer::Repeated { .. } | PutAnswer::Skipped => (false, None),
                }
            }
            Target::Topic(topic) => {
                let publication = plain(topic.clone(), body);
                let answer = self.hub.append(vec![Append { publication, fence }]).await.pop();
                match answer.ok_or_else(no_answer)?? {
                    Appended::Stored { at, .. } => (true, Some(("stored", at.to_string()))),
                    Appended::Repeated { .. } | Appended::Skipped => (false, None),
                }
            }
        };
        // Whoever finds it done notes it too: the node that did it may be gone.
        if let Err(error) = note::run(&self.hub, name, due, led_to).await {
            tracing::warn!(schedule = %name, due, %error, "a run could not be noted");
        }
        Ok(is_ours)
    }
}

fn plain(topic: crate::domain::name::Topic, body: crate::domain::message::Body) -> Publication {
    Publication { topic, body, ttl: None, key: None, idempotency_key: None, durability: None }
}
