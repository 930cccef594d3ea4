//! Tells firings: first on the topic, then to the webhook, then it is off the queue's list.
//!
//! While a webhook does not accept, the claim of its firing runs out and it comes back here or at another node. So the tries
//! go on over the end of any node, each node within its own bounds: at most `QUICK` tries at first, then one a claim with
//! waits that double, and after `GIVE_UP` none. What was given up was told on the topic all the same.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use metrics::counter;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::topic_of;
use super::webhook::{Posted, Poster};
use crate::document;
use crate::domain::error::Reason;
use crate::domain::message::Publication;
use crate::domain::queue::{CLAIM, Change, Firing, Queue};
use crate::hub::Hub;
use crate::telemetry;

/// Firings that are told at the same time.
const AT_ONCE: usize = 64;
/// Tries of a webhook within the first claim, and how long the first wait between them is; it doubles.
const QUICK: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// How long one telling may take, so that it is over before the claim is.
const TELLING: Duration = Duration::from_secs(4);
/// How long a webhook that does not accept is left alone at most.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long a node goes on trying. The idempotency key on the topic is remembered for as long by default.
const GIVE_UP: Duration = Duration::from_secs(300);

/// How far this node is with a firing.
struct Progress {
    number: u64,
    time: u64,
    first: Instant,
    /// Not to be tried again before.
    next: Instant,
    tellings: u32,
    is_published: bool,
    /// The webhook has it, or never will.
    is_posted: bool,
    under_way: bool,
}

/// What a telling has come to.
struct Told {
    queue: Queue,
    is_published: bool,
    is_posted: bool,
    is_over: bool,
}

pub async fn run(hub: Hub, poster: Option<Poster>, mut firings: mpsc::Receiver<Firing>) {
    let mut known: HashMap<Queue, Progress> = HashMap::new();
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(told) = under_way.next(), if !under_way.is_empty() => finish(&mut known, told),
            firing = firings.recv(), if under_way.len() < AT_ONCE => match firing {
                Some(firing) => {
                    let progress = progress(&mut known, &firing);
                    if progress.under_way || Instant::now() < progress.next {
                        continue;
                    }
                    progress.under_way = true;
                    let is_last = progress.first.elapsed() >= GIVE_UP;
                    let tries = if progress.tellings == 0 { QUICK } else { u32::from(!is_last) };
                    let begun = (progress.is_published, progress.is_posted);
                    under_way.push(tell(&hub, poster.as_ref(), firing, begun, tries, is_last));
                }
                None => return,
            },
        }
    }
}

/// A queue gives one firing to be told at a time, so there is one progress for each.
fn progress<'a>(known: &'a mut HashMap<Queue, Progress>, firing: &Firing) -> &'a mut Progress {
    let now = Instant::now();
    // Whatever another node has told to the end is not kept here.
    known.retain(|_, progress| progress.under_way || now < progress.first + 2 * GIVE_UP);
    let begun = || Progress {
        number: firing.number,
        time: firing.time,
        first: now,
        next: now,
        tellings: 0,
        is_published: false,
        is_posted: false,
        under_way: false,
    };
    let progress = known.entry(firing.queue.clone()).or_insert_with(begun);
    if !progress.under_way && (progress.number, progress.time) != (firing.number, firing.time) {
        *progress = begun();
    }
    progress
}

fn finish(known: &mut HashMap<Queue, Progress>, told: Told) {
    if told.is_over {
        known.remove(&told.queue);
    } else if let Some(progress) = known.get_mut(&told.queue) {
        let wait = (CLAIM / 2 * (1 << progress.tellings.min(8))).min(LONGEST_WAIT);
        progress.next = Instant::now() + wait;
        progress.tellings += 1;
        progress.is_published = told.is_published;
        progress.is_posted = told.is_posted;
        progress.under_way = false;
    }
}

async fn tell(
    hub: &Hub,
    poster: Option<&Poster>,
    firing: Firing,
    (mut is_published, mut is_posted): (bool, bool),
    tries: u32,
    is_last: bool,
) -> Told {
    let deadline = Instant::now() + TELLING;
    let queue = firing.queue.clone();
    let telling = async {
        let desk = hub.queues().ok()?;
        let start = desk.keeper().queues.settings(&queue).await.ok()?.start_when;
        let body = document::firing(&firing, start.as_ref().and_then(|start| start.any.get(firing.arm)));
        // The time tells the firings of one life of the queue from those of another.
        let key = format!("{queue}/{}/{}", firing.number, firing.time);
        let topic = topic_of(&queue, "trigger");
        let publication = topic.map(|topic| Publication {
            topic,
            body,
            ttl: None,
            key: None,
            idempotency_key: Some(key.as_str().into()),
            durability: None,
        });
        let document = publication.as_ref().map(document::published);
        if let Some(publication) = publication.filter(|_| !is_published) {
            match hub.publish(publication).await {
                Ok(_) => {}
                // It was told when the settings were other ones.
                Err(problem) if problem.reason == Reason::Conflict => {}
                Err(problem) => {
                    tracing::debug!(%queue, %problem, "a firing is not published yet");
                    return None;
                }
            }
        }
        is_published = true;
        let url = start.and_then(|start| start.webhook);
        if let (Some(url), Some(document), false) = (url, document, is_posted) {
            is_posted = post(poster, &queue, &url, &key, document, tries, is_last).await;
        } else {
            is_posted = true;
        }
        match is_posted {
            true => desk.keeper().admin.change(&queue, Change::Told(firing.number)).await.ok(),
            false => None,
        }
    };
    let is_over = timeout_at(deadline, telling).await.ok().flatten().is_some();
    Told { queue, is_published, is_posted, is_over }
}

/// Whether the webhook is done with: it has accepted, or nothing more will be tried.
async fn post(
    poster: Option<&Poster>,
    queue: &Queue,
    url: &str,
    id: &str,
    document: bytes::Bytes,
    tries: u32,
    is_last: bool,
) -> bool {
    let give_up = |why: &str| {
        counter!(telemetry::WEBHOOKS, "result" => "given-up").increment(1);
        tracing::error!(%queue, id, why, "a webhook was not told of a firing; its topic was");
        true
    };
    let Some(poster) = poster else { return give_up("there is no webhook_secret to sign it with") };
    if is_last {
        return give_up("it has not accepted for minutes");
    }
    let mut wait = FIRST_WAIT;
    for n in 0..tries {
        if n > 0 {
            sleep(wait).await;
            wait *= 2;
        }
        match poster.post(url, id, document.clone()).await {
            Posted::Accepted => {
                counter!(telemetry::WEBHOOKS, "result" => "accepted").increment(1);
                return true;
            }
            Posted::Never(why) => return give_up(&why),
            Posted::Failed(why) => {
                counter!(telemetry::WEBHOOKS, "result" => "failed").increment(1);
                tracing::warn!(%queue, id, why, "a webhook did not accept a firing; it is tried again");
            }
        }
    }
    false
}
