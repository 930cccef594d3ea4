//! Slow subscribers: who falls behind is read on from the store on the same connection and comes back to the live
//! stream. Every message comes in order, or a gap tells exactly what does not; what waits stays within the outbox.
//!
//! The metrics belong to the process, so these tests run one after the other.

#[path = "support/hub.rs"]
mod hub;

use std::collections::HashMap;
use std::time::Duration;

use fanfare::domain::position::Position;
use hub::{Client, Heard, PATIENCE, metric, narrow, publish};
use serde_json::Value;
use tokio::sync::Mutex;

static ALONE: Mutex<()> = Mutex::const_new(());

const OUTBOX: u64 = 256 * 1024;

/// What a subscriber heard of its topics, judged frame by frame.
#[derive(Default)]
struct Story {
    at: HashMap<String, Position>,
    /// A gap was told: where the next message must stand.
    resume: HashMap<String, Position>,
    shown: HashMap<String, Vec<u64>>,
    gaps: Vec<(String, u64, u64)>,
    /// How many of them history still had.
    kept: usize,
}

impl Story {
    fn on_frame(&mut self, frame: &Value) {
        let position = |name: &str| frame[name].as_str().map(|at| at.parse::<Position>().expect("a position"));
        if let Some(topic) = frame["gap"].as_str() {
            let (after, to) = (position("after").unwrap(), position("to").expect("the range is known"));
            assert_eq!(frame["why"], "slow", "{frame}");
            self.kept += usize::from(frame["kept"].as_bool().expect("it is said"));
            assert_eq!(Some(&after), self.at.get(topic), "the gap begins where the stream stood: {frame}");
            self.gaps.push((topic.to_owned(), after.offset, to.offset));
            self.resume.insert(topic.to_owned(), to);
            return;
        }
        let Some(topic) = frame["topic"].as_str() else { return };
        let Some(at) = position("at") else { return };
        if frame.get("data").is_some() {
            let before = self.resume.remove(topic).unwrap_or(self.at[topic]);
            assert_eq!(at, before.next(), "lost, repeated or out of order: {topic}");
            assert_eq!(frame["data"]["n"], at.offset, "another message than was published there");
            self.shown.entry(topic.to_owned()).or_default().push(at.offset);
        }
        self.at.insert(topic.to_owned(), at);
    }

    /// Hears frames until the topic stands there.
    async fn hear_until(&mut self, client: &mut Client, topic: &str, offset: u64) {
        while self.at.get(topic).is_none_or(|at| at.offset < offset) {
            let frame = client.next().await;
            self.on_frame(&frame);
        }
    }
}

/// Message number `n` of its topic, of so many bytes.
fn numbered(n: u64, bytes: usize) -> String {
    format!(r#"{{"n":{n},"x":"{}"}}"#, "x".repeat(bytes))
}

async fn publish_all(server: &fanfare::server::Server, topic: &str, numbers: std::ops::RangeInclusive<u64>) {
    for n in numbers {
        let at: Position = publish(server.http, topic, &numbered(n, 10_000)).await.parse().unwrap();
        assert_eq!(at.offset, n);
    }
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_too_slow_for_the_stream_gets_every_message_in_order_on_the_same_connection() {
    let _alone = ALONE.lock().await;
    let server = hub::start(&["--outbox=256KiB", "--history-bytes=64MiB"]).await;
    let (fell, back) = (
        metric(&server, "fanfare_fell_behind_total", "slow").await,
        metric(&server, "fanfare_rejoined_total", "slow").await,
    );
    let mut slow = narrow(server.http, "?sub=big").await;
    let mut fast = Client::connect(server.http, "?sub=big").await;
    let (mut slow_story, mut fast_story) = (Story::default(), Story::default());
    slow_story.hear_until(&mut slow, "big", 0).await;
    fast_story.hear_until(&mut fast, "big", 0).await;
    let count = 300;
    for n in 1..=count {
        publish_all(&server, "big", n..=n).await;
        fast_story.hear_until(&mut fast, "big", n).await;
    }
    assert_eq!(metric(&server, "fanfare_fell_behind_total", "slow").await, fell + 1, "it was not slow");
    until("the tick", async || metric(&server, "fanfare_subscriptions_behind", "").await == 1).await;
    let waiting = metric(&server, "fanfare_outbox_bytes", "").await;
    assert!(waiting <= OUTBOX, "{waiting} bytes wait");
    slow_story.hear_until(&mut slow, "big", count).await;
    until("it is back", async || metric(&server, "fanfare_rejoined_total", "slow").await > back).await;
    // Live again.
    publish_all(&server, "big", count + 1..=count + 1).await;
    slow_story.hear_until(&mut slow, "big", count + 1).await;
    assert_eq!(slow_story.shown["big"], (1..=count + 1).collect::<Vec<_>>());
    drop((slow, fast));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_slower_than_history_reaches_is_told_exactly_what_is_gone() {
    let _alone = ALONE.lock().await;
    let server = hub::start(&["--outbox=256KiB", "--history-messages=20"]).await;
    let mut slow = narrow(server.http, "?sub=big").await;
    let mut story = Story::default();
    story.hear_until(&mut slow, "big", 0).await;
    let count = 300;
    publish_all(&server, "big", 1..=count).await;
    story.hear_until(&mut slow, "big", count).await;
    let (_, after, to) = story.gaps[0].clone();
    assert_eq!(story.gaps.len(), 1, "{:?}", story.gaps);
    let expected: Vec<u64> = (1..=after).chain(to + 1..=count).collect();
    assert_eq!(story.shown["big"], expected);
    assert!(to - after > 100 && count - to <= 20, "{after} to {to}");
    assert_eq!(story.kept, 0, "nobody can have them any more");
    drop(slow);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_goes_on_with_the_newest_where_the_topic_says_so_and_is_told_the_exact_range() {
    let _alone = ALONE.lock().await;
    let rules = ["--topic=newest: slow=conflate", "--topic=few: slow=drop-oldest"];
    let settings = ["--outbox=256KiB", "--history-messages=10000", "--history-bytes=64MiB"];
    let server = hub::start(&[&settings[..], &rules].concat()).await;
    for (topic, most) in [("newest", 1), ("few", 100)] {
        let mut slow = narrow(server.http, &format!("?sub={topic}")).await;
        let mut fast = Client::connect(server.http, &format!("?sub={topic}")).await;
        let (mut slow_story, mut fast_story) = (Story::default(), Story::default());
        slow_story.hear_until(&mut slow, topic, 0).await;
        fast_story.hear_until(&mut fast, topic, 0).await;
        let count = 400;
        for n in 1..=count {
            publish_all(&server, topic, n..=n).await;
            fast_story.hear_until(&mut fast, topic, n).await;
        }
        assert_eq!(fast_story.shown[topic], (1..=count).collect::<Vec<_>>(), "others are not touched");
        slow_story.hear_until(&mut slow, topic, count).await;
        // Live again, and whole from there on.
        publish_all(&server, topic, count + 1..=count + 5).await;
        slow_story.hear_until(&mut slow, topic, count + 5).await;
        let Story { gaps, kept, shown, .. } = &slow_story;
        let (_, after, to) = gaps[0].clone();
        assert_eq!((gaps.len(), *kept), (1, 1), "{gaps:?}");
        assert_eq!(shown[topic], (1..=after).chain(to + 1..=count + 5).collect::<Vec<_>>());
        assert!(count - to <= most && to > after, "{after} to {to} of {count}");
        drop((slow, fast));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_cut_where_the_topic_says_so_and_resumes_whole() {
    let _alone = ALONE.lock().await;
    let server = hub::start(&["--outbox=256KiB", "--history-bytes=64MiB", "--topic=big: slow=cut"]).await;
    let mut slow = narrow(server.http, "?sub=big").await;
    let mut story = Story::default();
    story.hear_until(&mut slow, "big", 0).await;
    let count = 300;
    publish_all(&server, "big", 1..=count).await;
    let closed = loop {
        match slow.hear().await {
            Heard::Text(text) => story.on_frame(&serde_json::from_str(&text).unwrap()),
            other => break other,
        }
    };
    assert_eq!(closed, Heard::Closed(4002, "slow".into()));
    let at = story.at["big"];
    assert!(at.offset < count && story.gaps.is_empty());
    // Who is away is not slow: it catches up with everything.
    let mut back = narrow(server.http, &format!("?sub=big&after={at}")).await;
    story.hear_until(&mut back, "big", count).await;
    assert_eq!(story.shown["big"], (1..=count).collect::<Vec<_>>());
    drop(back);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_all_connections_stays_within_the_nodes_budget_and_everybody_gets_everything() {
    let _alone = ALONE.lock().await;
    // Of 40 MiB the cache of history may take 32; each of the 40 readers alone might have 1 MiB waiting.
    let settings = ["--memory-limit=40MiB", "--outbox=1MiB", "--history-bytes=64MiB", "--outbox-age=60s"];
    let server = hub::start(&settings).await;
    let (readers, count, budget) = (40, 150, 8 << 20);
    let mut slow = Vec::new();
    for _ in 0..readers {
        let (mut client, mut story) = (narrow(server.http, "?sub=big").await, Story::default());
        story.hear_until(&mut client, "big", 0).await;
        slow.push((client, story));
    }
    let mut most = 0;
    for n in 1..=count {
        publish_all(&server, "big", n..=n).await;
        most = most.max(metric(&server, "fanfare_outbox_bytes", "").await);
    }
    until("the budget is spent", async || metric(&server, "fanfare_outbox_bytes", "").await >= budget).await;
    // Somebody new is told to go elsewhere.
    let browser = [("Sec-WebSocket-Protocol", "fanfare.v1")];
    let mut newcomer = Client::connect_with(server.http, "?sub=big", &browser).await.expect("a handshake");
    assert_eq!(newcomer.hear().await, Heard::Closed(4504, "too-many".into()));
    let refused = Client::connect_with(server.http, "?sub=big", &[]).await.err().expect("it is refused").to_string();
    assert!(refused.contains("503"), "{refused}");
    until("they fall behind", async || metric(&server, "fanfare_subscriptions_behind", "").await > 0).await;
    assert!(most <= budget + budget / 8 + readers * 16_384, "{most} bytes waited");
    // Whoever reads gets all of it, one after the other.
    for (client, story) in &mut slow {
        story.hear_until(client, "big", count).await;
        assert_eq!(story.shown["big"], (1..=count).collect::<Vec<_>>());
    }
    drop(slow);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_with_a_pace_of_its_own_hears_several_topics_whole_while_they_go_on() {
    let _alone = ALONE.lock().await;
    let server = hub::start(&["--outbox=256KiB", "--history-bytes=64MiB"]).await;
    let mut slow = narrow(server.http, "?sub=a&sub=b&sub=c&batch=0").await;
    let mut story = Story::default();
    for topic in ["a", "b", "c"] {
        story.hear_until(&mut slow, topic, 0).await;
    }
    let count = 150;
    let publishing = async {
        for n in 1..=count {
            for topic in ["a", "b", "c"] {
                publish_all(&server, topic, n..=n).await;
            }
        }
    };
    let reading = async {
        // The pace of the reader is the fault that is injected.
        let mut pace = tokio::time::interval(Duration::from_millis(3));
        while ["a", "b", "c"].iter().any(|t| story.at.get(*t).is_none_or(|at| at.offset < count)) {
            pace.tick().await;
            let frame = slow.next().await;
            story.on_frame(&frame);
        }
    };
    tokio::join!(publishing, reading);
    for topic in ["a", "b", "c"] {
        assert_eq!(story.shown[topic], (1..=count).collect::<Vec<_>>(), "{topic}");
    }
    drop(slow);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asked_for_arrays_falls_behind_and_comes_back_too() {
    let _alone = ALONE.lock().await;
    let server = hub::start(&["--outbox=256KiB", "--history-bytes=64MiB"]).await;
    let mut slow = narrow(server.http, "?sub=big&batch=1").await;
    let mut story = Story::default();
    story.hear_until(&mut slow, "big", 0).await;
    let count = 200;
    // Many at once, so that they are ready together.
    let url = format!("http://{}/v1/messages", server.http);
    for first in (1..=count).step_by(50) {
        let items: Vec<String> =
            (first..first + 50).map(|n| format!(r#"{{"topic":"big","data":{}}}"#, numbered(n, 10_000))).collect();
        let request = reqwest::Client::new().post(&url).header("content-type", "application/json");
        let answer = request.body(format!("[{}]", items.join(","))).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    while story.at.get("big").is_none_or(|at| at.offset < count) {
        match slow.next().await {
            Value::Array(frames) => frames.iter().for_each(|frame| story.on_frame(frame)),
            frame => story.on_frame(&frame),
        }
    }
    assert_eq!(story.shown["big"], (1..=count).collect::<Vec<_>>());
    drop(slow);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_and_joining_again_while_behind_begins_anew_and_whole() {
    let _alone = ALONE.lock().await;
    let server = hub::start(&["--outbox=256KiB", "--history-bytes=64MiB"]).await;
    let mut slow = narrow(server.http, "?sub=big").await;
    slow.next().await;
    let joined = slow.next().await;
    let first = joined["at"].as_str().unwrap().to_owned();
    let count = 200;
    publish_all(&server, "big", 1..=count).await;
    slow.say(r#"{"id":1,"unsub":"big"}"#).await;
    slow.say(&format!(r#"{{"id":2,"sub":"big","after":"{first}"}}"#)).await;
    // What was queued of the first subscription comes before the second one is answered, in order.
    let mut story = Story::default();
    story.on_frame(&joined);
    loop {
        let frame = slow.next().await;
        if frame["id"] == 2 {
            assert_eq!((&frame["resumed"], &frame["at"]), (&true.into(), &first.clone().into()), "{frame}");
            break;
        }
        story.on_frame(&frame);
    }
    let mut again = Story::default();
    again.on_frame(&joined);
    again.hear_until(&mut slow, "big", count).await;
    assert_eq!(again.shown["big"], (1..=count).collect::<Vec<_>>());
    drop(slow);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_at_all_is_cut_in_the_end_and_resumes_whole() {
    let _alone = ALONE.lock().await;
    let server = hub::start(&["--outbox=256KiB", "--history-bytes=64MiB", "--outbox-age=3s"]).await;
    let mut slow = narrow(server.http, "?sub=big").await;
    let mut story = Story::default();
    story.hear_until(&mut slow, "big", 0).await;
    let count = 200;
    publish_all(&server, "big", 1..=count).await;
    until("much waits", async || metric(&server, "fanfare_outbox_bytes", "").await > 100_000).await;
    // Only once it has been cut, and what waited was dropped, does this client read on.
    until("it is cut", async || metric(&server, "fanfare_outbox_bytes", "").await < 100_000).await;
    let end = loop {
        match slow.hear().await {
            Heard::Text(frame) => story.on_frame(&serde_json::from_str(&frame).unwrap()),
            end => break end,
        }
    };
    assert_eq!(end, Heard::Closed(4002, "slow".into()));
    let at = story.at["big"];
    assert!(at.offset < count, "it was not slow");
    let mut client = Client::connect(server.http, &format!("?sub=big&after={at}")).await;
    client.next().await;
    assert_eq!(client.next().await["resumed"], true);
    story.hear_until(&mut client, "big", count).await;
    assert_eq!(story.shown["big"], (1..=count).collect::<Vec<_>>());
    drop((client, slow));
    server.stop().await;
}
