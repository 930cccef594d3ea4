//! What every door that speaks HTTP shares: the gate before it, the document that a failure is told with, and the socket
//! under a connection.

mod failure;
mod gate;
mod socket;

pub use failure::Failure;
pub use gate::{gated, judge};
pub use socket::{HandOver, Socket, Taken, answer};
