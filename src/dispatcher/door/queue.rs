//! Between the connections and the bridge: what was accepted waits here for the store, in the order of its ids.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};

use crate::dispatcher::{Content, Entry};
use crate::domain::store::EntryId;

/// What was written by one connection in one go; answered at once, entry by entry.
pub(super) struct Request {
    pub entries: Vec<Entry>,
    pub answer: oneshot::Sender<Vec<Answer>>,
}

/// `Err` is the text after `-`.
pub(super) type Answer = Result<(), String>;

/// The way in, one for all connections.
#[derive(Clone)]
pub(super) struct Intake {
    requests: mpsc::Sender<Request>,
    ids: Arc<Mutex<Ids>>,
}

impl Intake {
    pub fn new(waiting: usize, keep: Duration) -> (Intake, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(waiting);
        (Intake { requests, ids: Arc::new(Mutex::new(Ids::new(keep))) }, receiver)
    }

    /// Puts entries into the queue and waits for what becomes of them: their ids, or texts for who wrote them.
    pub async fn add(&self, contents: Vec<Content>) -> Vec<Result<EntryId, String>> {
        let count = contents.len();
        let refused = |text: &str| (0..count).map(|_| Err(text.to_owned())).collect();
        let Ok(room) = self.requests.reserve().await else { return refused("ERR unavailable: the hub is closing") };
        let (answer, answered) = oneshot::channel();
        let ids: Vec<EntryId> = {
            // Numbered and sent under one lock, so that ids ascend in the order in which entries are applied.
            let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
            let entries: Vec<Entry> = contents.into_iter().map(|content| ids.entry(content)).collect();
            let given = entries.iter().map(|entry| entry.id).collect();
            room.send(Request { entries, answer });
            given
        };
        match answered.await {
            Ok(answers) => {
                let mut counted = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
                let numbered = ids.into_iter().zip(answers);
                numbered.map(|(id, answer)| answer.map(|()| id).inspect_err(|_| counted.forget(id))).collect()
            }
            Err(_) => refused("ERR unconfirmed: the hub is closing; it may be stored or not"),
        }
    }

    /// Entries of the stream that were taken in the time that a Redis would keep them.
    pub fn kept(&self) -> usize {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).kept()
    }
}

/// Gives ids as Redis does, and counts the entries of the stream that are not older than what is kept.
struct Ids {
    last: EntryId,
    keep: Duration,
    /// How many entries of the stream were added in which second.
    seconds: VecDeque<(u64, usize)>,
}

impl Ids {
    fn new(keep: Duration) -> Ids {
        Ids { last: EntryId::default(), keep, seconds: VecDeque::new() }
    }

    fn entry(&mut self, content: Content) -> Entry {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as u64);
        self.last = if now > self.last.ms {
            EntryId { ms: now, seq: 0 }
        } else {
            EntryId { ms: self.last.ms, seq: self.last.seq + 1 }
        };
        if matches!(content, Content::Fields(_)) {
            let second = self.last.ms / 1000;
            match self.seconds.back_mut() {
                Some((last, count)) if *last == second => *count += 1,
                _ => self.seconds.push_back((second, 1)),
            }
            self.sweep();
        }
        Entry { id: self.last, content }
    }

    fn forget(&mut self, id: EntryId) {
        if let Some((_, count)) = self.seconds.iter_mut().find(|(second, _)| *second == id.ms / 1000) {
            *count = count.saturating_sub(1);
        }
    }

    fn kept(&mut self) -> usize {
        self.sweep();
        self.seconds.iter().map(|(_, count)| count).sum()
    }

    fn sweep(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
        while self.seconds.front().is_some_and(|(second, _)| second + self.keep.as_secs() < now) {
            self.seconds.pop_front();
        }
    }
}
