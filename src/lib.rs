//! Fanfare, a real-time notification hub.
//!
//! `ARCHITECTURE.md` draws how data flows through these modules and which may use which.

pub mod dispatcher;
pub mod document;
pub mod domain;
pub mod hub;
pub mod store;
