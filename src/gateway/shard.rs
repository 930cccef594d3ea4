//! One thread's share of the connections. It owns their sockets and its own table of topic → subscribers, so the path
//! from a published message to a socket takes no lock: one frame, one `write` for each subscriber.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use slab::Slab;
use tokio::sync::{Notify, mpsc};

use super::connection::Connection;
use super::counters;
use super::outgoing::{Pending, Told};
use super::topics::{ConnectionKey, TopicKey, Topics};
use super::{Arrival, ToGateway};
use crate::domain::codec::Format;
use crate::domain::error::CloseCode;
use crate::domain::event::Event;
use crate::domain::limits::Limits;
use crate::domain::message::Message;
use crate::domain::position::Position;
use crate::domain::replay::{Gap, Lag, Live};
use crate::hub::budget::Budget;
use crate::hub::{Delivery, Hub, ShardId, ToShard};

/// Events taken from the hub at once: what is queued already goes out together, nothing waits to be joined.
const BATCH: usize = 256;
/// Bytes of messages of one topic that are joined into one write.
const JOINED: usize = 64 * 1024;
pub(super) const SCRATCH: usize = 16 * 1024;

pub struct Shard {
    pub(super) id: ShardId,
    pub(super) hub: Hub,
    pub(super) limits: Arc<Limits>,
    /// What may wait for all connections of the node.
    pub(super) budget: Arc<Budget>,
    pub(super) connections: RefCell<Slab<Rc<Connection>>>,
    pub(super) topics: RefCell<Topics>,
    /// Where every socket of this shard is read into.
    pub(super) scratch: RefCell<Box<[u8]>>,
    draining: Cell<bool>,
    /// Wakes a draining shard when a connection has gone.
    pub(super) gone: Notify,
}

impl Shard {
    pub fn new(id: ShardId, hub: Hub, limits: Arc<Limits>, budget: Arc<Budget>) -> Shard {
        Shard {
            id,
            hub,
            limits,
            budget,
            connections: RefCell::default(),
            topics: RefCell::default(),
            scratch: RefCell::new(vec![0; SCRATCH].into()),
            draining: Cell::new(false),
            gone: Notify::new(),
        }
    }

    /// Runs until the hub and the gateway are gone, or until it is drained.
    pub async fn run(self: Rc<Self>, mut from_hub: mpsc::Receiver<ToShard>, mut arrivals: mpsc::Receiver<ToGateway>) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        while !self.is_drained() {
            tokio::select! {
                count = from_hub.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    self.on_batch(&mut batch);
                    // Reads and timers get their turn between batches.
                    tokio::task::yield_now().await;
                }
                arrival = arrivals.recv() => match arrival {
                    Some(ToGateway::Arrival(arrival)) => self.admit(*arrival),
                    Some(ToGateway::Drain) => {
                        // What the hub has handed on is still given.
                        while let Ok(event) = from_hub.try_recv() {
                            batch.push(event);
                            self.on_batch(&mut batch);
                        }
                        self.drain();
                    }
                    None => break,
                },
                _ = tick.tick() => self.on_tick(),
                () = self.gone.notified() => {}
            }
        }
    }

    fn admit(self: &Rc<Self>, arrival: Arrival) {
        match self.open(arrival) {
            Ok((connection, opening)) => {
                if self.draining.get() {
                    connection.leave();
                }
                tokio::task::spawn_local(self.clone().serve(connection, opening));
            }
            Err(error) => tracing::debug!(%error, "a socket could not be taken over"),
        }
    }

    fn drain(&self) {
        self.draining.set(true);
        for (_, connection) in self.connections.borrow().iter() {
            connection.leave();
        }
    }

    fn is_drained(&self) -> bool {
        self.draining.get() && self.connections.borrow().is_empty()
    }

    pub(super) fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    pub(super) fn connection(&self, key: ConnectionKey) -> Option<Rc<Connection>> {
        self.connections.borrow().get(key).cloned()
    }

    fn on_batch(self: &Rc<Self>, batch: &mut Vec<ToShard>) {
        let now = self.now();
        if batch.len() > 1 && self.send_joined(batch, now) {
            batch.clear();
            return;
        }
        let alone = batch.len() == 1;
        let mut dirty = Vec::new();
        for event in batch.drain(..) {
            match event {
                ToShard::Message(delivery) => self.on_message(&delivery, alone, &mut dirty, now),
                ToShard::Gap { topic, gap } => {
                    let key = self.topics.borrow().find(&topic);
                    if let Some(key) = key {
                        if gap.is_told() {
                            counters::count_gap(gap.why);
                        }
                        self.on_gap(key, &Event::Gap { topic, gap }, gap, &mut dirty, now);
                    }
                }
                ToShard::Joined { topic, ticket, at } => self.on_joined(&topic, ticket, at, now),
            }
        }
        for connection in dirty {
            for (key, before) in connection.send_pending(&self.limits, now) {
                self.fall_behind(&connection, key, before, Lag::Slow);
            }
        }
    }

    fn on_message(self: &Rc<Self>, delivery: &Delivery, alone: bool, dirty: &mut Vec<Rc<Connection>>, now: Instant) {
        let Some(key) = self.advance(delivery, now) else { return };
        let told = Some(Told { topic: key, at: delivery.message.at });
        let mut slow = Vec::new();
        let topics = self.topics.borrow();
        let connections = self.connections.borrow();
        let entry = topics.entry(key);
        for connection in entry.live.iter().filter_map(|c| connections.get(*c)) {
            if !alone {
                queue(connection, pending_of(delivery, key, connection), dirty);
            } else if !connection.offer(frame_of(delivery, connection), told, &self.limits, now) {
                slow.push(connection.clone());
            }
        }
        counters::count_delivered(entry.live.len() - slow.len());
        let behind: Vec<_> = entry.behind.iter().filter_map(|c| connections.get(*c).cloned()).collect();
        drop((topics, connections));
        for connection in behind {
            self.on_live(&connection, key, live_of(delivery, &connection, now), now);
        }
        for connection in slow {
            self.fall_behind(&connection, key, delivery.before, Lag::Slow);
        }
    }

    /// Moves the topic's position over a message. `None`: nobody is to get it.
    fn advance(self: &Rc<Self>, delivery: &Delivery, now: Instant) -> Option<TopicKey> {
        let (key, at) = {
            let topics = self.topics.borrow();
            let key = topics.find(&delivery.message.topic)?;
            (key, topics.entry(key).at?)
        };
        if at != delivery.before {
            if !delivery.message.at.is_past(at) && delivery.message.at.epoch == at.epoch {
                return None;
            }
            // The hub hands everything on in order, so this is a bug of ours; those who listen read the hole themselves.
            tracing::error!(topic = %delivery.message.topic, %at, got = %delivery.message.at, "a hole between hub and shard");
            self.on_hole(key, at, delivery.before, now);
        }
        self.topics.borrow_mut().entry_mut(key).at = Some(delivery.message.at);
        Some(key)
    }

    fn on_gap(self: &Rc<Self>, key: TopicKey, event: &Event, gap: Gap, dirty: &mut Vec<Rc<Connection>>, now: Instant) {
        let (live, behind) = {
            let stood = self.topics.borrow().entry(key).at;
            match stood {
                None => return,
                Some(at) if at != gap.after => self.on_hole(key, at, gap.after, now),
                Some(_) => {}
            }
            let mut topics = self.topics.borrow_mut();
            let entry = topics.entry_mut(key);
            entry.at = Some(gap.resume);
            (entry.live.clone(), entry.behind.clone())
        };
        if !gap.is_told() {
            // The stream only steps over it.
            return behind.into_iter().for_each(|connection| self.on_step_over(connection, key, now));
        }
        for connection in live.into_iter().filter_map(|c| self.connection(c)) {
            let frame = frame_of_event(event, &connection);
            queue(&connection, Pending { frame, topic: key, before: gap.after, at: None }, dirty);
        }
        for connection in behind.into_iter().filter_map(|c| self.connection(c)) {
            let item = frame_of_event(event, &connection);
            let size = item.len();
            self.on_live(
                &connection,
                key,
                Live { before: gap.after, at: gap.resume, item, size, is_gap: true, ends: None },
                now,
            );
        }
    }

    /// The common flood: several messages of one topic. They are joined once and written once to each live subscriber.
    /// `false`: this batch is another kind, and nothing was done.
    fn send_joined(self: &Rc<Self>, batch: &[ToShard], now: Instant) -> bool {
        let mut deliveries = Vec::with_capacity(batch.len());
        for event in batch {
            match event {
                ToShard::Message(delivery) => deliveries.push(&**delivery),
                _ => return false,
            }
        }
        let topic = &deliveries[0].message.topic;
        if deliveries.iter().any(|d| d.message.topic != *topic) {
            return false;
        }
        let Some(key) = self.topics.borrow().find(topic) else { return true };
        // What does not follow is looked at one by one.
        let mut at = self.topics.borrow().entry(key).at;
        for delivery in &deliveries {
            if at != Some(delivery.before) {
                return false;
            }
            at = Some(delivery.message.at);
        }
        self.topics.borrow_mut().entry_mut(key).at = at;
        let (slow, behind) = self.write_joined(key, &deliveries, now);
        for connection in behind {
            for delivery in &deliveries {
                // It may join in the midst of them.
                self.on_live(&connection, key, live_of(delivery, &connection, now), now);
            }
        }
        for (connection, before) in slow {
            self.fall_behind(&connection, key, before, Lag::Slow);
        }
        true
    }

    /// Gives those who had no room, with where they stand, and those who are behind.
    #[allow(clippy::type_complexity, reason = "read once, where it is called")]
    fn write_joined(
        &self,
        key: TopicKey,
        deliveries: &[&Delivery],
        now: Instant,
    ) -> (Vec<(Rc<Connection>, Position)>, Vec<Rc<Connection>>) {
        let topics = self.topics.borrow();
        let entry = topics.entry(key);
        let connections = self.connections.borrow();
        let mut slow = Vec::new();
        let mut joined: [Option<Vec<Chunk>>; Format::COUNT] = Default::default();
        for connection in entry.live.iter().filter_map(|c| connections.get(*c)) {
            if connection.batch || connection.stamps_each() {
                let pending = deliveries.iter().map(|d| pending_of(d, key, connection));
                connection.io.borrow_mut().pending = pending.collect();
                let refused = connection.send_pending(&self.limits, now);
                slow.extend(refused.into_iter().map(|(_, before)| (connection.clone(), before)));
                continue;
            }
            let chunks = joined[connection.format.index()].get_or_insert_with(|| join(deliveries, connection));
            let refused = chunks.iter().find(|chunk| {
                let told = Some(Told { topic: key, at: chunk.at });
                !connection.offer(&chunk.frames, told, &self.limits, now)
            });
            slow.extend(refused.map(|chunk| (connection.clone(), chunk.before)));
        }
        let kept_back = |before| deliveries.iter().skip_while(|d| d.before != before).count();
        let refused: usize = slow.iter().map(|(_, before)| kept_back(*before)).sum();
        counters::count_delivered(entry.live.len() * deliveries.len() - refused);
        (slow, entry.behind.iter().filter_map(|c| connections.get(*c).cloned()).collect())
    }

    fn on_tick(self: &Rc<Self>) {
        let now = self.now();
        let (mut waiting, mut subscriptions) = (0, 0);
        for (_, connection) in self.connections.borrow().iter() {
            connection.on_tick(&self.limits, now);
            waiting += connection.io.borrow().outbox.bytes();
            subscriptions += connection.subscriptions.borrow().len();
        }
        counters::set_load(self.id.0, subscriptions, waiting);
        self.cut_worst();
        counters::set_behind(self.id.0, self.topics.borrow().behind());
        self.give_up_waiting(now);
    }
}

impl Shard {
    /// Where answers and frames on their way have exceeded the node's budget too: those for whom most waits are cut, and may
    /// come back and resume.
    fn cut_worst(&self) {
        let mut excess = self.budget.excess();
        if excess == 0 {
            return;
        }
        let mut waiting: Vec<(usize, Rc<Connection>)> = Vec::new();
        for (_, connection) in self.connections.borrow().iter() {
            waiting.push((connection.io.borrow().outbox.bytes(), connection.clone()));
        }
        waiting.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        for (bytes, connection) in waiting {
            if excess == 0 || bytes == 0 {
                return;
            }
            excess = excess.saturating_sub(bytes);
            connection.close(CloseCode::Slow);
        }
    }
}

fn frame_of<'a>(delivery: &'a Delivery, connection: &Connection) -> &'a Bytes {
    let write = |message: &Message| connection.framed(connection.protocol.borrow().codec.message(message));
    delivery.frame(connection.format, write)
}

fn frame_of_event(event: &Event, connection: &Connection) -> Bytes {
    connection.framed(connection.protocol.borrow_mut().codec.encode(event))
}

fn live_of(delivery: &Delivery, connection: &Connection, now: Instant) -> Live<Bytes> {
    let item = frame_of(delivery, connection).clone();
    let message = &delivery.message;
    // Counted from here, since this clock is not the store's.
    let ends = message.expires.and_then(|end| now.checked_add(Duration::from_millis(end.saturating_sub(message.time))));
    Live { before: delivery.before, at: message.at, size: item.len(), item, is_gap: false, ends }
}

fn pending_of(delivery: &Delivery, topic: TopicKey, connection: &Connection) -> Pending {
    let frame = frame_of(delivery, connection).clone();
    Pending { frame, topic, before: delivery.before, at: Some(delivery.message.at) }
}

fn queue(connection: &Rc<Connection>, frame: Pending, dirty: &mut Vec<Rc<Connection>>) {
    let pending = &mut connection.io.borrow_mut().pending;
    if pending.is_empty() {
        dirty.push(connection.clone());
    }
    pending.push(frame);
}

/// Frames of a topic one after the other, and where a reader stands before the first and after the last.
struct Chunk {
    frames: Bytes,
    before: Position,
    at: Position,
}

/// Frames one after the other in chunks, so that a slow reader does not hold a whole flood in one piece.
fn join(deliveries: &[&Delivery], connection: &Connection) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let (mut chunk, mut before) = (BytesMut::new(), deliveries[0].before);
    let mut at = before;
    for delivery in deliveries {
        let frame = frame_of(delivery, connection);
        if !chunk.is_empty() && chunk.len() + frame.len() > JOINED {
            chunks.push(Chunk { frames: std::mem::take(&mut chunk).freeze(), before, at });
            before = delivery.before;
        }
        chunk.extend_from_slice(frame);
        at = delivery.message.at;
    }
    chunks.push(Chunk { frames: chunk.freeze(), before, at });
    chunks
}
