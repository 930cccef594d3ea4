//! What a stream says.

use crate::events::Stream;
use crate::hub::{self, Client, publish};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_says_hello_and_its_answer_and_then_the_same_documents_as_a_websocket() {
    let server = hub::start(&[]).await;
    let mut socket = Client::connect(server.http, "?sub=news").await;
    socket.next().await;
    socket.next().await;
    let mut stream = Stream::open(server.http, "?topic=news&color=red", "").await;
    assert_eq!(stream.status, 200);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
        ("x-content-type-options", "nosniff"),
        ("connection", "close"),
    ] {
        assert_eq!(stream.headers[name], value, "{name}");
    }
    assert!(!stream.headers.contains_key("content-length") && !stream.headers.contains_key("transfer-encoding"));
    let hello = stream.next().await.unwrap();
    assert_eq!((hello.kind.as_str(), hello.json()["hello"].as_str()), ("hello", Some("fanfare.v1")));
    assert!((1_000..4_000).contains(&stream.retry.unwrap()));
    let answer = stream.next().await.unwrap();
    assert_eq!(answer.kind, "subscribed");
    assert_eq!((&answer.json()["topic"], &answer.json()["ignored"][0]), (&"news".into(), &"color".into()));
    assert_eq!(stream.last_event_id, answer.json()["at"]);
    for data in ["{\"hi\":\"안녕\\n하세요\"}", "2"] {
        let at = publish(server.http, "news", data).await;
        let message = stream.next().await.unwrap();
        assert_eq!(message.kind, "message");
        let hub::Heard::Text(text) = socket.hear().await else { panic!("no text") };
        assert_eq!(message.data, text);
        assert_eq!(stream.last_event_id, at, "one topic: its id is the position");
    }
    drop((socket, stream));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_id_resumes_every_topic_whatever_their_order_and_a_user_is_a_topic() {
    let server = hub::start(&[]).await;
    let http = server.http;
    let mut stream = Stream::open(http, "?topic=a&user=ann@x.org&topic=c", "").await;
    for _ in 0..3 {
        stream.next_of("subscribed").await;
    }
    publish(http, "a", "1").await;
    stream.next_of("message").await;
    publish(http, "user.ann@x~2Eorg", "1").await;
    stream.next_of("message").await;
    let id = stream.last_event_id.clone();
    drop(stream);
    for (topic, data) in [("c", "1"), ("a", "2"), ("user.ann@x~2Eorg", "2"), ("a", "3")] {
        publish(http, topic, data).await;
    }
    for (query, header) in [
        ("?user=ann@x.org&topic=c&topic=a".to_string(), id.as_str()),
        (format!("?topic=c&topic=user.ann@x~2Eorg&topic=a&after={id}"), ""),
        // The header wins over both.
        ("?topic=c&topic=user.ann@x~2Eorg&topic=a&last=0".to_string(), &id),
    ] {
        let mut stream = Stream::open(http, &query, header).await;
        let (mut got, mut resumed) = (Vec::new(), 0);
        while got.len() < 4 {
            let event = stream.next().await.unwrap();
            assert!(!stream.last_event_id.is_empty(), "{event:?} would make a client forget its id");
            match event.kind.as_str() {
                "subscribed" => resumed += usize::from(event.json()["resumed"] == true),
                "message" => got.push(format!("{}{}", event.json()["topic"].as_str().unwrap(), event.json()["data"])),
                _ => {}
            }
        }
        got.sort();
        assert_eq!(got, ["a2", "a3", "c1", "user.ann@x~2Eorg2"], "{query}");
        assert_eq!(resumed, 3, "{query}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_safe_while_another_topic_still_catches_up_and_a_topic_without_one_begins_as_the_url_says() {
    let server = hub::start(&[]).await;
    let http = server.http;
    for n in 0..=3 {
        publish(http, "a", &n.to_string()).await;
        publish(http, "b", &n.to_string()).await;
    }
    // After each event in turn the client takes the id and leaves; it must still get everything.
    let mut stream = Stream::open(http, "?topic=a&topic=b&last=4", "").await;
    let mut ids = Vec::new();
    while ids.len() < 2 + 8 {
        let event = stream.next().await.unwrap();
        if event.kind != "hello" {
            ids.push((stream.last_event_id.clone(), event.json()));
        }
    }
    drop(stream);
    for (cut, (id, _)) in ids.iter().enumerate() {
        let mut seen: Vec<String> = ids[..=cut].iter().filter_map(|(_, m)| name(m)).collect();
        let mut stream = Stream::open(http, "?topic=a&topic=b&last=4", id).await;
        while seen.len() < 8 {
            let event = stream.next().await.unwrap();
            assert_ne!(event.json()["resumed"], false, "cut {cut}: {event:?}");
            seen.extend(name(&event.json()));
        }
        seen.sort();
        assert_eq!(seen, ["a0", "a1", "a2", "a3", "b0", "b1", "b2", "b3"], "cut {cut}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_at_a_time_and_with_what_is_latest() {
    let server = hub::start(&["--topic=price:mode=latest"]).await;
    let http = server.http;
    for n in 0..3 {
        publish(http, "news", &n.to_string()).await;
        publish(http, "price", &n.to_string()).await;
    }
    let mut stream = Stream::open(http, "?topic=news&since=3600", "").await;
    assert_eq!(stream.next_of("subscribed").await.json()["resumed"], true);
    for n in 0..3 {
        assert_eq!(stream.next().await.unwrap().json()["data"], n);
    }
    let mut stream = Stream::open(http, "?topic=price", "").await;
    assert_eq!(stream.next_of("subscribed").await.json()["mode"], "latest");
    assert_eq!(stream.next().await.unwrap().json()["data"], 2);
    server.stop().await;
}

fn name(message: &serde_json::Value) -> Option<String> {
    message.get("data").map(|data| format!("{}{data}", message["topic"].as_str().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_history_no_longer_has_is_told_and_the_id_then_is_safe() {
    let server = hub::start(&["--history-messages=2"]).await;
    let http = server.http;
    let first = publish(http, "news", "0").await;
    for n in 1..6 {
        publish(http, "news", &n.to_string()).await;
    }
    let mut stream = Stream::open(http, "?topic=news", &first).await;
    stream.next_of("hello").await;
    assert_eq!(stream.last_event_id, first);
    let answer = stream.next().await.unwrap().json();
    assert_eq!((&answer["resumed"], answer["why"].as_str()), (&false.into(), Some("retention")));
    let id = stream.last_event_id.clone();
    assert_eq!(id, answer["at"].as_str().unwrap(), "told, so it goes on from the newest");
    drop(stream);
    publish(http, "news", "6").await;
    let mut stream = Stream::open(http, "?topic=news", &id).await;
    assert_eq!(stream.next_of("subscribed").await.json()["resumed"], true);
    assert_eq!(stream.next().await.unwrap().json()["data"], 6);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_an_event_whose_id_asks_for_it_again() {
    let server = hub::start(&[]).await;
    let http = server.http;
    let first = publish(http, "news", "0").await;
    let url = format!("http://{http}/v1/topics/news/messages?ttl=0.001");
    let short = reqwest::Client::new().post(url).header("content-type", "application/json").body("1");
    let short: serde_json::Value = short.send().await.unwrap().json().await.unwrap();
    publish(http, "news", "2").await;
    let gone = format!("http://{http}/v1/topics/news/messages/{}", short["stored"].as_str().unwrap());
    while reqwest::get(&gone).await.unwrap().status() == 200 {
        tokio::task::yield_now().await;
    }
    let mut id = first.clone();
    // The id of a gap is the one before it: whoever leaves there is told again.
    for _ in 0..2 {
        let mut stream = Stream::open(http, "?topic=news", &id).await;
        let gap = stream.next_of("gap").await.json();
        assert_eq!((gap["gap"].as_str(), gap["why"].as_str()), (Some("news"), Some("expired")));
        id = stream.last_event_id.clone();
        assert_eq!(id, first);
        assert_eq!(stream.next().await.unwrap().json()["data"], 2);
        assert_ne!(stream.last_event_id, first);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_none_of_ours_resumes_nothing_and_says_so_for_each_topic() {
    let server = hub::start(&[]).await;
    let http = server.http;
    let at = publish(http, "a", "1").await;
    for id in ["rubbish", "k3.42", "~AQ", "안녕", &format!("{at}x"), &at] {
        let mut stream = Stream::open(http, "?topic=a&topic=b", id).await;
        for _ in 0..2 {
            let answer = stream.next_of("subscribed").await.json();
            assert_eq!((&answer["resumed"], answer["why"].as_str()), (&false.into(), Some("epoch")), "{id}");
        }
        // What it got in its place is good.
        let mut again = Stream::open(http, "?topic=a&topic=b", &stream.last_event_id).await;
        for _ in 0..2 {
            assert_eq!(again.next_of("subscribed").await.json()["resumed"], true, "{id}");
        }
    }
    // Before the first answer the id still resumes nothing.
    let mut stream = Stream::open(http, "?topic=a&topic=b", "rubbish").await;
    stream.next_of("hello").await;
    let mut again = Stream::open(http, "?topic=a&topic=b", &stream.last_event_id).await;
    assert_eq!(again.next_of("subscribed").await.json()["resumed"], false);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_are_comments_that_touch_no_id() {
    let server = hub::start(&["--ping=1s"]).await;
    let at = publish(server.http, "news", "1").await;
    let mut stream = Stream::open(server.http, "?topic=news", &at).await;
    stream.next_of("subscribed").await;
    for _ in 0..2 {
        assert_eq!(stream.comment().await, "");
    }
    publish(server.http, "news", "2").await;
    assert_eq!(stream.next().await.unwrap().json()["data"], 2);
    server.stop().await;
}
