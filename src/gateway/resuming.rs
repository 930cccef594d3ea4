//! Subscribers that are not in the live stream, since they were away, were too slow, or lost something on the way: how
//! they are read on from the store and come back. The decisions are `domain::replay`'s; here they are carried out.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::connection::Connection;
use super::counters;
use super::outgoing::Told;
use super::shard::Shard;
use super::subscriptions::{Asked, Behind, Stage};
use super::topics::{ConnectionKey, TopicKey};
use crate::domain::error::CloseCode;
use crate::domain::event::Event;
use crate::domain::position::Position;
use crate::domain::replay::{Item, Lag, Live, Replay, Step};
use crate::domain::store::{Page, StoreError};
use crate::domain::topic::{Mode, Slow};
use crate::hub::outbox::Shares;

/// How soon a read of history that failed half-way is tried again.
const READ_AGAIN: Duration = Duration::from_millis(500);

impl Shard {
    /// The live stream moved while a subscriber was not in it, or was not a moment ago.
    pub(super) fn on_live(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        key: TopicKey,
        live: Live<Bytes>,
        now: Instant,
    ) {
        let steps = match connection.subscriptions.borrow_mut().find(key).map(|s| &mut s.stage) {
            Some(Stage::Behind(behind)) => behind.replay.on_live(live),
            Some(Stage::Live(_)) => vec![Step::Live(live)],
            _ => return,
        };
        self.carry_out(connection, key, steps, now);
    }

    /// Items between `stood` and `next` were lost on the way to this shard: whoever listens reads them from the store.
    pub(super) fn on_hole(self: &Rc<Self>, key: TopicKey, stood: Position, next: Position, now: Instant) {
        counters::count_repair();
        let (live, behind) = {
            let mut topics = self.topics.borrow_mut();
            let entry = topics.entry_mut(key);
            entry.at = Some(next);
            (entry.live.clone(), entry.behind.clone())
        };
        for connection in live.into_iter().filter_map(|c| self.connection(c)) {
            self.fall_behind(&connection, key, stood, Lag::Lost);
        }
        behind.into_iter().for_each(|connection| self.on_step_over(connection, key, now));
    }

    /// The live stream went on without an item that a subscriber who is behind could hold.
    pub(super) fn on_step_over(self: &Rc<Self>, connection: ConnectionKey, key: TopicKey, now: Instant) {
        let Some(connection) = self.connection(connection) else { return };
        let steps = match connection.subscriptions.borrow_mut().find(key).map(|s| &mut s.stage) {
            Some(Stage::Behind(behind)) => behind.replay.on_hole(),
            _ => return,
        };
        self.carry_out(&connection, key, steps, now);
    }

    /// A subscriber that was told everything up to `at`, and cannot be told the next, reads on from there later.
    pub(super) fn fall_behind(self: &Rc<Self>, connection: &Rc<Connection>, key: TopicKey, at: Position, lag: Lag) {
        self.step_back(connection, key, at, lag, 0);
        self.read_next(connection);
    }

    /// `needed`: the bytes of the frame that had no room.
    fn step_back(&self, connection: &Rc<Connection>, key: TopicKey, at: Position, lag: Lag, needed: usize) {
        let (was_live, was_behind) = match connection.subscriptions.borrow_mut().find(key).map(|s| &s.stage) {
            Some(Stage::Live(index)) => (Some(*index), None),
            Some(Stage::Behind(behind)) if behind.answered => (None, behind.lag),
            _ => return,
        };
        // Who only catches up with what it missed is not slow.
        let slow = match (lag, was_live.is_some() || was_behind == Some(Lag::Slow)) {
            (Lag::Slow, true) => self.hub.slow(&self.topics.borrow().entry(key).topic),
            _ => Slow::Resume,
        };
        if slow == Slow::Cut {
            return connection.close(CloseCode::Slow);
        }
        if let Some(index) = was_live {
            counters::count_fell_behind(lag);
            self.leave_live(key, index);
            self.topics.borrow_mut().entry_mut(key).behind.push(connection.key);
        }
        let replay = Replay::behind(at, lag, Shares(self.limits.outbox).held()).keeping(slow.keeps());
        let asked = Asked::default();
        let behind = Behind { asked, answered: true, replay, wanted: true, needed, lag: Some(lag) };
        connection.subscriptions.borrow_mut().renew(key, Stage::Behind(Box::new(behind)));
    }

    pub(super) fn carry_out(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        key: TopicKey,
        steps: Vec<Step<Bytes>>,
        now: Instant,
    ) {
        let was_corked = connection.cork();
        for step in steps {
            let before = step.before();
            if let (Some(needed), Some(before)) = (self.take_step(connection, key, step, now), before) {
                // The rest is void.
                self.step_back(connection, key, before, Lag::Slow, needed);
                break;
            }
        }
        if !was_corked {
            connection.uncork(now);
        }
        self.read_next(connection);
    }

    /// Gives the bytes of the frame that there was no room for.
    fn take_step(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        key: TopicKey,
        step: Step<Bytes>,
        now: Instant,
    ) -> Option<usize> {
        let offer = |frame: &Bytes, at: Option<Position>| {
            let told = at.map(|at| Told { topic: key, at });
            (!connection.offer(frame, told, &self.limits, now)).then_some(frame.len())
        };
        match step {
            Step::Answer(answer) => {
                let asked = match connection.subscriptions.borrow_mut().find(key).map(|s| &mut s.stage) {
                    Some(Stage::Behind(behind)) => {
                        behind.answered = true;
                        std::mem::take(&mut behind.asked)
                    }
                    _ => return None,
                };
                if let Some(Err(missing)) = answer.resumed {
                    counters::count_gap(missing.why);
                }
                self.answer(connection, key, asked, answer, now);
                None
            }
            Step::Give(Item::Message(message)) => {
                let payload = connection.protocol.borrow().codec.message(&message);
                let refused = offer(&connection.framed(payload), Some(message.at));
                counters::count_delivered(usize::from(refused.is_none()));
                refused
            }
            Step::Give(Item::Gap(gap)) if !gap.is_told() => None,
            Step::Give(Item::Gap(gap)) => {
                let topic = self.topics.borrow().entry(key).topic.clone();
                let payload = connection.protocol.borrow_mut().codec.encode(&Event::Gap { topic, gap });
                let refused = offer(&connection.framed(payload), None);
                if refused.is_none() {
                    counters::count_gap(gap.why);
                }
                refused
            }
            Step::Live(live) => match live.expired(now) {
                Some(gap) => self.take_step(connection, key, Step::Give(Item::Gap(gap)), now),
                None => offer(&live.item, (!live.is_gap).then_some(live.at)),
            },
            Step::Read => {
                if let Some(Stage::Behind(behind)) =
                    connection.subscriptions.borrow_mut().find(key).map(|s| &mut s.stage)
                {
                    behind.wanted = true;
                }
                None
            }
            Step::Joined => {
                self.promote(connection, key);
                None
            }
        }
    }

    /// Issues the next read of history of this connection, one at a time and only while there is room for a page.
    pub(super) fn read_next(self: &Rc<Self>, connection: &Rc<Connection>) {
        let (key, stay, from) = {
            let mut subscriptions = connection.subscriptions.borrow_mut();
            if subscriptions.reading || !connection.is_open() {
                return;
            }
            let has_room = |needed| connection.has_room(needed, &self.limits);
            if has_room(0)
                && let Some(history) = connection.histories.borrow_mut().pop_front()
            {
                subscriptions.reading = true;
                connection.io.borrow_mut().reading = true;
                return self.read_history(connection, history);
            }
            let Some(next) = subscriptions.next_wanted(has_room) else {
                let is_hungry = !connection.histories.borrow().is_empty() || subscriptions.want_reads();
                return connection.hungry.set(is_hungry);
            };
            let Stage::Behind(behind) = &mut next.stage else { return };
            behind.wanted = false;
            let wanted = (next.topic, next.stay, behind.replay.issue());
            subscriptions.reading = true;
            wanted
        };
        connection.io.borrow_mut().reading = true;
        let topic = self.topics.borrow().entry(key).topic.clone();
        let limit = Shares(self.limits.outbox).page();
        let reserved = self.budget.reserve(limit.bytes);
        let page = match self.topics.borrow().entry(key).at {
            Some(live) => self.hub.replay(&topic, from, limit, live),
            None => self.hub.read(&topic, from, limit),
        };
        let (shard, connection) = (self.clone(), connection.clone());
        tokio::task::spawn_local(async move {
            let page = page.await;
            let is_current = connection.subscriptions.borrow_mut().find(key).is_some_and(|s| s.stay == stay);
            connection.io.borrow_mut().reading = false;
            drop(reserved);
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
                    behind.wanted = true;
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
                (Ok(page), Some(live)) => {
                    if behind.lag == Some(Lag::Slow) && page.mode == Mode::Latest {
                        let stretch = page.end.offset.saturating_sub(page.start.offset);
                        counters::count_conflated(stretch.saturating_sub(page.messages.len() as u64));
                    }
                    Ok(behind.replay.on_page(page, live))
                }
                (Err(error), _) if !behind.answered => Err((behind.asked.id.take(), error)),
                _ => return false,
            },
            _ => return true,
        };
        match steps {
            Ok(steps) => self.carry_out(connection, key, steps, now),
            Err((id, error)) => {
                let topic = self.topics.borrow().entry(key).topic.clone();
                let event = Event::error(id, "sub", &topic, error.into());
                connection.say(&event, &self.limits, now);
                connection.on_said(&event);
                self.remove(connection, key);
            }
        }
        true
    }
}
