//! The feed's table: which topics are wanted and subscribed, and the events that wait for the reader. No I/O.
//!
//! Events wait in a bounded queue. When its reader is too slow, messages are dropped, which the reader is told
//! (`Interrupted`); once it has read what was queued before, it is told to compare positions (`Restored`).
//!
//! Topics are dealt to lines, one for each connection: all to one on a single Redis, by the server of their slot on a
//! cluster. There a line that breaks disturbs its own topics only: each is told `Watching` again when it is back.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::watch;

use crate::domain::message::{Body, Message};
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::domain::store::FeedEvent;

/// What a message costs in the queue beside its body.
const OVERHEAD: usize = 128;

/// One connection among those that topics are subscribed on.
pub(super) type Line = usize;

/// The only line to a single Redis.
pub(super) const ONLY: Line = 0;

type Deal = Box<dyn Fn(&Topic) -> Line + Send + Sync>;

pub(super) struct Watched {
    table: Mutex<Table>,
    /// Which line a topic belongs to.
    deal: Deal,
    /// Told when there is something to do on a connection.
    changed: watch::Sender<()>,
    most_messages: usize,
    most_bytes: usize,
}

#[derive(Default)]
struct Table {
    wishes: HashMap<Topic, Wish>,
    lines: HashMap<Line, Lined>,
    events: VecDeque<FeedEvent>,
    messages: usize,
    bytes: usize,
    reader: Option<Waker>,
    is_cut: bool,
    is_overrun: bool,
    is_over: bool,
}

#[derive(Default)]
struct Lined {
    /// Topics whose wish may differ from what is subscribed.
    todo: VecDeque<Topic>,
    /// Counts connections, so that a late push of an old one is recognised.
    connection: u64,
}

#[derive(Default)]
struct Wish {
    line: Line,
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
        Watched::dealt(most_messages, most_bytes, |_| ONLY)
    }

    /// Topics are dealt to lines by this function.
    pub fn dealt(
        most_messages: usize,
        most_bytes: usize,
        deal: impl Fn(&Topic) -> Line + Send + Sync + 'static,
    ) -> Watched {
        let deal = Box::new(deal);
        Watched { table: Mutex::default(), deal, changed: watch::Sender::default(), most_messages, most_bytes }
    }

    pub fn watch(&self, topic: &Topic) {
        self.want(topic, true);
    }

    pub fn unwatch(&self, topic: &Topic) {
        self.want(topic, false);
    }

    fn want(&self, topic: &Topic, wanted: bool) {
        let mut table = self.table();
        // Under the lock, so that it is seen by whoever deals again.
        let line = (self.deal)(topic);
        table.want(topic, line, wanted);
        drop(table);
        self.changed.send_replace(());
    }

    /// Tells each line when there may be something to take.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// A connection begins on which nothing is subscribed yet. Answers its number, and how many topics are to be seen to
    /// before everything that is wanted now is subscribed.
    pub fn begin(&self, line: Line) -> (u64, usize) {
        let mut table = self.table();
        let Table { wishes, lines, .. } = &mut *table;
        let Lined { todo, connection } = lines.entry(line).or_default();
        *connection += 1;
        todo.clear();
        for (topic, wish) in wishes.iter_mut().filter(|(_, wish)| wish.line == line) {
            (wish.subscribed, wish.queued) = (false, true);
            todo.push_back(topic.clone());
        }
        (*connection, todo.len())
    }

    /// Takes what is to be done, up to so many topics.
    pub fn take(&self, line: Line, most: usize) -> Todo {
        let mut table = self.table();
        let mut todo = Todo::default();
        while todo.taken < most
            && let Some(topic) = table.lines.get_mut(&line).and_then(|lined| lined.todo.pop_front())
        {
            todo.taken += 1;
            let Some(wish) = table.wishes.get_mut(&topic).filter(|wish| wish.line == line) else { continue };
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
    pub fn confirm(&self, line: Line, connection: u64, name: &str) {
        let mut table = self.table();
        if !table.is_current(line, connection) {
            return;
        }
        let Some((topic, wish)) = table.wish(line, name) else { return };
        wish.subscribed = true;
        if wish.wanted && std::mem::take(&mut wish.owed) {
            table.tell(FeedEvent::Watching(topic));
        }
    }

    pub fn message(&self, line: Line, connection: u64, name: &str, fed: Fed, body: Bytes) {
        let mut table = self.table();
        if !table.is_current(line, connection) {
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

    /// All topics of a line that are wanted.
    pub fn wanted(&self, line: Line) -> Vec<Topic> {
        let table = self.table();
        let wanted = table.wishes.iter().filter(|(_, wish)| wish.wanted && wish.line == line);
        wanted.map(|(topic, _)| topic.clone()).collect()
    }

    /// The connection is gone.
    pub fn cut(&self) {
        let mut table = self.table();
        table.lines.entry(ONLY).or_default().connection += 1;
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

    /// One line of several is gone: its topics are subscribed anew, and told when they are.
    pub fn break_line(&self, line: Line) {
        let mut table = self.table();
        table.lines.entry(line).or_default().connection += 1;
        table.doubt(|_, wish| wish.line == line);
    }

    /// The server gave the subscription of a topic up by itself. `false`: we had asked for that.
    pub fn lose(&self, line: Line, connection: u64, name: &str) -> bool {
        let mut table = self.table();
        let current = table.is_current(line, connection);
        let Some((topic, wish)) = table.wish(line, name).filter(|(_, wish)| current && wish.subscribed) else {
            return false;
        };
        (wish.subscribed, wish.owed) = (false, wish.wanted);
        table.queue(topic);
        drop(table);
        self.changed.send_replace(());
        true
    }

    /// Those of these that the server has not confirmed.
    pub fn unconfirmed(&self, topics: &[Topic]) -> Vec<Topic> {
        let table = self.table();
        let confirmed = |topic: &Topic| table.wishes.get(topic).is_some_and(|wish| wish.subscribed);
        topics.iter().filter(|topic| !confirmed(topic)).cloned().collect()
    }

    /// These were asked for and not confirmed: they are asked for again.
    pub fn retry(&self, topics: Vec<Topic>) {
        let mut table = self.table();
        for topic in topics {
            if table.wishes.get(&topic).is_some_and(|wish| !wish.subscribed) {
                table.queue(topic);
            }
        }
        drop(table);
        self.changed.send_replace(());
    }

    /// Topics may be dealt otherwise now.
    pub fn deal_again(&self) {
        let mut table = self.table();
        let moved: Vec<(Topic, Line)> = table
            .wishes
            .iter()
            .map(|(topic, wish)| (topic, wish.line, (self.deal)(topic)))
            .filter(|(_, was, is)| was != is)
            .map(|(topic, _, line)| (topic.clone(), line))
            .collect();
        for (topic, line) in moved {
            let Some(wish) = table.wishes.get_mut(&topic) else { continue };
            (wish.line, wish.subscribed, wish.owed, wish.queued) = (line, false, wish.wanted, false);
            table.queue(topic);
        }
        // Nobody may ever take from the line that they left.
        let Table { wishes, lines, .. } = &mut *table;
        for (line, lined) in lines {
            lined.todo.retain(|topic| wishes.get(topic).is_some_and(|wish| wish.line == *line));
        }
        drop(table);
        self.changed.send_replace(());
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Table {
    fn want(&mut self, topic: &Topic, line: Line, wanted: bool) {
        let wish = self.wishes.entry(topic.clone()).or_insert_with(|| Wish { line, ..Wish::default() });
        (wish.wanted, wish.owed) = (wanted, wanted);
        self.queue(topic.clone());
    }

    fn queue(&mut self, topic: Topic) {
        let Some(wish) = self.wishes.get_mut(&topic) else { return };
        if !std::mem::replace(&mut wish.queued, true) {
            self.lines.entry(wish.line).or_default().todo.push_back(topic);
        }
    }

    /// What is subscribed of these may have been lost.
    fn doubt(&mut self, which: impl Fn(&Topic, &Wish) -> bool) {
        let lost: Vec<Topic> =
            self.wishes.iter().filter(|(topic, wish)| which(topic, wish)).map(|(topic, _)| topic.clone()).collect();
        for topic in lost {
            if let Some(wish) = self.wishes.get_mut(&topic) {
                (wish.subscribed, wish.owed) = (false, wish.wanted);
            }
            self.queue(topic);
        }
    }

    fn is_current(&self, line: Line, connection: u64) -> bool {
        self.lines.get(&line).is_some_and(|lined| lined.connection == connection)
    }

    fn wish(&mut self, line: Line, name: &str) -> Option<(Topic, &mut Wish)> {
        let topic = self.wishes.get_key_value(name)?.0.clone();
        let wish = self.wishes.get_mut(&topic).filter(|wish| wish.line == line)?;
        Some((topic, wish))
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
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
        let fed = Fed { at, time: 0, expires: None };
        watched.message(ONLY, connection, "news", fed, Bytes::from_static(b"x"));
    }

    fn subscribed(watched: &Watched) -> u64 {
        let (connection, _) = watched.begin(ONLY);
        watched.take(ONLY, 10).subscribe.iter().for_each(|topic| watched.confirm(ONLY, connection, topic.as_str()));
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
        assert!(watched.take(ONLY, 10).subscribe.is_empty());
        assert_eq!(heard(&watched), ["Watching(\"news\")"]);
        watched.unwatch(&topic("news"));
        assert_eq!(watched.take(ONLY, 10).unsubscribe, [topic("news")]);
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

    #[test]
    fn a_line_that_breaks_disturbs_its_own_topics_only() {
        let home = Arc::new(AtomicUsize::new(1));
        let dealt = home.clone();
        let watched = Watched::dealt(10, 10_000, move |topic| match topic.as_str() {
            "news" => 0,
            _ => dealt.load(Ordering::Relaxed),
        });
        let say_yes = |line: Line, connection: u64| {
            watched.take(line, 10).subscribe.iter().for_each(|t| watched.confirm(line, connection, t.as_str()));
        };
        let connections: Vec<u64> = (0..3).map(|line| watched.begin(line).0).collect();
        watched.watch(&topic("news"));
        watched.watch(&topic("sport"));
        (0..3).for_each(|line| say_yes(line, connections[line]));
        assert_eq!(heard(&watched), ["Watching(\"news\")", "Watching(\"sport\")"]);

        watched.break_line(0);
        assert_eq!(heard(&watched), Vec::<String>::new());
        let again = watched.begin(0).0;
        say_yes(0, again);
        assert_eq!(heard(&watched), ["Watching(\"news\")"]);

        // The slot of the other topic moves: first the server says so, then the chart.
        assert!(watched.lose(1, connections[1], "sport") && !watched.lose(1, connections[1], "sport"));
        home.store(2, Ordering::Relaxed);
        watched.deal_again();
        assert!(watched.take(1, 10).subscribe.is_empty());
        say_yes(2, connections[2]);
        assert_eq!(heard(&watched), ["Watching(\"sport\")"]);
    }

    #[test]
    fn topics_that_left_a_line_do_not_pile_up_on_it() {
        const NOBODYS: Line = 7;
        let home = Arc::new(AtomicUsize::new(NOBODYS));
        let dealt = home.clone();
        let watched = Watched::dealt(10, 10_000, move |_| dealt.load(Ordering::Relaxed));
        watched.watch(&topic("news"));
        let waiting = |line| watched.table().lines.get(&line).map_or(0, |lined| lined.todo.len());
        for _ in 0..3 {
            assert_eq!((waiting(NOBODYS), waiting(ONLY)), (1, 0));
            home.store(ONLY, Ordering::Relaxed);
            watched.deal_again();
            assert_eq!((waiting(NOBODYS), waiting(ONLY)), (0, 1));
            home.store(NOBODYS, Ordering::Relaxed);
            watched.deal_again();
        }
        home.store(ONLY, Ordering::Relaxed);
        watched.deal_again();
        assert_eq!(watched.take(ONLY, 10).subscribe, [topic("news")]);
    }
}
