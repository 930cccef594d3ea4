//! Wire protocols: one file each; this one picks a codec by the WebSocket subprotocol, or for an event stream.

mod event_stream;
mod json;

use std::sync::Arc;

use crate::domain::codec::Codec;
use crate::domain::limits::Limits;

/// The subprotocol of our own protocol.
pub const NATIVE: &str = "fanfare.v1";

/// What stands for an event stream among the subprotocols; no WebSocket can ask for it.
pub const EVENT_STREAM: &str = "text/event-stream";

/// The subprotocol to echo, out of those that a client offers. A client that offers none that we know gets none and
/// speaks our own protocol: a bare `new WebSocket(url)` needs nothing else.
pub fn choose<'a>(offered: impl IntoIterator<Item = &'a str>) -> Option<&'static str> {
    offered.into_iter().any(|p| p.trim() == NATIVE).then_some(NATIVE)
}

/// A codec for one connection.
pub fn codec(subprotocol: Option<&str>, limits: &Arc<Limits>) -> Box<dyn Codec> {
    let json = Box::new(json::Json::new(limits.clone()));
    match subprotocol {
        Some(EVENT_STREAM) => Box::new(event_stream::EventStream(json)),
        _ => json,
    }
}
