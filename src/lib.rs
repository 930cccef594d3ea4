//! Fanfare, a real-time notification hub.
//!
//! The modules stand in the order in which data flows; `ARCHITECTURE.md` draws the arrows between them.

pub mod domain;
pub mod store;
