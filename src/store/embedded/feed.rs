//! The way from the writer to the hub: a bounded queue of feed events, and the wishes that come back. Filled by the
//! writer, which waits with further appends while it is full. If it must go on all the same (see `inbox`) and the
//! queue has grown to `HARD` times its size, messages are dropped, and the reader is told.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::Stream;

use super::inbox::Inbox;
use crate::domain::name::Topic;
use crate::domain::store::{FeedEvent, Watch};

/// Bytes of bodies that wait in a feed that is not full.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// How far beyond its size a feed grows before messages are dropped.
const HARD: usize = 4;

/// The writer's end.
pub struct Outlet {
    state: Mutex<State>,
    capacity: usize,
}

#[derive(Default)]
struct State {
    events: VecDeque<FeedEvent>,
    bytes: usize,
    /// Messages were dropped since the queue was last emptied.
    is_interrupted: bool,
    is_over: bool,
    has_no_reader: bool,
    waker: Option<Waker>,
}

/// The hub's end. Takes all that waits at once.
pub struct Feed {
    outlet: Arc<Outlet>,
    inbox: Arc<Inbox>,
    taken: VecDeque<FeedEvent>,
}

pub struct Watcher {
    inbox: Arc<Inbox>,
    feed: u64,
}

/// Opens a feed, taking it away from whoever had it.
pub fn open(inbox: &Arc<Inbox>, capacity: usize) -> (Watcher, Feed) {
    let outlet = Arc::new(Outlet { state: Mutex::default(), capacity: capacity.max(1) });
    let feed = inbox.put_feed(outlet.clone());
    (Watcher { inbox: inbox.clone(), feed }, Feed { outlet, inbox: inbox.clone(), taken: VecDeque::new() })
}

impl Outlet {
    /// Whether the writer should wait. A feed that nobody reads is never full: it takes nothing.
    pub fn is_full(&self) -> bool {
        let state = self.lock();
        !state.has_no_reader && (state.events.len() >= self.capacity || state.bytes >= MAX_BYTES)
    }

    pub fn push(&self, events: impl IntoIterator<Item = FeedEvent>) {
        let mut state = self.lock();
        if state.has_no_reader || state.is_over {
            return;
        }
        for event in events {
            if let FeedEvent::Message(message) = &event {
                if state.events.len() >= self.capacity.saturating_mul(HARD) || state.bytes >= MAX_BYTES * HARD {
                    state.is_interrupted = true;
                }
                // What follows a hole waits for the news of it.
                if state.is_interrupted {
                    continue;
                }
                state.bytes += message.body.as_bytes().len();
            }
            state.events.push_back(event);
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ends the feed once it is read to its end.
    pub fn end(&self) {
        let mut state = self.lock();
        state.is_over = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream for Feed {
    type Item = FeedEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<FeedEvent>> {
        if let Some(event) = self.taken.pop_front() {
            return Poll::Ready(Some(event));
        }
        let this = &mut *self;
        let mut state = this.outlet.lock();
        std::mem::swap(&mut state.events, &mut this.taken);
        if std::mem::take(&mut state.is_interrupted) {
            this.taken.extend([FeedEvent::Interrupted, FeedEvent::Restored]);
        }
        if this.taken.is_empty() {
            if state.is_over {
                return Poll::Ready(None);
            }
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let was_full = this.taken.len() >= this.outlet.capacity || state.bytes >= MAX_BYTES;
        state.bytes = 0;
        drop(state);
        if was_full {
            this.inbox.poke();
        }
        Poll::Ready(this.taken.pop_front())
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut state = self.outlet.lock();
        state.has_no_reader = true;
        state.events.clear();
        drop(state);
        self.inbox.poke();
    }
}

impl Watch for Watcher {
    fn watch(&self, topic: &Topic) {
        self.inbox.put_wish(self.feed, topic, true);
    }

    fn unwatch(&self, topic: &Topic) {
        self.inbox.put_wish(self.feed, topic, false);
    }
}
