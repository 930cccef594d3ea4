//! The task of one connection: reads what comes, carries out what the session decides, ends it.

use std::io;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::connection::{self, Connection, History, Io, Protocol, State, Transport};
use super::counters;
use super::cursors::Commit;
use super::jobs::AskedTake;
use super::shard::{SCRATCH, Shard};
use super::subscriptions::Asked;
use super::websocket::Incoming;
use super::{Arrival, Door, Slot, wire};
use crate::domain::command::{Refusal, Request, RequestId};
use crate::domain::error::CloseCode;
use crate::domain::event::Event;
use crate::domain::message::Publication;
use crate::domain::session::{Effect, Holds, Session};
use crate::domain::store::{ReadFrom, ReadLimit};
use crate::hub::outbox::Outbox;
use crate::hub::queues;
use crate::protocol;

/// What a connection begins with.
pub(super) struct Opening {
    /// What came in behind the handshake.
    read_ahead: Bytes,
    /// What goes out before anything else.
    head: Bytes,
    requests: Vec<Result<Request, Refusal>>,
    refuse: Option<CloseCode>,
    slot: Slot,
}

/// A connection's stay in its shard. However its task ends, a panic included, nothing of it is left behind.
struct Stay<'a> {
    shard: &'a Shard,
    connection: &'a Rc<Connection>,
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        self.shard.forget(self.connection);
    }
}

impl Shard {
    /// Takes a socket over from the front runtime.
    pub(super) fn open(&self, arrival: Arrival) -> io::Result<(Rc<Connection>, Opening)> {
        let now = self.now();
        let stream = TcpStream::from_std(arrival.stream)?;
        let mut opening = Opening {
            read_ahead: Bytes::new(),
            head: Bytes::new(),
            requests: arrival.requests,
            refuse: None,
            slot: arrival.slot,
        };
        let (transport, spoken, is_batch) = match arrival.door {
            Door::WebSocket { read_ahead, subprotocol, batch, refuse } => {
                (opening.read_ahead, opening.refuse) = (read_ahead, refuse);
                let context = wire::context(self.limits.frame);
                (Transport::WebSocket(Box::new(context.into())), subprotocol, batch)
            }
            Door::EventStream { head, trail } => {
                opening.head = head;
                (Transport::EventStream(Box::new(trail.into())), Some(protocol::EVENT_STREAM), false)
            }
        };
        let codec = protocol::codec(spoken, &self.limits);
        let mut connections = self.connections.borrow_mut();
        let vacant = connections.vacant_entry();
        let connection = Rc::new(Connection {
            key: vacant.key(),
            name: connection::name(opening.slot.number),
            batch: is_batch,
            format: codec.format(),
            stream,
            transport,
            io: Io {
                outbox: Outbox::new(self.budget.clone()),
                pending: Vec::new(),
                state: State::Open,
                corked: false,
                reading: false,
                next_ping: now + self.limits.ping,
                pong_due: None,
            }
            .into(),
            protocol: Protocol { codec, session: Session::new(self.limits.clone(), now) }.into(),
            subscriptions: Default::default(),
            work: Default::default(),
            held_back: Default::default(),
            settling: Default::default(),
            in_flight: Default::default(),
            leaving: Default::default(),
            histories: Default::default(),
            hungry: Default::default(),
            closed: Default::default(),
            wake: Default::default(),
        });
        vacant.insert(connection.clone());
        Ok((connection, opening))
    }

    pub(super) async fn serve(self: Rc<Self>, connection: Rc<Connection>, opening: Opening) {
        let stay = Stay { shard: &self, connection: &connection };
        let slot = self.start(&connection, opening);
        loop {
            if connection.is_over() {
                break;
            }
            let state = connection.io.borrow().state;
            match state {
                State::Cut(code) => {
                    tracing::debug!(connection = %connection.name, code = code.code(), "closing");
                    connection.start_close(code, self.now());
                    continue;
                }
                State::Open | State::Closing { .. } | State::Ended => {}
            }
            let blocked = !connection.io.borrow().outbox.is_empty();
            tokio::select! {
                () = connection.wake.notified() => {
                    if connection.hungry.get() {
                        self.read_next(&connection);
                    }
                    self.resume_work(&connection);
                }
                ready = connection.stream.readable(), if connection.takes_commands(&self.limits) => match ready {
                    Ok(()) => self.on_readable(&connection),
                    Err(_) => break,
                },
                ready = connection.stream.writable(), if blocked => match ready {
                    Ok(()) => {
                        connection.flush(self.now());
                        self.read_next(&connection);
                        self.resume_work(&connection);
                    }
                    Err(_) => break,
                },
            }
        }
        counters::count_closed(connection.closed.get());
        drop((stay, slot));
    }

    fn start(self: &Rc<Self>, connection: &Rc<Connection>, opening: Opening) -> Slot {
        let now = self.now();
        if let Some(code) = opening.refuse {
            connection.close(code);
            return opening.slot;
        }
        connection.open(&opening.head, now);
        // Who cannot ask gets no replies.
        let inbox = (connection.trail().is_none() && self.hub.queues().is_ok()).then(queues::inbox);
        let hello = connection.protocol.borrow().session.hello(&connection.name, inbox.as_ref());
        connection.say(&hello, &self.limits, now);
        for request in opening.requests {
            self.on_request(connection, request, now);
        }
        self.on_bytes(connection, &opening.read_ahead, now);
        opening.slot
    }

    fn forget(&self, connection: &Rc<Connection>) {
        let topics = connection.subscriptions.borrow().topics();
        for key in topics {
            self.remove(connection, key);
        }
        self.give_back(connection);
        connection.io.borrow_mut().state = State::Ended;
        self.connections.borrow_mut().remove(connection.key);
        self.gone.notify_one();
        tracing::debug!(connection = %connection.name, "closed");
    }

    fn on_readable(self: &Rc<Self>, connection: &Rc<Connection>) {
        let now = self.now();
        // The buffer is the shard's: taken for the time of this call, so that nothing nested can overwrite it.
        let mut scratch = std::mem::take(&mut *self.scratch.borrow_mut());
        if scratch.is_empty() {
            scratch = vec![0; SCRATCH].into();
        }
        // One buffer full at a time, so that the others get their turn.
        match connection.stream.try_read(&mut scratch) {
            Ok(0) => connection.io.borrow_mut().state = State::Ended,
            Ok(count) => {
                connection.on_sign_of_life();
                self.on_bytes(connection, &scratch[..count], now);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => connection.io.borrow_mut().state = State::Ended,
        }
        *self.scratch.borrow_mut() = scratch;
    }

    fn on_bytes(self: &Rc<Self>, connection: &Rc<Connection>, mut input: &[u8], now: Instant) {
        let is_deaf = matches!(connection.io.borrow().state, State::Closing { deaf: true, .. });
        if input.is_empty() || is_deaf {
            return;
        }
        // The answers to what came together go out together.
        connection.cork();
        while let Incoming::Frame(frame) = connection.next_frame(&mut input, now) {
            if !connection.is_open() {
                continue;
            }
            let decoded = connection.protocol.borrow_mut().codec.decode(&frame);
            for request in decoded {
                // What stands behind the frame that closed is not done.
                if connection.is_open() {
                    self.on_request(connection, request, now);
                }
            }
        }
        connection.uncork(now);
    }

    fn on_request(self: &Rc<Self>, connection: &Rc<Connection>, request: Result<Request, Refusal>, now: Instant) {
        let effects = {
            if let Ok(request) = &request {
                counters::count_command(request.command.verb());
            }
            let session = &mut connection.protocol.borrow_mut().session;
            let holds = Holds {
                subscriptions: connection.subscriptions.borrow().len(),
                has: &|topic| {
                    let key = self.topics.borrow().find(topic);
                    key.is_some_and(|key| connection.subscriptions.borrow_mut().find(key).is_some())
                },
                in_flight: connection.in_flight.get() - connection.settling.get(),
                works: &|queue| connection.works(queue),
                holds: &|tag| connection.holds(tag),
            };
            session.on_request(now, request, &holds)
        };
        for effect in effects {
            match effect {
                Effect::Say(event) => {
                    if let Event::Error { problem, .. } = &event {
                        counters::count_refused(connection.door(), problem.reason);
                    }
                    connection.say(&event, &self.limits, now);
                    connection.on_said(&event);
                }
                Effect::Subscribe { id, topic, from, cursor, ignored } => {
                    let asked = Asked { id, from, ignored, ..Asked::default() };
                    match cursor {
                        None => _ = self.subscribe(connection, &topic, asked, now),
                        Some(cursor) => self.subscribe_from_cursor(connection, &topic, asked, cursor, now),
                    }
                }
                Effect::Unsubscribe { id, topic, ignored } => {
                    self.unsubscribe(connection, &topic, now);
                    connection.say(&Event::Unsubscribed { id, topic, ignored }, &self.limits, now);
                }
                Effect::Publish { id, publication, ignored } => self.publish(connection, id, publication, ignored),
                Effect::Commit { id, topic, cursor, at, rewind, ignored } => {
                    self.commit(connection, Commit { id, topic, cursor, at, rewind, ignored });
                }
                Effect::History { id, topic, from, limit, ignored } => {
                    self.history(connection, History { id, topic, from, limit, ignored });
                }
                Effect::Put { id, put, ignored } => self.put(connection, id, *put, ignored),
                Effect::Take { id, queue, credit, lease, ignored } => {
                    self.take(connection, AskedTake { id, queue, credit, lease, ignored });
                }
                Effect::Untake { id, queue, ignored } => {
                    self.untake(connection, &queue);
                    connection.say(&Event::Untaken { id, queue, ignored }, &self.limits, now);
                }
                Effect::Settle { id, settlement, ignored } => self.settle(connection, id, settlement, ignored),
                Effect::Request { id, asking, ignored } => self.request(connection, id, *asking, ignored),
                Effect::Close(code) => connection.close(code),
            }
        }
    }

    fn publish(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        id: Option<RequestId>,
        publication: Publication,
        ignored: Vec<String>,
    ) {
        let topic = publication.topic.clone();
        let stored = self.hub.publish(publication);
        self.answer_later(connection, async move {
            match stored.await {
                Ok(receipt) => {
                    counters::count_published();
                    Event::Published { id, topic, stored: receipt.stored, durability: receipt.durability, ignored }
                }
                Err(problem) => {
                    counters::count_refused(counters::WEBSOCKET, problem.reason);
                    Event::error(id, "pub", &topic, problem)
                }
            }
        });
    }

    fn history(self: &Rc<Self>, connection: &Rc<Connection>, asked: History) {
        connection.in_flight.set(connection.in_flight.get() + 1);
        connection.histories.borrow_mut().push_back(asked);
        self.read_next(connection);
    }

    /// Reads and answers while `reading` keeps other reads of this connection back, so that answers fit into its outbox.
    pub(super) fn read_history(self: &Rc<Self>, connection: &Rc<Connection>, asked: History) {
        let History { id, topic, from, limit, ignored } = asked;
        let limit = ReadLimit { messages: limit, bytes: self.limits.outbox / 4 };
        let reserved = self.budget.reserve(limit.bytes);
        let mut page = self.hub.read(&topic, from, limit);
        let (shard, connection) = (self.clone(), connection.clone());
        tokio::task::spawn_local(async move {
            let mut missing = None;
            let event = loop {
                match page.await {
                    // All of it has expired: an empty answer would only be asked for again.
                    Ok(empty) if empty.messages.is_empty() && !empty.is_last() && connection.is_open() => {
                        missing = missing.or(empty.missing);
                        page = shard.hub.read(&topic, ReadFrom::After(empty.end), limit);
                    }
                    Ok(page) => {
                        let more = !page.is_last();
                        let missing = missing.or(page.missing);
                        break Event::History { id, topic, items: page.messages, missing, more, ignored };
                    }
                    Err(error) => break Event::error(id, "history", &topic, error.into()),
                }
            };
            connection.io.borrow_mut().reading = false;
            drop(reserved);
            connection.say(&event, &shard.limits, shard.now());
            connection.on_answered();
            connection.subscriptions.borrow_mut().reading = false;
            shard.read_next(&connection);
        });
    }

    pub(super) fn answer_later(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        answer: impl Future<Output = Event> + 'static,
    ) {
        connection.in_flight.set(connection.in_flight.get() + 1);
        let (shard, connection) = (self.clone(), connection.clone());
        tokio::task::spawn_local(async move {
            let event = answer.await;
            connection.say(&event, &shard.limits, shard.now());
            connection.on_answered();
        });
    }
}
