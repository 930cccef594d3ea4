//! Which shards want which topic. Shards say what they want; the sequencer takes up what changed.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::name::Topic;
use crate::domain::position::Position;

/// One shard of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub usize);

/// Names one stay of a shard in a topic, so that the answer to an earlier stay is not taken for this one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(pub u64);

/// A shard's wish for a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    pub shard: ShardId,
    pub ticket: Ticket,
    /// The position that its first subscriber asked for.
    pub after: Option<Position>,
}

/// Bounded by the topics that are wanted: a topic stands at most once in `changed`.
#[derive(Debug, Default)]
pub struct Registry {
    table: Mutex<Table>,
    pub changes: Notify,
}

#[derive(Debug, Default)]
struct Table {
    wants: HashMap<Topic, Vec<Want>>,
    changed: HashSet<Topic>,
    next_ticket: u64,
}

impl Registry {
    /// A shard's first subscriber of a topic.
    pub fn want(&self, topic: &Topic, shard: ShardId, after: Option<Position>) -> Ticket {
        let mut table = self.lock();
        table.next_ticket += 1;
        let ticket = Ticket(table.next_ticket);
        let wants = table.wants.entry(topic.clone()).or_default();
        wants.retain(|w| w.shard != shard);
        wants.push(Want { shard, ticket, after });
        table.changed.insert(topic.clone());
        drop(table);
        self.changes.notify_one();
        ticket
    }

    /// A shard's last subscriber of a topic went.
    pub fn leave(&self, topic: &Topic, shard: ShardId) {
        let mut table = self.lock();
        if let Some(wants) = table.wants.get_mut(topic) {
            wants.retain(|w| w.shard != shard);
            if wants.is_empty() {
                table.wants.remove(topic);
            }
        }
        table.changed.insert(topic.clone());
        drop(table);
        self.changes.notify_one();
    }

    /// Takes what changed since the last call, with the present wishes.
    pub fn take_changes(&self) -> Vec<(Topic, Vec<Want>)> {
        let mut table = self.lock();
        let changed = std::mem::take(&mut table.changed);
        changed.into_iter().map(|t| (t.clone(), table.wants.get(&t).cloned().unwrap_or_default())).collect()
    }

    /// Those of the wanted topics whose names begin and end so.
    pub fn wanted(&self, begin: &str, end: &str) -> Vec<Topic> {
        let fits = |topic: &&Topic| topic.as_str().starts_with(begin) && topic.as_str().ends_with(end);
        self.lock().wants.keys().filter(fits).cloned().collect()
    }

    /// How many topics this node's subscribers want.
    pub fn topics(&self) -> usize {
        self.lock().wants.len()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code that can panic runs under the lock, so a poisoned table is whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_taken_once_with_the_present_wishes() {
        let registry = Registry::default();
        let topic = Topic::parse("a").unwrap();
        let first = registry.want(&topic, ShardId(0), None);
        registry.leave(&topic, ShardId(0));
        let second = registry.want(&topic, ShardId(0), None);
        assert_ne!(first, second);
        let wants = vec![Want { shard: ShardId(0), ticket: second, after: None }];
        assert_eq!(registry.take_changes(), [(topic.clone(), wants)]);
        assert_eq!((registry.wanted("a", ""), registry.wanted("a", "b")), (vec![topic.clone()], vec![]));
        assert_eq!(registry.take_changes(), []);
        registry.leave(&topic, ShardId(0));
        assert_eq!(registry.take_changes(), [(topic, vec![])]);
        assert_eq!(registry.topics(), 0);
    }
}
