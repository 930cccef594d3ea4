//! Tells the figures of a queue on `$queue.NAME.stats`, tick by tick, while somebody of this node listens there. Several nodes
//! may tell the same tick: its key keeps it to one message. Rates count from the message before, whichever node told it, so
//! that nothing falls between the ticks of two nodes.

use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tokio::time::{MissedTickBehavior, interval};

use super::topic_of;
use crate::document::{self, Rates};
use crate::domain::message::Publication;
use crate::domain::name::Topic;
use crate::domain::queue::{Queue, Totals};
use crate::domain::store::{ReadFrom, ReadLimit};
use crate::hub::Hub;

/// Queues of which one node tells figures; listeners of more wait until others go.
const MOST_TOLD: usize = 1_000;
/// Queues that are looked at at the same time.
const AT_ONCE: usize = 8;

/// What was told so many ticks ago says nothing of now.
const FRESH: u32 = 30;

pub async fn run(hub: Hub, period: Duration) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let mut queues = listened(&hub);
        queues.truncate(MOST_TOLD);
        let number = document::now() / period.as_millis().max(1) as u64;
        let told = stream::iter(queues).map(|queue| tell(&hub, queue, period, number)).buffer_unordered(AT_ONCE);
        told.collect::<()>().await;
    }
}

/// Queues whose figures somebody of this node listens to.
fn listened(hub: &Hub) -> Vec<Queue> {
    let topics = hub.wanted("$queue.", ".stats");
    let name = |topic: &str| Queue::parse(topic.strip_prefix("$queue.")?.strip_suffix(".stats")?).ok();
    topics.iter().filter_map(|topic| name(topic.as_str())).collect()
}

async fn tell(hub: &Hub, queue: Queue, period: Duration, number: u64) {
    let (Some(topic), Ok(queues)) = (topic_of(&queue, "stats"), hub.queues()) else { return };
    let before = last_told(hub, &topic, period).await;
    let Ok(Some(stats)) = queues.keeper().admin.stats(&queue).await else { return };
    // The store's clock may not be ours, but a tick is never much shorter than its period.
    let since = |then: u64| Duration::from_millis(document::now().saturating_sub(then)).max(period / 2);
    let rates = before.map(|(then, totals)| rates(&totals, &stats.totals, since(then)));
    let publication = Publication {
        topic,
        body: document::figures(&queue, &stats, rates),
        ttl: None,
        key: None,
        idempotency_key: Some(format!("tick:{number}").into()),
        durability: None,
    };
    // Another node was first: a conflict, since it looked at another moment.
    if let Err(problem) = hub.publish(publication).await {
        tracing::trace!(%queue, %problem, "figures");
    }
}

/// What the message before told, if it is of now, and when.
async fn last_told(hub: &Hub, topic: &Topic, period: Duration) -> Option<(u64, Totals)> {
    let limit = ReadLimit { messages: 1, ..ReadLimit::default() };
    let last = hub.read(topic, ReadFrom::Last(1), limit).await.ok()?.messages.pop()?;
    let is_fresh = document::now().saturating_sub(last.time) < (period * FRESH).as_millis() as u64;
    document::told_totals(&last.body).filter(|_| is_fresh).map(|totals| (last.time, totals))
}

/// What happened a second since then. A queue that began anew begins at nothing.
fn rates(then: &Totals, now: &Totals, time: Duration) -> Rates {
    let seconds = time.as_secs_f64().max(0.001);
    let of = |then: u64, now: u64| now.saturating_sub(then) as f64 / seconds;
    Rates {
        put: of(then.put, now.put),
        taken: of(then.taken, now.taken),
        acked: of(then.acked, now.acked),
        died: of(then.died, now.died),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_counted_from_totals_and_never_negative() {
        let then = Totals { put: 10, taken: 5, acked: 5, died: 1, ..Totals::default() };
        let now = Totals { put: 30, taken: 10, acked: 6, died: 0, ..Totals::default() };
        let rates = rates(&then, &now, Duration::from_secs(2));
        assert_eq!((rates.put, rates.taken, rates.acked, rates.died), (10.0, 2.5, 0.5, 0.0));
    }
}
