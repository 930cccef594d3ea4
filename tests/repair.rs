//! What goes wrong behind a live connection: a message that is lost inside the node, a store that fails while it is read,
//! another life of the topic while somebody is behind. The line stays, and every message comes in order, or a gap is told.

#[path = "support/hub.rs"]
mod hub;
#[path = "support/redis.rs"]
mod redis_server;
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanfare::domain::access::Access;
use fanfare::domain::limits::Limits;
use fanfare::domain::name::Topic;
use fanfare::domain::position::Position;
use fanfare::domain::store::{
    Append, Appended, FeedEvent, Page, ReadFrom, ReadLimit, Store, StoreError, StoreStatus, Watch,
};
use fanfare::domain::topic::TopicSettings;
use fanfare::gateway::{self, Channels, Gateway};
use fanfare::hub::{Hub, ToShard};
use fanfare::store;
use fanfare::web::Socket;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hub::{Client, narrow};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use redis_server::RedisServer;
use serde_json::Value;
use tokio::sync::mpsc;

/// A real store whose next reads can fail.
struct Failing {
    inner: Arc<dyn Store>,
    failures: Arc<AtomicUsize>,
}

impl Store for Failing {
    fn append(&self, batch: Vec<Append>) -> BoxFuture<'static, Vec<Result<Appended, StoreError>>> {
        self.inner.append(batch)
    }

    fn read(&self, topic: &Topic, from: ReadFrom, limit: ReadLimit) -> BoxFuture<'static, Result<Page, StoreError>> {
        if take_one(&self.failures) {
            return async { Err(StoreError::Unavailable("a fault".into())) }.boxed();
        }
        self.inner.read(topic, from, limit)
    }

    fn feed(&self) -> (Box<dyn Watch>, BoxStream<'static, FeedEvent>) {
        self.inner.feed()
    }

    fn settings(&self, topic: &Topic) -> TopicSettings {
        self.inner.settings(topic)
    }

    fn status(&self) -> StoreStatus {
        self.inner.status()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.inner.close()
    }
}

fn take_one(count: &AtomicUsize) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

/// The parts of a node from the store to the sockets, with places where they can be made to fail.
struct Node {
    http: SocketAddr,
    hub: Hub,
    /// So many reads of the store fail.
    failures: Arc<AtomicUsize>,
    /// So many messages of topics that begin with `lossy` are lost between hub and shard.
    losses: Arc<AtomicUsize>,
}

impl Node {
    async fn start(inner: Arc<dyn Store>) -> Node {
        let (failures, losses) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let channels = Channels::new(1);
        let (to_shard, losing) = (channels.to_shards[0].clone(), losses.clone());
        let (sender, mut from_hub) = mpsc::channel(1024);
        let store = Arc::new(Failing { inner, failures: failures.clone() });
        let (hub, sequencer) = Hub::with_shards(store, vec![sender]);
        tokio::spawn(sequencer);
        tokio::spawn(async move {
            while let Some(event) = from_hub.recv().await {
                let is_lossy = matches!(&event, ToShard::Message(d) if d.message.topic.as_str().starts_with("lossy"));
                if !(is_lossy && take_one(&losing)) && to_shard.send(event).await.is_err() {
                    break;
                }
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = listener.local_addr().unwrap();
        let access = Arc::new(Access::new(http.ip(), &[], &[]).unwrap());
        let limits = Arc::new(Limits { outbox: 256 * 1024, ..Limits::default() });
        let (gateway, _threads) =
            Gateway::start(&hub, channels, limits, fanfare::hub::budget::Budget::new(usize::MAX), access).unwrap();
        let router = gateway::routes(gateway);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(router.clone());
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(Socket::new(stream)), service)
                    .with_upgrades();
                tokio::spawn(connection);
            }
        });
        Node { http, hub, failures, losses }
    }

    async fn in_memory() -> Node {
        Node::start(store::open("memory", store::Options::default()).await.unwrap().store).await
    }

    async fn publish(&self, topic: &str, bytes: usize) -> Position {
        let item = support::item(&support::topic(topic), format!("\"data\":\"{}\"", "x".repeat(bytes)));
        support::stored(&self.hub.append(vec![item]).await[0])
    }
}

fn position(frame: &Value, name: &str) -> Position {
    frame[name].as_str().unwrap_or_else(|| panic!("{name} in {frame}")).parse().unwrap()
}

/// Hears messages that follow each other up to this offset; gives the gaps on the way.
async fn hear(client: &mut Client, at: &mut Position, offset: u64) -> Vec<Value> {
    let mut gaps: Vec<Value> = Vec::new();
    while at.offset < offset {
        let frame = client.next().await;
        if frame.get("gap").is_some() {
            assert_eq!(position(&frame, "after"), *at, "{frame}");
            gaps.push(frame);
            continue;
        }
        let next = position(&frame, "at");
        assert_eq!(next.offset, at.offset + 1, "lost, repeated or out of order: {frame}");
        assert!(next.epoch == at.epoch || gaps.last().is_some_and(|gap| position(gap, "after") == *at), "{frame}");
        *at = next;
    }
    gaps
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_lost_inside_the_node_is_read_from_the_store_by_those_who_listen_and_nobody_is_closed() {
    let node = Node::in_memory().await;
    let mut clients = Vec::new();
    for query in ["?sub=lossy.a", "?sub=lossy.a&sub=other", "?sub=other"] {
        let mut client = Client::connect(node.http, query).await;
        client.next().await;
        for _ in 0..query.matches("sub").count() {
            client.next().await;
        }
        clients.push(client);
    }
    let [only, both, other] = &mut clients[..] else { unreachable!("three") };
    let begun = node.publish("lossy.a", 10).await;
    let (mut one, mut two) = (begun.before(), begun.before());
    let mut last = begun;
    for round in 0..20 {
        // One, two or three in a row are lost; the next one shows it.
        let lost = 1 + round % 3;
        node.losses.store(lost, Ordering::SeqCst);
        for _ in 0..lost + 2 {
            last = node.publish("lossy.a", 10).await;
        }
        assert_eq!(hear(only, &mut one, last.offset).await, [] as [Value; 0]);
        assert_eq!(hear(both, &mut two, last.offset).await, [] as [Value; 0]);
        assert_eq!(node.losses.load(Ordering::SeqCst), 0);
    }
    // The other topic went on as if nothing had been.
    let at = node.publish("other", 10).await;
    for client in [both, other] {
        assert_eq!(client.next().await["at"], at.to_string());
    }
    assert_eq!(one, last);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_fail_on_the_way_are_tried_again_and_nothing_is_passed_over() {
    let node = Node::in_memory().await;
    let mut slow = narrow(node.http, "?sub=big").await;
    slow.next().await;
    let mut at = position(&slow.next().await, "at");
    let mut last = at;
    for _ in 0..150 {
        last = node.publish("big", 10_000).await;
    }
    for offset in [last.offset / 2, last.offset] {
        node.failures.store(3, Ordering::SeqCst);
        assert_eq!(hear(&mut slow, &mut at, offset).await, [] as [Value; 0]);
    }
    // One that asked to resume, and whose later pages fail, was promised the rest and gets it.
    let mut back =
        narrow(node.http, &format!("?sub=big&after={}.0", last.to_string().split('.').next().unwrap())).await;
    back.next().await;
    let answer = back.next().await;
    assert_eq!(answer["resumed"], true, "{answer}");
    node.failures.store(3, Ordering::SeqCst);
    let mut at = position(&answer, "at");
    assert_eq!(hear(&mut back, &mut at, last.offset).await, [] as [Value; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_life_that_begins_while_somebody_is_behind_is_told_between_the_two() {
    let server = RedisServer::start_with(&["--appendonly", "no", "--enable-debug-command", "yes"]);
    let node = Node::start(store::open(&server.url(), store::Options::default()).await.unwrap().store).await;
    let mut slow = narrow(node.http, "?sub=big").await;
    slow.next().await;
    let mut at = position(&slow.next().await, "at");
    let first_life = at.epoch;
    for _ in 0..100 {
        node.publish("big", 10_000).await;
    }
    redis::cmd("DEBUG").arg("CHANGE-REPL-ID").exec(&mut server.connection()).unwrap();
    let mut last = at;
    for _ in 0..100 {
        last = node.publish("big", 10_000).await;
    }
    assert_ne!(last.epoch, first_life);
    let gaps = hear(&mut slow, &mut at, last.offset).await;
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!((&gaps[0]["why"], position(&gaps[0], "after").offset), (&"failover".into(), 100));
    assert_eq!(at, last);
}
