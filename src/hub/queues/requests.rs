//! Requests: jobs whose asker waits for the worker's reply. Each node has one inbox, a topic that only its own jobs name;
//! a reply is a message there, from whichever node the worker is at, and comes by the feed like every other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use metrics::counter;
use tokio::sync::{mpsc, oneshot, watch};

use super::random;
use crate::domain::error::{Problem, Reason};
use crate::domain::message::Body;
use crate::domain::name::{NODE_INBOX, Topic};
use crate::domain::queue::{JobId, Put, PutAnswer};
use crate::domain::store::StoreError;
use crate::hub::registry::{Registry, ShardId};
use crate::hub::{Hub, ToShard};
use crate::telemetry;

/// Requests that wait at one node.
pub const MOST_REQUESTS: usize = 10_000;
/// Replies that the feed may be ahead.
pub const REPLIES: usize = 1024;

/// How bodies say who asks, and what is replied. The hub knows no wire format.
#[derive(Clone, Copy)]
pub struct Wording {
    /// The body of a job whose reply goes to this topic, under this name.
    pub address: fn(&Body, &Topic, &str) -> Body,
    /// The name of the request that a message replies to, and what it says.
    pub read: fn(&Body) -> Option<Said>,
}

/// The name of a request, and what was replied to it.
pub type Said = (Box<str>, Body);

/// What a request led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub job: JobId,
    /// What the worker said: the members of a message that hold the data.
    pub body: Body,
}

type Waiter = oneshot::Sender<Result<Body, Problem>>;

pub struct Requests {
    inbox: Topic,
    registry: Arc<Registry>,
    /// What this node's inbox is in the registry.
    shard: ShardId,
    waiting: Mutex<HashMap<Box<str>, Waiter>>,
    joins: AtomicBool,
    joined: watch::Sender<bool>,
    wording: OnceLock<Wording>,
    closed: AtomicBool,
}

/// A name under which a reply is waited for; dropped, nobody waits.
struct Ticket<'a> {
    requests: &'a Requests,
    name: Box<str>,
}

impl Requests {
    pub fn new(registry: Arc<Registry>, shard: ShardId) -> Requests {
        Requests {
            inbox: drawn(NODE_INBOX),
            registry,
            shard,
            waiting: Mutex::default(),
            joins: AtomicBool::new(false),
            joined: watch::Sender::new(false),
            wording: OnceLock::new(),
            closed: AtomicBool::new(false),
        }
    }

    pub fn set_wording(&self, wording: Wording) {
        let _ = self.wording.set(wording);
    }

    fn address(&self, put: Put, inbox: &Topic, name: &str) -> Result<Put, Problem> {
        let wording = self.wording.get().ok_or_else(super::absent)?;
        let body = (wording.address)(&put.body, inbox, name);
        Ok(Put { body, ..put })
    }

    /// Reads the inbox until the hub is gone.
    pub async fn listen(self: Arc<Self>, mut from_hub: mpsc::Receiver<ToShard>) {
        while let Some(event) = from_hub.recv().await {
            match event {
                ToShard::Joined { .. } => _ = self.joined.send_replace(true),
                ToShard::Message(delivery) => self.on_reply(&delivery.message.body),
                // Who waits for what was lost is answered when the time is over.
                ToShard::Gap { .. } => {}
            }
        }
    }

    fn on_reply(&self, body: &Body) {
        let Some((name, body)) = self.wording.get().and_then(|wording| (wording.read)(body)) else { return };
        let waiter = self.waiting().remove(&name);
        if waiter.is_none_or(|waiter| waiter.send(Ok(body)).is_err()) {
            counter!(telemetry::LATE_REPLIES).increment(1);
        }
    }

    /// Answers all who wait that the node goes down.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        for (_, waiter) in self.waiting().drain() {
            let _ = waiter.send(Err(going_down()));
        }
    }

    fn enter(&self) -> Result<(Ticket<'_>, oneshot::Receiver<Result<Body, Problem>>), Problem> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(going_down());
        }
        if !self.joins.swap(true, Ordering::Relaxed) {
            self.registry.want(&self.inbox, self.shard, None);
        }
        let mut waiting = self.waiting();
        if waiting.len() >= MOST_REQUESTS {
            let text = format!("{MOST_REQUESTS} requests of this node wait for replies; ask again later");
            return Err(Problem::new(Reason::Busy, text).retry_after(Duration::from_secs(1)));
        }
        let name = request_name();
        let (sender, receiver) = oneshot::channel();
        waiting.insert(name.clone(), sender);
        Ok((Ticket { requests: self, name }, receiver))
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Box<str>, Waiter>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.requests.waiting().remove(&self.name);
    }
}

impl Hub {
    /// Puts a job and waits for its worker's reply, at most so long. A job that was put stays where it is when the time is
    /// over.
    pub async fn request(&self, put: Put, timeout: Duration) -> Result<Reply, Problem> {
        let requests = self.requests.clone().ok_or_else(super::absent)?;
        let (ticket, replied) = requests.enter()?;
        let queue = put.queue.clone();
        let is_put = AtomicBool::new(false);
        let asking = async {
            let mut joined = requests.joined.subscribe();
            // It ends with the requests alone.
            let _ = joined.wait_for(|joined| *joined).await;
            let put = requests.address(put, &requests.inbox, &ticket.name)?;
            let job = self.put_one(put).await?;
            is_put.store(true, Ordering::Relaxed);
            let body = replied.await.unwrap_or_else(|_| Err(going_down()))?;
            Ok(Reply { job, body })
        };
        match tokio::time::timeout(timeout, asking).await {
            Ok(answer) => answer,
            Err(_) => {
                let seconds = timeout.as_secs_f64();
                let text = match is_put.load(Ordering::Relaxed) {
                    true => {
                        format!("no worker of {queue} replied within {seconds} seconds; the job stays in its queue")
                    }
                    false => format!("it is not known within {seconds} seconds whether the job was put into {queue}"),
                };
                Err(Problem::new(Reason::Timeout, text))
            }
        }
    }

    /// Puts a job whose reply goes to a topic that the asker listens to, under a name that it knows.
    pub async fn request_to(&self, put: Put, reply_to: &Topic, name: &str) -> Result<JobId, Problem> {
        let requests = self.requests.as_ref().ok_or_else(super::absent)?;
        self.put_one(requests.address(put, reply_to, name)?).await
    }

    async fn put_one(&self, put: Put) -> Result<JobId, Problem> {
        let queue = put.queue.clone();
        match self.put(vec![put]).await.pop() {
            Some(Ok(PutAnswer::Stored { job, .. })) => Ok(job),
            Some(Ok(PutAnswer::Repeated { job, .. })) => {
                let text =
                    format!("a job under the same key is in {queue} already, {job}; its reply goes to who asked first");
                Err(Problem::new(Reason::Conflict, text))
            }
            Some(Err(error)) => Err(error.into()),
            Some(Ok(PutAnswer::Skipped)) | None => Err(StoreError::Broken("no answer for this job".into()).into()),
        }
    }
}

/// A topic that nobody can guess: 128 random bits.
pub fn inbox() -> Topic {
    drawn("$inbox.")
}

fn drawn(begins: &str) -> Topic {
    let name = format!("{begins}{:016x}{:016x}", random(), random());
    Topic::parse(&name).expect("hexadecimal digits stand in names")
}

/// A name for a request whose asker has none for it.
pub fn request_name() -> Box<str> {
    format!("{:016x}", random()).into()
}

fn going_down() -> Problem {
    Problem::new(Reason::Unavailable, "the node shuts down; ask another").retry_after(Duration::from_secs(1))
}
