//! Wakes of queues: the feed's way of listening, on a connection of its own, for the channels of watched queues.

use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt};

use super::Keeper;
use crate::domain::name::Topic;
use crate::domain::queue::{Queue, Wake, WatchQueues};
use crate::domain::store::{FeedEvent, Watch};
use crate::store::redis::cluster;
use crate::store::redis::feed::Feed;
use crate::store::redis::keys::Kind;
use crate::store::redis::levels::Levels;
use crate::store::redis::queue::State;

struct Watched(Feed);

/// Whoever has credit looks by itself too, so the state of the store does not show whether this works.
pub fn open(keeper: &Keeper) -> (Box<dyn WatchQueues>, BoxStream<'static, Wake>) {
    let (kind, host, state) = (Kind::Queues, keeper.host.clone(), Arc::new(State::new(Levels::unknown())));
    let feed = match &keeper.chart {
        Some(chart) => cluster::feed::open(kind, host, chart.clone(), state, &keeper.runtime),
        None => Feed::open(kind, host, state, &keeper.runtime),
    };
    let wakes = feed.events().filter_map(|event| async move { wake(event) });
    (Box::new(Watched(feed)), wakes.boxed())
}

impl WatchQueues for Watched {
    fn watch(&self, queue: &Queue) {
        self.0.watch(&topic(queue));
    }

    fn unwatch(&self, queue: &Queue) {
        self.0.unwatch(&topic(queue));
    }
}

fn wake(event: FeedEvent) -> Option<Wake> {
    let queue = |topic: &Topic| Queue::parse(topic.as_str()).ok();
    match event {
        // Something may have been put before anybody listened.
        FeedEvent::Watching(topic) => queue(&topic).map(Wake::Jobs),
        FeedEvent::Message(message) if &message.body.as_bytes()[..] == b"f" => queue(&message.topic).map(Wake::Fired),
        FeedEvent::Message(message) => queue(&message.topic).map(Wake::Jobs),
        FeedEvent::Interrupted => None,
        FeedEvent::Restored => Some(Wake::Lost),
    }
}

/// Queues have the grammar of topics.
fn topic(queue: &Queue) -> Topic {
    Topic::parse(queue.as_str()).expect("the name of a queue is one of a topic")
}
