//! Wire protocols: one file each; this one picks a codec by the WebSocket subprotocol.

mod json;

use std::sync::Arc;

use crate::domain::codec::Codec;
use crate::domain::limits::Limits;

/// The subprotocol of our own protocol.
pub const NATIVE: &str = "fanfare.v1";

/// The subprotocol to echo, out of those that a client offers. A client that offers none that we know gets none and
/// speaks our own protocol: a bare `new WebSocket(url)` needs nothing else.
pub fn choose<'a>(offered: impl IntoIterator<Item = &'a str>) -> Option<&'static str> {
    offered.into_iter().any(|p| p.trim() == NATIVE).then_some(NATIVE)
}

/// A codec for one connection.
pub fn codec(_subprotocol: Option<&str>, limits: &Arc<Limits>) -> Box<dyn Codec> {
    Box::new(json::Json::new(limits.clone()))
}
