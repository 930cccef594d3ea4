//! The first law: a client that keeps the last `at` of each topic and sends it as `after` loses nothing in silence,
//! wherever its line is cut.

#[path = "support/hub.rs"]
mod hub;

use std::net::SocketAddr;

use hub::{Client, Heard, publish};

/// The README's client, with its memory.
#[derive(Default)]
struct Reader {
    at: Option<String>,
    /// Offsets of the messages that were shown, in order.
    shown: Vec<u64>,
    /// Whether it was told that something is missing, and so fetched the state anew.
    told: bool,
    frames: usize,
}

impl Reader {
    async fn open(&self, http: SocketAddr) -> Client {
        let mut client = Client::connect(http, "").await;
        let after = self.at.as_ref().map_or(String::new(), |at| format!(r#","after":"{at}""#));
        client.say(&format!(r#"{{"sub":"news"{after}}}"#)).await;
        client
    }

    fn on_frame(&mut self, text: &str) {
        self.frames += 1;
        let m: serde_json::Value = serde_json::from_str(text).unwrap();
        if let Some(at) = m["at"].as_str() {
            self.at = Some(at.to_owned());
        }
        if m.get("gap").is_some() || m["resumed"] == false {
            self.told = true;
        }
        if m.get("data").is_some() {
            self.shown.push(offset(m["at"].as_str().unwrap()));
        }
    }

    /// Hears frames until the one with this offset was shown, or until `cut` frames were heard in all.
    async fn hear(&mut self, client: &mut Client, until: u64, cut: usize) -> bool {
        while self.frames < cut {
            match client.hear().await {
                Heard::Text(text) => self.on_frame(&text),
                other => panic!("{other:?}"),
            }
            if self.shown.last() == Some(&until) {
                return true;
            }
        }
        false
    }
}

fn offset(at: &str) -> u64 {
    at.split_once('.').unwrap().1.parse().unwrap()
}

/// A conversation of a subscription, a replay with a hole that expired, a message of its own, and live messages; the
/// line is cut after frame number `cut`, something is published meanwhile, and it comes back.
async fn converse(cut: usize) -> (Reader, u64, bool) {
    let server = hub::start(&[]).await;
    let http = server.http;
    let first = publish(http, "news", "1").await;
    publish(http, "news", "2").await;
    let short = publish_for(http, "0.001").await;
    publish(http, "news", "4").await;
    gone(http, &short).await;

    let mut reader = Reader { at: Some(first), ..Reader::default() };
    let mut client = reader.open(http).await;
    // hello, ok, 2, gap, 4
    let mut whole = reader.hear(&mut client, 4, cut).await;
    if whole {
        client.say(r#"{"id":1,"pub":"news","data":"own"}"#).await;
        whole = reader.hear(&mut client, 5, cut).await;
    }
    if whole {
        publish(http, "news", "6").await;
        publish(http, "news", "7").await;
        whole = reader.hear(&mut client, 7, cut).await;
    }
    drop(client);
    let mut last = 0;
    for _ in 0..2 {
        last = offset(&publish(http, "news", "\"while away\"").await);
    }
    let mut client = reader.open(http).await;
    assert!(reader.hear(&mut client, last, usize::MAX).await);
    drop(client);
    server.stop().await;
    (reader, last, whole)
}

async fn publish_for(http: SocketAddr, ttl: &str) -> String {
    let url = format!("http://{http}/v1/topics/news/messages?ttl={ttl}");
    let request = reqwest::Client::new().post(url).header("content-type", "application/json").body("\"short\"");
    let answer: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
    answer["stored"].as_str().unwrap().to_owned()
}

/// Waits until a message's time to live is over.
async fn gone(http: SocketAddr, at: &str) {
    let url = format!("http://{http}/v1/topics/news/messages/{at}");
    while reqwest::get(&url).await.unwrap().status() == 200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_cut_after_any_frame_loses_nothing_in_silence() {
    let mut cut = 0;
    loop {
        let (reader, last, whole) = converse(cut).await;
        assert!(reader.shown.is_sorted_by(|a, b| a < b), "cut {cut}: {:?}", reader.shown);
        let missing: Vec<u64> = (2..=last).filter(|o| !reader.shown.contains(o)).collect();
        // Offset 3 expired, and that is told.
        assert_eq!((missing, reader.told), (vec![3], true), "cut {cut}: {:?}", reader.shown);
        if whole {
            break;
        }
        cut += 1;
    }
    assert!(cut >= 8, "the conversation has only {cut} frames");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stayed_away_longer_than_history_reaches_is_told() {
    let server = hub::start(&["--history-messages=2"]).await;
    let first = publish(server.http, "news", "1").await;
    for n in 2..6 {
        publish(server.http, "news", &n.to_string()).await;
    }
    let mut reader = Reader { at: Some(first), ..Reader::default() };
    let mut client = reader.open(server.http).await;
    reader.hear(&mut client, 0, 2).await;
    assert!(reader.told);
    // The stream begins at the head, and that position is safe.
    let next = publish(server.http, "news", "6").await;
    assert!(reader.hear(&mut client, offset(&next), 10).await);
    assert_eq!(reader.shown, [6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_whose_beginning_has_expired_is_answered_with_what_follows() {
    let server = hub::start(&[]).await;
    let first = publish(server.http, "news", "1").await;
    let mut last = first.clone();
    for _ in 0..3 {
        last = publish_for(server.http, "0.001").await;
    }
    publish(server.http, "news", "5").await;
    gone(server.http, &last).await;
    let mut client = Client::connect(server.http, "").await;
    client.next().await;
    client.say(&format!(r#"{{"history":"news","after":"{first}","limit":1}}"#)).await;
    let answer = client.next().await;
    assert_eq!((&answer["items"][0]["data"], &answer["more"]), (&5.into(), &false.into()), "{answer}");
    drop(client);
    server.stop().await;
}
