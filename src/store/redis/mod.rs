//! The Redis store: topics as streams on a Redis (or Valkey) 7.0 or newer, shared by any number of hub nodes.
//!
//! What is stored is decided by two scripts (`append.lua`, `read.lua`), each atomic. One task (`writer`) carries calls
//! to Redis over one connection, another (`feed`) follows the channels of watched topics over a second one; both find
//! their way back after an outage of any length, for ever. An `Ok` means that Redis has answered so.

mod calls;
mod cluster;
mod cursors;
mod facts;
mod feed;
mod flight;
mod greeting;
mod keys;
mod levels;
mod lives;
mod pages;
mod queue;
mod queues;
mod scripts;
#[cfg(test)]
mod tests;
mod topics;
mod watched;
mod witness;
mod writer;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, ready};
use futures::stream::{BoxStream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use self::cluster::Router;
use self::feed::Feed;
use self::greeting::{Greeting, Host};
use self::keys::{Keys, Kind};
use self::levels::{Levels, Verdict};
use self::lives::Lives;
use self::pages::{Ask, Guess, Judged};
use self::queue::{Batch, Entrance, Job, State, queue};
use self::queues::{Keeper, RedisQueues};
use self::scripts::Scripts;
use self::topics::Outcome;
use self::writer::Writer;
use crate::domain::cursor::{CursorBounds, Cursors};
use crate::domain::message::Durability;
use crate::domain::name::Topic;
use crate::domain::queue::{QueueKeeper, QueueRules};
use crate::domain::store::{
    Append, Appended, FeedEvent, Page, ReadFrom, ReadLimit, Retention, Store, StoreError, StoreStatus, Watch,
};
use crate::domain::topic::{Rule, TopicSettings};
use crate::endpoint::{Chart, Endpoint, Patience};
use crate::store::cursors::Desk;

/// How often a page is tried to be read while the topic changes under our hands.
const READS: u32 = 16;

#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// What all keys and channels begin with.
    pub prefix: String,
    /// Into how many groups topics are dealt. Fixed when the store is first opened.
    pub groups: u16,
    pub retention: Retention,
    pub rules: Vec<Rule>,
    /// The level where nothing is asked for; none: what every write has.
    pub durability: Option<Durability>,
    /// Replicas that must have a message of the level `replica`, and how long it may take; 0: there is no such level.
    pub replicas: usize,
    pub replica_wait: Duration,
    /// What the operator says of `appendfsync`, where the server does not tell.
    pub fsync: Option<String>,
    pub cursors: CursorBounds,
    pub queues: QueueRules,
    pub connect_timeout: Duration,
    /// How long an answer may take before the connection is gives up.
    pub response_timeout: Duration,
    /// How often a silent connection is asked whether it lives.
    pub ping: Duration,
    /// The wait before the second try to connect; it doubles up to the longest.
    pub retry_min: Duration,
    pub retry_max: Duration,
    /// Pipelines on their way to Redis at a time.
    pub pipelines: usize,
    /// Messages, and bytes of them, that wait for Redis or are on their way; what is over that fails at once.
    pub queue_messages: usize,
    pub queue_bytes: usize,
    /// Messages, and bytes of them, that wait for the reader of the feed; what is over that is dropped, and told.
    pub feed_messages: usize,
    pub feed_bytes: usize,
}

impl Default for RedisOptions {
    fn default() -> RedisOptions {
        RedisOptions {
            prefix: "fanfare".into(),
            groups: 256,
            retention: Retention::default(),
            rules: Vec::new(),
            durability: None,
            replicas: 1,
            replica_wait: Duration::from_secs(1),
            fsync: None,
            cursors: CursorBounds::default(),
            queues: QueueRules::default(),
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(5),
            ping: Duration::from_secs(2),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(1),
            pipelines: 4,
            queue_messages: 16 * 1024,
            queue_bytes: 64 * 1024 * 1024,
            feed_messages: 32 * 1024,
            feed_bytes: 64 * 1024 * 1024,
        }
    }
}

impl RedisOptions {
    fn patience(&self) -> Patience {
        Patience { connect: self.connect_timeout, response: self.response_timeout }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Address(String),
    #[error("cannot reach Redis: {0}")]
    Unreachable(String),
    #[error("this Redis cannot be used: {0}")]
    Unfit(String),
    #[error("{0}")]
    Level(String),
    #[error(
        "this store was opened with {stored} groups of topics and cannot be opened with {asked}; keep {stored} \
         (the key {key} says so), or use another prefix for a new store"
    )]
    Groups { key: String, stored: String, asked: u16 },
}

/// A store on a Redis. Its tasks run on the runtime that it was opened on.
pub struct RedisStore {
    host: Arc<Host>,
    /// Who serves which slot, on a cluster.
    chart: Option<Chart>,
    state: Arc<State>,
    entrance: Entrance,
    runtime: Handle,
    feed: Mutex<Option<Feed>>,
    queues: Arc<Keeper>,
}

/// Opens a store at one of the `endpoint::FORMS`.
pub async fn open(url: &str, options: RedisOptions) -> Result<RedisStore, OpenError> {
    let endpoint = Endpoint::parse(url).map_err(OpenError::Address)?;
    if options.prefix.is_empty() || options.prefix.contains(['{', '}', ' ']) {
        return Err(OpenError::Address(format!(
            "{:?} cannot be a prefix of keys: no braces, no spaces",
            options.prefix
        )));
    }
    let names = Keys::new(options.prefix.clone(), options.groups, endpoint.database());
    let sharded = endpoint.seeds().is_some();
    let scripts = Arc::new(Scripts::new(&options.retention, &options.rules, options.cursors, sharded));
    let lives = Arc::new(Lives::new(vec![String::new()]));
    let host = Arc::new(Host { endpoint, options, names, scripts, lives });
    let runtime = Handle::current();
    if host.endpoint.seeds().is_some() {
        let chart = Chart::open(host.endpoint.clone(), host.options.patience()).await;
        let chart = chart.map_err(OpenError::Unreachable)?;
        let (greeting, levels) = cluster::greet(&host, &chart).await?;
        check_level(&host, &greeting, &levels)?;
        let state = Arc::new(State::new(levels));
        let (entrance, jobs) = queue(state.clone(), host.options.queue_messages, host.options.queue_bytes);
        runtime.spawn(Router::new(host.clone(), chart.clone(), state.clone(), jobs).run());
        return Ok(RedisStore::new(host, Some(chart), state, entrance, runtime));
    }
    let (link, greeting) = host.greet(host.options.connect_timeout, None).await?;
    let levels = Levels::new(&greeting.facts, &host.options, host.may_have_replicas(&greeting.facts));
    check_level(&host, &greeting, &levels)?;
    let state = Arc::new(State::new(levels));
    host.lives.set(vec![greeting.facts.life.to_string()]);
    let (entrance, jobs) = queue(state.clone(), host.options.queue_messages, host.options.queue_bytes);
    let writer = Writer::new(host.clone(), greeting, state.clone(), jobs);
    runtime.spawn(writer.run(link));
    Ok(RedisStore::new(host, None, state, entrance, runtime))
}

/// Whether the settings promise what this Redis can keep. Replicas may be away and come back; settings do not.
fn check_level(host: &Host, greeting: &Greeting, levels: &Levels) -> Result<(), OpenError> {
    let shown = host.endpoint.shown();
    if !greeting.facts.appends {
        tracing::warn!(
            redis = shown,
            "it has no append-only file (appendonly no): a restart of it takes every message"
        );
    }
    if let (Some(stated), Some(told)) = (&host.options.fsync, &greeting.facts.syncs)
        && stated != told
    {
        return Err(OpenError::Level(format!("--redis-fsync says {stated}, but {shown} has appendfsync {told}")));
    }
    match (host.options.durability, levels.trouble()) {
        (Some(Durability::Disk), Some(trouble)) => Err(OpenError::Level(format!("{shown}: {trouble}"))),
        (Some(Durability::Replica), _) if host.options.replicas == 0 => {
            Err(OpenError::Level("the level \"replica\" needs at least one of --replicas".into()))
        }
        (_, Some(trouble)) => {
            tracing::warn!(redis = shown, trouble, "publishes are refused until that is better");
            Ok(())
        }
        _ => Ok(()),
    }
}

impl RedisStore {
    fn new(
        host: Arc<Host>,
        chart: Option<Chart>,
        state: Arc<State>,
        entrance: Entrance,
        runtime: Handle,
    ) -> RedisStore {
        let queues = Keeper::new(host.clone(), chart.clone(), state.clone(), entrance.clone(), runtime.clone());
        RedisStore { host, chart, state, entrance, runtime, feed: Mutex::new(None), queues: Arc::new(queues) }
    }

    /// Its queues, whose calls go over the same connections.
    pub fn queues(&self) -> QueueKeeper {
        let queues = Arc::new(RedisQueues(self.queues.clone()));
        QueueKeeper { queues: queues.clone(), admin: queues }
    }

    /// Its cursors, which wait for Redis in the same queue.
    pub fn cursors(&self) -> Arc<dyn Cursors> {
        Arc::new(Desk(Arc::new(self.entrance.clone())))
    }
}

impl Store for RedisStore {
    fn append(&self, batch: Vec<Append>) -> BoxFuture<'static, Vec<Result<Appended, StoreError>>> {
        let levels = self.state.condition().levels.clone();
        let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(batch.len());
        let (mut items, mut needs) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        let (count, mut bytes) = (batch.len(), 0);
        for (item, append) in batch.into_iter().enumerate() {
            match levels.judge(append.publication.durability, append.fence.is_some()) {
                Verdict::Hold(error) => return ready(vec![Err(error); count]).boxed(),
                Verdict::Refuse(error) => {
                    outcomes.push(Some(Err(error)));
                    needs.push(None);
                }
                Verdict::Store(need) => {
                    bytes += append.publication.body.as_bytes().len();
                    outcomes.push(None);
                    needs.push(need);
                    items.push((item, append));
                }
            }
        }
        let fill = move |outcomes: Vec<Option<Outcome>>, error: StoreError| -> Vec<Outcome> {
            outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(error.clone()))).collect()
        };
        if items.is_empty() {
            return ready(fill(outcomes, StoreError::Broken("no outcome".into()))).boxed();
        }
        let weight = match self.entrance.admit(items.len(), bytes) {
            Ok(weight) => weight,
            Err(error) => return ready(fill(outcomes, error)).boxed(),
        };
        let (answer, answered) = oneshot::channel();
        let job = Job::Append(Batch {
            left: items.len(),
            items,
            outcomes,
            needs,
            answer,
            asking: false,
            group: 0,
            _weight: weight,
        });
        self.entrance.put(job);
        async move {
            let lost = || StoreError::Unconfirmed("the store was shut down meanwhile".into());
            answered.await.unwrap_or_else(|_| vec![Err(lost()); count])
        }
        .boxed()
    }

    fn read(&self, topic: &Topic, from: ReadFrom, limit: ReadLimit) -> BoxFuture<'static, Result<Page, StoreError>> {
        let entrance = self.entrance.clone();
        let topic = topic.clone();
        let mode = self.settings(&topic).mode;
        let mut ask = Ask::new(&topic, from, limit);
        let mut answered = entrance.ask(ask.clone());
        async move {
            let mut from = from;
            let mut begun: Option<Page> = None;
            for _ in 0..READS {
                let stretch = answered
                    .await
                    .unwrap_or_else(|_| Err(StoreError::Unavailable("the store was shut down meanwhile".into())))?;
                let (page, is_page) = match stretch.judge(&topic, mode, from) {
                    Judged::Again(offset) => {
                        ask.guess = Guess::After(offset);
                        answered = entrance.ask(ask.clone());
                        continue;
                    }
                    Judged::Page(page) => (page, true),
                    Judged::Further(page) => (page, false),
                };
                let page = match begun.take() {
                    None => page,
                    // Something changed under our hands: what was read before is still a page.
                    Some(before) if page.missing.is_some() => return Ok(before),
                    Some(before) => Page { start: before.start, missing: before.missing, ..page },
                };
                if is_page {
                    return Ok(page);
                }
                from = ReadFrom::After(page.end);
                ask.guess = Guess::After(page.end.offset);
                answered = entrance.ask(ask.clone());
                begun = Some(page);
            }
            begun.ok_or_else(|| StoreError::Unavailable("the topic changes faster than it can be read".into()))
        }
        .boxed()
    }

    fn feed(&self) -> (Box<dyn Watch>, BoxStream<'static, FeedEvent>) {
        let kind = Kind::Topics;
        let feed = match &self.chart {
            Some(chart) => {
                cluster::feed::open(kind, self.host.clone(), chart.clone(), self.state.clone(), &self.runtime)
            }
            None => Feed::open(kind, self.host.clone(), self.state.clone(), &self.runtime),
        };
        let events = feed.events().boxed();
        let earlier = self.feed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).replace(feed.share());
        if let Some(earlier) = earlier {
            earlier.end();
        }
        (Box::new(feed), events)
    }

    fn life(&self) -> Option<Arc<str>> {
        Some(self.host.lives.known().print.clone())
    }

    fn settings(&self, topic: &Topic) -> TopicSettings {
        *self.host.scripts.rules.of(topic)
    }

    fn status(&self) -> StoreStatus {
        let condition = self.state.condition();
        let trouble = condition.away.as_ref().or(condition.objection.as_ref()).or(condition.feed.as_ref()).cloned();
        StoreStatus { trouble, durability: condition.levels.default(), kind: "redis" }
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        if let Some(feed) = self.feed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take() {
            feed.end();
        }
        // Nothing new is taken; what waits before a queue goes first.
        let Some(calm) = self.queues.close() else { return self.entrance.close() };
        self.state.condition().away = Some("the store is closed".into());
        let entrance = self.entrance.clone();
        let closing = self.runtime.spawn(async move {
            calm.await;
            entrance.close().await;
        });
        closing.map(drop).boxed()
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        if let Some(feed) = self.feed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take() {
            feed.end();
        }
    }
}
