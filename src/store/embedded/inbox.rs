//! What waits for the writer thread: calls in the order in which they were made, and the wishes of the feed. Calls are
//! put in when they are made, so their order is that of the calls. Bounded: a call that finds no room is refused at
//! once, with `Unavailable`, rather than kept waiting. Knows nothing of what a call does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::dead_table::DeadCall;
use super::feed::Outlet;
use super::log::MESSAGE_OVERHEAD;
use super::queues::QueueCall;
use crate::domain::name::Topic;
use crate::domain::store::{Append, Appended, Page, ReadFrom, ReadLimit, StoreError};
use crate::store::cursors::{self, Ask};

/// Messages and jobs that one transaction takes, if no single call has more.
const GROUP_ITEMS: usize = 8_192;
/// Calls of other kinds that one transaction takes; each may answer a page.
const GROUP_OTHERS: usize = 64;
/// Topics that begin or end to be watched in one turn of the writer.
const WATCHES_A_TURN: usize = 4_096;

pub type Reply<T> = oneshot::Sender<T>;

pub struct AppendCall {
    pub batch: Vec<Append>,
    pub reply: Reply<Vec<Result<Appended, StoreError>>>,
}

pub struct CursorCall {
    pub ask: Ask,
    pub reply: cursors::Reply,
}

pub enum Call {
    Append(AppendCall),
    Read { topic: Topic, from: ReadFrom, limit: ReadLimit, reply: Reply<Result<Page, StoreError>> },
    Cursor(CursorCall),
    Dead(DeadCall),
    Queue(QueueCall),
}

/// One turn of the writer. Wishes of the feed come before the job.
#[derive(Default)]
pub struct Turn {
    /// A new feed takes the place of the one before; nothing is watched yet.
    pub feed: Option<Arc<Outlet>>,
    pub watches: Vec<(Topic, bool)>,
    /// In the order in which they were made; they become one transaction.
    pub calls: Vec<Call>,
    /// Everything accepted is done, and nothing more will come.
    pub is_over: bool,
}

pub struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
    max_calls: usize,
    max_bytes: usize,
}

#[derive(Default)]
struct State {
    calls: VecDeque<Call>,
    bytes: usize,
    /// Waiting calls that are not appends: they are not held up by a full feed.
    others: usize,
    feed: Option<Arc<Outlet>>,
    /// Counts feeds; wishes of an earlier one are not heard.
    feeds: u64,
    /// The last wish for each topic, so there are never more than topics.
    watches: BTreeMap<Topic, bool>,
    is_closing: bool,
    /// Set once the writer is gone: why.
    gone: Option<String>,
    trouble: Option<String>,
    on_gone: Vec<Reply<()>>,
}

impl Inbox {
    pub fn new(max_calls: usize, max_bytes: usize) -> Inbox {
        Inbox { state: Mutex::default(), wake: Condvar::new(), max_calls, max_bytes }
    }

    /// Puts a call in, or refuses it. A call that is larger than the bound is taken when nothing else waits.
    pub fn put(&self, call: Call) {
        let size = bytes_of(&call);
        let mut state = self.lock();
        if let Some(why) = self.refusal(&state, &call, size) {
            drop(state);
            return call.refuse(StoreError::Unavailable(why));
        }
        state.bytes += size;
        state.others += usize::from(!matches!(call, Call::Append(_)));
        state.calls.push_back(call);
        drop(state);
        self.wake.notify_one();
    }

    /// Waits for what to do, at most so long. While `is_feed_full`, appends wait, unless another call waits too: it
    /// may come from the reader of the feed, who must not wait for itself.
    pub fn next(&self, wait: Duration, is_feed_full: impl Fn() -> bool) -> Turn {
        let mut state = self.lock();
        let mut has_waited = wait.is_zero();
        loop {
            let is_held = !state.is_closing && is_feed_full();
            let mut turn = Turn { feed: state.feed.take(), ..Turn::default() };
            // A full feed has no room for its answers to wishes either.
            if !is_held || turn.feed.is_some() {
                while turn.watches.len() < WATCHES_A_TURN
                    && let Some(wish) = state.watches.pop_first()
                {
                    turn.watches.push(wish);
                }
            }
            if !is_held || state.others > 0 || turn.feed.is_some() {
                // While it is full, no further than to the first call that must not wait.
                turn.calls = state.take_calls(is_held);
            }
            let is_idle = turn.feed.is_none() && turn.watches.is_empty() && turn.calls.is_empty();
            turn.is_over = state.is_closing && turn.calls.is_empty() && state.calls.is_empty();
            if has_waited || turn.is_over || !is_idle {
                return turn;
            }
            state = self.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
            // A wake without a cause is an early sweep, no more.
            has_waited = true;
        }
    }

    /// Wakes the writer up to look again whether the feed is full.
    pub fn poke(&self) {
        // The lock orders this after a writer that has looked and is about to wait.
        drop(self.lock());
        self.wake.notify_one();
    }

    /// Gives the writer a new feed; answers its number, for its wishes.
    pub fn put_feed(&self, feed: Arc<Outlet>) -> u64 {
        let mut state = self.lock();
        state.feeds += 1;
        state.watches.clear();
        if state.gone.is_some() {
            feed.end();
        } else if let Some(unseen) = state.feed.replace(feed) {
            unseen.end();
        }
        let number = state.feeds;
        drop(state);
        self.wake.notify_one();
        number
    }

    pub fn put_wish(&self, feed: u64, topic: &Topic, is_wanted: bool) {
        let mut state = self.lock();
        if state.feeds == feed && state.gone.is_none() {
            state.watches.insert(topic.clone(), is_wanted);
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Refuses what comes from now on; what is in is done. The answer comes when the writer is gone.
    pub fn close(&self) -> oneshot::Receiver<()> {
        let answer = self.when_gone();
        self.lock().is_closing = true;
        self.wake.notify_one();
        answer
    }

    /// The answer comes when the writer is gone.
    pub fn when_gone(&self) -> oneshot::Receiver<()> {
        let (reply, answer) = oneshot::channel();
        let mut state = self.lock();
        if state.gone.is_none() {
            // Those who no longer wait make room.
            state.on_gone.retain(|waiting| !waiting.is_closed());
            state.on_gone.push(reply);
        }
        answer
    }

    /// Says that the writer is gone, and refuses what still waits. The first word on why counts.
    pub fn end(&self, why: &str) {
        let mut state = self.lock();
        state.gone.get_or_insert_with(|| why.to_owned());
        let calls = std::mem::take(&mut state.calls);
        if let Some(feed) = state.feed.take() {
            feed.end();
        }
        let waiting = std::mem::take(&mut state.on_gone);
        drop(state);
        for call in calls {
            call.refuse(StoreError::Unavailable(why.to_owned()));
        }
        drop(waiting);
    }

    pub fn set_trouble(&self, trouble: Option<String>) {
        self.lock().trouble = trouble;
    }

    pub fn trouble(&self) -> Option<String> {
        let state = self.lock();
        state.gone.clone().or_else(|| state.trouble.clone())
    }

    fn refusal(&self, state: &State, call: &Call, size: usize) -> Option<String> {
        if let Some(why) = &state.gone {
            return Some(why.clone());
        }
        if state.is_closing {
            return Some("it is closing".into());
        }
        // The stream of retried letters has one call out at a time, and would end if it were refused.
        let is_bounded = !matches!(call, Call::Dead(DeadCall::NextRetried { .. })) && !state.calls.is_empty();
        if is_bounded && (state.calls.len() >= self.max_calls || state.bytes + size > self.max_bytes) {
            return Some(format!("{} calls of {} bytes wait; come back soon", state.calls.len(), state.bytes));
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is made whole before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The calls of one transaction; with `is_held` no further than to the first that is not an append.
    fn take_calls(&mut self, is_held: bool) -> Vec<Call> {
        let mut taken = Vec::new();
        let (mut items, mut pages, mut others) = (0, 0, 0);
        while let Some(call) = self.calls.front()
            && pages < GROUP_OTHERS
            && (!is_held || others == 0)
        {
            match call.items() {
                Some(more) if taken.is_empty() || items + more <= GROUP_ITEMS => items += more,
                Some(_) => break,
                None => pages += 1,
            }
            let call = self.calls.pop_front().expect("it was looked at just now");
            self.bytes -= bytes_of(&call);
            others += usize::from(!matches!(call, Call::Append(_)));
            taken.push(call);
        }
        self.others -= others;
        taken
    }
}

impl cursors::Queue for Inbox {
    fn put(&self, ask: Ask, reply: cursors::Reply) {
        Inbox::put(self, Call::Cursor(CursorCall { ask, reply }));
    }
}

impl Call {
    /// Whether it makes the store larger: what is refused when there is no room.
    pub fn stores(&self) -> bool {
        match self {
            Call::Append(_) => true,
            // A commit is an acknowledgement, and a cursor is small; their number is bounded.
            Call::Read { .. } | Call::Cursor(_) => false,
            Call::Dead(call) => call.stores(),
            Call::Queue(call) => call.stores(),
        }
    }

    /// How much of a transaction it is, in messages and jobs; `None`: it may answer a page.
    fn items(&self) -> Option<usize> {
        match self {
            Call::Append(call) => Some(call.batch.len()),
            Call::Queue(call) => call.items(),
            Call::Read { .. } | Call::Cursor(_) | Call::Dead(_) => None,
        }
    }

    pub fn refuse(self, error: StoreError) {
        // Nobody waits any more where a reply cannot be sent.
        match self {
            Call::Append(call) => drop(call.reply.send(vec![Err(error); call.batch.len()])),
            Call::Read { reply, .. } => drop(reply.send(Err(error))),
            Call::Cursor(call) => drop(call.reply.send(Err(error.into()))),
            Call::Dead(call) => call.refuse(error),
            Call::Queue(call) => drop(call.reply.send(Err(error))),
        }
    }
}

fn bytes_of(call: &Call) -> usize {
    const CALL: usize = 256;
    match call {
        Call::Append(call) => {
            let bodies: usize = call.batch.iter().map(|a| a.publication.body.as_bytes().len()).sum();
            CALL + bodies + call.batch.len() * (MESSAGE_OVERHEAD as usize + size_of::<Append>())
        }
        Call::Read { .. } | Call::Cursor(_) => CALL,
        Call::Dead(call) => CALL + call.size(),
        Call::Queue(call) => CALL + call.bytes(),
    }
}
