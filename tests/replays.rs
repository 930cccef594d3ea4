//! History for those who come back: a page that memory or a shared read gave says what the store says, whatever
//! happened before; many reads at once are few; and nothing comes from memory while the feed may have lost something.

#[path = "support/redis.rs"]
mod redis_server;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fanfare::domain::message::Message;
use fanfare::domain::name::Topic;
use fanfare::domain::position::Position;
use fanfare::domain::replay::{Item, walk};
use fanfare::domain::store::{
    Append, Appended, FeedEvent, GapCause, Page, ReadFrom, ReadLimit, Retention, Store, StoreError, StoreStatus, Watch,
};
use fanfare::domain::topic::TopicSettings;
use fanfare::hub::{Hub, ShardId, ToShard};
use fanfare::store;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use redis_server::RedisServer;
use tokio::sync::{Semaphore, mpsc};

/// A real store whose reads are counted and can be held up, and whose feed can lose what it carries.
struct Watched {
    inner: Arc<dyn Store>,
    reads: AtomicUsize,
    /// Reads pass while this has permits.
    gate: Arc<Semaphore>,
    /// The feed drops messages, and says so.
    deaf: Arc<AtomicBool>,
    /// Says what became of the feed.
    says: std::sync::Mutex<Option<mpsc::UnboundedReceiver<FeedEvent>>>,
}

impl Store for Watched {
    fn append(&self, batch: Vec<Append>) -> BoxFuture<'static, Vec<Result<Appended, StoreError>>> {
        self.inner.append(batch)
    }

    fn read(&self, topic: &Topic, from: ReadFrom, limit: ReadLimit) -> BoxFuture<'static, Result<Page, StoreError>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let (page, gate) = (self.inner.read(topic, from, limit), self.gate.clone());
        async move {
            let _pass = gate.acquire().await.expect("it is never closed");
            page.await
        }
        .boxed()
    }

    fn feed(&self) -> (Box<dyn Watch>, BoxStream<'static, FeedEvent>) {
        let (watch, feed) = self.inner.feed();
        let (deaf, says) = (self.deaf.clone(), self.says.lock().unwrap().take().expect("one feed"));
        let feed = feed.filter(move |event| {
            let lost = deaf.load(Ordering::SeqCst) && matches!(event, FeedEvent::Message(_));
            std::future::ready(!lost)
        });
        let says = futures::stream::unfold(says, |mut says| async { Some((says.recv().await?, says)) });
        (watch, futures::stream::select(feed, says).boxed())
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

/// A hub with one shard, whose stream of one topic is followed here.
struct World {
    store: Arc<Watched>,
    hub: Hub,
    inbox: mpsc::Receiver<ToShard>,
    says: mpsc::UnboundedSender<FeedEvent>,
    topic: Topic,
    at: Option<Position>,
}

impl World {
    async fn open(inner: Arc<dyn Store>, memory: usize) -> World {
        let (says, heard) = mpsc::unbounded_channel();
        let store = Arc::new(Watched {
            inner,
            reads: AtomicUsize::new(0),
            gate: Arc::new(Semaphore::new(PERMITS as usize)),
            deaf: Arc::default(),
            says: std::sync::Mutex::new(Some(heard)),
        });
        let (sender, inbox) = mpsc::channel(1024);
        let (hub, sequencer) = Hub::with_memory(store.clone(), vec![sender], memory);
        tokio::spawn(sequencer);
        let topic = support::topic("t");
        hub.join(&topic, ShardId(0));
        let mut world = World { store, hub, inbox, says, topic, at: None };
        world.follow(|at| at.is_some()).await;
        world
    }

    /// Takes what comes until the stream stands so.
    async fn follow(&mut self, is_there: impl Fn(Option<Position>) -> bool) {
        let patience = tokio::time::sleep(Duration::from_secs(20));
        tokio::pin!(patience);
        while !is_there(self.at) {
            tokio::select! {
                event = self.inbox.recv() => match event.expect("the sequencer runs") {
                    ToShard::Joined { at, .. } => self.at = Some(at),
                    ToShard::Message(delivery) => self.at = Some(delivery.message.at),
                    ToShard::Gap { gap, .. } => self.at = Some(gap.resume),
                },
                () = &mut patience => panic!("the stream stands at {:?}", self.at),
            }
        }
    }

    async fn publish(&self, ttl: Option<Duration>, bytes: usize) -> Position {
        let body = format!("\"data\":\"{}\"", "x".repeat(bytes));
        let item = match ttl {
            Some(ttl) => support::item_with_ttl(&self.topic, body, ttl),
            None => support::item(&self.topic, body),
        };
        support::stored(&self.hub.append(vec![item]).await[0])
    }

    fn reads(&self) -> usize {
        self.store.reads.load(Ordering::SeqCst)
    }

    fn live(&self) -> Position {
        self.at.expect("it is joined")
    }

    /// All that follows, page by page, as a subscriber is told it.
    async fn told(&self, from: ReadFrom, limit: ReadLimit, by_hub: bool) -> (Page, Vec<Item>) {
        let read = |from| match by_hub {
            true => self.hub.replay(&self.topic, from, limit, self.live()),
            false => self.store.inner.read(&self.topic, from, limit),
        };
        let first = read(from).await.unwrap();
        let begun = if let ReadFrom::After(at) = from { at } else { first.start };
        let (mut page, mut items, mut at) = (first.clone(), Vec::new(), begun);
        loop {
            let (end, is_last) = (page.end, page.is_last());
            items.extend(walk(at, page));
            at = end;
            if is_last {
                return (first, joined(items));
            }
            page = read(ReadFrom::After(at)).await.unwrap();
        }
    }

    async fn compare(&self, from: ReadFrom, limit: ReadLimit, what: &str) {
        let (page, items) = self.told(from, limit, true).await;
        let (expected, all) = self.told(from, limit, false).await;
        let facts = |page: &Page| (page.mode, page.start, page.head, page.missing);
        assert_eq!(facts(&page), facts(&expected), "{what}: {from:?}");
        assert_eq!(items, all, "{what}: {from:?}");
    }
}

/// Gaps that touch are one: how pages cut them is no part of what they say.
fn joined(items: Vec<Item>) -> Vec<Item> {
    items.into_iter().fold(Vec::new(), |mut items, item| {
        match (items.last_mut(), &item) {
            (Some(Item::Gap(last)), Item::Gap(gap)) if last.why == gap.why && last.resume == gap.after => {
                (last.resume, last.to) = (gap.resume, gap.to);
            }
            _ => items.push(item),
        }
        items
    })
}

/// Small, seeded, the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What lets reads pass.
const PERMITS: u32 = 1_000;
const MESSAGES: u64 = 40;

fn options() -> store::Options {
    let retention = Retention { messages: MESSAGES, bytes: 64 * 1024, ..Retention::default() };
    store::Options { retention, ..store::Options::default() }
}

async fn play(inner: Arc<dyn Store>, memory: usize, seed: u64, change_life: &mut dyn FnMut()) -> Vec<&'static str> {
    let mut world = World::open(inner, memory).await;
    let (mut dice, mut known, mut done) = (Dice(seed), vec![world.live()], Vec::new());
    for _ in 0..60 {
        let roll = dice.roll(12);
        match roll {
            0 => {
                let short = world.publish(Some(Duration::from_millis(1)), 10).await;
                known.push(short);
                while world.hub.find(&world.topic, short).await.unwrap().is_some() {
                    tokio::task::yield_now().await;
                }
                done.push("expired");
            }
            1 => {
                known.push(world.publish(Some(Duration::from_secs(3600)), 10).await);
                done.push("with a time to live");
            }
            2 => {
                world.says.send(FeedEvent::Interrupted).unwrap();
                world.store.deaf.store(true, Ordering::SeqCst);
                until(|| world.hub.is_interrupted()).await;
                for _ in 0..dice.roll(3) {
                    known.push(world.publish(None, 10).await);
                }
                // What the feed has lost is not known to the hub yet: the store must be asked.
                let from = ReadFrom::After(known[dice.roll(known.len() as u64) as usize]);
                world.compare(from, ReadLimit::default(), "interrupted").await;
                world.store.deaf.store(false, Ordering::SeqCst);
                world.says.send(FeedEvent::Restored).unwrap();
                done.push("interrupted");
            }
            3 => {
                change_life();
                known.push(world.publish(None, 10).await);
                done.push("another life");
            }
            _ => {
                for _ in 0..=dice.roll(4) {
                    let bytes = 10 + dice.roll(3) as usize * 1000;
                    known.push(world.publish(None, bytes).await);
                }
            }
        }
        let head = world.store.inner.read(&world.topic, ReadFrom::Last(0), ReadLimit::default()).await.unwrap().head;
        world.follow(|at| at == Some(head)).await;
        for _ in 0..4 {
            let from = match dice.roll(6) {
                0 => ReadFrom::Last(dice.roll(MESSAGES + 10) as u32),
                1 => ReadFrom::After(Position::new(support::foreign_epoch(), 3)),
                2 => ReadFrom::After(Position::new(head.epoch, head.offset + dice.roll(3))),
                _ => {
                    let near = known.len() as u64 - dice.roll(20.min(known.len() as u64)) - 1;
                    ReadFrom::After(known[near as usize])
                }
            };
            let limit = ReadLimit { messages: 1 + dice.roll(20) as u32, bytes: 100 + dice.roll(4000) as usize };
            world.compare(from, limit, &format!("seed {seed}")).await;
        }
    }
    world.store.inner.close().await;
    done
}

async fn until(is_so: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    });
    waited.await.expect("it comes to that");
}

#[tokio::test]
async fn a_page_for_those_who_come_back_says_what_the_store_says() {
    let mut done = Vec::new();
    for seed in 1..=25 {
        // Much memory, little, none.
        let memory = [1 << 20, 4 * 1024, 0][seed as usize % 3];
        let inner = store::open("memory", options()).await.unwrap().store;
        done.extend(play(inner, memory, seed, &mut || {}).await);
    }
    for event in ["expired", "with a time to live", "interrupted"] {
        assert!(done.contains(&event), "{event} never happened");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_for_those_who_come_back_says_what_redis_says_over_changes_of_life() {
    let mut done = Vec::new();
    for seed in 1..=4 {
        let server = RedisServer::start_with(&["--appendonly", "no", "--enable-debug-command", "yes"]);
        let inner = store::open(&server.url(), options()).await.unwrap().store;
        let mut connection = server.connection();
        let mut change = || redis::cmd("DEBUG").arg("CHANGE-REPL-ID").exec(&mut connection).unwrap();
        done.extend(play(inner, 1 << 20, seed, &mut change).await);
    }
    assert!(done.contains(&"another life") && done.contains(&"interrupted"), "{done:?}");
}

#[tokio::test]
async fn what_was_handed_on_is_not_read_again() {
    let inner = store::open("memory", store::Options::default()).await.unwrap().store;
    let mut world = World::open(inner, 1 << 20).await;
    let begun = world.live();
    let mut last = begun;
    for _ in 0..10 {
        last = world.publish(None, 10).await;
    }
    world.follow(|at| at == Some(last)).await;
    let before = world.reads();
    for offset in 0..=10 {
        let from = ReadFrom::After(Position::new(begun.epoch, begun.offset + offset));
        let page = world.hub.replay(&world.topic, from, ReadLimit::default(), last).await.unwrap();
        assert_eq!(page.messages.len() as u64, 10 - offset);
    }
    assert_eq!(world.reads(), before);
    // What is asked by a command is what is stored at this moment.
    world.hub.read(&world.topic, ReadFrom::After(begun), ReadLimit::default()).await.unwrap();
    assert_eq!(world.reads(), before + 1);
}

#[tokio::test]
async fn many_who_ask_at_once_share_one_read_unless_it_is_too_old_for_them() {
    let inner = store::open("memory", store::Options::default()).await.unwrap().store;
    let mut world = World::open(inner, 0).await;
    let begun = world.live();
    let mut last = begun;
    for _ in 0..20 {
        last = world.publish(None, 10).await;
    }
    world.follow(|at| at == Some(last)).await;
    // Reads are held up.
    let gate = world.store.gate.clone();
    let all = gate.acquire_many(PERMITS).await.unwrap();
    let before = world.reads();
    let (hub, topic) = (world.hub.clone(), world.topic.clone());
    let ask = |offset: u64, live: Position| {
        let from = ReadFrom::After(Position::new(begun.epoch, offset));
        tokio::spawn(hub.replay(&topic, from, ReadLimit::default(), live))
    };
    let asked: Vec<_> = (0..300).map(|n| (n % 20, ask(n % 20, last))).collect();
    until(|| world.reads() == before + 1).await;
    // All of them have asked; then the stream goes on, and one more asks who stands there.
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    let newest = world.publish(None, 10).await;
    world.follow(|at| at == Some(newest)).await;
    let late = ask(19, newest);
    drop(all);
    for (offset, page) in asked {
        let page: Page = page.await.unwrap().unwrap();
        let offsets: Vec<u64> = page.messages.iter().map(|m: &Message| m.at.offset).collect();
        assert_eq!(offsets[..(20 - offset) as usize], (offset + 1..=20).collect::<Vec<_>>());
    }
    let page = late.await.unwrap().unwrap();
    assert_eq!((page.end, page.head), (newest, newest), "a page that is too old for it");
    assert!(world.reads() - before <= 3, "{} reads", world.reads() - before);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_who_stand_at_the_end_of_a_life_share_their_reads() {
    let server = RedisServer::start_with(&["--appendonly", "no", "--enable-debug-command", "yes"]);
    let inner = store::open(&server.url(), options()).await.unwrap().store;
    let mut world = World::open(inner, 1 << 20).await;
    let mut end = world.live();
    for _ in 0..10 {
        end = world.publish(None, 10).await;
    }
    redis::cmd("DEBUG").arg("CHANGE-REPL-ID").exec(&mut server.connection()).unwrap();
    let newest = world.publish(None, 10).await;
    assert_ne!(newest.epoch, end.epoch);
    world.follow(|at| at == Some(newest)).await;
    let before = world.reads();
    let (gate, topic) = (world.store.gate.clone(), world.topic.clone());
    let all = gate.acquire_many(PERMITS).await.unwrap();
    let ask = |_| tokio::spawn(world.hub.replay(&topic, ReadFrom::After(end), ReadLimit::default(), newest));
    let asked: Vec<_> = (0..50).map(ask).collect();
    until(|| world.reads() > before).await;
    drop(all);
    for page in asked {
        let page: Page = page.await.unwrap().unwrap();
        assert_eq!((page.messages.len(), page.end, page.head), (1, newest, newest));
        assert_eq!(page.missing.map(|missing| missing.why), Some(GapCause::Failover));
    }
    assert!(world.reads() - before <= 3, "{} reads", world.reads() - before);
    world.store.inner.close().await;
}

#[tokio::test]
async fn who_asks_for_so_many_or_since_then_waits_for_nobody() {
    let inner = store::open("memory", store::Options::default()).await.unwrap().store;
    let mut world = World::open(inner, 0).await;
    let mut last = world.live();
    for _ in 0..20 {
        last = world.publish(None, 10).await;
    }
    world.follow(|at| at == Some(last)).await;
    let before = world.reads();
    let all = world.store.gate.acquire_many(PERMITS).await.unwrap();
    let ask = |n: u32| {
        let from = if n.is_multiple_of(2) { ReadFrom::Last(n / 2) } else { ReadFrom::Since(u64::from(n)) };
        tokio::spawn(world.hub.replay(&world.topic, from, ReadLimit::default(), last))
    };
    // Two for each question.
    let asked: Vec<_> = (0..40).chain(0..40).map(|n| (n, ask(n))).collect();
    // All of them are under way while none has come back.
    until(|| world.reads() >= before + 40).await;
    drop(all);
    for (n, page) in asked {
        let count = if n.is_multiple_of(2) { n as usize / 2 } else { 20 };
        assert_eq!(page.await.unwrap().unwrap().messages.len(), count);
    }
    assert_eq!(world.reads(), before + 40);
}

#[tokio::test]
async fn memory_stays_within_its_bound_and_forgets_the_oldest() {
    let inner = store::open("memory", store::Options::default()).await.unwrap().store;
    let mut world = World::open(inner, 10_000).await;
    let begun = world.live();
    let mut last = begun;
    for _ in 0..50 {
        last = world.publish(None, 1_000).await;
    }
    world.follow(|at| at == Some(last)).await;
    let before = world.reads();
    for (offset, reads) in [(last.offset - 5, 0), (begun.offset, 1)] {
        let from = ReadFrom::After(Position::new(begun.epoch, offset));
        world.hub.replay(&world.topic, from, ReadLimit::default(), last).await.unwrap();
        assert_eq!(world.reads() - before, reads);
    }
}
