//! What goes out of a connection: written at once, or queued in the outbox behind what waits. Answers and frames of
//! streams are told apart: who is too slow for a stream reads it from the store later, who leaves no room for answers is cut.

use std::io::{self, IoSlice};
use std::time::Instant;

use bytes::Bytes;

use super::connection::{Connection, Io, State, Transport};
use super::topics::TopicKey;
use super::wire;
use crate::domain::error::CloseCode;
use crate::domain::event::Event;
use crate::domain::limits::Limits;
use crate::domain::position::Position;
use crate::hub::outbox::{SLICES, Shares};

/// Bytes of one array of messages.
const ARRAY: usize = 64 * 1024;

/// A frame of a topic's stream, and where its reader stands before it.
pub struct Pending {
    pub frame: Bytes,
    pub topic: TopicKey,
    pub before: Position,
    /// Where it stands after it; `None`: it is a gap, which brings nobody on.
    pub at: Option<Position>,
}

/// How far a frame brings its topic, for whoever is given it.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    pub topic: TopicKey,
    pub at: Position,
}

impl Pending {
    fn told(&self) -> Option<Told> {
        self.at.map(|at| Told { topic: self.topic, at })
    }
}

/// Topics whose next frame had no room, and where their reader stands.
pub type Refused = Vec<(TopicKey, Position)>;

impl Connection {
    /// Says an event to this client alone.
    pub fn say(&self, event: &Event, limits: &Limits, now: Instant) {
        self.say_told(event, None, limits, now);
    }

    /// Says an event that brings a topic to a position. An answer, it may fill the whole outbox; a connection that has
    /// no room even for that is cut.
    pub fn say_told(&self, event: &Event, told: Option<Told>, limits: &Limits, now: Instant) {
        let payload = self.protocol.borrow_mut().codec.encode(event);
        let frame = self.framed(payload);
        let io = &mut *self.io.borrow_mut();
        if io.state == State::Open && !self.put(io, &frame, told, limits.outbox, now) {
            self.cut(io, CloseCode::Slow);
        }
    }

    /// A payload as it goes out.
    pub fn framed(&self, payload: Bytes) -> Bytes {
        match self.transport {
            Transport::WebSocket(_) => wire::text_frame(&payload),
            Transport::EventStream(_) => payload,
        }
    }

    /// Sends a frame of a stream, or queues it. `false`: there is no room, and nothing was done. The hot path: one
    /// system call while the peer keeps up.
    pub fn offer(&self, frame: &Bytes, told: Option<Told>, limits: &Limits, now: Instant) -> bool {
        let io = &mut *self.io.borrow_mut();
        io.state != State::Open || self.put(io, frame, told, room_for_streams(io, limits), now)
    }

    /// What a frame tells counts as given only where there is room for it.
    fn put(&self, io: &mut Io, frame: &Bytes, told: Option<Told>, most: usize, now: Instant) -> bool {
        let Some(trail) = self.trail() else { return self.put_bytes(io, frame, most, now) };
        let stamped = trail.borrow().stamped(frame, told);
        let has_room = self.put_bytes(io, stamped.as_ref().unwrap_or(frame), most, now);
        if let (true, Some(told)) = (has_room, told) {
            trail.borrow_mut().keep(told);
        }
        has_room
    }

    fn put_bytes(&self, io: &mut Io, frame: &Bytes, most: usize, now: Instant) -> bool {
        if !io.outbox.is_empty() || io.corked {
            if io.outbox.push(frame.clone(), most, now).is_ok() {
                return true;
            }
            // Only what the socket does not take counts as waiting.
            self.write(io, now);
            return io.state != State::Open || io.outbox.push(frame.clone(), most, now).is_ok();
        }
        match self.stream.try_write(frame) {
            Ok(written) if written == frame.len() => {}
            Ok(0) => self.fail(io),
            Ok(written) => {
                io.outbox.push_rest(frame.slice(written..), now);
                self.wake.notify_one();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // An empty outbox takes any frame.
                let _ = io.outbox.push(frame.clone(), most, now);
                self.wake.notify_one();
            }
            Err(_) => self.fail(io),
        }
        true
    }

    /// Sends what the present batch brought, in as few writes as the socket takes.
    pub fn send_pending(&self, limits: &Limits, now: Instant) -> Refused {
        let pending = std::mem::take(&mut self.io.borrow_mut().pending);
        let mut refused = Refused::new();
        if let [one] = &pending[..] {
            if !self.offer(&one.frame, one.told(), limits, now) {
                refused.push((one.topic, one.before));
            }
            return refused;
        }
        let io = &mut *self.io.borrow_mut();
        let most = room_for_streams(io, limits);
        let was_corked = std::mem::replace(&mut io.corked, true);
        for part in portions(&pending, if self.batch { ARRAY } else { 0 }) {
            // What follows a frame that was refused is read from the store with it.
            let part: Vec<&Pending> = part.iter().filter(|p| refused.iter().all(|(key, _)| *key != p.topic)).collect();
            let (frame, told) = match &part[..] {
                [] => continue,
                [one] => (one.frame.clone(), one.told()),
                // Arrays are a WebSocket's, which keeps no trail.
                _ => (wire::array_frame(part.iter().map(|p| &p.frame)), None),
            };
            if io.state != State::Open {
                break;
            }
            if !self.put(io, &frame, told, most, now) {
                for Pending { topic, before, .. } in part {
                    if refused.iter().all(|(key, _)| key != topic) {
                        refused.push((*topic, *before));
                    }
                }
            }
        }
        io.corked = was_corked;
        self.write(io, now);
        refused
    }

    /// From here on frames are collected, to go out together. Gives whether they were already.
    pub fn cork(&self) -> bool {
        std::mem::replace(&mut self.io.borrow_mut().corked, true)
    }

    pub fn uncork(&self, now: Instant) {
        let io = &mut *self.io.borrow_mut();
        io.corked = false;
        self.write(io, now);
    }

    /// Writes what waits until the socket takes no more.
    pub fn flush(&self, now: Instant) {
        self.write(&mut self.io.borrow_mut(), now);
    }

    pub(super) fn write(&self, io: &mut Io, now: Instant) {
        while !io.outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = io.outbox.slices(&mut slices);
            match self.stream.try_write_vectored(&slices[..count]) {
                Ok(0) => return self.fail(io),
                Ok(written) => {
                    io.outbox.advance(written, now);
                    if self.hungry.get() || self.held_back.get() {
                        // Its task looks whether there is room now.
                        self.wake.notify_one();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wake.notify_one();
                    return;
                }
                Err(_) => return self.fail(io),
            }
        }
    }
}

/// How far frames of streams may fill an outbox now: not at all while the whole node holds as much as it may.
fn room_for_streams(io: &Io, limits: &Limits) -> usize {
    if io.outbox.budget().is_spent() { 0 } else { Shares(limits.outbox).streams(io.reading) }
}

/// Cuts frames into portions of at most so many bytes, each of one frame at least.
fn portions(mut frames: &[Pending], most: usize) -> impl Iterator<Item = &[Pending]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |frame: &&Pending| {
            bytes += frame.frame.len();
            bytes <= most
        };
        let count = frames.iter().take_while(fits).count().max(1).min(frames.len());
        let (portion, rest) = frames.split_at(count);
        frames = rest;
        (count > 0).then_some(portion)
    })
}
