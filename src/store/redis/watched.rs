//! The feed's table: which topics are wanted and subscribed, and the events that wait for the reader. No I/O.
//!
//! Events wait in a bounded queue. When its reader is too slow, messages are dropped, which the reader is told
//! (`Interrupted`); once it has read what was queued before, it is told to compare positions (`Restored`).

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::domain::message::{Body, Message};
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::domain::store::FeedEvent;

/// What a message costs in the queue beside its body.
const OVERHEAD: usize = 128;

pub(super) struct Watched {
    table: Mutex<Table>,
    /// Told when there is something to do on the connection.
    pub changed: Notify,
    most_messages: usize,
    most_bytes: usize,
}

#[derive(Default)]
struct Table {
    wishes: HashMap<Topic, Wish>,
    /// Topics whose wish may differ from what is subscribed.
    todo: VecDeque<Topic>,
    events: VecDeque<FeedEvent>,
    messages: usize,
    bytes: usize,
    reader: Option<Waker>,
    /// Counts connections, so that a late push of an old one is recognised.
    connection: u64,
    is_cut: bool,
    is_overrun: bool,
    is_over: bool,
}

#[derive(Default)]
struct Wish {
    wanted: bool,
    /// `Watching` is owed.
    owed: bool,
    subscribed: bool,
    queued: bool,
}

/// What the server says of a message beside its topic and body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fed {
    pub at: Position,
    pub time: u64,
    pub expires: Option<u64>,
}

/// What to ask the server for.
#[derive(Default)]
pub(super) struct Todo {
    pub subscribe: Vec<Topic>,
    pub unsubscribe: Vec<Topic>,
    /// How many topics were looked at.
    pub taken: usize,
}

impl Watched {
    pub fn new(most_messages: usize, most_bytes: usize) -> Watched {
        Watched { table: Mutex::default(), changed: Notify::new(), most_messages, most_bytes }
    }

    pub fn watch(&self, topic: &Topic) {
        self.table().want(topic, true);
        self.changed.notify_one();
    }

    pub fn unwatch(&self, topic: &Topic) {
        self.table().want(topic, false);
        self.changed.notify_one();
    }

    /// A connection begins on which nothing is subscribed yet. Answers its number, and how many topics are to be seen to
    /// before everything that is wanted now is subscribed.
    pub fn begin(&self) -> (u64, usize) {
        let mut table = self.table();
        let Table { wishes, todo, connection, .. } = &mut *table;
        *connection += 1;
        todo.clear();
        for (topic, wish) in wishes.iter_mut() {
            (wish.subscribed, wish.queued) = (false, true);
            todo.push_back(topic.clone());
        }
        (*connection, todo.len())
    }

    /// Takes what is to be done, up to so many topics.
    pub fn take(&self, most: usize) -> Todo {
        let mut table = self.table();
        let mut todo = Todo::default();
        while todo.taken < most
            && let Some(topic) = table.todo.pop_front()
        {
            todo.taken += 1;
            let Some(wish) = table.wishes.get_mut(&topic) else { continue };
            wish.queued = false;
            match (wish.wanted, wish.subscribed) {
                (true, false) => todo.subscribe.push(topic),
                (true, true) => {
                    if std::mem::take(&mut wish.owed) {
                        table.tell(FeedEvent::Watching(topic));
                    }
                }
                (false, subscribed) => {
                    table.wishes.remove(&topic);
                    if subscribed {
                        todo.unsubscribe.push(topic);
                    }
                }
            }
        }
        todo
    }

    /// Whether the server has confirmed them all.
    pub fn are_confirmed(&self, topics: &[Topic]) -> bool {
        let table = self.table();
        topics.iter().all(|topic| table.wishes.get(topic).is_some_and(|wish| wish.subscribed))
    }

    /// The server says that a topic is subscribed on this connection.
    pub fn confirm(&self, connection: u64, name: &str) {
        let mut table = self.table();
        if table.connection != connection {
            return;
        }
        let Some((topic, wish)) = table.wishes.get_key_value(name).map(|(topic, _)| topic.clone()).and_then(|topic| {
            let wish = table.wishes.get_mut(&topic)?;
            Some((topic, wish))
        }) else {
            return;
        };
        wish.subscribed = true;
        if wish.wanted && std::mem::take(&mut wish.owed) {
            table.tell(FeedEvent::Watching(topic));
        }
    }

    pub fn message(&self, connection: u64, name: &str, fed: Fed, body: Bytes) {
        let mut table = self.table();
        if table.connection != connection {
            return;
        }
        let Some((topic, _)) = table.wishes.get_key_value(name) else { return };
        if table.is_overrun {
            return;
        }
        if table.messages >= self.most_messages || table.bytes + body.len() + OVERHEAD > self.most_bytes {
            if !table.is_cut {
                table.tell(FeedEvent::Interrupted);
            }
            table.is_overrun = true;
            return;
        }
        let Fed { at, time, expires } = fed;
        let message = Message { topic: topic.clone(), at, time, expires, body: Body::from_canonical(body) };
        table.messages += 1;
        table.bytes += message.body.as_bytes().len() + OVERHEAD;
        table.tell(FeedEvent::Message(message));
    }

    /// All topics that are wanted.
    pub fn wanted(&self) -> Vec<Topic> {
        self.table().wishes.iter().filter(|(_, wish)| wish.wanted).map(|(topic, _)| topic.clone()).collect()
    }

    /// The connection is gone.
    pub fn cut(&self) {
        let mut table = self.table();
        table.connection += 1;
        if !table.is_cut && !table.is_overrun {
            table.tell(FeedEvent::Interrupted);
        }
        table.is_cut = true;
    }

    /// Everything that was wanted when the connection began is subscribed.
    pub fn restore(&self) {
        let mut table = self.table();
        if std::mem::take(&mut table.is_cut) && !table.is_overrun {
            table.tell(FeedEvent::Restored);
        }
    }

    /// No events come any more.
    pub fn end(&self) {
        let mut table = self.table();
        table.is_over = true;
        table.wake();
    }

    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<FeedEvent>> {
        let mut table = self.table();
        if let Some(event) = table.events.pop_front() {
            if let FeedEvent::Message(message) = &event {
                table.messages -= 1;
                table.bytes -= message.body.as_bytes().len() + OVERHEAD;
            }
            return Poll::Ready(Some(event));
        }
        if std::mem::take(&mut table.is_overrun) && !table.is_cut {
            return Poll::Ready(Some(FeedEvent::Restored));
        }
        if table.is_over {
            return Poll::Ready(None);
        }
        table.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Table {
    fn want(&mut self, topic: &Topic, wanted: bool) {
        let wish = self.wishes.entry(topic.clone()).or_default();
        (wish.wanted, wish.owed) = (wanted, wanted);
        if !std::mem::replace(&mut wish.queued, true) {
            self.todo.push_back(topic.clone());
        }
    }

    fn tell(&mut self, event: FeedEvent) {
        self.events.push_back(event);
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::position::Epoch;
    use std::task::Waker;

    fn topic(name: &str) -> Topic {
        Topic::parse(name).unwrap()
    }

    fn heard(watched: &Watched) -> Vec<String> {
        let mut cx = Context::from_waker(Waker::noop());
        std::iter::from_fn(|| match watched.poll_next(&mut cx) {
            Poll::Ready(Some(FeedEvent::Message(message))) => Some(message.at.offset.to_string()),
            Poll::Ready(event) => event.map(|event| format!("{event:?}")),
            Poll::Pending => None,
        })
        .collect()
    }

    fn say(watched: &Watched, connection: u64, offset: u64) {
        let at = Position::new(Epoch::from_random(1), offset);
        watched.message(connection, "news", Fed { at, time: 0, expires: None }, Bytes::from_static(b"x"));
    }

    fn subscribed(watched: &Watched) -> u64 {
        let (connection, _) = watched.begin();
        watched.take(10).subscribe.iter().for_each(|topic| watched.confirm(connection, topic.as_str()));
        connection
    }

    #[test]
    fn watching_is_told_once_the_server_confirms_and_again_for_each_watch() {
        let watched = Watched::new(10, 10_000);
        watched.watch(&topic("news"));
        assert_eq!(heard(&watched), Vec::<String>::new());
        subscribed(&watched);
        assert_eq!(heard(&watched), ["Watching(\"news\")"]);
        watched.unwatch(&topic("news"));
        watched.watch(&topic("news"));
        assert!(watched.take(10).subscribe.is_empty());
        assert_eq!(heard(&watched), ["Watching(\"news\")"]);
        watched.unwatch(&topic("news"));
        assert_eq!(watched.take(10).unsubscribe, [topic("news")]);
    }

    #[test]
    fn a_slow_reader_is_told_of_the_hole_and_of_its_end() {
        let watched = Watched::new(2, 10_000);
        watched.watch(&topic("news"));
        let connection = subscribed(&watched);
        (1..=4).for_each(|offset| say(&watched, connection, offset));
        assert_eq!(heard(&watched), ["Watching(\"news\")", "1", "2", "Interrupted", "Restored"]);
        say(&watched, connection, 5);
        assert_eq!(heard(&watched), ["5"]);
    }

    #[test]
    fn an_outage_and_a_slow_reader_at_once_are_told_as_one_hole() {
        let watched = Watched::new(1, 10_000);
        watched.watch(&topic("news"));
        let connection = subscribed(&watched);
        say(&watched, connection, 1);
        say(&watched, connection, 2);
        watched.cut();
        assert_eq!(heard(&watched), ["Watching(\"news\")", "1", "Interrupted"]);
        say(&watched, connection, 3);
        subscribed(&watched);
        watched.restore();
        assert_eq!(heard(&watched), ["Restored"]);
    }
}
