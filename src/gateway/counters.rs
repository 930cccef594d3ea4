//! What the gateway counts. The names stand, with their help, in `telemetry`.

use crate::domain::error::{CloseCode, Reason};
use crate::domain::store::GapCause;

pub fn count_delivered(count: usize) {
    metrics::counter!("fanfare_delivered_total").increment(count as u64);
}

pub fn count_published(door: &'static str, count: u64) {
    metrics::counter!("fanfare_published_total", "door" => door).increment(count);
}

pub fn count_refused(door: &'static str, reason: Reason) {
    metrics::counter!("fanfare_refused_total", "door" => door, "reason" => reason.as_str()).increment(1);
}

pub fn count_gap(why: GapCause) {
    metrics::counter!("fanfare_gaps_total", "why" => why.as_str()).increment(1);
}

pub fn count_closed(code: CloseCode) {
    metrics::counter!("fanfare_closed_total", "code" => code.code().to_string()).increment(1);
}

pub fn set_connections(count: usize) {
    metrics::gauge!("fanfare_connections").set(count as f64);
}

pub fn set_outbox_bytes(shard: usize, bytes: usize) {
    metrics::gauge!("fanfare_outbox_bytes", "shard" => shard.to_string()).set(bytes as f64);
}
