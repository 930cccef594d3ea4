//! Stores: where topics are kept. One folder each; `open` chooses one by its URL. What a store promises is in
//! `domain::store`, and every store is held to it by `tests/store_conformance.rs`.

mod clock;
mod cursors;
pub mod embedded;
pub mod redis;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use self::clock::Clock;
use crate::domain::cursor::{CursorBounds, Cursors};
use crate::domain::dead::DeadLetterBox;
use crate::domain::message::Durability;
use crate::domain::queue::{QueueKeeper, QueueRules};
use crate::domain::store::{Retention, Store, StoreError};
use crate::domain::topic::Rule;
use crate::endpoint;

/// What a store needs to know. What only one of them uses says so.
#[derive(Clone)]
pub struct Options {
    /// Begins all keys and channels (Redis).
    pub prefix: String,
    /// How every topic is kept, and what is said of some by pattern; the first rule that a topic meets counts.
    pub retention: Retention,
    pub rules: Vec<Rule>,
    pub cursors: CursorBounds,
    /// How queues are kept that have no settings of their own.
    pub queues: QueueRules,
    /// The level of acknowledgement where nothing is asked for; none: what the store gives without waiting for others.
    pub durability: Option<Durability>,
    /// Replicas that must have a message of the level `replica`, and how long that may take (Redis).
    pub replicas: usize,
    pub replica_wait: Duration,
    /// What the operator says of `appendfsync`, where the server does not tell (Redis).
    pub fsync: Option<String>,
    /// Events that wait for the reader of the feed before the store waits for it (embedded) or drops messages and says
    /// so (Redis).
    pub feed_capacity: usize,
    /// Bytes of all messages together; beyond it the oldest go first (embedded). 0: what fits the store.
    pub total_bytes: u64,
    /// Open a store on disk that has lost or damaged data, with what is whole of it.
    pub accept_loss: bool,
    /// Topics with a record; beyond it new ones are refused (embedded).
    pub topics: usize,
    /// Idempotency keys remembered at a time; beyond it publishes with a new key are refused (embedded).
    pub idempotency_keys: u64,
    /// Queues with a record; bytes of the bodies of all jobs together (0: what fits the store); keys of jobs remembered at a
    /// time. Beyond each of them what would need more is refused with `Full` (embedded).
    pub queue_count: usize,
    pub queue_bytes: u64,
    pub queue_keys: u64,
    /// Calls that wait for the store's thread and the bytes they hold; beyond either a call is refused with
    /// `Unavailable` (embedded).
    pub waiting_calls: usize,
    pub waiting_bytes: usize,
    /// Dead letters kept for the hub's own door; beyond it the oldest go (embedded).
    pub dead_letters: usize,
    /// How long connecting and an answer may take (Redis).
    pub connect_timeout: Duration,
    pub response_timeout: Duration,
    /// Tests move it (embedded).
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            prefix: "fanfare".into(),
            retention: Retention::default(),
            rules: Vec::new(),
            cursors: CursorBounds::default(),
            queues: QueueRules::default(),
            durability: None,
            replicas: 1,
            replica_wait: Duration::from_secs(1),
            fsync: None,
            feed_capacity: 16_384,
            total_bytes: 0,
            accept_loss: false,
            topics: 1_000_000,
            idempotency_keys: 1_000_000,
            queue_count: 10_000,
            queue_bytes: 0,
            queue_keys: 1_000_000,
            waiting_calls: 65_536,
            waiting_bytes: 64 * 1024 * 1024,
            dead_letters: 10_000,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(5),
            clock: Clock::of_machine(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("prefix", &self.prefix)
            .field("retention", &self.retention)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("{0:?} names no store; use memory, disk:PATH or redis://HOST:PORT")]
    Unknown(String),
    #[error("{0:?} names no folder; write disk:PATH")]
    NoFolder(String),
    #[error("{0}")]
    Disk(String),
    #[error("the level {:?} was asked for (--durability), and this store gives {:?}", asked.as_str(), gives.as_str())]
    Level { asked: Durability, gives: Durability },
    #[error("the store does not open: {0}")]
    Failed(#[from] StoreError),
    #[error(transparent)]
    Redis(#[from] redis::OpenError),
}

/// What a copy of a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub topics: u64,
    pub messages: u64,
}

pub struct Opened {
    pub store: Arc<dyn Store>,
    pub cursors: Arc<dyn Cursors>,
    /// None: this store keeps no queues.
    pub queues: Option<QueueKeeper>,
    /// Where the hub's own door keeps its dead letters: an embedded store has it, Redis keeps them beside its streams.
    pub embedded_dead: Option<Arc<dyn DeadLetterBox>>,
}

/// Opens the store that a URL names, if it can give what was asked for.
pub async fn open(url: &str, options: Options) -> Result<Opened, OpenError> {
    let asked = options.durability;
    let opened = open_any(url, options).await?;
    let gives = opened.store.status().durability;
    match asked.filter(|asked| *asked > gives) {
        Some(asked) => Err(OpenError::Level { asked, gives }),
        None => Ok(opened),
    }
}

async fn open_any(url: &str, options: Options) -> Result<Opened, OpenError> {
    match url.split(':').next().unwrap_or_default() {
        "memory" if url == "memory" => {
            let embedded::Ends { store, cursors, dead, queues } = embedded::open_in_memory(&options)?;
            Ok(Opened { store, cursors, queues: Some(queues), embedded_dead: Some(dead) })
        }
        "disk" => {
            let folder = folder(url)?;
            // It reads all that is there.
            let opened = tokio::task::spawn_blocking(move || embedded::open_on_disk(&folder, &options)).await;
            let opened = opened.expect("opening does not panic");
            let embedded::Ends { store, cursors, dead, queues } = opened.map_err(|e| OpenError::Disk(e.to_string()))?;
            Ok(Opened { store, cursors, queues: Some(queues), embedded_dead: Some(dead) })
        }
        _ if endpoint::is_redis(url) => {
            let own = redis::RedisOptions {
                prefix: options.prefix,
                retention: options.retention,
                rules: options.rules,
                durability: options.durability,
                replicas: options.replicas,
                replica_wait: options.replica_wait,
                fsync: options.fsync,
                cursors: options.cursors,
                queues: options.queues,
                feed_messages: options.feed_capacity,
                connect_timeout: options.connect_timeout,
                response_timeout: options.response_timeout,
                ..redis::RedisOptions::default()
            };
            let store = redis::open(url, own).await?;
            let queues = Some(store.queues());
            Ok(Opened { cursors: store.cursors(), queues, store: Arc::new(store), embedded_dead: None })
        }
        _ => Err(OpenError::Unknown(without_password(url))),
    }
}

/// Copies the store of a folder into one file, while a hub uses it or not; says what the copy holds.
pub fn back_up(url: &str, to: &Path) -> Result<Held, OpenError> {
    embedded::back_up(&folder(url)?, to).map_err(|error| OpenError::Disk(error.to_string()))
}

/// Makes the store of a folder from a backup, with a new life of every topic. There must be none.
pub fn restore(url: &str, from: &Path) -> Result<Held, OpenError> {
    embedded::restore(&folder(url)?, from).map_err(|error| OpenError::Disk(error.to_string()))
}

/// The folder of `disk:PATH`.
fn folder(url: &str) -> Result<PathBuf, OpenError> {
    match url.strip_prefix("disk:") {
        Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
        _ => Err(OpenError::NoFolder(url.to_owned())),
    }
}

/// A URL as it may be shown.
fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://…{}", &url[..scheme], &url[at..]),
        _ => url.to_owned(),
    }
}
