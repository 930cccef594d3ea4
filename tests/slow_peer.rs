//! Peers that do not read, and peers that do not answer: what waits for them is bounded in bytes and in time, whole
//! frames are all that they ever see, and whoever is cut learns by the code that it may come back. How slow subscribers
//! are read on from the store is in `catching_up.rs`.
//!
//! The metrics belong to the process, so these tests run one after the other.

#[path = "support/hub.rs"]
mod hub;

use std::time::Duration;

use hub::{Client, Heard, PATIENCE, metric, narrow, number, publish, text};
use tokio::sync::Mutex;

static ALONE: Mutex<()> = Mutex::const_new(());

async fn until_waiting(server: &fanfare::server::Server, judge: impl Fn(u64) -> bool) {
    tokio::time::timeout(PATIENCE, async {
        while !judge(metric(server, "fanfare_outbox_bytes", "").await) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the backlog gets there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_pauses_gets_everything_in_order_and_whole() {
    let _alone = ALONE.lock().await;
    let server = hub::start(&["--outbox=16MiB"]).await;
    let mut client = narrow(server.http, "?sub=big").await;
    for _ in 0..2 {
        client.next().await;
    }
    let count = 300;
    for n in 0..count {
        publish(server.http, "big", &text(20_000, n)).await;
    }
    until_waiting(&server, |bytes| bytes > 1_000_000).await;
    for n in 0..count {
        assert_eq!(number(&client.next().await, 20_000), n);
    }
    until_waiting(&server, |bytes| bytes == 0).await;
    publish(server.http, "big", &text(1, count)).await;
    assert_eq!(number(&client.next().await, 1), count);
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_peer_is_given_before_a_node_that_goes_down_closes() {
    let _alone = ALONE.lock().await;
    let server = hub::start(&["--outbox=16MiB", "--shards=1"]).await;
    let mut witness = Client::connect(server.http, "").await;
    witness.next().await;
    let mut client = narrow(server.http, "?sub=big").await;
    for _ in 0..2 {
        client.next().await;
    }
    let count = 300;
    for n in 0..count {
        publish(server.http, "big", &text(20_000, n)).await;
    }
    until_waiting(&server, |bytes| bytes > 1_000_000).await;
    let stop = tokio::spawn(server.stop());
    // Only when the node closes does this client read on.
    assert_eq!(witness.hear().await, Heard::Closed(4000, "drain".into()));
    for n in 0..count {
        assert_eq!(number(&client.next().await, 20_000), n);
    }
    assert_eq!(client.hear().await, Heard::Closed(4000, "drain".into()));
    drop((witness, client));
    stop.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_takes_nothing_does_not_hold_a_node_up_that_goes_down() {
    let _alone = ALONE.lock().await;
    let server = hub::start(&["--outbox=16MiB"]).await;
    let client = narrow(server.http, "?sub=big").await;
    for n in 0..300 {
        publish(server.http, "big", &text(20_000, n)).await;
    }
    until_waiting(&server, |bytes| bytes > 1_000_000).await;
    tokio::time::timeout(Duration::from_secs(9), server.stop()).await.expect("before the bound, with the store closed");
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_takes_nothing_for_too_long_is_cut_though_its_backlog_is_small() {
    let _alone = ALONE.lock().await;
    let server = hub::start(&["--outbox-age=1s"]).await;
    let mut client = narrow(server.http, "?sub=big").await;
    for n in 0..40 {
        publish(server.http, "big", &text(20_000, n)).await;
    }
    until_waiting(&server, |bytes| bytes > 100_000).await;
    // Only once it has been cut, and its backlog dropped, does this client read on.
    until_waiting(&server, |bytes| bytes < 100_000).await;
    let closed = loop {
        match client.hear().await {
            Heard::Text(_) => {}
            other => break other,
        }
    };
    assert_eq!(closed, Heard::Closed(4002, "slow".into()));
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_line_is_pinged_and_closed_when_nobody_answers() {
    let _alone = ALONE.lock().await;
    let server = hub::start(&["--ping=1s", "--pong=1s"]).await;
    let mut answering = Client::connect(server.http, "").await;
    let mut silent = Client::connect(server.http, "").await;
    silent.next().await;
    // The one reads, and so answers pings; the other does not look until the gauge says that it is gone.
    let reads = async {
        let url = format!("http://{}/metrics", server.admin.unwrap());
        loop {
            tokio::select! {
                heard = answering.hear() => assert!(matches!(heard, Heard::Text(_)), "{heard:?}"),
                page = reqwest::get(&url) => {
                    if page.unwrap().text().await.unwrap().contains("fanfare_closed_total{code=\"4001\"} 1") {
                        break;
                    }
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, reads).await.expect("the silent one is closed");
    assert_eq!(silent.hear().await, Heard::Closed(4001, "idle".into()));
    answering.say(r#"{"ping":1}"#).await;
    while !matches!(answering.hear().await, Heard::Text(text) if text.contains("pong")) {}
    drop((answering, silent));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_reads_of_history_at_once_are_answered_within_the_outbox() {
    let _alone = ALONE.lock().await;
    let server = hub::start(&["--outbox=256KiB"]).await;
    for n in 0..20 {
        publish(server.http, "big", &text(20_000, n)).await;
    }
    let mut client = narrow(server.http, "").await;
    client.next().await;
    let reads: Vec<String> = (0..40).map(|id| format!(r#"{{"id":{id},"history":"big"}}"#)).collect();
    client.say(&format!("[{}]", reads.join(","))).await;
    for id in 0..40 {
        let answer = client.next().await;
        assert_eq!((&answer["id"], &answer["ok"]), (&id.into(), &"history".into()));
        assert!(!answer["items"].as_array().unwrap().is_empty());
    }
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_takes_its_backlog_slowly_is_not_taken_for_idle() {
    let _alone = ALONE.lock().await;
    let server = hub::start(&["--outbox=64MiB", "--ping=1s", "--pong=1s"]).await;
    let mut client = narrow(server.http, "?sub=big").await;
    for _ in 0..2 {
        client.next().await;
    }
    let count = 400;
    for n in 0..count {
        publish(server.http, "big", &text(20_000, n)).await;
    }
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    for n in 0..count {
        pace.tick().await;
        assert_eq!(number(&client.next().await, 20_000), n);
    }
    drop(client);
    server.stop().await;
}
