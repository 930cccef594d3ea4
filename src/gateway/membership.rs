//! How a connection comes to hear a topic and leaves it: waiting for the stream, catching up, live. Catching up itself
//! is in `resuming`.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::counters;
use super::outgoing::Told;
use super::shard::Shard;
use super::subscriptions::{Asked, Behind, Stage};
use super::topics::TopicKey;
use crate::domain::error::{Problem, Reason};
use crate::domain::event::Event;
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::domain::replay::{Answer, Replay};
use crate::domain::store::ReadFrom;
use crate::domain::topic::Mode;
use crate::hub::Ticket;
use crate::hub::outbox::Shares;

/// How long a subscription waits for a topic that the store does not bring.
const LOCATE_WAIT: Duration = Duration::from_secs(5);

impl Shard {
    /// Subscribes, or replaces the subscription that there is; answers which stay it is.
    pub(super) fn subscribe(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        topic: &Topic,
        asked: Asked,
        now: Instant,
    ) -> (TopicKey, u64) {
        let (key, at) = {
            let mut topics = self.topics.borrow_mut();
            let after = match asked.from {
                Some(ReadFrom::After(after)) => Some(after),
                _ => None,
            };
            let key = topics.enter(topic, || self.hub.join_after(topic, self.id, after));
            (key, topics.entry(key).at)
        };
        if let Some(given_up) = self.detach(connection, key) {
            self.answer_given_up(connection, topic, given_up, now);
        }
        self.topics.borrow_mut().entry_mut(key).behind.push(connection.key);
        let stage = Stage::Waiting { asked: Box::new(asked), since: now };
        let stay = connection.subscriptions.borrow_mut().insert(key, stage);
        if let Some(trail) = connection.trail() {
            trail.borrow_mut().bind(topic, key);
        }
        if let Some(at) = at {
            self.begin(connection, key, at, now);
        }
        (key, stay)
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
    pub(super) fn begin(self: &Rc<Self>, connection: &Rc<Connection>, key: TopicKey, at: Position, now: Instant) {
        let asked = {
            let mut subscriptions = connection.subscriptions.borrow_mut();
            match subscriptions.find(key).map(|s| &mut s.stage) {
                Some(Stage::Waiting { asked, .. }) if !asked.awaits_cursor => std::mem::take(&mut **asked),
                _ => return,
            }
        };
        let Some(from) = asked.from.or_else(|| self.newcomer(key)) else {
            self.answer(connection, key, asked, Answer { at, resumed: None }, now);
            return self.promote(connection, key);
        };
        let (replay, steps) = Replay::start(from, at, Shares(self.limits.outbox).held());
        match replay {
            Some(replay) => {
                let behind = Behind { asked, answered: false, replay, wanted: false, needed: 0, lag: None };
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

    /// Who comes new to a topic that keeps the latest of each key gets it all at once.
    fn newcomer(&self, key: TopicKey) -> Option<ReadFrom> {
        (self.hub.mode(&self.topics.borrow().entry(key).topic) == Mode::Latest).then_some(ReadFrom::Last(u32::MAX))
    }

    pub(super) fn answer(
        &self,
        connection: &Rc<Connection>,
        key: TopicKey,
        asked: Asked,
        answer: Answer,
        now: Instant,
    ) {
        let topic = self.topics.borrow().entry(key).topic.clone();
        let Asked { id, cursor, ignored, begins_cursor, .. } = asked;
        // What begins now has nothing to resume; that something is missing already is told all the same.
        let resumed = answer.resumed.filter(|resumed| !begins_cursor || resumed.is_err());
        let answer = Answer { resumed, ..answer };
        let mode = self.hub.mode(&topic);
        let told = Some(Told { topic: key, at: answer.at });
        connection.say_told(&Event::Subscribed { id, topic, mode, answer, cursor, ignored }, told, &self.limits, now);
    }

    /// Into the live list.
    pub(super) fn promote(&self, connection: &Rc<Connection>, key: TopicKey) {
        let mut topics = self.topics.borrow_mut();
        let entry = topics.entry_mut(key);
        entry.behind.retain(|c| *c != connection.key);
        if let Some(subscription) = connection.subscriptions.borrow_mut().find(key) {
            if let Stage::Behind(behind) = &subscription.stage
                && let Some(lag) = behind.lag
            {
                counters::count_rejoined(lag);
            }
            subscription.stage = Stage::Live(entry.live.len());
            entry.live.push(connection.key);
        }
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
        drop(topics);
        self.leave_live(key, index);
        None
    }

    /// Takes a connection out of a topic's live list.
    pub(super) fn leave_live(&self, key: TopicKey, index: usize) {
        let mut topics = self.topics.borrow_mut();
        let live = &mut topics.entry_mut(key).live;
        live.swap_remove(index);
        if let Some(moved) = live.get(index).and_then(|c| self.connection(*c))
            && let Some(other) = moved.subscriptions.borrow_mut().find(key)
        {
            other.stage = Stage::Live(index);
        }
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
                    let event = Event::error(id, "sub", &topic, problem);
                    connection.say(&event, &self.limits, now);
                    connection.on_said(&event);
                    self.remove(&connection, key);
                }
            }
        }
    }
}
