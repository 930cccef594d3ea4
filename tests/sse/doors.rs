//! Who gets a stream, and what is answered in its place.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::events::Stream;
use crate::{hub, metric};

const LIKE_CURL: &[(&str, &str)] = &[("accept", "*/*")];

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_become_a_stream_is_a_problem_document_before_it_begins() {
    let server = hub::start(&["--max-array=3"]).await;
    let at = hub::publish(server.http, "other", "1").await;
    let mut stream = Stream::open(server.http, "?topic=x&topic=y", "").await;
    stream.next_of("subscribed").await;
    let foreign = stream.last_event_id.clone();
    for (method, query, headers, status, reason, text) in [
        ("GET", "", LIKE_CURL, 400, "missing-data", "curl -N 'http://"),
        ("GET", "?topic=no+good", LIKE_CURL, 400, "bad-name", "' '"),
        ("GET", "?topic=", LIKE_CURL, 400, "bad-name", ""),
        ("GET", "?topic=a&topic=b&topic=c&topic=d", LIKE_CURL, 413, "too-many", "at most 3"),
        ("GET", "?topic=a&after=rubbish", LIKE_CURL, 400, "bad-frame", "\"rubbish\""),
        ("GET", &format!("?topic=a&topic=b&after={at}"), LIKE_CURL, 400, "bad-frame", "none of these topics"),
        ("GET", &format!("?topic=a&topic=b&after={foreign}"), LIKE_CURL, 400, "bad-frame", "none of these topics"),
        ("GET", &format!("?topic=a&after={at}&last=1"), LIKE_CURL, 400, "bad-frame", "exclude"),
        ("GET", "?topic=a&last=1&last=2", LIKE_CURL, 400, "bad-frame", "twice"),
        ("GET", "?topic=a&last=1&since=60", LIKE_CURL, 400, "bad-frame", "exclude"),
        ("GET", "?topic=a&since=soon", LIKE_CURL, 400, "bad-frame", "seconds ago"),
        ("GET", "?topic=a&last=100000", LIKE_CURL, 400, "bad-frame", "0 to 1000"),
        ("GET", "?topic=a", &[("accept", "application/json, image/*")], 406, "bad-frame", "text/event-stream"),
        ("POST", "?topic=a", LIKE_CURL, 405, "not-found", "it takes GET"),
        ("GET", "?topic=a", &[("origin", "https://evil.example")], 403, "origin", "--origins https://evil.example"),
    ] {
        let mut answer = Stream::request(server.http, method, query, headers, None).await.unwrap();
        let body = answer.body().await;
        assert_eq!((answer.status, body["reason"].as_str()), (status, Some(reason)), "{query}: {body}");
        assert!(body["detail"].as_str().unwrap().contains(text), "{query}: {body}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
    }
    drop(stream);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_topics_that_an_id_cannot_tell_apart_are_refused() {
    use fanfare::domain::bookmark::Tag;
    use fanfare::domain::name::Topic;
    // About one pair among 2^16 names has the same 32 bits.
    let mut seen = std::collections::HashMap::new();
    let (one, two) = (0..)
        .find_map(|n| {
            let topic = Topic::parse(&format!("t{n}")).unwrap();
            seen.insert(format!("{:?}", Tag::of(&topic)), topic.clone()).map(|other| (other, topic))
        })
        .unwrap();
    let server = hub::start(&[]).await;
    let query = format!("?topic={one}&topic={two}");
    let mut answer = Stream::request(server.http, "GET", &query, LIKE_CURL, None).await.unwrap();
    let body = answer.body().await;
    assert_eq!((answer.status, body["reason"].as_str()), (400, Some("bad-frame")), "{body}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_may_and_a_head_request_are_answered() {
    let server = hub::start(&["--origins=https://app.example"]).await;
    let headers = [("origin", "https://app.example"), ("accept", "text/event-stream")];
    let mut stream = Stream::request(server.http, "GET", "?topic=a", &headers, None).await.unwrap();
    assert_eq!((stream.status, stream.headers["access-control-allow-origin"].as_str()), (200, "https://app.example"));
    stream.next_of("subscribed").await;
    let close = [("connection", "close")];
    let mut head = Stream::request(server.http, "HEAD", "?topic=a", &close, None).await.unwrap();
    assert_eq!((head.status, head.headers["content-type"].as_str()), (200, "text/event-stream"));
    assert_eq!(head.next().await, None);
    drop(stream);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_kept_alive_becomes_a_stream() {
    let server = hub::start(&[]).await;
    let mut socket = TcpStream::connect(server.http).await.unwrap();
    let host = server.http;
    // The second request comes with the first, as a proxy may send it.
    let both =
        format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\n\r\nGET /v1/sse?topic=a HTTP/1.1\r\nhost: {host}\r\n\r\n");
    socket.write_all(both.as_bytes()).await.unwrap();
    let first = Stream::answer(socket).await.unwrap();
    assert_eq!(first.status, 200);
    let mut stream = first.next_answer().await;
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    stream.next_of("subscribed").await;
    hub::publish(server.http, "a", "1").await;
    assert_eq!(stream.next().await.unwrap().json()["data"], 1);
    drop(stream);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_sockets_share_the_limit_and_an_event_source_is_asked_to_come_back() {
    let server = hub::start(&["--max-connections=2"]).await;
    let http = server.http;
    let mut socket = hub::Client::connect(http, "?sub=a").await;
    socket.next().await;
    let mut stream = Stream::open(http, "?topic=a", "").await;
    stream.next_of("subscribed").await;
    let mut refused = Stream::request(http, "GET", "?topic=a", LIKE_CURL, None).await.unwrap();
    assert_eq!((refused.status, refused.body().await["reason"].as_str()), (503, Some("too-many")));
    assert!(refused.headers.contains_key("retry-after"));
    // An `EventSource` would give up at 503.
    let mut told = Stream::open(http, "?topic=a", &stream.last_event_id).await;
    assert_eq!(told.status, 200);
    let error = told.next().await.unwrap();
    assert_eq!((error.kind.as_str(), error.json()["error"].as_str()), ("error", Some("too-many")));
    assert_eq!(told.last_event_id, stream.last_event_id, "it comes back with the id that it had");
    assert!(told.retry.unwrap() >= 1_000);
    // A place that was left is free.
    drop(stream);
    let mut again = loop {
        let mut next = Stream::open(http, "?topic=a", "").await;
        if next.next().await.unwrap().kind == "hello" {
            break next;
        }
    };
    again.next_of("subscribed").await;
    assert!(metric(&server, "fanfare_accepted_total{transport=\"sse\"}").await >= 2.0);
    drop((again, socket));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_goes_down_gives_what_it_has_and_ends_the_stream_with_the_time_to_come_back() {
    let server = hub::start(&[]).await;
    let http = server.http;
    let mut stream = Stream::open(http, "?topic=a", "").await;
    stream.next_of("subscribed").await;
    let retry = stream.retry.take();
    hub::publish(http, "a", "1").await;
    let begun = std::time::Instant::now();
    server.stop().await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "no stream holds the node up");
    assert_eq!(stream.next().await.unwrap().json()["data"], 1);
    assert_eq!(stream.next().await, None);
    assert_eq!((stream.retry, stream.comments.last().map(String::as_str)), (retry, Some(" 4000 drain")));
}
