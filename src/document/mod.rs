//! The message document: the JSON that every door speaks, read and written in one place.
//!
//! A publisher hands in `{"topic":…,"data":…}` with optional fields, through whatever door; out of every door comes the
//! message, the same document with `at` and `time`. This module turns the first into a `Publication` with its canonical
//! body and a stored `Message` back into bytes. What a door adds (verbs, URLs, RESP) is the door's own.

mod body;
mod members;
mod moment;
mod read;

pub use body::{compact, message, quote, quote_into};
pub use members::{Members, json_problem, value};
pub use moment::{now, since, take_since};
pub use read::{Content, Document, durability, fields, many, one, seconds, seconds_of};
