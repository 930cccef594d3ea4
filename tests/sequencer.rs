//! The hub over a feed that loses, repeats and breaks off, and a store that fails to answer: every shard still gets
//! every message of its topics once and in order, from the position that it was told.

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanfare::domain::name::Topic;
use fanfare::domain::position::Position;
use fanfare::domain::store::{
    Append, Appended, FeedEvent, GapCause, Page, ReadFrom, ReadLimit, Store, StoreError, StoreStatus, Watch,
};
use fanfare::domain::topic::{Mode, Rule, TopicSettings};
use fanfare::hub::{Hub, ShardId, Ticket, ToShard};
use fanfare::store;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;

/// Small, seeded, the same on every machine.
#[derive(Clone)]
struct Dice(Arc<Mutex<u64>>);

impl Dice {
    fn roll(&self, sides: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state % sides
    }
}

/// A real store, the way to which is bad.
struct Flaky {
    inner: Arc<dyn Store>,
    dice: Dice,
    /// From then on the way is good, and the feed says that it is whole.
    healed: Arc<AtomicBool>,
}

impl Store for Flaky {
    fn append(&self, batch: Vec<Append>) -> BoxFuture<'static, Vec<Result<Appended, StoreError>>> {
        self.inner.append(batch)
    }

    fn read(&self, topic: &Topic, from: ReadFrom, limit: ReadLimit) -> BoxFuture<'static, Result<Page, StoreError>> {
        if !self.healed.load(Ordering::Relaxed) && self.dice.roll(4) == 0 {
            return async { Err(StoreError::Unavailable("bad luck".into())) }.boxed();
        }
        let messages = 1 + self.dice.roll(5) as u32;
        self.inner.read(topic, from, ReadLimit { messages, ..limit })
    }

    fn feed(&self) -> (Box<dyn Watch>, BoxStream<'static, FeedEvent>) {
        let (watch, feed) = self.inner.feed();
        let (dice, healed) = (self.dice.clone(), self.healed.clone());
        let feed = feed.flat_map(move |event| {
            let spoilt = match event {
                FeedEvent::Message(message) if !healed.load(Ordering::Relaxed) => match dice.roll(10) {
                    0 | 1 => vec![],
                    2 => vec![FeedEvent::Message(message.clone()), FeedEvent::Message(message)],
                    3 => vec![FeedEvent::Interrupted, FeedEvent::Restored, FeedEvent::Message(message)],
                    4 => vec![FeedEvent::Interrupted, FeedEvent::Message(message), FeedEvent::Restored],
                    _ => vec![FeedEvent::Message(message)],
                },
                // What says that the way is good again: nothing lost before it stays unnoticed.
                FeedEvent::Message(message) if message.topic.as_str() == "healed" => {
                    vec![FeedEvent::Interrupted, FeedEvent::Restored, FeedEvent::Message(message)]
                }
                event => vec![event],
            };
            futures::stream::iter(spoilt)
        });
        (watch, feed.boxed())
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

/// One shard's side: what it wants, and how far it was brought in each topic.
struct Listener {
    id: ShardId,
    hub: Hub,
    inbox: mpsc::Receiver<ToShard>,
    topics: HashMap<Topic, (Ticket, Option<Position>)>,
    given: usize,
}

impl Listener {
    fn toggle(&mut self, topic: &Topic) {
        if self.topics.remove(topic).is_some() {
            self.hub.leave(topic, self.id);
        } else {
            self.want(topic);
        }
    }

    fn want(&mut self, topic: &Topic) {
        if !self.topics.contains_key(topic) {
            let ticket = self.hub.join(topic, self.id);
            self.topics.insert(topic.clone(), (ticket, None));
        }
    }

    fn take(&mut self, event: ToShard) {
        match event {
            ToShard::Joined { topic, ticket, at } => {
                if let Some((own, place)) = self.topics.get_mut(&topic)
                    && *own == ticket
                {
                    assert!(place.replace(at).is_none(), "{topic}: joined twice");
                }
            }
            ToShard::Message(delivery) => {
                let Some((_, Some(at))) = self.topics.get_mut(&delivery.message.topic) else { return };
                assert_eq!(delivery.before, *at, "{}: lost, repeated or out of order", delivery.message.topic);
                *at = delivery.message.at;
                self.given += 1;
            }
            ToShard::Gap { topic, gap } => {
                let why = match topic.as_str() {
                    "live" => GapCause::Live,
                    "latest" => GapCause::Conflated,
                    _ => panic!("{topic}: nothing was lost, yet {gap:?}"),
                };
                let Some((_, Some(at))) = self.topics.get_mut(&topic) else { return };
                assert_eq!((gap.after, gap.why), (*at, why), "{topic}");
                *at = gap.resume;
            }
        }
    }
}

/// Takes what comes to either, until both are where they should be: a full inbox of the one holds the other up.
async fn until(listeners: &mut [Listener], there: impl Fn(&Listener) -> bool) {
    let [one, two] = listeners else { unreachable!("there are two") };
    while !there(one) || !there(two) {
        tokio::select! {
            event = one.inbox.recv() => one.take(event.expect("the sequencer runs")),
            event = two.inbox.recv() => two.take(event.expect("the sequencer runs")),
        }
    }
}

async fn play(seed: u64) -> usize {
    let dice = Dice(Arc::new(Mutex::new(seed)));
    let in_mode = |name: &str, mode| Rule { mode: Some(mode), ..Rule::new(name.parse().unwrap()) };
    let rules = vec![in_mode("live", Mode::Live), in_mode("latest", Mode::Latest)];
    let inner = store::open("memory", store::Options { rules, ..Default::default() }).await.unwrap().store;
    let healed = Arc::new(AtomicBool::new(false));
    let flaky = Arc::new(Flaky { inner: inner.clone(), dice: dice.clone(), healed: healed.clone() });
    let (senders, inboxes): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel(4)).unzip();
    let (hub, sequencer) = Hub::with_shards(flaky, senders);
    let sequencer = tokio::spawn(sequencer);
    let mut listeners: Vec<Listener> = inboxes
        .into_iter()
        .enumerate()
        .map(|(i, inbox)| Listener { id: ShardId(i), hub: hub.clone(), inbox, topics: HashMap::new(), given: 0 })
        .collect();
    let topics: Vec<Topic> = ["t0", "t1", "t2", "live", "latest"].map(support::topic).into();

    for step in 0..160 {
        match dice.roll(10) {
            0 => listeners[dice.roll(2) as usize].toggle(&topics[dice.roll(5) as usize]),
            1..=5 => {
                let item = support::item(&topics[dice.roll(5) as usize], format!("\"data\":{step}"));
                hub.append(vec![item]).await.pop().unwrap().unwrap();
            }
            _ => tokio::task::yield_now().await,
        }
        for listener in &mut listeners {
            while let Ok(event) = listener.inbox.try_recv() {
                listener.take(event);
            }
        }
    }
    healed.store(true, Ordering::Relaxed);
    let last = support::topic("healed");
    for listener in &mut listeners {
        topics.iter().chain([&last]).for_each(|topic| listener.want(topic));
    }
    until(&mut listeners, |l| l.topics.values().all(|(_, at)| at.is_some())).await;
    // Everything that was fed before this one is compared with the store again.
    hub.append(vec![support::item(&last, "\"data\":0")]).await.pop().unwrap().unwrap();
    for topic in topics.iter().chain([&last]) {
        let head = inner.read(topic, ReadFrom::Last(0), ReadLimit::default()).await.unwrap().head;
        until(&mut listeners, |l| l.topics[topic].1 == Some(head)).await;
    }
    inner.close().await;
    sequencer.await.unwrap();
    listeners.iter().map(|l| l.given).sum()
}

#[test]
fn a_bad_feed_and_a_bad_store_cost_no_message_its_place() {
    // The clock of the runtime stands still but for the waits before reads that failed, so it cannot bound the test.
    let (report, reports) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        for seed in 1..=150 {
            report.send((seed, runtime.block_on(play(seed)))).unwrap();
        }
    });
    let (mut given, mut last) = (0, 0);
    while last < 150 {
        let played = reports.recv_timeout(Duration::from_secs(60));
        let (seed, more) = played.unwrap_or_else(|error| panic!("seed {} failed or hangs: {error}", last + 1));
        (last, given) = (seed, given + more);
    }
    assert!(given > 5_000, "{given}");
}

/// A real store in which some reads fail for ever and some wait to be let go.
struct Picky {
    inner: Arc<dyn Store>,
    /// Topics that begin with `stuck` are read once this is let go, and answer as they were when they were asked.
    gate: Arc<tokio::sync::Semaphore>,
}

impl Store for Picky {
    fn append(&self, batch: Vec<Append>) -> BoxFuture<'static, Vec<Result<Appended, StoreError>>> {
        self.inner.append(batch)
    }

    fn read(&self, topic: &Topic, from: ReadFrom, limit: ReadLimit) -> BoxFuture<'static, Result<Page, StoreError>> {
        if topic.as_str().starts_with("broken") {
            return async { Err(StoreError::Unavailable("its server is away".into())) }.boxed();
        }
        let page = self.inner.read(topic, from, limit);
        let gate = topic.as_str().starts_with("stuck").then(|| self.gate.clone());
        async move {
            if let Some(gate) = gate {
                gate.acquire().await.expect("it is never closed").forget();
            }
            page.await
        }
        .boxed()
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

async fn picky() -> (Hub, mpsc::Receiver<ToShard>, Arc<tokio::sync::Semaphore>) {
    let inner = store::open("memory", store::Options::default()).await.unwrap().store;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (sender, inbox) = mpsc::channel(1024);
    let (hub, sequencer) = Hub::with_shards(Arc::new(Picky { inner, gate: gate.clone() }), vec![sender]);
    tokio::spawn(sequencer);
    (hub, inbox, gate)
}

#[tokio::test(start_paused = true)]
async fn topics_that_cannot_be_read_do_not_keep_the_others_waiting() {
    let (hub, mut inbox, _) = picky().await;
    for n in 0..200 {
        hub.join(&support::topic(&format!("broken{n}")), ShardId(0));
    }
    // The clock of the runtime jumps from wait to wait; the store has a thread, so only real time bounds the test.
    let begun = std::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let good = support::topic("good");
    hub.join(&good, ShardId(0));
    while tokio::time::timeout(Duration::from_secs(60), inbox.recv()).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it never gets its turn");
    }
}

#[tokio::test]
async fn a_read_that_still_waits_its_turn_is_not_taken_for_one_of_the_next_stay() {
    let (hub, mut inbox, gate) = picky().await;
    let shard = ShardId(0);
    let blockers: Vec<Topic> = (0..64).map(|n| support::topic(&format!("stuck.other{n}"))).collect();
    let topic = support::topic("stuck.one");
    // All places are taken, and the topic is joined, left and joined while it waits for one.
    for blocker in &blockers {
        hub.join(blocker, shard);
    }
    settle(&hub).await;
    let mut last = None;
    for _ in 0..2 {
        hub.leave(&topic, shard);
        settle(&hub).await;
        last = Some(hub.join(&topic, shard));
        settle(&hub).await;
    }
    // One place is free: the topic is located. A second read of it would still be held up, and be old when it comes.
    gate.add_permits(65);
    let begun = loop {
        match inbox.recv().await.expect("the sequencer runs") {
            ToShard::Joined { topic: t, ticket, at } if t == topic && Some(ticket) == last => break at,
            _ => {}
        }
    };
    let mut at = begun;
    for n in 0..3 {
        hub.append(vec![support::item(&topic, format!("\"data\":{n}"))]).await.pop().unwrap().unwrap();
        while at.offset == begun.offset + n {
            match inbox.recv().await.expect("the sequencer runs") {
                ToShard::Message(delivery) => {
                    assert_eq!(delivery.before, at, "repeated, lost or out of order");
                    at = delivery.message.at;
                }
                ToShard::Gap { gap, .. } => panic!("nothing was lost, yet {gap:?}"),
                ToShard::Joined { .. } => {}
            }
        }
        if n == 0 {
            gate.add_permits(10);
            settle(&hub).await;
        }
    }
}

/// Waits until the sequencer has taken up what shards want, the store what the sequencer asked for, and the sequencer
/// what came of it: two turns of the one around one of the other, which answers in order.
async fn settle(hub: &Hub) {
    hub.settle().await;
    hub.read(&support::topic("turn"), ReadFrom::Last(0), ReadLimit::default()).await.unwrap();
    hub.settle().await;
}
