//! Reads the store's feed and hands each topic's messages to the shards in (epoch, offset) order.
//!
//! One task a node. A message that does not follow the last one is a hole: the topic is then read from the store until
//! it is whole, while other topics go on. A message published on this node takes the same way as one from another.
//! When the feed says that it lost something, every topic's position is compared with the store's.

mod live;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use metrics::counter;
use tokio::sync::{mpsc, oneshot};

use super::history::{self, History};
use super::registry::{Registry, ShardId, Ticket, Want};
use super::{Delivery, ToShard};
use crate::domain::message::Message;
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::domain::replay::{Item, walk};
use crate::domain::store::{FeedEvent, GapCause, Page, ReadFrom, ReadLimit, Store, StoreError, Watch};
use crate::domain::topic::Mode;
use crate::telemetry;

/// Topics read from the store at the same time; the rest wait their turn.
const READS_AT_ONCE: usize = 64;
/// Feed events taken at once, so that shards get them together.
const BATCH: usize = 256;
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(2);

pub struct Sequencer {
    pub store: Arc<dyn Store>,
    pub registry: Arc<Registry>,
    pub shards: Vec<mpsc::Sender<ToShard>>,
    pub interrupted: Arc<AtomicBool>,
    /// Who waits until what was fed so far has been handed on.
    pub settling: mpsc::Receiver<oneshot::Sender<()>>,
    pub history: Arc<History>,
}

/// How far a wanted topic is.
enum Stage {
    /// The feed was asked for it.
    Asking,
    /// The feed carries it; its head is being read. What is fed meanwhile is noticed by `newest`.
    Locating,
    /// Every message that follows `at` is handed on.
    Flowing,
    /// Being read from the store, from `at` on.
    Repairing,
}

struct Flow {
    /// Tells this stay in the topic from an earlier one, whose read may still be under way.
    stay: u64,
    stage: Stage,
    /// What the shards have been given; set when the head is known.
    at: Option<Position>,
    /// The last one fed since a read was issued: what the read must reach.
    newest: Option<Position>,
    /// In mode `live`: what was fed since a read was issued, which no read brings.
    held: VecDeque<Message>,
    /// In mode `live`: how far the store had counted, at the first look after a hole.
    counted: Option<Position>,
    wants: Vec<Want>,
    told: Vec<Ticket>,
    /// Whether a read of this topic is under way or waits its turn.
    reading: bool,
    /// The feed was interrupted since the read under way began: read again after it.
    doubtful: bool,
    retry: Duration,
}

/// A page with its topic, the stay it is for, and where the topic stood when it was asked for.
type Read = (Topic, u64, Option<Position>, Result<Page, StoreError>);

struct Running {
    store: Arc<dyn Store>,
    watch: Box<dyn Watch>,
    shards: Vec<mpsc::Sender<ToShard>>,
    flows: HashMap<Topic, Flow>,
    reads: FuturesUnordered<BoxFuture<'static, Read>>,
    /// Reads that wait for their turn, first come, first served; those of a stay that is over are passed over.
    waiting: VecDeque<(Topic, u64, Duration)>,
    stays: u64,
    interrupted: Arc<AtomicBool>,
    history: Arc<History>,
}

impl Sequencer {
    /// Runs until the feed ends.
    pub async fn run(mut self) {
        let (watch, feed) = self.store.feed();
        let mut feed: BoxStream<'static, Vec<FeedEvent>> = feed.ready_chunks(BATCH).boxed();
        let mut running = Running {
            store: self.store,
            watch,
            shards: self.shards,
            flows: HashMap::new(),
            reads: FuturesUnordered::new(),
            waiting: VecDeque::new(),
            stays: 0,
            interrupted: self.interrupted,
            history: self.history,
        };
        loop {
            tokio::select! {
                biased;
                () = self.registry.changes.notified() => {
                    for (topic, wants) in self.registry.take_changes() {
                        running.on_change(topic, wants).await;
                    }
                }
                Some(read) = running.reads.next() => running.on_page(read).await,
                events = feed.next() => match events {
                    Some(events) => for event in events {
                        running.on_event(event).await;
                    },
                    None => break,
                },
                // Last in this order: only when nothing that was fed waits.
                Some(done) = self.settling.recv() => drop(done.send(())),
            }
        }
        tracing::debug!("the feed ended");
    }
}

impl Running {
    async fn on_change(&mut self, topic: Topic, wants: Vec<Want>) {
        if wants.is_empty() {
            if self.flows.remove(&topic).is_some() {
                self.watch.unwatch(&topic);
                self.history.close(&topic);
            }
            return;
        }
        let flow = self.flows.entry(topic.clone()).or_insert_with(|| {
            self.watch.watch(&topic);
            self.stays += 1;
            Flow {
                stay: self.stays,
                stage: Stage::Asking,
                at: None,
                newest: None,
                held: VecDeque::new(),
                counted: None,
                wants: Vec::new(),
                told: Vec::new(),
                reading: false,
                doubtful: false,
                retry: RETRY_FIRST,
            }
        });
        flow.wants = wants;
        flow.told.retain(|t| flow.wants.iter().any(|w| w.ticket == *t));
        self.tell_joined(&topic).await;
    }

    /// Tells the shards that came since, where the stream stands. They get everything after it.
    async fn tell_joined(&mut self, topic: &Topic) {
        let Some(flow) = self.flows.get_mut(topic) else { return };
        let Some(at) = flow.at else { return };
        for Want { shard, ticket, .. } in flow.wants.clone() {
            if !flow.told.contains(&ticket) {
                flow.told.push(ticket);
                send(&self.shards, shard, ToShard::Joined { topic: topic.clone(), ticket, at }).await;
            }
        }
    }

    async fn on_event(&mut self, event: FeedEvent) {
        match event {
            FeedEvent::Message(message) => self.on_message(message).await,
            FeedEvent::Watching(topic) => {
                if let Some(flow) = self.flows.get_mut(&topic)
                    && matches!(flow.stage, Stage::Asking)
                {
                    flow.stage = Stage::Locating;
                    self.read(topic, Duration::ZERO);
                } else {
                    self.compare(topic);
                }
            }
            // What is fed until it is whole again still follows by position, or shows a hole.
            FeedEvent::Interrupted => {
                tracing::warn!("the feed was interrupted");
                counter!(telemetry::FEED_INTERRUPTIONS).increment(1);
                self.interrupted.store(true, Ordering::Relaxed);
            }
            FeedEvent::Restored => {
                self.interrupted.store(false, Ordering::Relaxed);
                let topics: Vec<Topic> = self.flows.keys().cloned().collect();
                tracing::info!(topics = topics.len(), "the feed is back, comparing positions");
                topics.into_iter().for_each(|topic| self.compare(topic));
            }
        }
    }

    /// Compares a topic's position with the store's, after something may have been missed.
    fn compare(&mut self, topic: Topic) {
        let Some(flow) = self.flows.get_mut(&topic) else { return };
        match flow.stage {
            Stage::Asking => return,
            Stage::Flowing => {
                flow.stage = Stage::Repairing;
                self.history.suspend(&topic, true);
            }
            Stage::Locating | Stage::Repairing => {}
        }
        if flow.reading {
            flow.doubtful = true;
        } else {
            self.read(topic, Duration::ZERO);
        }
    }

    async fn on_message(&mut self, message: Message) {
        let Some(flow) = self.flows.get_mut(&message.topic) else { return };
        match (&flow.stage, flow.at) {
            (Stage::Flowing, Some(at)) if message.at == at.next() => {
                flow.at = Some(message.at);
                let wants = told(flow);
                self.history.push(&message);
                give(&self.shards, &wants, at, message).await;
            }
            (Stage::Flowing, Some(at)) if !is_ahead(message.at, at) => {}
            (Stage::Flowing, Some(at))
                if message.at.epoch == at.epoch && self.store.settings(&message.topic).mode == Mode::Live =>
            {
                self.on_hole_of_live(message, at).await;
            }
            (Stage::Flowing, Some(at)) => {
                tracing::debug!(topic = %message.topic, %at, fed = %message.at, "a hole in the feed, reading the store");
                flow.stage = Stage::Repairing;
                self.history.suspend(&message.topic, true);
                if flow.reading {
                    flow.doubtful = true;
                } else {
                    self.read(message.topic, Duration::ZERO);
                }
            }
            (Stage::Asking, _) => {}
            (Stage::Locating | Stage::Repairing, _) | (Stage::Flowing, None) => {
                if self.store.settings(&message.topic).mode == Mode::Live {
                    flow.hold(message);
                } else {
                    flow.newest = Some(message.at);
                }
            }
        }
    }

    /// Reads the next page of a topic, after a wait, when its turn comes.
    fn read(&mut self, topic: Topic, wait: Duration) {
        let Some(flow) = self.flows.get_mut(&topic) else { return };
        flow.reading = true;
        self.waiting.push_back((topic, flow.stay, wait));
        self.read_waiting();
    }

    fn read_waiting(&mut self) {
        while self.reads.len() < READS_AT_ONCE
            && let Some((topic, stay, wait)) = self.waiting.pop_front()
        {
            if self.flows.get(&topic).is_some_and(|f| f.stay == stay) {
                self.begin_read(topic, wait);
            }
        }
    }

    fn begin_read(&mut self, topic: Topic, wait: Duration) {
        let Some(flow) = self.flows.get_mut(&topic) else { return };
        flow.newest = None;
        flow.doubtful = false;
        // Where nobody stands yet, from a little before those who come back, so that the page serves them all.
        let asked = flow.wants.iter().filter_map(|want| want.after).min_by_key(|after| after.offset);
        let from = flow.at.or(asked.map(history::before)).map_or(ReadFrom::Last(0), ReadFrom::After);
        let (store, stay, stood) = (self.store.clone(), flow.stay, flow.at);
        self.reads.push(
            async move {
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                let page = store.read(&topic, from, ReadLimit::default()).await;
                (topic, stay, stood, page)
            }
            .boxed(),
        );
    }

    async fn on_page(&mut self, (topic, stay, stood, page): Read) {
        if self.flows.get(&topic).is_some_and(|f| f.stay == stay) {
            self.on_page_of(topic, stood, page).await;
        }
        self.read_waiting();
    }

    async fn on_page_of(&mut self, topic: Topic, stood: Option<Position>, page: Result<Page, StoreError>) {
        let Some(flow) = self.flows.get_mut(&topic) else { return };
        flow.reading = false;
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                tracing::debug!(%topic, %error, "cannot read the store, trying again");
                let wait = flow.retry;
                flow.retry = (wait * 2).min(RETRY_MOST);
                return self.read(topic, wait);
            }
        };
        flow.retry = RETRY_FIRST;
        if flow.at.is_some() && page.is_last() && page.missing.is_some_and(|missing| missing.why == GapCause::Live) {
            return self.on_nothing_kept(topic, page.head).await;
        }
        flow.counted = None;
        if flow.at != stood {
            // A live topic flowed on meanwhile, so the page is of before: another one, and nothing flows until it is there.
            flow.stage = Stage::Repairing;
            self.history.suspend(&topic, true);
            return self.read(topic, Duration::ZERO);
        }
        let (end, mut last) = (page.end, page.is_last());
        match flow.at {
            None => {
                // It is the head that was looked for, wherever the page ends.
                last = true;
                flow.at = Some(page.head);
                self.history.open(&topic, self.store.settings(&topic), page.head, &page);
                self.history.suspend(&topic, true);
                flow.stage = Stage::Repairing;
            }
            Some(at) => {
                let wants = told(flow);
                let mut before = at;
                for item in walk(at, page) {
                    match item {
                        Item::Message(message) => {
                            let at = message.at;
                            self.history.push(&message);
                            give(&self.shards, &wants, before, message).await;
                            before = at;
                        }
                        Item::Gap(gap) => {
                            before = gap.resume;
                            self.history.skip(&topic, gap.resume);
                            for want in &wants {
                                send(&self.shards, want.shard, ToShard::Gap { topic: topic.clone(), gap }).await;
                            }
                        }
                    }
                }
                flow.at = Some(end);
            }
        }
        let at = flow.at.expect("set above");
        let behind = flow.newest.is_some_and(|newest| newest != at && is_ahead(newest, at));
        if !last || behind || flow.doubtful {
            self.read(topic.clone(), Duration::ZERO);
            return self.tell_joined(&topic).await;
        }
        flow.stage = Stage::Flowing;
        let held = std::mem::take(&mut flow.held);
        self.history.suspend(&topic, false);
        self.tell_joined(&topic).await;
        for message in held {
            // One of another life has the store read again, and those after it held again.
            self.on_message(message).await;
        }
    }
}

/// Whether a fed position asks for a look at the store: further on in this life, or of another life.
fn is_ahead(fed: Position, at: Position) -> bool {
    fed.is_past(at) || fed.epoch != at.epoch
}

fn told(flow: &Flow) -> Vec<Want> {
    flow.wants.iter().copied().filter(|w| flow.told.contains(&w.ticket)).collect()
}

async fn give(shards: &[mpsc::Sender<ToShard>], wants: &[Want], before: Position, message: Message) {
    let delivery = Arc::new(Delivery::new(before, message));
    for want in wants {
        send(shards, want.shard, ToShard::Message(delivery.clone())).await;
    }
}

/// A shard that is behind holds the feed up; one that is gone is passed over.
async fn send(shards: &[mpsc::Sender<ToShard>], shard: ShardId, what: ToShard) {
    if let Some(shard) = shards.get(shard.0) {
        let _ = shard.send(what).await;
    }
}
