//! Wakes on their way from the store's thread to the hub: of the queues that are watched, each at most once of a kind, so
//! that they never grow beyond what is watched.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::Notify;

use crate::domain::queue::{Queue, Wake, WatchQueues};

#[derive(Default)]
pub struct Board {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    watched: HashSet<Queue>,
    wakes: VecDeque<Wake>,
    /// The kinds and queues of these.
    waiting: BTreeSet<(bool, Queue)>,
    is_over: bool,
}

impl Board {
    pub fn put(&self, wakes: impl IntoIterator<Item = Wake>) {
        let mut state = self.lock();
        for wake in wakes {
            let Some((key, is_watched)) = key_of(&wake).map(|key| (key.clone(), state.watched.contains(&key.1))) else {
                continue;
            };
            if is_watched && state.waiting.insert(key) {
                state.wakes.push_back(wake);
            }
        }
        let has_news = !state.wakes.is_empty();
        drop(state);
        if has_news {
            self.news.notify_one();
        }
    }

    /// No more will come.
    pub fn end(&self) {
        self.lock().is_over = true;
        self.news.notify_one();
    }

    /// The next wake, or `None` if there is none now; and whether none will come.
    fn pop(&self) -> (Option<Wake>, bool) {
        let mut state = self.lock();
        let wake = state.wakes.pop_front();
        if let Some(key) = wake.as_ref().and_then(key_of) {
            state.waiting.remove(&key);
        }
        (wake, state.is_over)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key_of(wake: &Wake) -> Option<(bool, Queue)> {
    match wake {
        Wake::Jobs(queue) => Some((false, queue.clone())),
        Wake::Fired(queue) => Some((true, queue.clone())),
        // Nothing is lost here.
        Wake::Lost => None,
    }
}

struct Watcher(Arc<Board>);

impl WatchQueues for Watcher {
    fn watch(&self, queue: &Queue) {
        self.0.lock().watched.insert(queue.clone());
    }

    fn unwatch(&self, queue: &Queue) {
        self.0.lock().watched.remove(queue);
    }
}

pub fn open(board: &Arc<Board>) -> (Box<dyn WatchQueues>, BoxStream<'static, Wake>) {
    let wakes = stream::unfold(board.clone(), |board| async move {
        loop {
            match board.pop() {
                (Some(wake), _) => return Some((wake, board)),
                (None, true) => return None,
                (None, false) => board.news.notified().await,
            }
        }
    });
    (Box::new(Watcher(board.clone())), wakes.boxed())
}
