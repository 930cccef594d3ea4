//! The first law over a line that is cut anywhere, also in the middle of an event.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;

use crate::events::Stream;
use crate::hub::{self, publish};

/// What an `EventSource` with a page around it remembers.
#[derive(Default)]
struct Reader {
    id: String,
    /// Numbers of the messages that were shown, by topic.
    shown: BTreeMap<String, Vec<u64>>,
    /// Stretches that were told as missing.
    told: usize,
}

impl Reader {
    async fn hear(&mut self, stream: &mut Stream, until: impl Fn(&Reader) -> bool) -> bool {
        while !until(self) {
            let Some(event) = stream.next().await else { return false };
            self.id = stream.last_event_id.clone();
            let document = event.json();
            if event.kind == "gap" || document["resumed"] == false {
                self.told += 1;
            }
            if event.kind == "message" {
                let topic = document["topic"].as_str().unwrap().to_string();
                self.shown.entry(topic).or_default().push(number(&document));
            }
        }
        true
    }

    fn has(&self, topic: &str, last: u64) -> bool {
        self.shown.get(topic).and_then(|s| s.last()) == Some(&last)
    }
}

fn number(document: &Value) -> u64 {
    document["data"]["n"].as_u64().unwrap()
}

async fn say(http: SocketAddr, topic: &str, n: u64) {
    publish(http, topic, &format!("{{\"n\":{n},\"text\":\"첫 메시지\"}}")).await;
}

const TOPICS: &str = "?topic=a&topic=b&topic=c";

/// Lets so many bytes of the answer's body through, and then ends the connection.
async fn cut_after(http: SocketAddr, bytes: usize) -> (SocketAddr, tokio::task::JoinHandle<bool>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let wire = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(http).await.unwrap();
        let (mut asked, mut room) = (vec![0; 4096], vec![0; 4096]);
        let count = near.read(&mut asked).await.unwrap();
        // The name that the hub knows itself by stays in the request: it is a loopback address either way.
        far.write_all(&asked[..count]).await.unwrap();
        let (mut head, mut left) = (Vec::new(), None::<usize>);
        loop {
            let count = tokio::select! {
                count = far.read(&mut room) => count.unwrap_or(0),
                // The client left of itself.
                _ = near.readable() => return false,
            };
            if count == 0 {
                return false;
            }
            let mut part = &room[..count];
            if left.is_none() {
                head.extend_from_slice(part);
                let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
                near.write_all(&head[..end + 4]).await.unwrap();
                part = &head[end + 4..];
                left = Some(bytes);
            }
            let passes = part.len().min(left.unwrap());
            near.write_all(&part[..passes]).await.unwrap();
            left = left.map(|left| left - passes);
            if left == Some(0) {
                return true;
            }
        }
    });
    (address, wire)
}

/// Three topics: one with history to catch up on, one live, one silent at first. The line is cut after so many bytes;
/// something is published meanwhile; it comes back. `false`: the conversation was over before the cut.
async fn converse(bytes: usize) -> bool {
    let server = hub::start(&[]).await;
    let http = server.http;
    for n in 0..3 {
        say(http, "a", n).await;
    }
    let mut reader = Reader::default();
    let (cut_at, wire) = cut_after(http, bytes).await;
    let mut stream = Stream::open(cut_at, &format!("{TOPICS}&last=2"), "").await;
    let begun = |r: &Reader| r.has("a", 2);
    let mut whole = reader.hear(&mut stream, begun).await;
    say(http, "b", 0).await;
    say(http, "b", 1).await;
    whole = whole && reader.hear(&mut stream, |r| r.has("b", 1)).await;
    say(http, "a", 3).await;
    whole = whole && reader.hear(&mut stream, |r| r.has("a", 3)).await;
    drop(stream);
    let was_cut = wire.await.unwrap();
    assert!(whole || was_cut);
    // What the client knows of each topic at the cut: a topic that no event had begun starts as the URL says.
    let known = std::mem::take(&mut reader.id);
    for (topic, n) in [("a", 4), ("b", 2), ("c", 0), ("a", 5)] {
        say(http, topic, n).await;
    }
    let mut stream = Stream::open(http, &format!("{TOPICS}&last=2"), &known).await;
    let all = |r: &Reader| r.has("a", 5) && r.has("b", 2) && r.has("c", 0);
    assert!(reader.hear(&mut stream, all).await);
    for (topic, shown) in &reader.shown {
        let run: Vec<u64> = (shown[0]..=*shown.last().unwrap()).collect();
        assert_eq!(*shown, run, "{topic}, cut after {bytes} bytes: a hole or a repetition");
    }
    let first = |topic: &str| reader.shown[topic][0];
    let begun = |topic: &str| {
        known.parse::<fanfare::domain::bookmark::Bookmark>().ok().and_then(|k| k.of(&crate::cuts::topic(topic), false))
    };
    assert_eq!(reader.told, 0, "nothing was missing, cut after {bytes} bytes");
    // `last=2` counts from the end; a topic that had begun before the cut has everything since.
    for (name, since, later) in [("a", 1, 4), ("b", 0, 1), ("c", 0, 0)] {
        let expected = if begun(name).is_some() { since } else { later };
        assert_eq!(first(name), expected, "{name}, cut after {bytes} bytes");
    }
    server.stop().await;
    !whole
}

fn topic(name: &str) -> fanfare::domain::name::Topic {
    fanfare::domain::name::Topic::parse(name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_cut_after_any_number_of_bytes_loses_nothing_and_repeats_nothing() {
    // Steps that meet every part of an event in turn, and their borders.
    let mut bytes = 1;
    let mut cuts = 0;
    while converse(bytes).await {
        bytes += 7;
        cuts += 1;
    }
    assert!(cuts > 100, "the conversation was cut only {cuts} times");
}
