//! Builds all parts, wires them, and takes them down in order. It alone knows everybody.

mod copy;
mod http;
mod machine;
mod run;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::copy::{back_up, restore};
use self::http::Listener;
pub use self::run::run;
use crate::api::{self, ApiState, Health, Trouble, Troubles};
use crate::config::{Config, Ingest, Mode, Options};
use crate::demo;
use crate::dispatcher::{self, Dispatcher, door};
use crate::document;
use crate::domain::access::Access;
use crate::domain::dead::DeadLetterBox;
use crate::domain::error::Problem;
use crate::domain::message::Durability;
use crate::domain::secret::Secret;
use crate::domain::store::Store;
use crate::domain::topic::{Mode as TopicMode, Pattern, Rule};
use crate::domain::webhook::Hosts;
use crate::gateway::{self, Channels, Gateway, Threads};
use crate::herald::{self, Trust};
use crate::hub::Hub;
use crate::hub::bindings;
use crate::hub::budget::Budget;
use crate::hub::queues::Wording;
use crate::scheduler;
use crate::store;
use crate::telemetry::{self, Metrics};
use crate::web;

/// Ports that the demo tries one after the other.
const DEMO_PORTS: u16 = 50;
/// How messages become jobs.
const BINDINGS: bindings::Wording =
    bindings::Wording { headers: document::headers, bound: document::bound, binding: document::binding };
/// How often measurements are sorted into their buckets.
const TIDY: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{setting} {address}: {error}; choose another with --{flag}", flag = setting.replace('_', "-"))]
    Listen { setting: &'static str, address: SocketAddr, error: io::Error },
    #[error("store: {0}")]
    Store(#[from] store::OpenError),
    #[error("ingest: {0}")]
    Ingest(#[from] dispatcher::StartError),
    #[error("bindings: {0}")]
    Bindings(Problem),
    #[error("{0}")]
    Access(String),
    #[error("webhook_ca: {0}")]
    Trust(String),
    #[error("threads: {0}")]
    Threads(#[from] io::Error),
}

/// A hub that runs.
pub struct Server {
    pub http: SocketAddr,
    /// `None`: on the public address.
    pub admin: Option<SocketAddr>,
    pub door: Option<SocketAddr>,
    store: Arc<dyn Store>,
    hub: Hub,
    gateway: Gateway,
    threads: Threads,
    dispatcher: Arc<std::sync::Mutex<Option<Dispatcher>>>,
    draining: Arc<AtomicBool>,
    stop: CancellationToken,
    serving: Vec<JoinHandle<()>>,
    side: Vec<JoinHandle<()>>,
    patience: Duration,
}

impl Server {
    /// Starts everything; when it returns, the hub answers.
    pub async fn start(config: &Config, mode: Mode) -> Result<Server, StartError> {
        let options = &config.options;
        let telling = herald_options(options)?;
        let tries = if mode.is_demo() { DEMO_PORTS } else { 1 };
        let bind = |setting, address| {
            Listener::bind(address, tries).map_err(|error| StartError::Listen { setting, address, error })
        };
        let public = bind("listen", options.listen)?;
        let admin = options.admin_listen.map(|address| bind("admin_listen", address)).transpose()?;
        let metrics = Metrics::start();
        let opened = store::open(&options.store, store_options(options)).await?;
        let shards = match options.shards {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get().saturating_sub(1).max(1)),
            n => n,
        };
        let channels = Channels::new(shards);
        let (hub, sequencer) =
            Hub::with_memory(opened.store.clone(), channels.to_shards.clone(), options.history_cache);
        let hub = hub.with_cursors(opened.cursors);
        let hub = match opened.queues {
            Some(keeper) => hub.with_queues(keeper),
            None => hub,
        };
        let hub = hub.with_wording(Wording { address: document::address, read: document::read_reply });
        let hub = hub.with_bindings(options.bindings.clone(), BINDINGS).await.map_err(StartError::Bindings)?;
        let (http, admin_address) = (public.address, admin.as_ref().map(|a| a.address));
        let dispatcher = start_dispatcher(&hub, options, opened.embedded_dead, tries).await?;
        let door = dispatcher.as_ref().and_then(Dispatcher::door);
        let dead = dispatcher.as_ref().map(Dispatcher::dead);
        let dispatcher = Arc::new(std::sync::Mutex::new(dispatcher));

        let access = Access::new(http.ip(), &options.origins, &options.hosts).map_err(StartError::Access)?;
        let access = Arc::new(access);
        let limits = Arc::new(options.limits.clone());
        let budget = Budget::new(machine::budget(limits.memory, options.history_cache));
        let (gateway, threads) = Gateway::start(&hub, channels, limits.clone(), budget, access.clone())?;
        let draining = Arc::new(AtomicBool::new(false));
        let troubles = troubles(hub.clone(), draining.clone(), dispatcher.clone());
        let health = Health { hub: hub.clone(), troubles: troubles.clone() };
        let facts = facts(options, mode, http, door, opened.store.status().kind);

        let (observed, own) = (hub.clone(), hub.clone());
        let (board, scheduler) = scheduler::start(&hub, options.schedules.clone(), Arc::new(scheduler::Wall));
        let herald = herald::start(&hub, telling);
        let state = ApiState { hub, dead, access: access.clone(), limits, troubles };
        let page = web::gated(demo::routes(facts), access.clone());
        let mut router =
            api::router(state).merge(gateway::routes(gateway.clone())).merge(gateway::beside(gateway.clone(), page));
        router = router.merge(api::schedules_router(access.clone(), Arc::new(move || board.all())));
        let render: Arc<dyn Fn() -> String + Send + Sync> = Arc::new({
            let metrics = metrics.clone();
            move || metrics.render()
        });
        let stop = CancellationToken::new();
        let mut serving = Vec::new();
        match admin {
            Some(listener) => {
                let access = Access::new(listener.address.ip(), &options.origins, &options.hosts);
                let access = Arc::new(access.map_err(StartError::Access)?);
                let router: Router = api::admin_router(health, access, render);
                serving.push(listener.serve(router, options.handshake, stop.clone()));
            }
            None => router = router.merge(api::metrics_router(access, render)),
        }
        serving.push(public.serve(router, options.handshake, stop.clone()));

        let mut side = vec![tokio::spawn(sequencer), tokio::spawn(tidy(metrics, observed)), tokio::spawn(herald)];
        side.push(tokio::spawn(scheduler));
        if let (true, Some(door)) = (mode.is_demo(), door) {
            side.push(tokio::spawn(demo::publish_vitals(format!("redis://{door}"), options.ingest_stream.clone())));
        }
        Ok(Server {
            http,
            admin: admin_address,
            door,
            store: opened.store,
            hub: own,
            gateway,
            threads,
            dispatcher,
            draining,
            stop,
            serving,
            side,
            patience: options.shutdown,
        })
    }

    /// Stops accepting, finishes what was accepted, closes the sockets, ends; within the bound of the settings.
    ///
    /// Nobody gets the whole bound: neither entries that cannot be stored now nor requests that never end keep the sockets
    /// from being closed and the store from finishing.
    pub async fn stop(self) {
        let begun = tokio::time::Instant::now();
        let deadline = begun + self.patience;
        self.draining.store(true, Ordering::Relaxed);
        self.stop.cancel();
        let dispatcher = self.dispatcher.lock().unwrap_or_else(|e| e.into_inner()).take();
        let finish = async {
            // No part may use up the whole: half of the bound is left for the sockets and the store.
            let half = begun + self.patience / 2;
            let ingest = async {
                if let Some(dispatcher) = dispatcher {
                    dispatcher.stop().await;
                }
            };
            // Whoever waits for jobs or for a reply is answered now.
            self.hub.close_queues();
            let requests = futures::future::join_all(self.serving);
            let _ = tokio::join!(tokio::time::timeout_at(half, ingest), tokio::time::timeout_at(half, requests));
            self.hub.settle().await;
            self.gateway.drain().await;
            let _ = tokio::task::spawn_blocking(move || self.threads.join()).await;
            // What those who went held is given back before the store closes.
            self.hub.finish_queues().await;
            self.store.close().await;
        };
        if tokio::time::timeout_at(deadline, finish).await.is_err() {
            tracing::warn!(bound = ?self.patience, "not everything was finished in time");
        }
        for task in self.side {
            task.abort();
        }
    }
}

/// What was set, and before it that replies are kept for nobody but whoever waits for them.
fn rules(options: &Options) -> Vec<Rule> {
    let inboxes = "$inbox.*".parse::<Pattern>().expect("it is a pattern");
    let inboxes = Rule { mode: Some(TopicMode::Live), ..Rule::new(inboxes) };
    std::iter::once(inboxes).chain(options.rules.iter().cloned()).collect()
}

fn store_options(options: &Options) -> store::Options {
    store::Options {
        prefix: options.prefix.clone(),
        retention: options.retention,
        cursors: options.cursors,
        rules: rules(options),
        queues: options.queue_rules(),
        queue_count: options.queue_count,
        queue_bytes: options.queue_bytes,
        queue_keys: options.queue_keys,
        feed_capacity: options.feed,
        total_bytes: options.store_bytes,
        accept_loss: options.accept_loss,
        topics: options.max_topics,
        idempotency_keys: options.idempotency_keys,
        waiting_calls: options.store_waiting,
        waiting_bytes: options.store_waiting_bytes,
        dead_letters: options.dead_letters,
        connect_timeout: options.redis_connect,
        response_timeout: options.redis_answer,
        // "auto" and "ask" are no values of their own.
        durability: Durability::parse(&options.durability),
        replicas: options.replicas,
        replica_wait: options.replica_wait,
        fsync: Some(options.redis_fsync.clone()).filter(|said| said != "ask"),
        ..store::Options::default()
    }
}

fn herald_options(options: &Options) -> Result<herald::Options, StartError> {
    let trust = match options.webhook_ca.as_str() {
        "" => Trust::default(),
        path => Trust::default().with_file(path.as_ref()).map_err(StartError::Trust)?,
    };
    Ok(herald::Options {
        secret: Secret::parse(&options.webhook_secret).ok(),
        hosts: Hosts::read(&options.webhook_hosts).map_err(StartError::Access)?,
        trust,
        figures: options.queue_stats,
    })
}

async fn start_dispatcher(
    hub: &Hub,
    options: &Options,
    dead: Option<Arc<dyn DeadLetterBox>>,
    tries: u16,
) -> Result<Option<Dispatcher>, StartError> {
    let common = dispatcher::Options {
        limits: options.limits.clone(),
        patience: options.shutdown,
        ..dispatcher::Options::default()
    };
    let (stream, list) = (options.ingest_stream.clone(), options.ingest_list.clone());
    match (options.ingest(), dead, options.redis_listen) {
        (Ingest::Redis(url), ..) => {
            let mut redis = dispatcher::redis::Options::new(url, &options.prefix);
            redis.stream = stream;
            redis.list = list;
            redis.partitions = options.ingest_partitions as u32;
            redis.terms = terms(options.ingest_lease);
            redis.keep = options.ingest_keep;
            redis.held = redis.held.min(options.shortest_record() / 2);
            redis.dead_letters = options.dead_letters;
            redis.patience.connect = options.redis_connect;
            redis.patience.response = options.redis_answer;
            Ok(Some(dispatcher::start(hub.clone(), dispatcher::Ingest::Redis(redis), common).await?))
        }
        (Ingest::Door, Some(dead), Some(address)) => {
            let mut last = None;
            for port in http::candidates(address.port(), tries) {
                let listen = SocketAddr::new(address.ip(), port).to_string();
                let mut door = door::Options::new(listen, &options.prefix);
                door.stream = stream.clone();
                door.list = list.clone();
                let ingest = dispatcher::Ingest::Door(door, dead.clone());
                match dispatcher::start(hub.clone(), ingest, common.clone()).await {
                    Ok(dispatcher) => return Ok(Some(dispatcher)),
                    Err(error) => last = Some(error),
                }
            }
            Err(last.expect("at least one port was tried").into())
        }
        _ => Ok(None),
    }
}

/// A lease is renewed early enough that two renewals may fail.
fn terms(lease: Duration) -> dispatcher::redis::Terms {
    let usual = dispatcher::redis::Terms::default();
    dispatcher::redis::Terms { lease, renewal: usual.renewal.min(lease * 3 / 10), ..usual }
}

fn troubles(hub: Hub, draining: Arc<AtomicBool>, dispatcher: Arc<std::sync::Mutex<Option<Dispatcher>>>) -> Troubles {
    Arc::new(move || {
        let mut troubles = Vec::new();
        if draining.load(Ordering::Relaxed) {
            troubles.push(Trouble { part: "drain", text: "this node is shutting down".into() });
        }
        if hub.is_interrupted() {
            let text = "the store's feed is interrupted; subscribers get what is published when it is back";
            troubles.push(Trouble { part: "feed", text: text.into() });
        }
        if let Some(dispatcher) = &*dispatcher.lock().unwrap_or_else(|e| e.into_inner()) {
            for source in dispatcher.status() {
                if let Some(text) = source.trouble {
                    troubles.push(Trouble { part: "ingest", text: format!("{}: {text}", source.name) });
                }
            }
        }
        troubles
    })
}

fn facts(
    options: &Options,
    mode: Mode,
    http: SocketAddr,
    door: Option<SocketAddr>,
    store: &'static str,
) -> demo::Facts {
    let redis = match options.ingest() {
        Ingest::Redis(url) => Some(crate::config::redacted(&url)),
        _ => door.map(|door| format!("redis://{door}")),
    };
    demo::Facts {
        http: format!("http://{http}"),
        ws: format!("ws://{http}/ws"),
        redis,
        prefix: options.prefix.clone(),
        stream: options.ingest_stream.clone(),
        list: options.ingest_list.clone(),
        version: env!("CARGO_PKG_VERSION"),
        vitals: mode.is_demo() && door.is_some() && demo::HAS_VITALS,
        store,
    }
}

/// Sorts measurements, and sets the gauges that nobody else sets.
async fn tidy(metrics: Metrics, hub: Hub) {
    let mut tick = tokio::time::interval(TIDY);
    loop {
        tick.tick().await;
        metrics.tidy();
        let status = hub.status();
        metrics::gauge!(telemetry::STORE_UP, "store" => status.kind).set(f64::from(u8::from(status.trouble.is_none())));
        hub.measure();
        metrics::gauge!(telemetry::TOPICS).set(hub.topics() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_of_any_length_is_renewed_before_it_is_over() {
        for lease in [500, 1_500, 5_000, 60_000].map(Duration::from_millis) {
            let terms = terms(lease);
            assert!(terms.lease == lease && terms.renewal * 3 < lease, "{terms:?}");
        }
    }
}
