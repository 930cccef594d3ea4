//! The message document: the JSON that every door speaks, read and written in one place.
//!
//! A publisher hands in `{"topic":…,"data":…}` with optional fields, through whatever door; out of every door comes the
//! message, the same document with `at` and `time`. This module turns the first into a `Publication` with its canonical
//! body and a stored `Message` back into bytes. With `queue` in place of `topic` it is a job and becomes a `Put`. What a door
//! adds (verbs, URLs, RESP) is the door's own.
//!
//! The settings of a queue are a document too: `read_settings` and `write_settings`.

mod body;
mod bound;
mod given;
mod job;
mod members;
mod moment;
mod read;
mod reply;
mod settings;
mod signal;
mod work;

pub use body::{compact, message, quote, quote_into};
pub use bound::{binding, bound, headers};
pub use given::{job, parse_place, place, seen};
pub use job::{Asked, JobTerms, asked};
pub use members::{Members, json_problem, value};
pub use moment::{now, since, take_since};
pub use read::{Content, Document, Item, durability, fields, many, one, seconds, seconds_of};
pub use reply::{address, read_reply, reply, reply_body};
pub use settings::{read_settings, write_settings, write_some};
pub use signal::{Rates, data, figures, firing, published, read_run, run, stats, told_totals};
pub use work::{delay, error_text, lease, timeout};
