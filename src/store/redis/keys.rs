//! The names of keys and channels in Redis. They are hard to change: data of running hubs lies under them.
//!
//! Topics live in groups, and all keys of a group share a hash tag, so that one script call may touch many topics of a
//! group in a Redis Cluster too. The number of groups is written into the store when it is first opened.

use crate::domain::cursor::Owner;
use crate::domain::name::Topic;
use crate::endpoint::{crc16, slot_of};

/// Slots of a cluster.
const SLOTS: u16 = 16_384;

/// Names what belongs to the hub's topics.
/// What a feed is about. Each kind has channels of its own, and a connection of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Topics,
    /// The wakes of queues, whose names have the grammar of topics.
    Queues,
}

#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    groups: u16,
    feed: String,
    wake: String,
}

impl Keys {
    /// Channels, unlike keys, are shared by all databases of a Redis, so those of a database but the first are marked.
    pub fn new(prefix: String, groups: u16, database: i64) -> Keys {
        let marked = |word: &str| if database == 0 { word.to_string() } else { format!("{word}@{database}") };
        Keys { prefix, groups: groups.max(1), feed: marked("feed"), wake: marked("wake") }
    }

    /// The word for the feed in the names of channels.
    pub fn feed(&self) -> &str {
        &self.feed
    }

    /// What is written before the question who has everything up to here, on the server of a group.
    pub fn witness(&self, group: u16) -> String {
        format!("{}witness", self.base(group))
    }

    /// Where the number of groups is written down.
    pub fn groups(&self) -> String {
        format!("{}:groups", self.prefix)
    }

    pub fn group_of(&self, topic: &Topic) -> u16 {
        crc16(topic.as_str().as_bytes()) % self.groups
    }

    /// The slot of all keys and channels of a group in a cluster.
    pub fn slot_of(&self, group: u16) -> u16 {
        slot_of(self.base(group))
    }

    pub fn count(&self) -> u16 {
        self.groups
    }

    /// What all keys and channels of a group begin with, like `fanfare:{t17}:`.
    pub fn base(&self, group: u16) -> String {
        format!("{}:{{t{group}}}:", self.prefix)
    }

    pub fn channel(&self, topic: &Topic) -> String {
        format!("{}{}:{}", self.base(self.group_of(topic)), self.feed, topic)
    }

    /// What all keys and channels of a queue begin with, like `fanfare:{q:orders}:`.
    pub fn queue_base(&self, queue: &str) -> String {
        format!("{}:{{q:{queue}}}:", self.prefix)
    }

    /// Where the names of all queues are.
    pub fn queues(&self) -> String {
        format!("{}:queues", self.prefix)
    }

    /// The channel that says that a queue should be looked at.
    pub fn wake_channel(&self, queue: &str) -> String {
        format!("{}{}:{queue}", self.queue_base(queue), self.wake)
    }

    /// The channel of a topic, or of a queue with the name of a topic.
    pub fn channel_of(&self, kind: Kind, topic: &Topic) -> String {
        match kind {
            Kind::Topics => self.channel(topic),
            Kind::Queues => self.wake_channel(topic.as_str()),
        }
    }

    /// Into how many places of a cluster the channels of a kind are dealt: groups of topics, or slots.
    pub fn places(&self, kind: Kind) -> u16 {
        match kind {
            Kind::Topics => self.groups,
            Kind::Queues => SLOTS,
        }
    }

    pub fn place_of(&self, kind: Kind, topic: &Topic) -> u16 {
        match kind {
            Kind::Topics => self.group_of(topic),
            Kind::Queues => slot_of(self.queue_base(topic.as_str())),
        }
    }

    pub fn slot_of_place(&self, kind: Kind, place: u16) -> u16 {
        match kind {
            Kind::Topics => self.slot_of(place),
            Kind::Queues => place,
        }
    }

    /// The channel of all topics of a group.
    pub fn wild_channel(&self, group: u16) -> String {
        format!("{}wild-{}", self.base(group), self.feed)
    }

    /// The name of the topic that a channel is for.
    pub fn topic_of(channel: &str) -> Option<&str> {
        Some(channel.split_once("}:")?.1.split_once(':')?.1)
    }
}

pub(super) fn wild(base: &str) -> String {
    format!("{base}wild")
}

pub(super) fn log(base: &str, topic: &Topic) -> String {
    format!("{base}log:{topic}")
}

pub(super) fn meta(base: &str, topic: &Topic) -> String {
    format!("{base}meta:{topic}")
}

/// Which message is the latest of each key.
pub(super) fn vals(base: &str, topic: &Topic) -> String {
    format!("{base}vals:{topic}")
}

/// Where the cursors of one owner in a topic are. A `/` cannot stand in a topic's name, so no two share it.
pub(super) fn cursors(base: &str, topic: &Topic, owner: &Owner) -> String {
    format!("{base}cursors:{topic}/{}", owner.as_str())
}

/// A `/` cannot stand in a topic's name, so no topic and key share their name with another topic and key.
pub(super) fn idempotency(base: &str, topic: &Topic, key: &str) -> String {
    format!("{base}idem:{topic}/{key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented() {
        let keys = Keys::new("fanfare".into(), 256, 0);
        let news = Topic::parse("news").unwrap();
        let base = keys.base(keys.group_of(&news));
        assert_eq!(base, "fanfare:{t41}:");
        assert_eq!(log(&base, &news), "fanfare:{t41}:log:news");
        assert_eq!(meta(&base, &news), "fanfare:{t41}:meta:news");
        assert_eq!(vals(&base, &news), "fanfare:{t41}:vals:news");
        assert_eq!(keys.channel(&news), "fanfare:{t41}:feed:news");
        assert_eq!(keys.wild_channel(41), "fanfare:{t41}:wild-feed");
        assert_eq!(Keys::new("fanfare".into(), 256, 3).channel(&news), "fanfare:{t41}:feed@3:news");
        assert_eq!(Keys::topic_of("fanfare:{t41}:feed@3:a:b"), Some("a:b"));
        assert_eq!(idempotency(&base, &news, "o-17"), "fanfare:{t41}:idem:news/o-17");
        assert_eq!(cursors(&base, &news, &Owner::anonymous()), "fanfare:{t41}:cursors:news/");
        assert_eq!(cursors(&base, &news, &Owner::user("ann")), "fanfare:{t41}:cursors:news/ann");
        assert_eq!(keys.groups(), "fanfare:groups");
        assert_eq!(keys.queue_base("orders"), "fanfare:{q:orders}:");
        assert_eq!(keys.wake_channel("orders"), "fanfare:{q:orders}:wake:orders");
        assert_eq!(Keys::topic_of("fanfare:{q:a.b}:wake:a.b"), Some("a.b"));
    }
}
