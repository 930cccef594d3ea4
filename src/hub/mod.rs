//! The hub: takes publishes in, reads history, and brings what the store feeds to whoever subscribed.
//!
//! It knows which shards want which topic, but not which protocol their connections speak, nor which store is behind.

pub mod bindings;
pub mod budget;
mod history;
pub mod outbox;
pub mod queues;
mod registry;
mod sequencer;
mod stretch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use metrics::histogram;
use tokio::sync::{mpsc, oneshot};

use self::bindings::Bindings;
use self::history::History;
use self::queues::{Desk, REPLIES, Requests, Wording};
use self::registry::Registry;
pub use self::registry::{ShardId, Ticket};
use self::sequencer::Sequencer;
use crate::domain::binding::Binding;
use crate::domain::codec::Format;
use crate::domain::cursor::{CursorKey, Cursors, First, Opened, Placed};
use crate::domain::replay::Gap;

use crate::domain::error::{Problem, Reason};
use crate::domain::limits::HISTORY_CACHE;
use crate::domain::message::{Durability, Message, Publication};
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::domain::queue::{Put, PutAnswer, QueueKeeper};
use crate::domain::store::{Append, Appended, Page, ReadFrom, ReadLimit, Store, StoreError, StoreStatus};
use crate::domain::topic::{Mode, Slow};
use crate::telemetry;

/// A handle to the hub; clones are the same hub.
#[derive(Clone)]
pub struct Hub {
    store: Arc<dyn Store>,
    cursors: Option<Arc<dyn Cursors>>,
    desk: Option<Arc<Desk>>,
    requests: Option<Arc<Requests>>,
    bindings: Option<Arc<Bindings>>,
    registry: Arc<Registry>,
    /// The feed is interrupted: what is published now reaches subscribers late.
    interrupted: Arc<AtomicBool>,
    settle: Option<mpsc::Sender<oneshot::Sender<()>>>,
    history: Arc<History>,
}

/// What a shard gets from the hub. For one topic these come in order: `Joined`, then whatever follows that position.
#[derive(Debug, Clone)]
pub enum ToShard {
    /// The stream of a topic stands at `at`; everything after it follows.
    Joined {
        topic: Topic,
        ticket: Ticket,
        at: Position,
    },
    Message(Arc<Delivery>),
    /// The stream goes on behind a gap.
    Gap {
        topic: Topic,
        gap: Gap,
    },
}

/// A message on its way to subscribers, encoded at most once for each format and shared by all of them.
#[derive(Debug)]
pub struct Delivery {
    /// Where the stream stood before it.
    pub before: Position,
    pub message: Message,
    frames: [OnceLock<Bytes>; Format::COUNT],
}

impl Delivery {
    pub fn new(before: Position, message: Message) -> Delivery {
        Delivery { before, message, frames: Default::default() }
    }

    /// The frame in a format; the first to ask writes it.
    pub fn frame(&self, format: Format, write: impl FnOnce(&Message) -> Bytes) -> &Bytes {
        self.frames[format.index()].get_or_init(|| write(&self.message))
    }
}

/// The answer to a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub topic: Topic,
    pub stored: Position,
    pub durability: Durability,
}

impl Hub {
    /// A hub without shards: publishes and reads.
    pub fn new(store: Arc<dyn Store>) -> Hub {
        let interrupted = Arc::<AtomicBool>::default();
        let history = History::new(store.clone(), 0, interrupted.clone());
        Hub {
            store,
            cursors: None,
            desk: None,
            requests: None,
            bindings: None,
            registry: Arc::default(),
            interrupted,
            settle: None,
            history,
        }
    }

    /// A hub that feeds shards through the given channels; the first is `ShardId(0)`. The future is the sequencer: it
    /// must be run, and ends when the store closes its feed.
    pub fn with_shards(
        store: Arc<dyn Store>,
        shards: Vec<mpsc::Sender<ToShard>>,
    ) -> (Hub, impl Future<Output = ()> + Send + 'static) {
        Hub::with_memory(store, shards, HISTORY_CACHE)
    }

    /// The same, keeping at most so many bytes of the newest messages for those who come back.
    pub fn with_memory(
        store: Arc<dyn Store>,
        mut shards: Vec<mpsc::Sender<ToShard>>,
        bytes: usize,
    ) -> (Hub, impl Future<Output = ()> + Send + 'static) {
        let registry = Arc::<Registry>::default();
        let interrupted = Arc::<AtomicBool>::default();
        let (settle, settling) = mpsc::channel(1);
        let history = History::new(store.clone(), bytes, interrupted.clone());
        // Replies come like messages to a shard of their own.
        let (to_requests, replies) = mpsc::channel(REPLIES);
        let requests = Arc::new(Requests::new(registry.clone(), ShardId(shards.len())));
        shards.push(to_requests);
        let sequencer = Sequencer {
            store: store.clone(),
            registry: registry.clone(),
            shards,
            interrupted: interrupted.clone(),
            settling,
            history: history.clone(),
        };
        let listening = requests.clone().listen(replies);
        let requests = Some(requests);
        let settle = Some(settle);
        let bindings = None;
        let hub = Hub { store, cursors: None, desk: None, requests, bindings, registry, interrupted, settle, history };
        let running = async move {
            // Both end with the store's feed.
            tokio::join!(sequencer.run(), listening);
        };
        (hub, running)
    }

    /// The same hub with whoever keeps its cursors.
    pub fn with_cursors(self, cursors: Arc<dyn Cursors>) -> Hub {
        Hub { cursors: Some(cursors), ..self }
    }

    /// The same hub with whoever keeps its queues. To be called on a runtime, where the desk works.
    pub fn with_queues(self, keeper: QueueKeeper) -> Hub {
        Hub { desk: Some(Arc::new(Desk::open(keeper))), ..self }
    }

    /// The same hub, whose edges write and read requests and replies so.
    pub fn with_wording(self, wording: Wording) -> Hub {
        if let Some(requests) = &self.requests {
            requests.set_wording(wording);
        }
        self
    }

    /// The same hub with bindings of topics to its queues. What is published to them is answered when it is a job, too.
    pub async fn with_bindings(self, list: Vec<Binding>, wording: bindings::Wording) -> Result<Hub, Problem> {
        if list.is_empty() {
            return Ok(self);
        }
        let desk = self.queues()?.clone();
        let bindings = Bindings::open(self.store.clone(), desk, list, wording).await?;
        Ok(Hub { bindings: Some(Arc::new(bindings)), ..self })
    }

    /// A shard's first subscriber of a topic: `ToShard::Joined` with this ticket follows.
    pub fn join(&self, topic: &Topic, shard: ShardId) -> Ticket {
        self.join_after(topic, shard, None)
    }

    /// The same for one who asks for what follows a position: the stream is then located by reading from there, and the
    /// page is kept for it and for others who come back at the same time.
    pub fn join_after(&self, topic: &Topic, shard: ShardId, after: Option<Position>) -> Ticket {
        let after = after.filter(|_| self.store.settings(topic).mode == Mode::Log);
        self.registry.want(topic, shard, after)
    }

    /// A shard's last subscriber of a topic went.
    pub fn leave(&self, topic: &Topic, shard: ShardId) {
        self.registry.leave(topic, shard);
    }

    /// Waits until everything that the store has fed so far is on its way to the shards: before they are closed.
    pub async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        if let Some(settle) = &self.settle
            && settle.send(done).await.is_ok()
        {
            let _ = settled.await;
        }
    }

    /// Topics that subscribers of this node want, of those whose names begin and end so.
    pub fn wanted(&self, begin: &str, end: &str) -> Vec<Topic> {
        self.registry.wanted(begin, end)
    }

    /// How many topics the subscribers of this node want.
    pub fn topics(&self) -> usize {
        self.registry.topics()
    }

    /// Publishes one message. The work starts with the call: two calls are applied in their order.
    pub fn publish(&self, publication: Publication) -> BoxFuture<'static, Result<Receipt, Problem>> {
        let topic = publication.topic.clone();
        let stored = self.append(vec![Append { publication, fence: None }]);
        async move {
            let answer = stored.await.pop().unwrap_or_else(|| Err(StoreError::Broken("no answer".into())))?;
            match answer {
                Appended::Stored { at, durability, .. } | Appended::Repeated { at, durability } => {
                    Ok(Receipt { topic, stored: at, durability })
                }
                Appended::Skipped => Err(StoreError::Broken("skipped without a fence".into()).into()),
            }
        }
        .boxed()
    }

    /// Stores a batch, fenced or not, and answers item by item. For the dispatcher and the HTTP API.
    pub fn append(&self, batch: Vec<Append>) -> BoxFuture<'static, Vec<Result<Appended, StoreError>>> {
        let begun = Instant::now();
        let batch = match &self.bindings {
            Some(bindings) => match bindings.append(batch) {
                Ok(bound) => return bound,
                Err(batch) => batch,
            },
            None => batch,
        };
        let stored = self.store.append(batch);
        async move {
            let answers = stored.await;
            histogram!(telemetry::APPEND_SECONDS).record(begun.elapsed());
            answers
        }
        .boxed()
    }

    pub fn read(
        &self,
        topic: &Topic,
        from: ReadFrom,
        limit: ReadLimit,
    ) -> BoxFuture<'static, Result<Page, StoreError>> {
        let (begun, page) = (Instant::now(), self.store.read(topic, from, limit));
        async move {
            let page = page.await;
            histogram!(telemetry::READ_SECONDS).record(begun.elapsed());
            page
        }
        .boxed()
    }

    /// Reads for a subscriber whose live stream stands at `live`. Many who come back at once share their reads, and what
    /// was handed on lately comes from memory; what is left out is still to come in the stream.
    pub fn replay(
        &self,
        topic: &Topic,
        from: ReadFrom,
        limit: ReadLimit,
        live: Position,
    ) -> BoxFuture<'static, Result<Page, StoreError>> {
        self.history.replay(topic, from, limit, live)
    }

    /// Sets the gauges of what the hub holds.
    pub fn measure(&self) {
        self.history.measure();
        if let Some(desk) = &self.desk {
            desk.measure();
        }
    }

    /// The one message at a position, if it is still kept.
    pub fn find(&self, topic: &Topic, at: Position) -> BoxFuture<'static, Result<Option<Message>, StoreError>> {
        let page = self.read(topic, ReadFrom::After(at.before()), ReadLimit { messages: 1, ..ReadLimit::default() });
        async move { Ok(page.await?.messages.into_iter().find(|m| m.at == at)) }.boxed()
    }

    /// Who keeps the cursors.
    pub fn cursors(&self) -> Result<&Arc<dyn Cursors>, Problem> {
        self.cursors.as_ref().ok_or_else(|| Problem::new(Reason::NotFound, "this hub's store keeps no cursors"))
    }

    /// Uses a cursor; it is made if it is not there.
    pub fn open_cursor(&self, key: &CursorKey, first: First) -> BoxFuture<'static, Result<Opened, Problem>> {
        let opened = self.cursors().map(|cursors| cursors.open(key, first));
        async move { Ok(opened?.await?) }.boxed()
    }

    pub fn commit(&self, key: &CursorKey, at: Position, rewind: bool) -> BoxFuture<'static, Result<Placed, Problem>> {
        let placed = self.cursors().map(|cursors| cursors.commit(key, at, rewind));
        async move { Ok(placed?.await?) }.boxed()
    }

    /// Where jobs are put and taken.
    pub fn queues(&self) -> Result<&Arc<Desk>, Problem> {
        self.desk.as_ref().ok_or_else(queues::absent)
    }

    /// Gives out no more jobs and waits for no more replies: before the edges are taken down.
    pub fn close_queues(&self) {
        if let Some(desk) = &self.desk {
            desk.close();
        }
        if let Some(requests) = &self.requests {
            requests.close();
        }
    }

    /// Waits until what was given back has been told to the store: before it is closed.
    pub async fn finish_queues(&self) {
        if let Some(desk) = &self.desk {
            desk.finish().await;
        }
    }

    /// Puts jobs into queues, fenced or not, and answers item by item. For every door.
    pub fn put(&self, batch: Vec<Put>) -> BoxFuture<'static, Vec<Result<PutAnswer, StoreError>>> {
        match &self.desk {
            Some(desk) => desk.put(batch),
            None => {
                let absent = || Err(StoreError::Broken(queues::absent().text));
                async move { batch.iter().map(|_| absent()).collect() }.boxed()
            }
        }
    }

    /// Whether the feed is interrupted: subscribers then get late what is published, and are told what they miss.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// The mode that a topic is kept in.
    pub fn mode(&self, topic: &Topic) -> Mode {
        self.store.settings(topic).mode
    }

    /// What becomes of who does not keep up with a topic.
    pub fn slow(&self, topic: &Topic) -> Slow {
        self.store.settings(topic).slow
    }

    /// The life of the store, see `Store::life`.
    pub fn store_life(&self) -> Option<Arc<str>> {
        self.store.life()
    }

    /// How the store is at this moment.
    pub fn status(&self) -> StoreStatus {
        self.store.status()
    }
}
