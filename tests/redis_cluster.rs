//! What is particular to a Redis Cluster, on three real masters with a replica each: slots that move under load, masters
//! that die, and what an ingest queue makes up for. The contract itself is held by `store_conformance.rs`.

#[path = "redis_cluster/ingest.rs"]
mod bridged;
#[path = "support/ingest.rs"]
mod ingest;
#[path = "redis_cluster/moves.rs"]
mod moves;
#[path = "redis_cluster/outages.rs"]
mod outages;
#[path = "support/cluster.rs"]
mod servers;
#[path = "support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use fanfare::domain::position::Position;
use fanfare::domain::store::{Append, Appended, FeedEvent, ReadFrom, ReadLimit, Retention, Store, StoreError, Watch};
use fanfare::store::redis::{RedisOptions, open};
use futures::StreamExt;
use futures::stream::BoxStream;
use servers::Cluster;
use support::topic;

/// Longer than anything here should take; reaching it is a failure.
const SOON: Duration = Duration::from_secs(60);
/// So long that no server is given up because the machine is busy.
const NEVER: Duration = Duration::from_secs(60);
/// After how much silence of a master its replica takes over, where it shall.
const SHORT: Duration = Duration::from_secs(2);

fn message(name: &str, body: &str) -> Append {
    support::item(&topic(name), body.to_owned())
}

async fn store(cluster: &Cluster) -> Arc<dyn Store> {
    let retention = Retention { messages: 1_000_000, ..Retention::default() };
    let options = RedisOptions {
        retention,
        response_timeout: Duration::from_secs(3),
        connect_timeout: Duration::from_secs(1),
        ping: Duration::from_millis(200),
        retry_min: Duration::from_millis(20),
        retry_max: Duration::from_millis(100),
        ..RedisOptions::default()
    };
    Arc::new(open(&cluster.url(), options).await.unwrap())
}

async fn put(store: &dyn Store, name: &str, body: &str) -> Result<Position, StoreError> {
    match store.append(vec![message(name, body)]).await.remove(0)? {
        Appended::Stored { at, .. } | Appended::Repeated { at, .. } => Ok(at),
        Appended::Skipped => panic!("no fence was given"),
    }
}

/// Puts until it is taken.
async fn put_at_last(store: &dyn Store, name: &str, body: &str) -> Position {
    let trying = async {
        loop {
            if let Ok(at) = put(store, name, body).await {
                return at;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, trying).await.expect("it is taken in the end")
}

/// Everything that a topic keeps, of all its lives.
async fn all(store: &dyn Store, name: &str) -> Vec<(Position, String)> {
    let (name, mut from) = (topic(name), "zzzzzzz.0".parse::<Position>().unwrap());
    let mut bodies = Vec::new();
    loop {
        let page = store.read(&name, ReadFrom::After(from), ReadLimit::default()).await.unwrap();
        bodies.extend(page.messages.iter().map(|m| (m.at, String::from_utf8_lossy(m.body.as_bytes()).into_owned())));
        if page.is_last() {
            return bodies;
        }
        from = page.end;
    }
}

/// Topics whose group is served by a master now.
fn topics_on(cluster: &Cluster, server: usize, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    for n in 0.. {
        let name = format!("t{n}");
        if cluster.owner(slot_of(cluster, &name)) == server {
            found.push(name);
        }
        if found.len() == count {
            break;
        }
    }
    found
}

/// The slot of a topic, by the name of its log as `docs/decisions/keys.md` has it.
fn slot_of(cluster: &Cluster, name: &str) -> u16 {
    let group = crc16(name.as_bytes()) % 256;
    cluster.slot_of(&format!("fanfare:{{t{group}}}:log:{name}"))
}

/// CRC16 (XMODEM), bit by bit.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 })
    })
}

struct Ear {
    events: BoxStream<'static, FeedEvent>,
    watch: Box<dyn Watch>,
}

impl Ear {
    fn open(store: &dyn Store) -> Ear {
        let (watch, events) = store.feed();
        Ear { events, watch }
    }

    /// Hears events until one fits, and answers them all in short words.
    async fn until(&mut self, last: &str) -> Vec<String> {
        let mut heard = Vec::new();
        while heard.last().is_none_or(|word| word != last) {
            let event = tokio::time::timeout(SOON, self.events.next()).await;
            let word = match event.unwrap_or_else(|_| panic!("{last} after {heard:?}")).expect("the feed goes on") {
                FeedEvent::Watching(topic) => format!("watching {topic}"),
                FeedEvent::Message(message) => String::from_utf8_lossy(message.body.as_bytes()).into_owned(),
                FeedEvent::Interrupted => "interrupted".into(),
                FeedEvent::Restored => "restored".into(),
            };
            heard.push(word);
        }
        heard
    }

    async fn watch(&mut self, name: &str) {
        self.watch.watch(&topic(name));
        self.until(&format!("watching {name}")).await;
    }
}
