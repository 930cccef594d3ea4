//! One queue's clerk: makes its calls, one take and one settlement at a time, and ends when nobody has needed it for a
//! while. What waits while a call is under way goes together in the next; nothing is delayed for that. Where there is more
//! than one call can hold, another one goes meanwhile: the store answers them in their order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use metrics::counter;
use tokio::time::{Instant, sleep_until};

use super::line::{Order, Waiting};
use super::{Place, Shared, Why};
use crate::domain::queue::{Change, How, QueueSettings, Settled, Take, Taken};
use crate::domain::store::StoreError;
use crate::telemetry;

/// How long a clerk waits for somebody to come back, so that a worker between two takes need not be watched for anew.
const LINGER: Duration = Duration::from_secs(5);
/// How long settings are taken for known: somebody may change them at another node.
const SETTINGS: Duration = Duration::from_secs(5);
/// Calls of a kind that are under way at once.
const AT_ONCE: usize = 3;
/// Bytes of bodies in one take.
const TAKE_BYTES: usize = 1024 * 1024;

type Call<T> = BoxFuture<'static, T>;
type Settlement = (Vec<(How, Answer)>, Call<Vec<Result<Settled, StoreError>>>);
/// With when it began: the leases of what it brings are no older.
type Taking = (Order, Instant, Call<Result<Taken, StoreError>>);
type Answer = Option<tokio::sync::oneshot::Sender<Result<Settled, StoreError>>>;

/// What is under way.
#[derive(Default)]
struct Clerk {
    takes: VecDeque<Taking>,
    settlements: VecDeque<Settlement>,
    settings: Option<Call<Result<QueueSettings, StoreError>>>,
    leave: Option<Call<Result<u64, StoreError>>>,
    asked: Option<Instant>,
    idle_since: Option<Instant>,
    watches: bool,
}

enum Next {
    Taken(Result<Taken, StoreError>),
    Settled(Vec<Result<Settled, StoreError>>),
    Settings(Result<QueueSettings, StoreError>),
    Left,
    Changed,
}

pub async fn serve(shared: Arc<Shared>, place: Arc<Place>) {
    let mut clerk = Clerk::default();
    while let Some(wake) = clerk.begin_calls(&shared, &place) {
        let next = tokio::select! {
            answers = on(clerk.settlements.front_mut().map(|(_, call)| call)) => Next::Settled(answers),
            taken = on(clerk.takes.front_mut().map(|(_, _, call)| call)) => Next::Taken(taken),
            settings = on(clerk.settings.as_mut()) => Next::Settings(settings),
            _ = on(clerk.leave.as_mut()) => Next::Left,
            () = place.changed.notified() => Next::Changed,
            () = sleep_until(wake) => Next::Changed,
        };
        clerk.on_next(next, &shared, &place);
    }
    shared.retired.notify_waiters();
}

impl Clerk {
    /// Begins what is due and can be, and answers when something is due by itself. `None`: this clerk is no longer needed.
    fn begin_calls(&mut self, shared: &Arc<Shared>, place: &Place) -> Option<Instant> {
        let (now, queues) = (Instant::now(), &shared.keeper.queues);
        let mut line = place.line();
        let mut wake = now + LINGER;
        while self.settlements.len() < AT_ONCE {
            let first = self.settlements.is_empty();
            let waiting = if first { line.next_settlements() } else { line.more_settlements() };
            if waiting.is_empty() {
                break;
            }
            let (batch, answers): (Vec<_>, Vec<_>) = waiting.into_iter().map(parted).unzip();
            self.settlements.push_back((answers, queues.settle(&place.queue, batch)));
        }
        if self.leave.is_none()
            && let Some(worker) = line.leaving.pop()
        {
            self.leave = Some(shared.keeper.admin.change(&place.queue, Change::Leave { worker }));
        }
        if line.has_takers() {
            self.idle_since = None;
            if !self.watches {
                self.watches = true;
                shared.watch(&place.queue, Why::Takers);
            }
            let is_old = place.settings_changed.swap(false, Ordering::Relaxed)
                || self.asked.is_none_or(|asked| now >= asked + SETTINGS);
            if self.settings.is_none() && is_old {
                self.asked = Some(now);
                self.settings = Some(queues.settings(&place.queue));
            }
            while self.takes.len() < AT_ONCE
                && let Some(order) = if self.takes.is_empty() { line.next_order(now) } else { line.another_order(now) }
            {
                let take = Take {
                    worker: order.name.clone().unwrap_or_else(|| shared.name.clone()),
                    count: order.count,
                    bytes: TAKE_BYTES,
                    lease: order.lease,
                    token: super::random(),
                };
                self.takes.push_back((order, now, queues.take(&place.queue, take)));
            }
            if self.takes.is_empty() {
                wake = line.next_look().map_or(wake, |look| look.min(wake));
            }
            return Some(wake);
        }
        let is_idle = line.is_idle() && self.takes.is_empty() && self.settlements.is_empty() && self.leave.is_none();
        let since = *self.idle_since.get_or_insert(now);
        let is_over = now >= since + LINGER || shared.is_closed();
        drop(line);
        match is_idle && is_over && shared.retire(place) {
            true => None,
            false => Some(if is_idle { since + LINGER } else { wake }),
        }
    }

    fn on_next(&mut self, next: Next, shared: &Shared, place: &Place) {
        let now = Instant::now();
        match next {
            Next::Changed => {}
            Next::Left => self.leave = None,
            Next::Settings(answer) => {
                self.settings = None;
                let mut line = place.line();
                match answer {
                    Ok(settings) => line.seats = Some(settings.max_workers.is_some()),
                    // Without them nothing is known of seats; it is asked again when whoever waits would look again.
                    Err(error) => {
                        tracing::debug!(queue = %place.queue, %error, "settings");
                        self.asked = Some(now - SETTINGS + super::line::FALLBACK);
                    }
                }
            }
            Next::Taken(answer) => {
                let Some((order, begun, _)) = self.takes.pop_front() else { return };
                let mut line = place.line();
                match answer {
                    Ok(mut taken) => {
                        // What was longer on its way than its lease, over a stalled line or node, may be another's by now.
                        let late: Vec<_> = taken.jobs.extract_if(.., |job| now >= begun + job.lease).collect();
                        taken.more |= !late.is_empty();
                        line.release(late);
                        counter!(telemetry::QUEUE_TAKEN).increment(taken.jobs.len() as u64);
                        if taken.has_fired {
                            shared.sweep_soon(&place.queue);
                        }
                        line.on_taken(&order, taken, now);
                    }
                    Err(error) => {
                        tracing::debug!(queue = %place.queue, %error, "take");
                        line.on_failed(&order, now);
                    }
                }
            }
            Next::Settled(answers) => {
                let Some((asked, _)) = self.settlements.pop_front() else { return };
                let mut gave_back = false;
                for ((how, answer), settled) in asked.into_iter().zip(answers) {
                    gave_back |= matches!(how, How::Nack { .. } | How::Release);
                    count(&how, &settled);
                    if let Some(answer) = answer {
                        let _ = answer.send(settled);
                    }
                }
                if gave_back {
                    place.line().wake();
                }
            }
        }
    }
}

fn parted((settle, answer): Waiting) -> (crate::domain::queue::Settle, (How, Answer)) {
    let how = settle.how.clone();
    (settle, (how, answer))
}

fn count(how: &How, settled: &Result<Settled, StoreError>) {
    let name = match (settled, how) {
        (Ok(Settled::NoLease | Settled::Gone), _) => telemetry::QUEUE_LATE,
        (Ok(Settled::Dead), _) => telemetry::QUEUE_DEAD,
        (Ok(_), How::Ack) => telemetry::QUEUE_ACKED,
        (Ok(_), How::Nack { .. } | How::Term { .. }) => telemetry::QUEUE_NACKED,
        (Ok(_), How::Release) => telemetry::QUEUE_RELEASED,
        (Ok(_), How::Extend { .. }) | (Err(_), _) => return,
    };
    counter!(name).increment(1);
}

/// What is under way, or never.
pub async fn on<T>(call: Option<&mut Call<T>>) -> T {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}
