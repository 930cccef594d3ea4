//! A shard's table of topics and their subscribers. One thread owns it, so it has no lock; joining and leaving cost the
//! same however many subscribe.

use std::collections::HashMap;

use slab::Slab;

use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::hub::Ticket;

/// Names a topic in this shard while it has subscribers.
pub type TopicKey = usize;
/// Names a connection in this shard while it is open.
pub type ConnectionKey = usize;

#[derive(Debug, Default)]
pub struct Topics {
    by_name: HashMap<Topic, TopicKey>,
    entries: Slab<Entry>,
}

#[derive(Debug)]
pub struct Entry {
    pub topic: Topic,
    pub ticket: Ticket,
    /// Where the stream stands in this shard; `None` until the hub has said so.
    pub at: Option<Position>,
    /// Those who get what comes as it comes.
    pub live: Vec<ConnectionKey>,
    /// Those who wait for the stream or catch up with it.
    pub behind: Vec<ConnectionKey>,
}

impl Topics {
    pub fn find(&self, topic: &Topic) -> Option<TopicKey> {
        self.by_name.get(topic).copied()
    }

    /// The topic's entry, made by `join` with a ticket of the hub if there is none.
    pub fn enter(&mut self, topic: &Topic, join: impl FnOnce() -> Ticket) -> TopicKey {
        *self.by_name.entry(topic.clone()).or_insert_with(|| {
            let (ticket, topic) = (join(), topic.clone());
            self.entries.insert(Entry { topic, ticket, at: None, live: Vec::new(), behind: Vec::new() })
        })
    }

    pub fn entry(&self, key: TopicKey) -> &Entry {
        &self.entries[key]
    }

    pub fn entry_mut(&mut self, key: TopicKey) -> &mut Entry {
        &mut self.entries[key]
    }

    /// Takes a topic out whose last subscriber went.
    pub fn remove_if_empty(&mut self, key: TopicKey) -> Option<Topic> {
        let entry = &self.entries[key];
        if !entry.live.is_empty() || !entry.behind.is_empty() {
            return None;
        }
        let topic = self.entries.remove(key).topic;
        self.by_name.remove(&topic);
        Some(topic)
    }

    /// How many subscriptions are not in a live stream.
    pub fn behind(&self) -> usize {
        self.entries.iter().map(|(_, e)| e.behind.len()).sum()
    }

    /// The topics whose stream has not been located yet.
    pub fn unlocated(&self) -> Vec<TopicKey> {
        self.entries.iter().filter(|(_, e)| e.at.is_none()).map(|(key, _)| key).collect()
    }
}
