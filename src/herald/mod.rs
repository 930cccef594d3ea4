//! The herald: tells what happens in queues to those who are not at them. A firing of `start_when` becomes a message on
//! `$queue.NAME.trigger`, and a signed post to the queue's webhook where it has one; what a queue holds and does is told on
//! `$queue.NAME.stats` to those who listen.
//!
//! A firing is told by the node that has claimed it. If that node goes, another one claims it when the claim is over and
//! tells it again: the idempotency key keeps the topic to one message, and the webhook gets the same id again.

mod figures;
mod firings;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::domain::name::Topic;
use crate::domain::queue::{Firing, Queue};
use crate::domain::secret::Secret;
use crate::hub::Hub;
use crate::hub::queues::Tell;

/// Firings that may wait to be told at this node. What finds no room is claimed again.
const MOST_WAITING: usize = 1024;

pub struct Options {
    /// What posts to webhooks are signed with; without it none is made.
    pub secret: Option<Secret>,
    /// Time between two tellings of figures.
    pub figures: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { secret: None, figures: Duration::from_secs(2) }
    }
}

/// Begins to tell what happens in queues. The future does it; it ends when it is dropped.
pub fn start(hub: &Hub, options: Options) -> impl Future<Output = ()> + Send + 'static {
    let (sender, firings) = mpsc::channel(MOST_WAITING);
    if let Ok(desk) = hub.queues() {
        desk.set_teller(Arc::new(Mouth { sender, can_post: options.secret.is_some() }));
    }
    let firings = firings::run(hub.clone(), options.secret.map(webhook::Poster::new), firings);
    let figures = figures::run(hub.clone(), options.figures);
    async move { _ = tokio::join!(firings, figures) }
}

/// Where the desk leaves firings. It holds no hub: the desk would keep itself alive.
struct Mouth {
    sender: mpsc::Sender<Firing>,
    can_post: bool,
}

impl Tell for Mouth {
    fn tell(&self, firing: Firing) {
        if let Err(error) = self.sender.try_send(firing) {
            tracing::debug!(%error, "a firing waits for the next claim");
        }
    }

    fn can_post(&self) -> bool {
        self.can_post
    }
}

/// A topic about a queue. `None`: the queue's name leaves no room for it.
fn topic_of(queue: &Queue, what: &str) -> Option<Topic> {
    Topic::parse(&format!("$queue.{queue}.{what}")).ok()
}
