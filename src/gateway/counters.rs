//! What the gateway counts. The names stand, with their help, in `telemetry`.

use metrics::{counter, gauge};

use crate::domain::error::Reason;
use crate::domain::replay::Lag;
use crate::domain::store::GapCause;
use crate::telemetry;

pub const WEBSOCKET: &str = "websocket";
pub const SSE: &str = "sse";

pub fn count_accepted(transport: &'static str) {
    counter!(telemetry::ACCEPTED, "transport" => transport).increment(1);
}

pub fn count_command(verb: &'static str) {
    counter!(telemetry::COMMANDS, "verb" => verb).increment(1);
}

pub fn count_delivered(count: usize) {
    counter!(telemetry::DELIVERED).increment(count as u64);
}

pub fn count_published() {
    counter!(telemetry::PUBLISHED, "door" => WEBSOCKET).increment(1);
}

pub fn count_refused(door: &'static str, reason: Reason) {
    counter!(telemetry::REFUSED, "door" => door, "reason" => reason.as_str()).increment(1);
}

pub fn count_gap(why: GapCause) {
    counter!(telemetry::GAPS, "why" => why.as_str()).increment(1);
}

/// `None`: the peer just went.
pub fn count_closed(code: Option<u16>) {
    counter!(telemetry::CLOSED, "code" => code.unwrap_or(1006).to_string()).increment(1);
}

pub fn set_connections(count: usize) {
    gauge!(telemetry::CONNECTIONS).set(count as f64);
}

/// Of one shard.
pub fn set_load(shard: usize, subscriptions: usize, outbox_bytes: usize) {
    let shard = shard.to_string();
    gauge!(telemetry::SUBSCRIPTIONS, "shard" => shard.clone()).set(subscriptions as f64);
    gauge!(telemetry::OUTBOX_BYTES, "shard" => shard).set(outbox_bytes as f64);
}

/// Of one shard: subscriptions that are not in a live stream.
pub fn set_behind(shard: usize, subscriptions: usize) {
    gauge!(telemetry::BEHIND, "shard" => shard.to_string()).set(subscriptions as f64);
}

pub fn count_fell_behind(lag: Lag) {
    counter!(telemetry::FELL_BEHIND, "why" => word(lag)).increment(1);
}

pub fn count_rejoined(lag: Lag) {
    counter!(telemetry::REJOINED, "why" => word(lag)).increment(1);
}

pub fn count_repair() {
    counter!(telemetry::REPAIRS).increment(1);
}

/// Messages that a slow subscriber was not given since newer ones of their key replaced them.
pub fn count_conflated(messages: u64) {
    counter!(telemetry::CONFLATED).increment(messages);
}

fn word(lag: Lag) -> &'static str {
    match lag {
        Lag::Slow => "slow",
        Lag::Lost => "lost",
    }
}
