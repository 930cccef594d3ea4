//! Fanfare, a real-time notification hub.
//!
//! `ARCHITECTURE.md` draws how data flows through these modules and which may use which.

pub mod api;
pub mod cli;
pub mod config;
pub mod demo;
pub mod dispatcher;
pub mod doctor;
pub mod document;
pub mod domain;
pub mod endpoint;
pub mod gateway;
pub mod herald;
pub mod hub;
pub mod protocol;
pub mod scheduler;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod web;
