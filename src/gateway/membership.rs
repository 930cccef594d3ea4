//! How a connection comes to hear a topic and leaves it: waiting for the stream, catching up, live. The decisions of
//! catching up are `domain::replay`'s; here they are carried out.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::connection::Connection;
use super::counters;
use super::shard::Shard;
use super::subscriptions::{Asked, Behind, Stage};
use super::topics::TopicKey;
use super::wire;
use crate::domain::error::{Problem, Reason};
use crate::domain::event::Event;
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::domain::replay::{Answer, Item, Live, Replay, Step};
use crate::domain::store::{Page, ReadLimit, StoreError};
use crate::hub::Ticket;

/// Live frames held for one subscription while a page is read; more are read again.
const HELD: usize = 256;
/// How long a subscription waits for a topic that the store does not bring.
const LOCATE_WAIT: Duration = Duration::from_secs(5);
/// How soon a read of history that failed half-way is tried again.
const READ_AGAIN: Duration = Duration::from_millis(500);

impl Shard {
    /// Subscribes, or replaces the subscription that there is.
    pub(super) fn subscribe(self: &Rc<Self>, connection: &Rc<Connection>, topic: &Topic, asked: Asked, now: Instant) {
        let (key, at) = {
            let mut topics = self.topics.borrow_mut();
            let key = topics.enter(topic, || self.hub.join(topic, self.id));
            (key, topics.entry(key).at)
        };
        if let Some(given_up) = self.detach(connection, key) {
            self.answer_given_up(connection, topic, given_up, now);
        }
        self.topics.borrow_mut().entry_mut(key).behind.push(connection.key);
        let stage = Stage::Waiting { asked: Box::new(asked), since: now };
        connection.subscriptions.borrow_mut().insert(key, stage);
        if let Some(at) = at {
            self.begin(connection, key, at, now);
        }
    }

    /// The stream of a topic stands now, for all that wait for it.
    pub(super) fn on_joined(self: &Rc<Self>, topic: &Topic, ticket: Ticket, at: Position, now: Instant) {
        let waiting = {
            let mut topics = self.topics.borrow_mut();
            let Some(key) = topics.find(topic) else { return };
            let entry = topics.entry_mut(key);
            // An answer to an earlier stay in the topic says nothing about this one.
            if entry.ticket != ticket || entry.at.is_some() {
                return;
            }
            entry.at = Some(at);
            entry.behind.iter().map(|c| (key, *c)).collect::<Vec<_>>()
        };
        for (key, connection) in waiting {
            if let Some(connection) = self.connection(connection) {
                self.begin(&connection, key, at, now);
            }
        }
    }

    /// From waiting to live or behind.
    fn begin(self: &Rc<Self>, connection: &Rc<Connection>, key: TopicKey, at: Position, now: Instant) {
        let asked = {
            let mut subscriptions = connection.subscriptions.borrow_mut();
            match subscriptions.find(key).map(|s| &mut s.stage) {
                Some(Stage::Waiting { asked, .. }) => {
                    std::mem::replace(&mut **asked, Asked { id: None, from: None, ignored: Vec::new() })
                }
                _ => return,
            }
        };
        let Some(from) = asked.from else {
            self.answer(connection, key, asked, Answer { at, resumed: None }, now);
            return self.promote(connection, key);
        };
        let (replay, steps) = Replay::start(from, at, HELD);
        match replay {
            Some(replay) => {
                let behind = Behind { asked, answered: false, replay, wanted: None };
                if let Some(subscription) = connection.subscriptions.borrow_mut().find(key) {
                    subscription.stage = Stage::Behind(Box::new(behind));
                }
                self.carry_out(connection, key, steps, now);
            }
            None => {
                self.answer(connection, key, asked, Answer { at, resumed: Some(Ok(())) }, now);
                self.promote(connection, key);
            }
        }
    }

    /// The live stream moved past a subscriber that is not in it.
    pub(super) fn on_live(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        key: TopicKey,
        live: Live<Bytes>,
        now: Instant,
    ) {
        let steps = match connection.subscriptions.borrow_mut().find(key).map(|s| &mut s.stage) {
            Some(Stage::Behind(behind)) => behind.replay.on_live(live),
            _ => return,
        };
        self.carry_out(connection, key, steps, now);
    }

    fn carry_out(self: &Rc<Self>, connection: &Rc<Connection>, key: TopicKey, steps: Vec<Step<Bytes>>, now: Instant) {
        for step in steps {
            match step {
                Step::Answer(answer) => {
                    let asked = match connection.subscriptions.borrow_mut().find(key).map(|s| &mut s.stage) {
                        Some(Stage::Behind(behind)) => {
                            behind.answered = true;
                            Asked {
                                id: behind.asked.id.take(),
                                from: None,
                                ignored: std::mem::take(&mut behind.asked.ignored),
                            }
                        }
                        _ => return,
                    };
                    if let Some(Err(missing)) = answer.resumed {
                        counters::count_gap(missing.why);
                    }
                    self.answer(connection, key, asked, answer, now);
                }
                Step::Give(Item::Message(message)) => {
                    let payload = connection.protocol.borrow().codec.message(&message);
                    connection.send(&wire::text_frame(&payload), &self.limits, now);
                    counters::count_delivered(1);
                }
                Step::Give(Item::Gap(gap)) => {
                    counters::count_gap(gap.why);
                    let topic = self.topics.borrow().entry(key).topic.clone();
                    connection.say(&Event::Gap { topic, gap }, &self.limits, now);
                }
                Step::Live(frame) => connection.send(&frame, &self.limits, now),
                Step::Read(from) => {
                    if let Some(Stage::Behind(behind)) =
                        connection.subscriptions.borrow_mut().find(key).map(|s| &mut s.stage)
                    {
                        behind.wanted = Some(from);
                    }
                }
                Step::Joined => self.promote(connection, key),
            }
        }
        self.read_next(connection);
    }

    fn answer(&self, connection: &Rc<Connection>, key: TopicKey, asked: Asked, answer: Answer, now: Instant) {
        let topic = self.topics.borrow().entry(key).topic.clone();
        let Asked { id, ignored, .. } = asked;
        connection.say(&Event::Subscribed { id, topic, answer, ignored }, &self.limits, now);
    }

    /// Into the live list.
    fn promote(&self, connection: &Rc<Connection>, key: TopicKey) {
        let mut topics = self.topics.borrow_mut();
        let entry = topics.entry_mut(key);
        entry.behind.retain(|c| *c != connection.key);
        if let Some(subscription) = connection.subscriptions.borrow_mut().find(key) {
            subscription.stage = Stage::Live(entry.live.len());
            entry.live.push(connection.key);
        }
    }

    /// Issues the next read of history of this connection, one at a time and only while there is room for a page.
    pub(super) fn read_next(self: &Rc<Self>, connection: &Rc<Connection>) {
        if !connection.is_open() || !connection.has_room(&self.limits) {
            return;
        }
        let (key, stay, from) = {
            let mut subscriptions = connection.subscriptions.borrow_mut();
            if subscriptions.reading {
                return;
            }
            if let Some(history) = connection.histories.borrow_mut().pop_front() {
                subscriptions.reading = true;
                return self.read_history(connection, history);
            }
            let wanted = subscriptions.iter_mut().find_map(|s| match &mut s.stage {
                Stage::Behind(behind) => behind.wanted.take().map(|from| (s.topic, s.stay, from)),
                _ => None,
            });
            let Some(wanted) = wanted else { return };
            subscriptions.reading = true;
            wanted
        };
        let topic = self.topics.borrow().entry(key).topic.clone();
        let limit = ReadLimit { bytes: self.limits.outbox / 2, ..ReadLimit::default() };
        let page = self.hub.read(&topic, from, limit);
        let (shard, connection) = (self.clone(), connection.clone());
        tokio::task::spawn_local(async move {
            let page = page.await;
            let is_current = connection.subscriptions.borrow_mut().find(key).is_some_and(|s| s.stay == stay);
            let is_owed = is_current && !shard.on_page(&connection, key, page);
            connection.subscriptions.borrow_mut().reading = false;
            shard.read_next(&connection);
            if is_owed {
                // The others have their turn meanwhile.
                tokio::time::sleep(READ_AGAIN).await;
                if let Some(subscription) = connection.subscriptions.borrow_mut().find(key)
                    && subscription.stay == stay
                    && let Stage::Behind(behind) = &mut subscription.stage
                {
                    behind.wanted = Some(from);
                }
                shard.read_next(&connection);
            }
        });
    }

    /// `false`: the read failed half-way through, and what was promised is still owed.
    fn on_page(self: &Rc<Self>, connection: &Rc<Connection>, key: TopicKey, page: Result<Page, StoreError>) -> bool {
        let now = self.now();
        let live = self.topics.borrow().entry(key).at;
        let steps = match connection.subscriptions.borrow_mut().find(key).map(|s| &mut s.stage) {
            Some(Stage::Behind(behind)) => match (page, live) {
                (Ok(page), Some(live)) => Ok(behind.replay.on_page(page, live)),
                (Err(error), _) if !behind.answered => Err((behind.asked.id.take(), error)),
                _ => return false,
            },
            _ => return true,
        };
        match steps {
            Ok(steps) => self.carry_out(connection, key, steps, now),
            Err((id, error)) => {
                let topic = self.topics.borrow().entry(key).topic.clone();
                connection.say(&Event::error(id, "sub", &topic, error.into()), &self.limits, now);
                self.remove(connection, key);
            }
        }
        true
    }

    /// Ends a subscription as its client asked.
    pub(super) fn unsubscribe(&self, connection: &Rc<Connection>, topic: &Topic, now: Instant) {
        let key = self.topics.borrow().find(topic);
        if let Some(given_up) = key.and_then(|key| self.remove(connection, key)) {
            self.answer_given_up(connection, topic, given_up, now);
        }
    }

    /// Takes a subscription out, and the topic's stay in this shard with its last one. Gives back what it still owed an
    /// answer to.
    pub(super) fn remove(&self, connection: &Rc<Connection>, key: TopicKey) -> Option<Asked> {
        let unanswered = self.detach(connection, key);
        let left = self.topics.borrow_mut().remove_if_empty(key);
        if let Some(topic) = left {
            self.hub.leave(&topic, self.id);
        }
        unanswered
    }

    /// Every `sub` is answered, also the one that another frame overtakes.
    fn answer_given_up(&self, connection: &Rc<Connection>, topic: &Topic, asked: Asked, now: Instant) {
        let text = "a later frame replaced or ended this subscription before it began";
        let problem = Problem::new(Reason::Conflict, text);
        connection.say(&Event::error(asked.id, "sub", topic, problem), &self.limits, now);
    }

    fn detach(&self, connection: &Rc<Connection>, key: TopicKey) -> Option<Asked> {
        let subscription = connection.subscriptions.borrow_mut().remove(key)?;
        let mut topics = self.topics.borrow_mut();
        let entry = topics.entry_mut(key);
        let index = match subscription.stage {
            Stage::Live(index) => index,
            stage => {
                entry.behind.retain(|c| *c != connection.key);
                return stage.unanswered();
            }
        };
        entry.live.swap_remove(index);
        if let Some(moved) = entry.live.get(index).and_then(|c| self.connection(*c))
            && let Some(other) = moved.subscriptions.borrow_mut().find(key)
        {
            other.stage = Stage::Live(index);
        }
        None
    }

    /// Answers those who have waited too long for a topic that the store does not bring.
    pub(super) fn give_up_waiting(self: &Rc<Self>, now: Instant) {
        // Bound first: a loop keeps what its expression borrows, and giving up takes topics out.
        let unlocated = self.topics.borrow().unlocated();
        for key in unlocated {
            let waiting = self.topics.borrow().entry(key).behind.clone();
            for connection in waiting.into_iter().filter_map(|c| self.connection(c)) {
                let given_up = match connection.subscriptions.borrow_mut().find(key).map(|s| &mut s.stage) {
                    Some(Stage::Waiting { asked, since }) if now.saturating_duration_since(*since) > LOCATE_WAIT => {
                        Some(asked.id.take())
                    }
                    _ => None,
                };
                if let Some(id) = given_up {
                    let topic = self.topics.borrow().entry(key).topic.clone();
                    let trouble = self.hub.status().trouble.unwrap_or_else(|| "it does not answer".into());
                    let text = format!("the store cannot bring this topic now ({trouble}); subscribe again");
                    let problem = Problem::new(Reason::Unavailable, text).retry_after(Duration::from_secs(1));
                    connection.say(&Event::error(id, "sub", &topic, problem), &self.limits, now);
                    self.remove(&connection, key);
                }
            }
        }
    }
}
