//! `fanfare.v1`: one frame is one JSON object with one verb. `docs/protocol.md` is its specification.

mod decode;
mod encode;
mod jobs;
mod openings;

use std::sync::Arc;

use bytes::Bytes;

use crate::document;
use crate::domain::codec::{Codec, Format};
use crate::domain::command::{Refusal, Request};
use crate::domain::event::Event;
use crate::domain::limits::Limits;
use crate::domain::message::Message;

/// The codec keeps no state but its bounds.
pub struct Json {
    limits: Arc<Limits>,
}

impl Json {
    pub fn new(limits: Arc<Limits>) -> Json {
        Json { limits }
    }
}

impl Codec for Json {
    fn format(&self) -> Format {
        Format::Json
    }

    fn decode(&mut self, frame: &[u8]) -> Vec<Result<Request, Refusal>> {
        decode::frame(frame, &self.limits)
    }

    fn encode(&mut self, event: &Event) -> Bytes {
        encode::event(event)
    }

    fn message(&self, message: &Message) -> Bytes {
        document::message(message)
    }
}
