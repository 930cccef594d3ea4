//! The queue that lives in a Redis: streams that publishers add to, and a list for clients without streams. Here is
//! what the partitions share and what can be set; the partition itself is in `source`.

mod again;
mod dead;
mod foreign;
mod keys;
mod link;
mod source;

use std::sync::Arc;
use std::time::Duration;

pub use dead::RedisDead;
pub use foreign::Watcher;
pub(crate) use source::RedisSource;

pub use super::owner::Terms;
use super::{Board, Pause};
pub use crate::endpoint::Patience;
use keys::Partition;
use link::Link;
use source::Scripts;

#[derive(Debug, Clone)]
pub struct Options {
    /// One of the `endpoint::FORMS`. Publishers write there.
    pub url: String,
    /// The stream that publishers add to, `fanfare:in`. Further partitions have its name with `:1`, `:2` … behind.
    pub stream: String,
    /// The list that publishers push to, `fanfare:list`.
    pub list: String,
    /// Streams, 1 by default.
    pub partitions: u32,
    pub terms: Terms,
    /// How long entries are kept in their stream after they were applied, 60 s; up to twice that where they come
    /// without a pause.
    pub keep: Duration,
    /// The same while a part of the store is away, or what it may have lost is not made up for: an hour. Twice this must
    /// not be more than the record of any topic is kept, or the fences are gone before the entries.
    pub held: Duration,
    /// Dead letters kept of each partition, 10,000; the oldest go first.
    pub dead_letters: usize,
    /// Bytes of one entry that is read, 1 MiB; a larger one is a dead letter.
    pub entry_bytes: usize,
    /// Bytes of one batch, 4 MiB, give or take one entry.
    pub batch_bytes: usize,
    /// How long one command waits for entries, 1 s.
    pub block: Duration,
    pub patience: Patience,
    pub pause: Pause,
}

impl Options {
    /// The defaults, with keys that begin with a prefix.
    pub fn new(url: impl Into<String>, prefix: &str) -> Options {
        Options {
            url: url.into(),
            stream: format!("{prefix}:in"),
            list: format!("{prefix}:list"),
            partitions: 1,
            terms: Terms::default(),
            keep: Duration::from_secs(60),
            held: Duration::from_secs(3600),
            dead_letters: 10_000,
            entry_bytes: 1024 * 1024,
            batch_bytes: 4 * 1024 * 1024,
            block: Duration::from_secs(1),
            patience: Patience { connect: Duration::from_secs(2), response: Duration::from_secs(5) },
            pause: Pause::default(),
        }
    }
}

/// What all partitions of one Redis share.
pub(in crate::dispatcher) struct Shared {
    link: Link,
    scripts: Scripts,
    options: Options,
    /// Names this process among the nodes, for the leases.
    node: String,
    partitions: Vec<Partition>,
}

impl Shared {
    /// Connects nowhere yet; fails only on what can never work.
    pub fn new(options: Options) -> Result<Arc<Shared>, String> {
        for name in [&options.stream, &options.list] {
            keys::check(name)?;
        }
        if options.stream == options.list {
            return Err(format!("the stream and the list cannot both be {:?}", options.stream));
        }
        let link = Link::new(&options.url, options.patience)?;
        let streams = (0..options.partitions.max(1)).map(|number| match number {
            0 => Partition::stream(&options.stream),
            _ => Partition::stream(&format!("{}:{number}", options.stream)),
        });
        let partitions = streams.chain([Partition::list(&options.list)]).collect();
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| format!("no random numbers: {error}"))?;
        let node = format!("{}-{:016x}", std::process::id(), u64::from_le_bytes(random));
        Ok(Arc::new(Shared { link, scripts: Scripts::new(), options, node, partitions }))
    }

    /// A source for each partition, with its board. Their leases are asked for from now on.
    pub fn sources(self: &Arc<Shared>) -> Vec<(RedisSource, Arc<Board>)> {
        let source = |partition: &Partition| {
            let board = Board::new(&partition.name);
            (RedisSource::new(self.clone(), partition.clone(), board.clone()), board)
        };
        self.partitions.iter().map(source).collect()
    }

    /// The server, without a password.
    pub fn shown(&self) -> String {
        self.link.shown()
    }
}
