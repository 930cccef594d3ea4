//! The gateway: browsers' sockets. HTTP requests that ask for a WebSocket (`upgrade`) or an event stream (`sse`) are
//! judged on the front runtime and their sockets handed to a shard, which owns them from then on.

mod asking;
mod connection;
mod counters;
mod cursors;
mod event_stream;
mod held;
mod jobs;
mod membership;
mod outgoing;
mod resuming;
mod serve;
mod shard;
mod sse;
mod subscriptions;
mod topics;
mod upgrade;
mod websocket;
mod wire;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use axum::Router;
use bytes::Bytes;
use tokio::sync::mpsc;

use self::event_stream::Trail;
use self::shard::Shard;
pub use self::upgrade::beside;
use crate::domain::access::Access;
use crate::domain::command::{Refusal, Request};
use crate::domain::error::CloseCode;
use crate::domain::limits::Limits;
use crate::hub::budget::Budget;
use crate::hub::{Hub, ShardId, ToShard};

/// Sockets on their way to a shard; more wait on the front.
const ARRIVALS: usize = 1024;
/// Events from the hub that a shard may be behind before it holds the feed up.
const FROM_HUB: usize = 16 * 1024;

/// Sockets beyond the limit of connections that are upgraded only to be told why they are closed.
const REFUSALS: usize = 256;

/// The ends through which the hub reaches the shards, made before either.
pub struct Channels {
    pub to_shards: Vec<mpsc::Sender<ToShard>>,
    from_hub: Vec<mpsc::Receiver<ToShard>>,
}

impl Channels {
    pub fn new(shards: usize) -> Channels {
        let (to_shards, from_hub) = (0..shards.max(1)).map(|_| mpsc::channel(FROM_HUB)).unzip();
        Channels { to_shards, from_hub }
    }
}

/// The routes that lead to a socket of ours.
pub fn routes(gateway: Gateway) -> Router {
    upgrade::routes(gateway.clone()).merge(sse::routes(gateway))
}

/// A handle to all shards.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    shards: Vec<mpsc::Sender<ToGateway>>,
    /// Connections of each shard, to choose the least loaded.
    loads: Arc<[AtomicUsize]>,
    numbers: AtomicU64,
    draining: AtomicBool,
    limits: Arc<Limits>,
    budget: Arc<Budget>,
    access: Arc<Access>,
}

/// The shard threads; they end when they are drained.
pub struct Threads(Vec<JoinHandle<()>>);

enum ToGateway {
    Arrival(Box<Arrival>),
    /// Close all, take no more, end.
    Drain,
}

/// A socket that has been taken out of the HTTP server, on its way to a shard.
struct Arrival {
    stream: std::net::TcpStream,
    door: Door,
    /// What the URL asks for (`?sub=…`, `?topic=…`).
    requests: Vec<Result<Request, Refusal>>,
    slot: Slot,
}

/// What a socket was taken over for.
enum Door {
    WebSocket {
        /// What the client sent behind its request.
        read_ahead: Bytes,
        subprotocol: Option<&'static str>,
        batch: bool,
        /// Upgraded only to be told why not.
        refuse: Option<CloseCode>,
    },
    EventStream {
        /// The head of the HTTP response.
        head: Bytes,
        trail: Trail,
    },
}

/// A place among the connections of this node; given back when it is dropped.
struct Slot {
    number: u64,
    shard: usize,
    loads: Arc<[AtomicUsize]>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.loads[self.shard].fetch_sub(1, Ordering::Relaxed);
        counters::set_connections(total(&self.loads));
    }
}

fn total(loads: &[AtomicUsize]) -> usize {
    loads.iter().map(|l| l.load(Ordering::Relaxed)).sum()
}

impl Gateway {
    /// Starts the shard threads.
    pub fn start(
        hub: &Hub,
        channels: Channels,
        limits: Arc<Limits>,
        budget: Arc<Budget>,
        access: Arc<Access>,
    ) -> io::Result<(Gateway, Threads)> {
        let (mut shards, mut threads) = (Vec::new(), Vec::new());
        for (i, from_hub) in channels.from_hub.into_iter().enumerate() {
            let (sender, arrivals) = mpsc::channel(ARRIVALS);
            let (hub, limits, budget) = (hub.clone(), limits.clone(), budget.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = thread::Builder::new().name(format!("shard-{i}")).spawn(move || {
                let _whole = WholeOrNot;
                let shard = std::rc::Rc::new(Shard::new(ShardId(i), hub, limits, budget));
                let local = tokio::task::LocalSet::new();
                local.block_on(&runtime, shard.run(from_hub, arrivals));
            })?;
            shards.push(sender);
            threads.push(thread);
        }
        let loads = shards.iter().map(|_| AtomicUsize::new(0)).collect();
        let (numbers, draining) = (AtomicU64::new(1), AtomicBool::new(false));
        let inner = Inner { shards, loads, numbers, draining, limits, budget, access };
        Ok((Gateway { inner: Arc::new(inner) }, Threads(threads)))
    }

    /// Closes every connection with the code that asks it to come back elsewhere or later, and takes no more.
    pub async fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
        for shard in &self.inner.shards {
            let _ = shard.send(ToGateway::Drain).await;
        }
    }

    /// How many sockets are open.
    pub fn connections(&self) -> usize {
        total(&self.inner.loads)
    }

    /// A place in the least loaded shard. `None`: the node has more connections than it may have, even those included
    /// that are only told so and closed.
    fn place(&self, transport: &'static str) -> Option<Slot> {
        if self.connections() >= self.inner.limits.connections + REFUSALS {
            return None;
        }
        let (shard, load) = self.inner.loads.iter().enumerate().min_by_key(|(_, l)| l.load(Ordering::Relaxed))?;
        load.fetch_add(1, Ordering::Relaxed);
        counters::set_connections(self.connections());
        let number = self.inner.numbers.fetch_add(1, Ordering::Relaxed);
        counters::count_accepted(transport);
        Some(Slot { number, shard, loads: self.inner.loads.clone() })
    }

    /// Whether nobody new is let in: there are as many as there may be, or as much waits for them as may.
    fn is_full(&self) -> bool {
        self.connections() > self.inner.limits.connections || self.inner.budget.is_spent()
    }

    async fn hand_over(&self, arrival: Arrival) {
        let shard = arrival.slot.shard;
        // A shard that has ended was drained: the socket is dropped with the arrival.
        let _ = self.inner.shards[shard].send(ToGateway::Arrival(Box::new(arrival))).await;
    }
}

/// A shard that panics outside of one connection's task takes the process with it: a node that lives on with a part of
/// its connections deaf would be a loss in silence. Whoever supervises it starts it anew, and clients come back.
struct WholeOrNot;

impl Drop for WholeOrNot {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("a shard failed; ending the process");
            std::process::abort();
        }
    }
}

impl Threads {
    /// Waits until all have ended. Blocks.
    pub fn join(self) {
        for thread in self.0 {
            if thread.join().is_err() {
                tracing::error!("a shard thread ended in a panic");
            }
        }
    }
}
