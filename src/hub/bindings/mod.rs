//! Bindings at work: what is published to a topic that a binding meets is put into the binding's queue before the publisher
//! is answered. This is the one place, since every door publishes through the hub.
//!
//! After the append a *pass* reads what the topic holds behind the queue's mark of it and puts it, in order, under fences of
//! its positions (`pass`). So nothing that was answered is unbound, nothing is bound twice, and what a node left when it went
//! is bound with the next publish to the topic, or when the same one is repeated, which is what a publisher without an answer
//! does. One pass at a time for a queue and a topic; publishers that come meanwhile share the next one.
//!
//! Where a queue has no mark of the topic yet, a pass begins with what was stored since the binding was opened first: a
//! message on `$binding.NAME` keeps that time, by the store's clock. A topic of mode `live` holds nothing to be read; its
//! messages are put directly, under idempotency keys made of their positions.

mod pass;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use metrics::histogram;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::queues::Desk;
use crate::domain::binding::{Binding, Headers};
use crate::domain::message::{Body, Publication};
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::domain::queue::{Put, Queue};
use crate::domain::store::{Append, Appended, EntryId, Fence, ReadFrom, ReadLimit, Store, StoreError};
use crate::domain::topic::Mode;
use crate::telemetry;

/// Pairs of queue and topic of which it is remembered how far they are; those that rest are forgotten beyond it, and read
/// their mark again.
const MOST_LANES: usize = 10_000;

/// How bodies are read and written. The hub knows no wire format.
#[derive(Clone, Copy)]
pub struct Wording {
    pub headers: fn(&Body) -> Headers,
    pub bound: fn(&Body, &Topic) -> Body,
    pub binding: fn(&Binding) -> Body,
}

/// A handle; passes run on the runtime that it was opened on.
pub struct Bindings {
    store: Arc<dyn Store>,
    desk: Arc<Desk>,
    list: Vec<Opened>,
    wording: Wording,
    runtime: Handle,
    lanes: Mutex<HashMap<Lane, State>>,
}

/// A binding, and since when there is one of its name: milliseconds since 1970 by the store's clock.
struct Opened {
    binding: Binding,
    since: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Lane {
    queue: Queue,
    topic: Topic,
}

#[derive(Default)]
struct State {
    under_way: bool,
    /// Everything up to here is bound, or was turned away by filters.
    done: Option<Position>,
    waiting: Vec<Waiting>,
}

/// A publisher that waits for a pass. Without a position it waits for a whole one.
struct Waiting {
    at: Option<Position>,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

/// Which message of a batch a job comes from.
type Origin = (usize, Topic);

/// What is bound of one item of a batch.
struct Wish {
    topic: Topic,
    queues: Vec<Queue>,
    /// In mode `live`: what is put directly.
    live: Option<(Publication, Option<Fence>)>,
}

impl Bindings {
    /// Opens the bindings on the present runtime: notes since when each is there, if that is not noted yet.
    pub async fn open(
        store: Arc<dyn Store>,
        desk: Arc<Desk>,
        list: Vec<Binding>,
        wording: Wording,
    ) -> Result<Bindings, StoreError> {
        let mut opened = Vec::with_capacity(list.len());
        for binding in list {
            let since = opened_since(&*store, &binding, wording).await?;
            opened.push(Opened { binding, since });
        }
        Ok(Bindings { store, desk, list: opened, wording, runtime: Handle::current(), lanes: Mutex::default() })
    }

    /// Appends a batch of which something is bound, and answers when that is bound too. Of a batch of which nothing is bound it
    /// gives back all.
    pub fn append(
        self: &Arc<Self>,
        batch: Vec<Append>,
    ) -> Result<BoxFuture<'static, Vec<Result<Appended, StoreError>>>, Vec<Append>> {
        let wishes: Vec<Option<Wish>> = batch.iter().map(|item| self.wish(item)).collect();
        if wishes.iter().all(Option::is_none) {
            return Err(batch);
        }
        let (bindings, size) = (self.clone(), batch.len());
        let stored = self.store.append(batch);
        // On its own, so that what is stored is bound though the publisher goes.
        let begun = Instant::now();
        let bound = self.runtime.spawn(async move {
            let answers = stored.await;
            histogram!(telemetry::APPEND_SECONDS).record(begun.elapsed());
            bindings.bind(answers, wishes).await
        });
        Ok(async move {
            bound.await.unwrap_or_else(|_| {
                (0..size).map(|_| Err(StoreError::Unconfirmed("the node shuts down".into()))).collect()
            })
        }
        .boxed())
    }

    fn wish(&self, item: &Append) -> Option<Wish> {
        let topic = &item.publication.topic;
        let mut queues: Vec<Queue> = Vec::new();
        for Opened { binding, .. } in self.list.iter().filter(|opened| opened.binding.topics.meets(topic)) {
            if !queues.contains(&binding.queue) {
                queues.push(binding.queue.clone());
            }
        }
        if queues.is_empty() {
            return None;
        }
        let is_live = self.store.settings(topic).mode == Mode::Live;
        let live = is_live.then(|| (item.publication.clone(), item.fence.clone()));
        Some(Wish { topic: topic.clone(), queues, live })
    }

    async fn bind(
        self: Arc<Self>,
        mut answers: Vec<Result<Appended, StoreError>>,
        wishes: Vec<Option<Wish>>,
    ) -> Vec<Result<Appended, StoreError>> {
        let mut puts: BTreeMap<Queue, Vec<(Put, Origin)>> = BTreeMap::new();
        let mut passes: BTreeMap<Lane, (Option<Position>, Vec<usize>)> = BTreeMap::new();
        for (item, (answer, wish)) in answers.iter().zip(wishes).enumerate() {
            let (Ok(appended), Some(Wish { topic, queues, live })) = (answer, wish) else { continue };
            let at = match appended {
                Appended::Stored { at, .. } | Appended::Repeated { at, .. } => Some(*at),
                Appended::Skipped => None,
            };
            for queue in queues {
                match &live {
                    Some((publication, fence)) => {
                        let Some(put) = self.put_live(&queue, publication, fence.as_ref(), at) else { continue };
                        puts.entry(queue).or_default().push((put, (item, topic.clone())));
                    }
                    None => {
                        let lane = Lane { queue, topic: topic.clone() };
                        let (furthest, items) = passes.entry(lane).or_insert_with(|| (at, Vec::new()));
                        // Of two positions of different lives only a whole pass covers both.
                        *furthest = match (*furthest, at) {
                            (Some(a), Some(b)) if a.epoch == b.epoch => Some(if a.is_past(b) { a } else { b }),
                            _ => None,
                        };
                        items.push(item);
                    }
                }
            }
        }
        let mut failed: Vec<(usize, Queue, StoreError)> = Vec::new();
        for (queue, list) in puts {
            let (list, items): (Vec<Put>, Vec<_>) = list.into_iter().unzip();
            for ((item, topic), answer) in items.into_iter().zip(self.desk.put(list).await) {
                let bound = pass::judge(&queue, &topic, answer.err());
                failed.extend(bound.err().map(|error| (item, queue.clone(), error)));
            }
        }
        let covered = passes.into_iter().map(|(lane, (at, items))| {
            let (queue, covered) = (lane.queue.clone(), self.cover(lane, at));
            async move { (queue, items, covered.await) }
        });
        for (queue, items, covered) in join_all(covered).await {
            let covered = covered.unwrap_or_else(|_| Err(StoreError::Unavailable("the node shuts down".into())));
            if let Err(error) = covered {
                failed.extend(items.into_iter().map(|item| (item, queue.clone(), error.clone())));
            }
        }
        for (item, queue, error) in failed {
            let text = format!("it is in its topic, but not yet a job of {queue}: {error}");
            answers[item] = Err(StoreError::Unconfirmed(text));
        }
        answers
    }

    /// The job that a message of a topic without history becomes in this queue, if any.
    fn put_live(
        &self,
        queue: &Queue,
        publication: &Publication,
        fence: Option<&Fence>,
        at: Option<Position>,
    ) -> Option<Put> {
        let Publication { topic, body, ttl, .. } = publication;
        let binding = self.taker(queue, topic, body, u64::MAX)?;
        // An ingest entry that is read again is skipped without a position: its own id names it.
        let key = match (fence, at) {
            (Some(Fence { source, life, id, .. }), _) => format!("bound:{source}:{life}:{}-{}", id.ms, id.seq),
            (None, Some(at)) => format!("bound:{at}"),
            (None, None) => return None,
        };
        let body = (self.wording.bound)(body, topic);
        let put = Put { priority: binding.priority, ttl: *ttl, ..Put::new(queue.clone(), body) };
        Some(Put { idempotency_key: Some(key.into()), ..put })
    }

    /// The first binding of a queue that takes a message of this topic, stored at this time.
    fn taker<'a>(&'a self, queue: &'a Queue, topic: &'a Topic, body: &Body, time: u64) -> Option<&'a Binding> {
        let mut headers = None;
        let of_lane = self.of_lane(queue, topic).filter(|opened| opened.since <= time);
        of_lane.map(|opened| &opened.binding).find(|binding| {
            binding.filter.is_empty() || binding.takes(headers.get_or_insert_with(|| (self.wording.headers)(body)))
        })
    }

    fn of_lane<'a>(&'a self, queue: &'a Queue, topic: &'a Topic) -> impl Iterator<Item = &'a Opened> {
        self.list.iter().filter(move |Opened { binding, .. }| binding.queue == *queue && binding.topics.meets(topic))
    }

    /// Waits until everything up to a position is bound.
    fn cover(self: &Arc<Self>, lane: Lane, at: Option<Position>) -> oneshot::Receiver<Result<(), StoreError>> {
        let (answer, covered) = oneshot::channel();
        let mut lanes = self.lanes();
        if lanes.len() >= MOST_LANES && !lanes.contains_key(&lane) {
            lanes.retain(|_, state| state.under_way);
        }
        let state = lanes.entry(lane.clone()).or_default();
        if let (Some(at), Some(done)) = (at, state.done)
            && (done == at || done.is_past(at))
        {
            let _ = answer.send(Ok(()));
            return covered;
        }
        state.waiting.push(Waiting { at, answer });
        if !state.under_way {
            state.under_way = true;
            self.runtime.spawn(self.clone().serve(lane));
        }
        covered
    }

    /// Makes passes as long as somebody waits for one.
    async fn serve(self: Arc<Self>, lane: Lane) {
        loop {
            let (waiting, done) = {
                let mut lanes = self.lanes();
                let Some(state) = lanes.get_mut(&lane) else { return };
                if state.waiting.is_empty() {
                    state.under_way = false;
                    return;
                }
                (std::mem::take(&mut state.waiting), state.done)
            };
            let first =
                waiting.iter().map(|waiting| waiting.at).min_by_key(|at| at.map_or(0, |at| at.offset)).flatten();
            let (done, covered) = self.pass(&lane, done, first).await;
            if let Some(state) = self.lanes().get_mut(&lane) {
                state.done = done;
            }
            if let Err(error) = &covered {
                tracing::warn!(queue = %lane.queue, topic = %lane.topic, %error, "messages are not bound yet");
            }
            for Waiting { answer, .. } in waiting {
                let _ = answer.send(covered.clone());
            }
        }
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<Lane, State>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Since when there is a binding of this name. The first to ask writes it down.
async fn opened_since(store: &dyn Store, binding: &Binding, wording: Wording) -> Result<u64, StoreError> {
    let topic = Topic::parse(&format!("$binding.{}", binding.name))
        .map_err(|error| StoreError::Broken(format!("the binding {:?}: {error}", binding.name)))?;
    let publication = Publication {
        topic: topic.clone(),
        body: (wording.binding)(binding),
        ttl: None,
        key: None,
        idempotency_key: None,
        durability: None,
    };
    // One life, one entry: whatever comes later is skipped.
    let fence = Some(Fence::new("binding", "1", EntryId { ms: 1, seq: 0 }));
    match store.append(vec![Append { publication, fence }]).await.pop() {
        Some(Ok(Appended::Stored { time, .. })) => Ok(time),
        Some(Ok(_)) => {
            let page = store.read(&topic, ReadFrom::Last(1), ReadLimit::default()).await?;
            // Pushed out of a full store with all that is as old: nothing from before it is left.
            Ok(page.messages.last().map_or(0, |message| message.time))
        }
        Some(Err(error)) => Err(error),
        None => Err(StoreError::Broken("no answer".into())),
    }
}
