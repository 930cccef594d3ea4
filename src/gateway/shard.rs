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
use super::topics::{ConnectionKey, TopicKey, Topics};
use super::{Arrival, ToGateway, wire};
use crate::domain::codec::Format;
use crate::domain::error::CloseCode;
use crate::domain::event::Event;
use crate::domain::limits::Limits;
use crate::domain::replay::{Gap, Live};
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
    pub(super) connections: RefCell<Slab<Rc<Connection>>>,
    pub(super) topics: RefCell<Topics>,
    /// Where every socket of this shard is read into.
    pub(super) scratch: RefCell<Box<[u8]>>,
    draining: Cell<bool>,
    /// Wakes a draining shard when a connection has gone.
    pub(super) gone: Notify,
}

impl Shard {
    pub fn new(id: ShardId, hub: Hub, limits: Arc<Limits>) -> Shard {
        Shard {
            id,
            hub,
            limits,
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
                        counters::count_gap(gap.why);
                        self.on_gap(key, &Event::Gap { topic, gap }, gap, &mut dirty, now);
                    }
                }
                ToShard::Joined { topic, ticket, at } => self.on_joined(&topic, ticket, at, now),
            }
        }
        for connection in dirty {
            connection.send_pending(&self.limits, now);
        }
    }

    fn on_message(self: &Rc<Self>, delivery: &Delivery, alone: bool, dirty: &mut Vec<Rc<Connection>>, now: Instant) {
        let Some(key) = self.advance(delivery) else { return };
        let topics = self.topics.borrow();
        let connections = self.connections.borrow();
        let entry = topics.entry(key);
        for connection in entry.live.iter().filter_map(|c| connections.get(*c)) {
            let frame = frame_of(delivery, connection);
            if alone {
                connection.send(frame, &self.limits, now);
            } else {
                queue(connection, frame.clone(), dirty);
            }
        }
        counters::count_delivered(entry.live.len());
        let behind: Vec<_> = entry.behind.iter().filter_map(|c| connections.get(*c).cloned()).collect();
        drop((topics, connections));
        for connection in behind {
            let item = frame_of(delivery, &connection).clone();
            let live = Live { before: delivery.before, at: delivery.message.at, item, is_gap: false };
            self.on_live(&connection, key, live, now);
        }
    }

    /// Moves the topic's position over a message. `None`: nobody is to get it.
    fn advance(&self, delivery: &Delivery) -> Option<TopicKey> {
        let mut topics = self.topics.borrow_mut();
        let key = topics.find(&delivery.message.topic)?;
        let entry = topics.entry_mut(key);
        let at = entry.at?;
        if at == delivery.before {
            entry.at = Some(delivery.message.at);
            return Some(key);
        }
        if !delivery.message.at.is_past(at) && delivery.message.at.epoch == at.epoch {
            return None;
        }
        // The hub hands everything on in order, so this is a bug of ours; those who listen come back and resume.
        tracing::error!(topic = %entry.topic, %at, got = %delivery.message.at, "a hole between hub and shard");
        let connections = self.connections.borrow();
        for connection in entry.live.iter().chain(&entry.behind).filter_map(|c| connections.get(*c)) {
            connection.close(CloseCode::Internal);
        }
        None
    }

    fn on_gap(self: &Rc<Self>, key: TopicKey, event: &Event, gap: Gap, dirty: &mut Vec<Rc<Connection>>, now: Instant) {
        let (live, behind) = {
            let mut topics = self.topics.borrow_mut();
            let entry = topics.entry_mut(key);
            if entry.at.is_none() {
                return;
            }
            entry.at = Some(gap.resume);
            (entry.live.clone(), entry.behind.clone())
        };
        for connection in live.into_iter().filter_map(|c| self.connection(c)) {
            let frame = frame_of_event(event, &connection);
            queue(&connection, frame, dirty);
        }
        for connection in behind.into_iter().filter_map(|c| self.connection(c)) {
            let item = frame_of_event(event, &connection);
            self.on_live(&connection, key, Live { before: gap.after, at: gap.resume, item, is_gap: true }, now);
        }
    }

    /// The common flood: several messages of one topic, all of whose subscribers are live. They are joined once and
    /// written once to each. `false`: this batch is another kind, and nothing was done.
    fn send_joined(&self, batch: &[ToShard], now: Instant) -> bool {
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
        if !self.topics.borrow().entry(key).behind.is_empty() {
            return false;
        }
        deliveries.retain(|d| self.advance(d).is_some());
        if deliveries.is_empty() {
            return true;
        }
        let topics = self.topics.borrow();
        let entry = topics.entry(key);
        let connections = self.connections.borrow();
        let mut joined: [Option<Vec<Bytes>>; Format::COUNT] = Default::default();
        for connection in entry.live.iter().filter_map(|c| connections.get(*c)) {
            if connection.batch {
                let frames = deliveries.iter().map(|d| frame_of(d, connection).clone()).collect();
                connection.io.borrow_mut().pending = frames;
                connection.send_pending(&self.limits, now);
                continue;
            }
            let chunks = joined[connection.format.index()].get_or_insert_with(|| join(&deliveries, connection));
            for chunk in chunks {
                connection.send(chunk, &self.limits, now);
            }
        }
        counters::count_delivered(entry.live.len() * deliveries.len());
        true
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
        self.give_up_waiting(now);
    }
}

fn frame_of<'a>(delivery: &'a Delivery, connection: &Connection) -> &'a Bytes {
    delivery.frame(connection.format, |message| wire::text_frame(&connection.protocol.borrow().codec.message(message)))
}

fn frame_of_event(event: &Event, connection: &Connection) -> Bytes {
    wire::text_frame(&connection.protocol.borrow_mut().codec.encode(event))
}

fn queue(connection: &Rc<Connection>, frame: Bytes, dirty: &mut Vec<Rc<Connection>>) {
    let pending = &mut connection.io.borrow_mut().pending;
    if pending.is_empty() {
        dirty.push(connection.clone());
    }
    pending.push(frame);
}

/// Frames one after the other in chunks, so that a slow reader does not hold a whole flood in one piece.
fn join(deliveries: &[&Delivery], connection: &Connection) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    let mut chunk = BytesMut::new();
    for delivery in deliveries {
        let frame = frame_of(delivery, connection);
        if !chunk.is_empty() && chunk.len() + frame.len() > JOINED {
            chunks.push(std::mem::take(&mut chunk).freeze());
        }
        chunk.extend_from_slice(frame);
    }
    chunks.push(chunk.freeze());
    chunks
}
