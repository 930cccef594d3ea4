//! What stands beside queues: firings that are told, messages that become jobs, schedules. Held against every store that
//! keeps queues; what concerns several nodes runs on a real Redis.

#[path = "beside_queues/bindings.rs"]
mod bindings;
#[path = "beside_queues/doors.rs"]
mod doors;
#[path = "beside_queues/figures.rs"]
mod figures;
#[path = "beside_queues/firings.rs"]
mod firings;
#[path = "support/hub.rs"]
mod hub;
#[path = "beside_queues/schedules.rs"]
mod schedules;
#[path = "support/redis.rs"]
mod server;
#[path = "support/mod.rs"]
mod support;
#[path = "support/tls_receiver.rs"]
mod tls_receiver;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfare::document;
use fanfare::domain::binding::Binding;
use fanfare::domain::message::{Body, Message, Publication};
use fanfare::domain::queue::*;
use fanfare::domain::store::{ReadFrom, ReadLimit, Store};
use fanfare::hub::Hub;
use fanfare::hub::bindings::Wording;
use fanfare::store::{Options, open};
use server::RedisServer;
use support::topic;

/// Longer than anything here should take; reaching it is a failure.
const SOON: Duration = Duration::from_secs(30);
const WORDING: Wording = Wording { headers: document::headers, bound: document::bound, binding: document::binding };

/// Where queues are kept: a store in this process, or a Redis of its own that each node opens for itself.
enum Place {
    Embedded { store: Arc<dyn Store>, queues: QueueKeeper, _folder: Option<tempfile::TempDir> },
    Redis { server: RedisServer, options: Box<Options> },
}

impl Place {
    /// One of each kind, with these settings.
    async fn each(options: Options) -> [Place; 3] {
        let folder = tempfile::tempdir().unwrap();
        let disk = format!("disk:{}", folder.path().join("store").display());
        [
            Place::embedded("memory", options.clone(), None).await,
            Place::embedded(&disk, options.clone(), Some(folder)).await,
            Place::Redis { server: RedisServer::start(), options: options.into() },
        ]
    }

    async fn embedded(url: &str, options: Options, folder: Option<tempfile::TempDir>) -> Place {
        let opened = open(url, options).await.expect("a store opens");
        Place::Embedded { store: opened.store, queues: opened.queues.expect("it keeps queues"), _folder: folder }
    }

    fn redis(server: RedisServer) -> Place {
        Place::Redis { server, options: Box::default() }
    }

    /// What one node opens.
    async fn open(&self) -> (Arc<dyn Store>, QueueKeeper) {
        match self {
            Place::Embedded { store, queues, .. } => (store.clone(), queues.clone()),
            Place::Redis { server, options } => {
                let opened = open(&server.url(), Options::clone(options)).await.expect("a store opens");
                (opened.store, opened.queues.expect("it keeps queues"))
            }
        }
    }

    /// A hub there, as a node has it.
    async fn node(&self) -> Hub {
        let (store, queues) = self.open().await;
        Hub::new(store).with_queues(queues)
    }

    async fn bound(&self, bindings: &[Binding]) -> Hub {
        self.node().await.with_bindings(bindings.to_vec(), WORDING).await.expect("bindings open")
    }
}

fn queue(name: &str) -> Queue {
    Queue::parse(name).expect("tests write good names")
}

fn body(text: impl Into<Bytes>) -> Body {
    Body::from_canonical(text.into())
}

fn message(name: &str, text: &str) -> Publication {
    Publication {
        topic: topic(name),
        body: body(text.to_owned()),
        ttl: None,
        key: None,
        idempotency_key: None,
        durability: None,
    }
}

async fn change(hub: &Hub, name: &str, change: Change) -> u64 {
    hub.queues().unwrap().keeper().admin.change(&queue(name), change).await.unwrap()
}

async fn stats(hub: &Hub, name: &str) -> Stats {
    hub.queues().unwrap().keeper().admin.stats(&queue(name)).await.unwrap().unwrap_or_default()
}

/// All that waits in a queue, as its bodies.
async fn drained(hub: &Hub, name: &str) -> Vec<String> {
    let keeper = hub.queues().unwrap().keeper();
    let mut texts = Vec::new();
    loop {
        let take = Take { worker: "w".into(), count: 100, bytes: 1 << 20, lease: None, token: 7 };
        let jobs = keeper.queues.take(&queue(name), take).await.unwrap().jobs;
        if jobs.is_empty() {
            return texts;
        }
        let acks = jobs.iter().map(|job| Settle { job: job.id, token: job.token, how: How::Ack }).collect();
        for settled in keeper.queues.settle(&queue(name), acks).await {
            settled.unwrap();
        }
        texts.extend(jobs.iter().map(|job| String::from_utf8_lossy(job.body.as_bytes()).into_owned()));
    }
}

async fn history(hub: &Hub, name: &str) -> Vec<Message> {
    let (mut all, mut from) = (Vec::new(), ReadFrom::Since(0));
    loop {
        let page = hub.read(&topic(name), from, ReadLimit::default()).await.unwrap();
        let is_last = page.is_last();
        from = ReadFrom::After(page.end);
        all.extend(page.messages);
        if is_last {
            return all;
        }
    }
}

/// Waits until something holds that nobody tells of.
async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}
