//! What operators see: the log's set-up, and the names of all metrics with what they mean.
//!
//! A part counts with the names declared here; nothing of a payload or a token ever becomes a label or a log field.

use std::sync::OnceLock;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

pub const CONNECTIONS: &str = "fanfare_connections";
pub const SUBSCRIPTIONS: &str = "fanfare_subscriptions";
pub const TOPICS: &str = "fanfare_topics";
pub const ACCEPTED: &str = "fanfare_accepted_total";
pub const CLOSED: &str = "fanfare_closed_total";
pub const COMMANDS: &str = "fanfare_commands_total";
pub const PUBLISHED: &str = "fanfare_published_total";
pub const REFUSED: &str = "fanfare_refused_total";
pub const DELIVERED: &str = "fanfare_delivered_total";
pub const GAPS: &str = "fanfare_gaps_total";
pub const BEHIND: &str = "fanfare_subscriptions_behind";
pub const FELL_BEHIND: &str = "fanfare_fell_behind_total";
pub const REJOINED: &str = "fanfare_rejoined_total";
pub const REPAIRS: &str = "fanfare_repairs_total";
pub const CONFLATED: &str = "fanfare_conflated_total";
pub const REPLAYS: &str = "fanfare_replays_total";
pub const HISTORY_BYTES: &str = "fanfare_history_cache_bytes";
pub const OUTBOX_BYTES: &str = "fanfare_outbox_bytes";
pub const APPEND_SECONDS: &str = "fanfare_append_seconds";
pub const READ_SECONDS: &str = "fanfare_read_seconds";
pub const QUEUE_PUT: &str = "fanfare_queue_put_total";
pub const QUEUE_TAKEN: &str = "fanfare_queue_taken_total";
pub const QUEUE_ACKED: &str = "fanfare_queue_acked_total";
pub const QUEUE_NACKED: &str = "fanfare_queue_nacked_total";
pub const QUEUE_RELEASED: &str = "fanfare_queue_released_total";
pub const QUEUE_DEAD: &str = "fanfare_queue_dead_total";
pub const QUEUE_LATE: &str = "fanfare_queue_late_total";
pub const QUEUE_LOST: &str = "fanfare_queue_lost_total";
pub const QUEUE_SWEPT: &str = "fanfare_queue_swept_total";
pub const QUEUE_TAKERS: &str = "fanfare_queue_takers";
pub const LATE_REPLIES: &str = "fanfare_late_replies_total";
pub const BINDING_MISSED: &str = "fanfare_binding_missed_total";
pub const SCHEDULE_RUNS: &str = "fanfare_schedule_runs_total";
pub const WEBHOOKS: &str = "fanfare_webhook_posts_total";
pub const QUEUE_PUT_SECONDS: &str = "fanfare_queue_put_seconds";
pub const STORE_UP: &str = "fanfare_store_up";
pub const FEED_INTERRUPTIONS: &str = "fanfare_feed_interruptions_total";
pub const INGEST_ENTRIES: &str = "fanfare_ingest_entries_total";
pub const INGEST_STOPS: &str = "fanfare_ingest_stops_total";
pub const INGEST_LAG: &str = "fanfare_ingest_lag_entries";
pub const INGEST_LAG_SECONDS: &str = "fanfare_ingest_lag_seconds";
pub const INGEST_OWNER: &str = "fanfare_ingest_owner";
pub const INGEST_DEAD: &str = "fanfare_ingest_dead_total";
pub const INGEST_TRIMMED: &str = "fanfare_ingest_trimmed_total";
pub const DOOR_CONNECTIONS: &str = "fanfare_door_connections";
pub const DOOR_CLOSED: &str = "fanfare_door_closed_total";
pub const DEAD_DISPLACED: &str = "fanfare_dead_letters_displaced_total";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Counter,
    Gauge,
    /// Seconds, in buckets.
    Seconds,
}

pub struct Metric {
    pub name: &'static str,
    pub shape: Shape,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

const fn metric(name: &'static str, shape: Shape, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, shape, labels, help }
}

/// All of them.
pub const METRICS: &[Metric] = &[
    metric(CONNECTIONS, Shape::Gauge, &[], "Open connections of this node."),
    metric(SUBSCRIPTIONS, Shape::Gauge, &["shard"], "Subscriptions of those connections."),
    metric(TOPICS, Shape::Gauge, &[], "Topics that at least one of them is subscribed to."),
    metric(ACCEPTED, Shape::Counter, &["transport"], "Connections accepted."),
    metric(
        CLOSED,
        Shape::Counter,
        &["code"],
        "Connections closed, by close code; 1000 where the peer closed, 1006 where it just went.",
    ),
    metric(COMMANDS, Shape::Counter, &["verb"], "Commands read from connections."),
    metric(PUBLISHED, Shape::Counter, &["door"], "Messages stored, by the door they came through."),
    metric(REFUSED, Shape::Counter, &["door", "reason"], "Requests, frames and entries refused, by error word."),
    metric(DELIVERED, Shape::Counter, &[], "Messages handed to connections."),
    metric(GAPS, Shape::Counter, &["why"], "Gaps told to subscribers, by cause."),
    metric(
        BEHIND,
        Shape::Gauge,
        &["shard"],
        "Subscriptions that are not in a live stream: they wait for it, or are read on from the store.",
    ),
    metric(
        FELL_BEHIND,
        Shape::Counter,
        &["why"],
        "Times a live subscription went back to reading the store: slow, or lost (on its way inside this node).",
    ),
    metric(REJOINED, Shape::Counter, &["why"], "Times such a subscription was back in the live stream."),
    metric(REPAIRS, Shape::Counter, &[], "Holes between hub and shard that listeners read from the store; a bug."),
    metric(
        CONFLATED,
        Shape::Counter,
        &[],
        "Messages of mode `latest` that slow subscribers were not given since newer ones replaced them.",
    ),
    metric(
        REPLAYS,
        Shape::Counter,
        &["from"],
        "Pages of history for subscribers, by where they came from: memory, a shared read, the store.",
    ),
    metric(HISTORY_BYTES, Shape::Gauge, &[], "Bytes of newest messages kept in memory for those who come back."),
    metric(OUTBOX_BYTES, Shape::Gauge, &["shard"], "Bytes that wait in the outboxes of connections."),
    metric(APPEND_SECONDS, Shape::Seconds, &[], "Time the store takes to append."),
    metric(READ_SECONDS, Shape::Seconds, &[], "Time the store takes to read a page."),
    metric(QUEUE_PUT, Shape::Counter, &[], "Jobs stored by this node."),
    metric(QUEUE_TAKEN, Shape::Counter, &[], "Deliveries of jobs begun by this node."),
    metric(QUEUE_ACKED, Shape::Counter, &[], "Deliveries that ended with an acknowledgement."),
    metric(
        QUEUE_NACKED,
        Shape::Counter,
        &[],
        "Deliveries that failed and come again: nack, or a connection that closed.",
    ),
    metric(QUEUE_RELEASED, Shape::Counter, &[], "Deliveries given back before they began, and not counted as tries."),
    metric(QUEUE_DEAD, Shape::Counter, &[], "Deliveries that ended as dead letters: term, or the last try."),
    metric(QUEUE_LATE, Shape::Counter, &[], "Settlements that came when the delivery was over."),
    metric(QUEUE_LOST, Shape::Counter, &[], "Leases that ended while a connection of this node held the job."),
    metric(
        QUEUE_SWEPT,
        Shape::Counter,
        &[],
        "Jobs that sweeps of this node moved: leases and delays that ended, jobs that expired.",
    ),
    metric(QUEUE_TAKERS, Shape::Gauge, &[], "Workers of this node that take from queues, once for each queue."),
    metric(LATE_REPLIES, Shape::Counter, &[], "Replies that nobody waited for any more."),
    metric(
        BINDING_MISSED,
        Shape::Counter,
        &[],
        "Messages of bound topics that history did not keep until they were jobs.",
    ),
    metric(SCHEDULE_RUNS, Shape::Counter, &[], "Runs of schedules that this node was the one to do."),
    metric(
        WEBHOOKS,
        Shape::Counter,
        &["result"],
        "Posts of firings to webhooks: accepted, failed (tried again), given-up (a firing that no try was accepted of).",
    ),
    metric(QUEUE_PUT_SECONDS, Shape::Seconds, &[], "Time the store takes to put jobs."),
    metric(STORE_UP, Shape::Gauge, &["store"], "1 while the store works, else 0."),
    metric(FEED_INTERRUPTIONS, Shape::Counter, &[], "Times the store's feed was interrupted."),
    metric(
        INGEST_ENTRIES,
        Shape::Counter,
        &["source", "result"],
        "Ingest entries settled: stored, repeated, skipped (applied before), dead, failed.",
    ),
    metric(
        INGEST_STOPS,
        Shape::Counter,
        &["source", "reason"],
        "Times that a batch stopped at an entry and was tried again.",
    ),
    metric(INGEST_LAG, Shape::Gauge, &["source"], "Ingest entries that wait to be applied."),
    metric(INGEST_LAG_SECONDS, Shape::Gauge, &["source"], "Age of the oldest ingest entry that waits."),
    metric(INGEST_OWNER, Shape::Gauge, &["source"], "1 while this node works on the partition."),
    metric(INGEST_DEAD, Shape::Counter, &["source", "reason"], "Ingest entries put aside as dead letters."),
    metric(
        INGEST_TRIMMED,
        Shape::Counter,
        &["source"],
        "Ingest entries that a publisher trimmed away before they were read.",
    ),
    metric(DOOR_CONNECTIONS, Shape::Gauge, &[], "Open connections of the Redis-protocol door."),
    metric(DOOR_CLOSED, Shape::Counter, &["why"], "Connections that the door closed."),
    metric(DEAD_DISPLACED, Shape::Counter, &[], "Dead letters that went because newer ones needed their place."),
];

const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// The metrics of this process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Begins to count; the process has one recorder, so a second call answers the first one's.
    pub fn start() -> Metrics {
        static STARTED: OnceLock<Metrics> = OnceLock::new();
        STARTED.get_or_init(install).clone()
    }

    /// Prometheus' text format.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Sorts what was measured into its buckets. To be called every few seconds, or memory grows until the next scrape.
    pub fn tidy(&self) {
        self.0.run_upkeep();
    }
}

fn install() -> Metrics {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS.iter().filter(|metric| metric.shape == Shape::Seconds) {
        let name = Matcher::Full(metric.name.to_string());
        builder = builder.set_buckets_for_metric(name, &BUCKETS).expect("there are buckets");
    }
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::error!("another recorder of metrics is installed; ours shows nothing");
    }
    for metric in METRICS {
        match metric.shape {
            Shape::Counter => describe_counter!(metric.name, metric.help),
            Shape::Gauge => describe_gauge!(metric.name, metric.help),
            Shape::Seconds => describe_histogram!(metric.name, Unit::Seconds, metric.help),
        }
    }
    Metrics(handle)
}

/// Begins to log to standard error: `targets` like `info,fanfare::store=debug`, as JSON lines or for people.
pub fn start_log(targets: &str, json: bool) {
    let targets: Targets = targets.parse().unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr);
    let layer = if json { layer.json().flatten_event(true).boxed() } else { layer.with_target(false).boxed() };
    // A second start, as in tests, keeps the first.
    let _ = tracing_subscriber::registry().with(layer.with_filter(targets)).try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus_and_stand_once() {
        for (i, metric) in METRICS.iter().enumerate() {
            let Metric { name, shape, labels, help } = metric;
            assert!(!METRICS[..i].iter().any(|m| m.name == *name), "{name} stands twice");
            assert!(name.starts_with("fanfare_") && help.ends_with('.'), "{name}");
            assert_eq!(*shape == Shape::Counter, name.ends_with("_total"), "{name}");
            assert!(*shape != Shape::Seconds || name.ends_with("_seconds"), "{name}");
            assert!(labels.iter().all(|label| !label.is_empty()));
        }
    }

    #[test]
    fn what_is_counted_is_shown_with_its_help() {
        let shown = Metrics::start();
        metrics::counter!(PUBLISHED, "door" => "test").increment(3);
        metrics::histogram!(APPEND_SECONDS).record(0.003);
        shown.tidy();
        let text = shown.render();
        assert!(text.contains("fanfare_published_total{door=\"test\"} 3"), "{text}");
        assert!(text.contains("# HELP fanfare_published_total Messages stored"), "{text}");
        assert!(text.contains("fanfare_append_seconds_bucket{le=\"0.005\"} 1"), "{text}");
    }
}
