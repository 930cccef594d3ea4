//! The herald: tells what happens in queues to those who are not at them. A firing of `start_when` becomes a message on
//! `$queue.NAME.trigger`, and a signed post to the queue's webhook where it has one; what a queue holds and does is told on
//! `$queue.NAME.stats` to those who listen.
//!
//! A firing is told by the node that has claimed it. If that node goes, another one claims it when the claim is over and
//! tells it again: the idempotency key keeps the topic to one message, and the webhook gets the same id again.

mod figures;
mod firings;
mod trust;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

pub use self::trust::Trust;
use crate::domain::name::Topic;
use crate::domain::queue::{Firing, Queue};
use crate::domain::secret::Secret;
use crate::domain::webhook::{self as address, Hosts};
use crate::hub::Hub;
use crate::hub::queues::Tell;

/// Firings that may wait to be told at this node. What finds no room is claimed again.
const MOST_WAITING: usize = 1024;

pub struct Options {
    /// What posts to webhooks are signed with; without it none is made.
    pub secret: Option<Secret>,
    /// Where they may go.
    pub hosts: Hosts,
    /// Who may vouch for receivers by https.
    pub trust: Trust,
    /// Time between two tellings of figures.
    pub figures: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { secret: None, hosts: Hosts::default(), trust: Trust::default(), figures: Duration::from_secs(2) }
    }
}

/// Begins to tell what happens in queues. The future does it; it ends when it is dropped.
pub fn start(hub: &Hub, options: Options) -> impl Future<Output = ()> + Send + 'static {
    let (sender, firings) = mpsc::channel(MOST_WAITING);
    let Options { secret, hosts, trust, figures } = options;
    if let Ok(desk) = hub.queues() {
        desk.set_teller(Arc::new(Mouth { sender, can_post: secret.is_some(), hosts: hosts.clone() }));
    }
    let poster = secret.map(|secret| webhook::Poster::new(secret, hosts, trust));
    let firings = firings::run(hub.clone(), poster, firings);
    let figures = figures::run(hub.clone(), figures);
    async move { _ = tokio::join!(firings, figures) }
}

/// Where the desk leaves firings. It holds no hub: the desk would keep itself alive.
struct Mouth {
    sender: mpsc::Sender<Firing>,
    can_post: bool,
    hosts: Hosts,
}

impl Tell for Mouth {
    fn tell(&self, firing: Firing) {
        if let Err(error) = self.sender.try_send(firing) {
            tracing::debug!(%error, "a firing waits for the next claim");
        }
    }

    fn judge_webhook(&self, url: &str) -> Result<(), String> {
        if !self.can_post {
            return Err(
                "nothing signs what would be posted to this webhook: set webhook_secret (FANFARE_WEBHOOK_SECRET) of \
                        the hub; make one with: echo whsec_$(openssl rand -base64 32)"
                    .into(),
            );
        }
        self.hosts.judge(&address::read(url)?)
    }
}

/// A topic about a queue. `None`: the queue's name leaves no room for it.
fn topic_of(queue: &Queue, what: &str) -> Option<Topic> {
    Topic::parse(&format!("$queue.{queue}.{what}")).ok()
}
