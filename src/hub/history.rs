//! History for those who come back to a topic, however many at once: n who resume cost about one read of the store.
//!
//! Two things make it so. The sequencer's order and completeness make what it has handed on a proven stretch of each
//! topic, whose newest part is kept here; and who asks for a stretch that is being read already waits for that read.
//! Both are for subscribers alone, who go on in the live stream where their page ends: whoever asks by HTTP or by a
//! command wants what is stored at this moment, and asks the store.
//!
//! While the feed is interrupted, or a topic is being compared with the store, nothing is answered from memory.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use metrics::{counter, gauge};

use super::stretch::{MESSAGE_BYTES, Stretch};
use crate::domain::message::Message;
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::domain::store::{Page, ReadFrom, ReadLimit, Store, StoreError};
use crate::domain::topic::{Mode, TopicSettings};
use crate::telemetry;

/// Messages read before those that were asked for: others who were cut in the same moment stand a few further back.
const MARGIN: u64 = 64;
/// Tokens of messages that are gone already, until they are looked through.
const STALE_TOKENS: usize = 4096;

pub struct History {
    store: Arc<dyn Store>,
    most: usize,
    memory: Mutex<Memory>,
    flights: Mutex<Flights>,
    interrupted: Arc<AtomicBool>,
}

#[derive(Default)]
struct Memory {
    stretches: HashMap<Topic, Stretch>,
    /// Which messages came first, over all topics: those go first.
    order: VecDeque<(Topic, u64)>,
    size: usize,
}

/// Reads that are under way.
#[derive(Default)]
struct Flights {
    by_course: HashMap<Course, Flight>,
    next: u64,
}

/// What a read under way is shared by.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Course {
    /// By all who come back to this topic at about the same place.
    Wide(Topic),
    /// By those who asked for exactly this.
    Exact(Topic, ReadFrom, ReadLimit),
}

#[derive(Clone)]
struct Flight {
    number: u64,
    from: ReadFrom,
    limit: ReadLimit,
    page: Shared<BoxFuture<'static, Arc<Result<Page, StoreError>>>>,
}

/// A position a little before this one, for reads that others shall share.
pub fn before(after: Position) -> Position {
    Position::new(after.epoch, after.offset.saturating_sub(MARGIN))
}

impl History {
    pub fn new(store: Arc<dyn Store>, most: usize, interrupted: Arc<AtomicBool>) -> Arc<History> {
        Arc::new(History { store, most, memory: Mutex::default(), flights: Mutex::default(), interrupted })
    }

    /// The page for a subscriber whose live stream stands at `live`: as new as that at least.
    pub fn replay(
        self: &Arc<Self>,
        topic: &Topic,
        from: ReadFrom,
        limit: ReadLimit,
        live: Position,
    ) -> BoxFuture<'static, Result<Page, StoreError>> {
        let (history, topic) = (self.clone(), topic.clone());
        async move {
            let asked = history.flights().next;
            let exact = Course::Exact(topic.clone(), from, limit);
            let (wide, _) = widened(from, limit);
            let mut course = match from {
                ReadFrom::After(_) => Course::Wide(topic.clone()),
                // Whoever asks for something else has no part in it.
                ReadFrom::Last(_) | ReadFrom::Since(_) => exact.clone(),
            };
            let mut missed = false;
            loop {
                if let Some(page) = history.remembered(&topic, from, limit, live) {
                    counter!(telemetry::REPLAYS, "from" => "memory").increment(1);
                    return Ok(page);
                }
                let (flight, leads) = history.board(&course, &topic, from, limit);
                let read = flight.page.clone().await;
                history.land(&course, flight.number);
                let page = (*read).as_ref().map_err(StoreError::clone)?;
                if leads {
                    history.extend(&topic, page);
                }
                let part = portion(page, flight.from, from, limit).filter(|_| flight.limit == limit);
                // A read that began before this one was asked for may be too old for it.
                let is_fresh = flight.number > asked || is_new_enough(page, live);
                match part {
                    Some(page) if is_fresh => {
                        let from = if leads { "store" } else { "shared" };
                        counter!(telemetry::REPLAYS, "from" => from).increment(1);
                        return Ok(page);
                    }
                    Some(_) => {}
                    // What lies before it is of another kind, or too much: it is read by itself. Who only met the read
                    // of others far away tries a wide one once more, and no oftener, or all would wait for each.
                    None if flight.from == wide || missed => course = exact.clone(),
                    None => missed = true,
                }
            }
        }
        .boxed()
    }

    fn remembered(&self, topic: &Topic, from: ReadFrom, limit: ReadLimit, live: Position) -> Option<Page> {
        if self.interrupted.load(Ordering::Relaxed) {
            return None;
        }
        self.memory().stretches.get(topic)?.read(from, limit, live, wall_clock())
    }

    /// The read that is under way on this course, or a new one; and whether it is new.
    fn board(&self, course: &Course, topic: &Topic, from: ReadFrom, limit: ReadLimit) -> (Flight, bool) {
        let mut flights = self.flights();
        if let Some(flight) = flights.by_course.get(course) {
            return (flight.clone(), false);
        }
        flights.next += 1;
        let (from, most) = match course {
            Course::Wide(_) => widened(from, limit),
            Course::Exact(..) => (from, limit),
        };
        let page = self.store.read(topic, from, most).map(Arc::new).boxed().shared();
        let flight = Flight { number: flights.next, from, limit, page };
        flights.by_course.insert(course.clone(), flight.clone());
        (flight, true)
    }

    fn land(&self, course: &Course, number: u64) {
        let mut flights = self.flights();
        if flights.by_course.get(course).is_some_and(|f| f.number == number) {
            flights.by_course.remove(course);
        }
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream of a topic stands at `at`; `page` is what was read up to there.
    pub fn open(&self, topic: &Topic, settings: TopicSettings, at: Position, page: &Page) {
        if settings.mode != Mode::Log || self.most == 0 {
            return;
        }
        let mut stretch = Stretch::new(settings, at);
        stretch.extend(page);
        let memory = &mut *self.memory();
        memory.remove(topic);
        memory.size += stretch.size();
        memory.stretches.insert(topic.clone(), stretch);
        memory.order.push_back((topic.clone(), at.offset));
        memory.keep_within(self.most);
    }

    /// The next message of a topic, before it is handed on.
    pub fn push(&self, message: &Message) {
        self.change(&message.topic, |stretch| {
            stretch.push(message);
            Some(message.at.offset)
        });
    }

    /// The stream of a topic goes on at `at`, behind a gap.
    pub fn skip(&self, topic: &Topic, at: Position) {
        self.change(topic, |stretch| {
            stretch.restart(at);
            None
        });
    }

    /// While a topic is compared with the store, and until it is whole again.
    pub fn suspend(&self, topic: &Topic, suspended: bool) {
        if let Some(stretch) = self.memory().stretches.get_mut(topic) {
            stretch.suspended = suspended;
        }
    }

    /// Nobody follows the topic any more.
    pub fn close(&self, topic: &Topic) {
        self.memory().remove(topic);
    }

    fn extend(&self, topic: &Topic, page: &Page) {
        self.change(topic, |stretch| {
            stretch.extend(page);
            Some(page.end.offset)
        });
    }

    /// Changes a stretch and keeps the whole within its bound. `work` gives the newest offset that was put in.
    fn change(&self, topic: &Topic, work: impl FnOnce(&mut Stretch) -> Option<u64>) {
        let memory = &mut *self.memory();
        let Some(stretch) = memory.stretches.get_mut(topic) else { return };
        let before = stretch.size();
        let put = work(stretch);
        memory.size = memory.size + stretch.size() - before;
        memory.order.extend(put.map(|offset| (topic.clone(), offset)));
        memory.keep_within(self.most);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the gauge of what is kept.
    pub fn measure(&self) {
        gauge!(telemetry::HISTORY_BYTES).set(self.memory().size as f64);
    }
}

impl Memory {
    fn remove(&mut self, topic: &Topic) {
        if let Some(stretch) = self.stretches.remove(topic) {
            self.size -= stretch.size();
        }
    }

    fn keep_within(&mut self, most: usize) {
        while self.size > most
            && let Some((topic, offset)) = self.order.pop_front()
        {
            if let Some(stretch) = self.stretches.get_mut(&topic) {
                let before = stretch.size();
                stretch.drop_through(offset);
                self.size = self.size + stretch.size() - before;
            }
        }
        let held = self.size / MESSAGE_BYTES;
        if self.order.len() > 2 * held + STALE_TOKENS {
            let stretches = &self.stretches;
            self.order.retain(|(topic, offset)| stretches.get(topic).is_some_and(|s| s.holds(*offset)));
        }
    }
}

/// What is read in place of what was asked for, so that others have a part in it.
fn widened(from: ReadFrom, limit: ReadLimit) -> (ReadFrom, ReadLimit) {
    match from {
        ReadFrom::After(after) => {
            let messages = limit.messages.saturating_add(MARGIN as u32);
            (ReadFrom::After(before(after)), ReadLimit { messages, bytes: limit.bytes * 2 })
        }
        from => (from, limit),
    }
}

/// The page for `from` out of one that was read for `read`, if it says all that the store would.
fn portion(page: &Page, read: ReadFrom, from: ReadFrom, limit: ReadLimit) -> Option<Page> {
    if read == from {
        return Some(cut(page.clone(), limit));
    }
    let ReadFrom::After(after) = from else { return None };
    let lies_within = after.epoch == page.start.epoch && (page.start.offset..=page.end.offset).contains(&after.offset);
    // Where a page ends that is not the last, another life may begin, and that is told.
    if !lies_within || page.mode == Mode::Live || after == page.end && !page.is_last() {
        return None;
    }
    let messages = page.messages.iter().filter(|m| m.at.offset > after.offset).cloned().collect();
    Some(cut(Page { start: after, messages, missing: None, ..page.clone() }, limit))
}

/// Cuts a page as the store would.
fn cut(mut page: Page, limit: ReadLimit) -> Page {
    let mut bytes = 0;
    let fits = |(i, message): &(usize, &Message)| {
        bytes += message.body.as_bytes().len();
        *i == 0 || *i < limit.messages as usize && bytes <= limit.bytes
    };
    let count = page.messages.iter().enumerate().take_while(fits).count();
    if count < page.messages.len() {
        page.messages.truncate(count);
        page.end = page.messages.last().map_or(page.start, |last| last.at);
    }
    page
}

/// Whether what a page leaves out is still to come in a stream that stands at `live`.
fn is_new_enough(page: &Page, live: Position) -> bool {
    !page.is_last() || page.head == live || page.head.is_past(live)
}

fn wall_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
