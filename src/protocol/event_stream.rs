//! The documents of another protocol as Server-Sent Events: a message is an event without a type, whatever else the hub says
//! is one of the type named here. The line of the id stands first in a message, so that a transport can put another in
//! its place; other events come without one.

use bytes::{BufMut, Bytes, BytesMut};

use crate::domain::codec::{Codec, Format};
use crate::domain::command::{Refusal, Request};
use crate::domain::event::Event;
use crate::domain::message::Message;

/// The codec of one stream, around the codec of its documents. Its client has no way to say anything.
pub struct EventStream(pub Box<dyn Codec>);

impl Codec for EventStream {
    fn format(&self) -> Format {
        Format::EventStream
    }

    fn decode(&mut self, _frame: &[u8]) -> Vec<Result<Request, Refusal>> {
        Vec::new()
    }

    fn encode(&mut self, event: &Event) -> Bytes {
        let name = match event {
            Event::Hello { .. } => "hello",
            Event::Subscribed { .. } => "subscribed",
            Event::Gap { .. } => "gap",
            Event::Error { .. } => "error",
            _ => "reply",
        };
        // A document is one line: JSON escapes line breaks, and white space between tokens is left out.
        lines(&format!("event: {name}\n"), &self.0.encode(event))
    }

    fn message(&self, message: &Message) -> Bytes {
        lines(&format!("id: {}\n", message.at), &self.0.message(message))
    }
}

fn lines(head: &str, document: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(head.len() + document.len() + 8);
    out.put_slice(head.as_bytes());
    out.put_slice(b"data: ");
    out.put_slice(document);
    out.put_slice(b"\n\n");
    out.freeze()
}
