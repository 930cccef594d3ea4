//! The hub's own Redis-protocol door: the same replies as a Redis with a dispatcher behind it, bounds, bad input, and the
//! clients that people use.

#[path = "door/bad_input.rs"]
mod bad_input;
#[path = "door/clients.rs"]
mod clients;
#[path = "support/ingest.rs"]
mod ingest;
#[path = "door/publishing.rs"]
mod publishing;
#[path = "door/raw.rs"]
mod raw;
#[path = "door/script.rs"]
mod script;
#[path = "support/redis.rs"]
mod server;
