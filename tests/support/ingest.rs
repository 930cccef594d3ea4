//! What tests of the ingest queue share: a hub over a store, ways to look into it, and waiting for what must come.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use fanfare::dispatcher::{self, Dispatcher, Ingest, door, redis as queue};
use fanfare::domain::dead::{DeadLetter, DeadLetterBox};
use fanfare::domain::name::Topic;
use fanfare::domain::queue::{Place, Queue};
use fanfare::domain::store::{ReadFrom, ReadLimit, Retention};
use fanfare::hub::Hub;
use fanfare::store;

/// A hub over a store of its own, with nobody subscribed.
pub struct House {
    pub hub: Hub,
    pub dead: Option<Arc<dyn DeadLetterBox>>,
}

impl House {
    pub async fn memory() -> House {
        House::over("memory").await
    }

    pub async fn over(url: &str) -> House {
        let retention = Retention { messages: 100_000, ..Retention::default() };
        House::of(store::open(url, store::Options { retention, ..store::Options::default() }).await.unwrap())
    }

    pub fn of(opened: store::Opened) -> House {
        let hub = Hub::new(opened.store);
        let hub = match opened.queues {
            Some(keeper) => hub.with_queues(keeper),
            None => hub,
        };
        House { hub, dead: opened.embedded_dead }
    }

    pub async fn with_door(change: impl FnOnce(&mut door::Options)) -> (House, Dispatcher) {
        let house = House::memory().await;
        let mut options = door::Options::new("127.0.0.1:0", "fanfare");
        change(&mut options);
        let ingest = Ingest::Door(options, house.dead.clone().unwrap());
        let dispatcher = dispatcher::start(house.hub.clone(), ingest, Default::default()).await.unwrap();
        (house, dispatcher)
    }

    pub async fn bridge(&self, url: &str) -> Dispatcher {
        self.bridge_with(url, |_, _| {}).await
    }

    pub async fn bridge_with(
        &self,
        url: &str,
        change: impl FnOnce(&mut queue::Options, &mut dispatcher::Options),
    ) -> Dispatcher {
        let mut options = dispatcher::Options::default();
        let mut settings = queue::Options::new(url, "fanfare");
        change(&mut settings, &mut options);
        dispatcher::start(self.hub.clone(), Ingest::Redis(settings), options).await.unwrap()
    }

    /// The canonical bodies of a topic, oldest first.
    pub async fn bodies(&self, topic: &str) -> Vec<String> {
        let topic = Topic::parse(topic).unwrap();
        let limit = ReadLimit { messages: u32::MAX, bytes: usize::MAX };
        let page = self.hub.read(&topic, ReadFrom::Last(1_000_000), limit).await.unwrap();
        page.messages.iter().map(|m| String::from_utf8(m.body.as_bytes().to_vec()).unwrap()).collect()
    }

    /// The canonical bodies of the jobs that are ready in a queue, in the order in which they would be taken.
    pub async fn jobs(&self, queue: &str) -> Vec<String> {
        let queue = Queue::parse(queue).unwrap();
        let admin = self.hub.queues().unwrap().keeper().admin.clone();
        let mut bodies = Vec::new();
        loop {
            let page = admin.look(&queue, Place::Ready, bodies.len(), 1_000).await.unwrap();
            let is_last = page.len() < 1_000;
            bodies.extend(page.iter().map(|seen| String::from_utf8(seen.body.as_bytes().to_vec()).unwrap()));
            if is_last {
                return bodies;
            }
        }
    }

    pub async fn wait_for_jobs(&self, queue: &str, bodies: &[String]) {
        until(&format!("{bodies:?} in the queue {queue}"), || async { self.jobs(queue).await == bodies }).await;
    }

    pub async fn wait_for(&self, topic: &str, bodies: &[&str]) {
        until(&format!("{bodies:?} in {topic}"), || async { self.bodies(topic).await == bodies }).await;
    }

    pub async fn wait_for_count(&self, topic: &str, count: usize) {
        until(&format!("{count} messages in {topic}"), || async { self.bodies(topic).await.len() >= count }).await;
    }
}

/// Waits until it is so; a test that waits longer than a minute has failed.
pub async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let waiting = async {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        loop {
            look.tick().await;
            if is_so().await {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("never came: {what}"));
}

/// All dead letters, by the id of their entry.
pub async fn letters(dispatcher: &Dispatcher) -> HashMap<String, DeadLetter> {
    let all = dispatcher.dead().list(None, 10_000).await.unwrap();
    all.into_iter().map(|letter| (letter.entry.clone(), letter)).collect()
}

/// Data as the canonical body shows it.
pub fn data(json: &str) -> String {
    format!("\"data\":{json}")
}
