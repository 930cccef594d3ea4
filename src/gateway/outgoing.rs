//! What goes out of a connection: written at once, or queued in the outbox behind what waits. Answers and frames of
//! streams are told apart: who is too slow for a stream reads it from the store later, who leaves no room for answers is cut.

use std::io::{self, IoSlice};
use std::time::Instant;

use bytes::Bytes;

use super::connection::{Connection, Io, State};
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
}

/// Topics whose next frame had no room, and where their reader stands.
pub type Refused = Vec<(TopicKey, Position)>;

impl Connection {
    /// Says an event to this client alone.
    pub fn say(&self, event: &Event, limits: &Limits, now: Instant) {
        let payload = self.protocol.borrow_mut().codec.encode(event);
        self.send(&wire::text_frame(&payload), limits, now);
    }

    /// Sends an answer, or queues it behind what waits; a connection that has no room even for that is cut.
    pub fn send(&self, frame: &Bytes, limits: &Limits, now: Instant) {
        let io = &mut *self.io.borrow_mut();
        if io.state == State::Open && !self.put(io, frame, limits.outbox, now) {
            self.cut(io, CloseCode::Slow);
        }
    }

    /// Sends a frame of a stream, or queues it. `false`: there is no room, and nothing was done. The hot path: one
    /// system call while the peer keeps up.
    pub fn offer(&self, frame: &Bytes, limits: &Limits, now: Instant) -> bool {
        let io = &mut *self.io.borrow_mut();
        io.state != State::Open || self.put(io, frame, Shares(limits.outbox).streams(io.reading), now)
    }

    fn put(&self, io: &mut Io, frame: &Bytes, most: usize, now: Instant) -> bool {
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
            if !self.offer(&one.frame, limits, now) {
                refused.push((one.topic, one.before));
            }
            return refused;
        }
        let io = &mut *self.io.borrow_mut();
        let most = Shares(limits.outbox).streams(io.reading);
        for part in portions(&pending, if self.batch { ARRAY } else { 0 }) {
            // What follows a frame that was refused is read from the store with it.
            let part: Vec<&Pending> = part.iter().filter(|p| refused.iter().all(|(key, _)| *key != p.topic)).collect();
            let frame = match &part[..] {
                [] => continue,
                [one] => one.frame.clone(),
                _ => wire::array_frame(part.iter().map(|p| &p.frame)),
            };
            if io.state != State::Open {
                return refused;
            }
            if io.outbox.push(frame.clone(), most, now).is_err() {
                // Only what the socket does not take counts as waiting.
                self.write(io, now);
                if io.outbox.push(frame, most, now).is_err() {
                    for Pending { topic, before, .. } in part {
                        if refused.iter().all(|(key, _)| key != topic) {
                            refused.push((*topic, *before));
                        }
                    }
                }
            }
        }
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
                    if self.hungry.get() {
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
