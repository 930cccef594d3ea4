//! Every bound that a client can meet, once. The configuration fills it; `hello` and the docs tell it.

use std::time::Duration;

/// Bytes of newest messages that a node keeps for those who come back, unless set otherwise.
pub const HISTORY_CACHE: usize = 32 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one frame, of one HTTP body of one message, of one ingest entry's data.
    pub frame: usize,
    /// Bytes of one HTTP body of many messages.
    pub batch_body: usize,
    /// Messages in one `POST /v1/messages`.
    pub batch: usize,
    /// Depth of nested JSON.
    pub depth: usize,
    /// Topics that one connection subscribes to.
    pub subscriptions: usize,
    /// Commands a second, and how many at once.
    pub rate: u32,
    pub burst: u32,
    /// Commands in one array.
    pub array: usize,
    /// Commands of one connection that wait for the store at the same time.
    pub in_flight: usize,
    /// Messages in one answer to `history`, and in one `GET …/messages`.
    pub history: u32,
    /// Jobs of one queue that one connection may hold at once.
    pub credit: usize,
    /// Queues that one connection takes from, and jobs that it may hold in all.
    pub takes: usize,
    pub held: usize,
    /// How long a request may wait for its reply.
    pub timeout: Duration,
    /// Bytes that wait for one connection, and how long its peer may take none of them.
    pub outbox: usize,
    pub outbox_age: Duration,
    /// Seconds between pings, and how long the pong may take.
    pub ping: Duration,
    pub pong: Duration,
    /// Bad frames in a row until the connection is closed.
    pub strikes: u32,
    /// Connections of one node.
    pub connections: usize,
    /// Bytes of memory that wait for all of them, and in caches; 0: 70 % of what the process may have.
    pub memory: usize,
    /// Flat strings in `tags`, and their bytes together.
    pub tags: usize,
    pub tag_bytes: usize,
    /// Bytes of `name`, `key`, `idempotency_key` and an `id`.
    pub word: usize,
    pub ttl: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            frame: 64 * 1024,
            batch_body: 4 * 1024 * 1024,
            batch: 1_000,
            depth: 32,
            subscriptions: 1_000,
            rate: 100,
            burst: 200,
            array: 100,
            in_flight: 64,
            history: 1_000,
            credit: 1_000,
            takes: 100,
            held: 10_000,
            timeout: Duration::from_secs(60),
            outbox: 1024 * 1024,
            outbox_age: Duration::from_secs(10),
            ping: Duration::from_secs(25),
            pong: Duration::from_secs(10),
            strikes: 3,
            connections: 100_000,
            memory: 0,
            tags: 16,
            tag_bytes: 2 * 1024,
            word: 200,
            ttl: Duration::from_secs(30 * 24 * 3600),
        }
    }
}
