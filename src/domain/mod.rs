//! Fanfare's words, its contracts and its pure machines.
//!
//! Nothing here does I/O, reads a clock, knows JSON or imports another part of the crate: time comes in as
//! an argument, and what must happen goes out as a value. Everything else in the crate points here.

pub mod access;
pub mod binding;
pub mod bookmark;
pub mod codec;
pub mod command;
pub mod cursor;
pub mod dead;
pub mod error;
pub mod event;
pub mod limits;
pub mod lives;
pub mod message;
pub mod name;
pub mod nearest;
pub mod position;
pub mod queue;
pub mod rate;
pub mod replay;
pub mod schedule;
pub mod secret;
pub mod session;
pub mod store;
pub mod topic;
pub mod webhook;
