//! Figures of queues, tick by tick, for those who listen.

use std::time::Duration;

use fanfare::domain::queue::Put;
use fanfare::herald;
use fanfare::hub::{Hub, ShardId, ToShard};
use fanfare::store::Options;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::server::RedisServer;
use super::{Place, SOON, body, drained, history, queue, topic};

/// A node whose subscribers are this test.
async fn listening(place: &Place, figures: Duration) -> (Hub, mpsc::Receiver<ToShard>) {
    let (store, queues) = place.open().await;
    let (sender, heard) = mpsc::channel(1024);
    let (hub, sequencer) = Hub::with_shards(store, vec![sender]);
    tokio::spawn(sequencer);
    let hub = hub.with_queues(queues);
    tokio::spawn(herald::start(&hub, herald::Options { figures, ..Default::default() }));
    (hub, heard)
}

async fn put(hub: &Hub, count: usize) {
    for answer in hub.put((0..count).map(|_| Put::new(queue("jobs"), body("\"data\":1"))).collect()).await {
        answer.unwrap();
    }
}

async fn next(heard: &mut mpsc::Receiver<ToShard>) -> Value {
    let told = async {
        loop {
            if let ToShard::Message(delivery) = heard.recv().await.unwrap() {
                return serde_json::from_slice(&fanfare::document::message(&delivery.message)).unwrap();
            }
        }
    };
    tokio::time::timeout(SOON, told).await.expect("figures in time")
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_where_nobody_listens() {
    let place = Place::embedded("memory", Options::default(), None).await;
    let (hub, _heard) = listening(&place, Duration::from_secs(2)).await;
    put(&hub, 1).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(history(&hub, "$queue.jobs.stats").await.len(), 0);
}

#[tokio::test]
async fn who_listens_hears_once_a_tick_what_a_queue_holds_and_does_whatever_the_number_of_nodes() {
    let place = Place::redis(RedisServer::start());
    let tick = Duration::from_millis(200);
    let (hub, mut heard) = listening(&place, tick).await;
    let (other, mut heard_there) = listening(&place, tick).await;
    put(&hub, 5).await;
    let begun = Instant::now();
    hub.join(&topic("$queue.jobs.stats"), ShardId(0));
    other.join(&topic("$queue.jobs.stats"), ShardId(0));
    let first = next(&mut heard).await;
    assert_eq!((&first["data"]["queue"], &first["data"]["stats"]["waiting"][4]), (&json!("jobs"), &json!(5)));
    put(&hub, 5).await;
    assert_eq!(drained(&hub, "jobs").await.len(), 10);
    // Whichever node tells a tick: nothing that was done falls between two messages.
    let (mut count, mut rates) = (1, ["put", "taken", "acked"].map(|name| (name, false)));
    loop {
        let told = next(&mut heard).await;
        count += 1;
        for (name, was_told) in &mut rates {
            *was_told |= told["data"]["rates"][*name].as_f64() > Some(0.0);
        }
        if told["data"]["stats"]["totals"]["acked"] == 10 {
            assert_eq!(rates.map(|(_, was_told)| was_told), [true; 3], "{told}");
            assert_eq!(told["data"]["stats"]["waiting"][4], 0);
            break;
        }
    }
    let ticks = begun.elapsed().as_millis() / tick.as_millis() + 2;
    assert!(count <= ticks, "{count} messages in {ticks} ticks");
    assert_eq!(next(&mut heard_there).await["topic"], "$queue.jobs.stats");
    let kept = history(&hub, "$queue.jobs.stats").await;
    assert_eq!(kept.len(), 1, "only the newest is kept");
}
