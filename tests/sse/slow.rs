//! A stream whose client does not read: the same bounds as for a socket.

use serde_json::Value;

use crate::events::Stream;
use crate::hub::{self, number, publish, text};

const NARROW: Option<u32> = Some(4096);

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_pauses_gets_everything_in_order_and_whole() {
    let server = hub::start(&["--outbox=16MiB"]).await;
    for query in ["?topic=big", "?topic=big&topic=small"] {
        let headers = [("accept", "text/event-stream")];
        let mut stream = Stream::request(server.http, "GET", query, &headers, NARROW).await.unwrap();
        stream.next_of("subscribed").await;
        let count = 200;
        for n in 0..count {
            publish(server.http, "big", &text(20_000, n)).await;
        }
        for n in 0..count {
            assert_eq!(number(&stream.next_of("message").await.json(), 20_000), n, "{query}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_too_slow_misses_nothing_whether_it_is_cut_or_caught_up() {
    let server = hub::start(&["--outbox=128KiB", "--history-bytes=64MiB", "--history-messages=10000"]).await;
    for query in ["?topic=a", "?topic=a&topic=b"] {
        let headers = [("accept", "text/event-stream")];
        let mut stream = Stream::request(server.http, "GET", query, &headers, NARROW).await.unwrap();
        stream.next_of("subscribed").await;
        let count = 400;
        for n in 0..count {
            publish(server.http, "a", &text(20_000, n)).await;
        }
        let (mut next, mut returns) = (0, 0);
        while next < count {
            match stream.next().await {
                Some(event) if event.kind == "message" => {
                    let document: Value = event.json();
                    assert_eq!(number(&document, 20_000), next, "{query}, after {returns} returns");
                    next += 1;
                }
                Some(event) => assert!(event.json()["resumed"] != false && event.kind != "gap", "{event:?}"),
                None => {
                    let id = stream.last_event_id.clone();
                    stream = Stream::open(server.http, query, &id).await;
                    returns += 1;
                }
            }
        }
    }
    server.stop().await;
}
