//! The contract of a wire protocol: bytes to requests, events to bytes. Decoding never executes anything.

use bytes::Bytes;

use super::command::{Refusal, Request};
use super::event::Event;
use super::message::Message;

/// How messages look on the wire of a protocol. A message is encoded once per format and shared by all its readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    /// JSON in the lines of an event stream (SSE).
    EventStream,
}

impl Format {
    pub const COUNT: usize = 2;

    pub fn index(self) -> usize {
        self as usize
    }
}

/// One connection's codec; it may keep state.
pub trait Codec {
    fn format(&self) -> Format;

    /// Reads one frame of the client: one request, or several in an array.
    fn decode(&mut self, frame: &[u8]) -> Vec<Result<Request, Refusal>>;

    /// Writes one event as the payload of one frame.
    fn encode(&mut self, event: &Event) -> Bytes;

    /// Writes a message as the payload of one frame, the same for all connections of this format.
    fn message(&self, message: &Message) -> Bytes;
}
