//! F9: a subscriber is away while history moves past the place where it stood. When it comes back it is told the exact
//! range that is gone, on every store and by whichever bound.

use std::time::Duration;

use fanfare::domain::position::Position;
use serde_json::Value;

use crate::checker::{Allowed, Heard};
use crate::fleet::Fleet;
use crate::form::begin;
use crate::node::{client, read_log};
use crate::publisher::Door;
use crate::scene::{Cast, SOON, Scene, ask_once};
use crate::server::RedisServer;

/// A bound of history, and how many bytes each message has beside its mark.
const BOUNDS: [([&str; 2], usize); 3] =
    [(["--history-messages", "50"], 0), (["--history-bytes", "64KiB"], 2_000), (["--history-age", "2s"], 0)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_away_beyond_the_end_of_history_is_told_exactly_what_is_gone() {
    let running = begin("F9 away across the end of history").await;
    for store in ["memory", "disk", "redis"] {
        for (bound, padding) in BOUNDS {
            let redis = RedisServer::start();
            let url = redis.url();
            let folder = tempfile::tempdir().expect("a folder");
            let url = match store {
                "redis" => url,
                "disk" => format!("disk:{}", folder.path().display()),
                store => store.to_owned(),
            };
            let fleet = Fleet::start(1, &url, &bound);
            let nodes = fleet.addresses.clone();
            let node = fleet.running[0].http;
            let mut scene = Scene::open(nodes.clone(), Cast { topics: 1, listeners: 3, share: 1, watches: None }).await;
            scene.publish("http", Door::http(&nodes, 0, SOON).padded(padding), Duration::from_millis(5));
            scene.flow(20).await;
            let topic = scene.topics[0].clone();
            let first = read_log(&client(), node, &topic).await.last().expect("something was published").0;
            scene.listeners[2].stay_away(true);
            scene.flow(100).await;
            let gone = until_gone(node, &topic, first).await;
            scene.flow(10).await;
            scene.hush().await;

            // Told exactly, as a frame and as HTTP.
            let answer = ask_once(node, &format!(r#"{{"sub":"{topic}","after":"{first}"}}"#), SOON).await;
            let kept = read_log(&client(), node, &topic).await;
            if bound[0] != "--history-age" {
                assert_eq!(position(&answer["to"]), kept[0].0.before(), "{store} {bound:?}: {answer}");
            } else if let Some((oldest, _)) = kept.first() {
                // What grows too old between the two questions is gone from the second answer only.
                assert!(position(&answer["to"]).offset < oldest.offset, "{store} {bound:?}: {answer}");
            }
            let told = (&answer["ok"], &answer["resumed"], &answer["why"]);
            assert_eq!(told, (&"sub".into(), &false.into(), &"retention".into()), "{store} {bound:?}: {answer}");
            assert!(position(&answer["to"]).offset >= gone.offset, "{store} {bound:?}: {answer}");
            if let Some((newest, _)) = kept.last() {
                assert_eq!(position(&answer["at"]), *newest, "{store} {bound:?}");
            }
            // What is left of it can be read from there.
            let to = answer["to"].as_str().expect("a position");
            let url = format!("http://{node}/v1/topics/{topic}/messages?after={to}&limit=1000");
            let page: Value = client().get(url).send().await.unwrap().json().await.unwrap();
            let items = page["items"].as_array().expect("a page").len();
            assert!(items <= kept.len() && (bound[0] == "--history-age" || items == kept.len()), "{store}: {page}");

            scene.listeners[2].stay_away(false);
            let allowed = Allowed { anew: &["retention"], gaps: &["retention"], trimmed: true, ..Allowed::default() };
            let ingest = (store == "redis").then(|| redis.url());
            let run = scene.close(&running, ingest.as_deref(), allowed).await;
            let anew = |heard: &Heard| matches!(heard, Heard::Joined { resumed: Some(false), .. });
            let late = &run.history.streams[2];
            assert!(late.heard.iter().any(|(_, heard)| anew(heard)), "{store} {bound:?}: it was away and not told");
        }
    }
}

/// Waits until history no longer has this; answers it.
async fn until_gone(node: std::net::SocketAddr, topic: &str, at: Position) -> Position {
    let waiting = async {
        loop {
            let url = format!("http://{node}/v1/topics/{topic}/messages/{at}");
            if client().get(url).send().await.expect("it answers").status() != 200 {
                return at;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.expect("history moves on")
}

fn position(value: &Value) -> Position {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("a position: {value}"))
}
