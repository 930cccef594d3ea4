//! What every door that speaks HTTP shares: the gate before it, and the document that a failure is told with.

mod failure;
mod gate;

pub use failure::Failure;
pub use gate::{gated, judge};
