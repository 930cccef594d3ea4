//! Sweeps queues: what is due by itself is moved though nobody takes, `start_when` is judged, firings are claimed.
//!
//! A queue with a `start_when`, or that somebody of this node takes from, is swept when it says that something changes,
//! and at least each second. The others that this node has touched are swept now and then, so that the leases of a node
//! that died end even where nobody takes; and every queue that there is once a minute, when all are listed.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use metrics::counter;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::clerk::on;
use super::{Shared, Why, random};
use crate::domain::queue::{Queue, Swept};
use crate::domain::store::StoreError;
use crate::telemetry;

/// How long a queue that somebody waits at is left alone at the most, and at the least.
const BUSY: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_millis(20);
/// How long the others are left alone: so long, and up to as long again.
const QUIET: Duration = Duration::from_secs(5);
/// How often all queues are listed, and the settings of those that are known learnt anew.
const LISTED: Duration = Duration::from_secs(60);
/// Queues in one page of the list.
const PAGE: usize = 500;
/// Queues that a node keeps in its schedule; of more, those that come later wait for the list, which goes on where it was.
const MOST_KNOWN: usize = 10_000;
/// Sweeps under way at the same time. One waits as long as its store takes to answer, and in a cluster others need not wait
/// for that.
const AT_ONCE: usize = 64;

#[derive(Default)]
pub struct Schedule {
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Default)]
struct Table {
    known: HashMap<Queue, Known>,
    by_time: BTreeSet<(Instant, Queue)>,
}

struct Known {
    /// When it is swept next; `None` while it is.
    at: Option<Instant>,
    /// It was asked for while it was being swept.
    again: bool,
    /// Whether it has a `start_when`, and when that was learnt; somebody may change it at another node.
    starts: Option<(bool, Instant)>,
}

impl Schedule {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node has to do with the queue.
    pub fn touch(&self, queue: &Queue) {
        let table = &mut *self.table();
        if !table.known.contains_key(queue) && table.known.len() < MOST_KNOWN {
            let at = Instant::now() + if table.known.is_empty() { SOON } else { jittered(BUSY) };
            table.insert(queue, Known { at: Some(at), again: false, starts: None });
            self.changed.notify_one();
        }
    }

    /// It should be swept at once.
    pub fn hurry(&self, queue: &Queue) {
        self.touch(queue);
        let table = &mut *self.table();
        match table.known.get_mut(queue) {
            Some(Known { at: None, again, .. }) => *again = true,
            Some(_) => table.move_to(queue, Instant::now()),
            None => {}
        }
        self.changed.notify_one();
    }

    /// Whoever waits for it looks whether it is still needed.
    pub fn end(&self) {
        self.changed.notify_one();
    }

    pub fn hurry_all(&self) {
        let queues: Vec<Queue> = self.table().known.keys().cloned().collect();
        queues.iter().for_each(|queue| self.hurry(queue));
    }

    /// Its settings may be other ones.
    pub fn renew(&self, queue: &Queue) {
        self.touch(queue);
        if let Some(known) = self.table().known.get_mut(queue) {
            known.starts = None;
        }
        self.hurry(queue);
    }

    /// Takes the next queue that is due, and whether it has a `start_when`; else when one is.
    fn next(&self, now: Instant) -> Result<(Queue, Option<bool>), Option<Instant>> {
        let table = &mut *self.table();
        match table.by_time.first() {
            Some((at, _)) if *at > now => Err(Some(*at)),
            None => Err(None),
            Some(_) => {
                let (_, queue) = table.by_time.pop_first().expect("there is a first");
                let known = table.known.get_mut(&queue).expect("what has a time is known");
                known.at = None;
                Ok((queue, known.starts.filter(|(_, learnt)| now < *learnt + LISTED).map(|(starts, _)| starts)))
            }
        }
    }

    /// It was swept; no time: nothing of it changes by itself.
    fn put_back(&self, queue: &Queue, learnt: Option<bool>, at: Option<Instant>) {
        let table = &mut *self.table();
        let Some(known) = table.known.get_mut(queue) else { return };
        if let Some(starts) = learnt {
            known.starts = Some((starts, Instant::now()));
        }
        match (std::mem::take(&mut known.again), at) {
            (true, _) => table.move_to(queue, Instant::now()),
            (false, Some(at)) => table.move_to(queue, at),
            (false, None) => _ = table.known.remove(queue),
        }
    }
}

impl Table {
    fn insert(&mut self, queue: &Queue, known: Known) {
        self.by_time.extend(known.at.map(|at| (at, queue.clone())));
        self.known.insert(queue.clone(), known);
    }

    fn move_to(&mut self, queue: &Queue, at: Instant) {
        let Some(known) = self.known.get_mut(queue) else { return };
        if let Some(before) = known.at.replace(at) {
            self.by_time.remove(&(before, queue.clone()));
        }
        self.by_time.insert((at, queue.clone()));
    }
}

/// Runs as long as the desk is there.
pub async fn run(desk: Weak<Shared>) {
    let mut under_way = FuturesUnordered::new();
    let mut list_at = Instant::now();
    let mut listed: Option<Queue> = None;
    let mut listing: Option<BoxFuture<'static, Result<Vec<Queue>, StoreError>>> = None;
    loop {
        let Some(shared) = desk.upgrade().filter(|shared| !shared.is_closed()) else { return };
        let now = Instant::now();
        if now >= list_at && listing.is_none() {
            listing = Some(shared.keeper.admin.list(listed.as_ref(), PAGE));
        }
        let mut wake = if listing.is_some() { now + LISTED } else { list_at };
        while under_way.len() < AT_ONCE {
            match shared.schedule.next(now) {
                Ok((queue, starts)) => under_way.push(sweep(desk.clone(), queue, starts)),
                Err(at) => {
                    wake = at.map_or(wake, |at| at.min(wake));
                    break;
                }
            }
        }
        let has_room = under_way.len() < AT_ONCE;
        let changed = shared.clone();
        let changed = async move { changed.schedule.changed.notified().await };
        drop(shared);
        tokio::select! {
            page = on(listing.as_mut()) => {
                listing = None;
                let is_last = page.as_ref().is_ok_and(|page| page.len() < PAGE);
                list_at = Instant::now() + if is_last { LISTED } else { BUSY };
                match (page, desk.upgrade()) {
                    (Ok(page), Some(shared)) => {
                        page.iter().for_each(|queue| shared.schedule.touch(queue));
                        listed = page.into_iter().next_back().filter(|_| !is_last);
                    }
                    (Err(error), _) => tracing::debug!(%error, "queues cannot be listed"),
                    (_, None) => return,
                }
            }
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            () = changed, if has_room => {}
            () = sleep_until(wake), if has_room => {}
        }
    }
}

async fn sweep(desk: Weak<Shared>, queue: Queue, starts: Option<bool>) {
    let Some(shared) = desk.upgrade() else { return };
    let known = match starts {
        Some(starts) => Some(starts),
        None => {
            let settings = shared.keeper.queues.settings(&queue).await;
            let starts = settings.ok().map(|settings| settings.start_when.is_some());
            match starts {
                Some(true) => shared.watch(&queue, Why::Start),
                Some(false) => shared.unwatch(&queue, Why::Start),
                None => {}
            }
            starts
        }
    };
    let swept = shared.keeper.queues.sweep(&queue).await;
    let is_busy = known == Some(true) || shared.has_takers(&queue);
    let at = next_sweep(&swept, is_busy).map(|wait| Instant::now() + wait);
    shared.schedule.put_back(&queue, known.filter(|_| starts.is_none()), at);
    match swept {
        Ok(Swept { moved, takeable, fired, .. }) => {
            counter!(telemetry::QUEUE_SWEPT).increment(moved as u64);
            if takeable {
                shared.wake(&queue);
            }
            if let Some(firing) = fired {
                shared.tell(firing);
            }
        }
        Err(error) => tracing::debug!(%queue, %error, "sweep"),
    }
}

/// How long until the next sweep; `None`: it is not needed.
fn next_sweep(swept: &Result<Swept, StoreError>, is_busy: bool) -> Option<Duration> {
    match swept {
        Ok(Swept { more: true, .. }) => Some(Duration::ZERO),
        Ok(Swept { next, .. }) if is_busy => Some(next.unwrap_or(BUSY).clamp(SOON, BUSY)),
        Ok(Swept { next: None, .. }) => None,
        Ok(_) | Err(_) => Some(jittered(QUIET)),
    }
}

/// So long, and up to as long again.
fn jittered(wait: Duration) -> Duration {
    wait + wait.mul_f64((random() % 1024) as f64 / 1024.0)
}
