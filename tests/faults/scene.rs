//! The scene of a fault: subscribers, publishers and a reader of history around some nodes. Whoever injects a fault opens
//! one, does its work while messages flow, and closes it: what waits is drained, every subscriber comes back once more,
//! probes are sent, and the checker judges.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanfare::domain::position::Position;
use futures::{SinkExt, StreamExt};
use redis::aio::MultiplexedConnection;
use redis::streams::StreamRangeReply;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use crate::checker::{Allowed, Answer, Clock, History, Mark, Read, Verdict, judge};
use crate::form::Running;
use crate::listener::{Listener, Nodes, Plan};
use crate::node::{client, read_log};
use crate::publisher::{Door, Publisher, connect};

/// Longer than anything takes that is waited for; reaching it is a failure.
pub const SOON: Duration = Duration::from_secs(30);
/// The longest that the nodes may need for what piled up.
const DRAINED: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(10);
/// The pace of the reader.
const READS: Duration = Duration::from_millis(100);
pub const PROBES: &[&str] = &["probe-http", "probe-xadd", "probe-rpush"];
pub const SOURCES: [&str; 2] = ["fanfare:in", "fanfare:list"];

/// Who takes part.
pub struct Cast {
    pub topics: usize,
    pub listeners: usize,
    /// Topics of one listener.
    pub share: usize,
    /// See `Plan::watches`.
    pub watches: Option<Duration>,
}

/// What is left of a scene.
pub struct Run {
    pub verdict: Verdict,
    pub history: History,
}

pub struct Scene {
    pub clock: Clock,
    pub topics: Vec<String>,
    pub nodes: Nodes,
    pub listeners: Vec<Listener>,
    pub publishers: Vec<Publisher>,
    pub history: History,
    reader: Reader,
    share: usize,
}

impl Scene {
    /// Begins, and waits until every subscription is answered.
    pub async fn open(nodes: Nodes, cast: Cast) -> Scene {
        let clock = Clock::start();
        let topics: Vec<String> = (0..cast.topics).map(|n| format!("news.{n}")).collect();
        let listeners = (0..cast.listeners).map(|n| {
            let share = (0..cast.share).map(|i| topics[(n * cast.share + i) % cast.topics].clone()).collect();
            let plan = Plan { clock, topics: share, counted: PROBES, watches: cast.watches };
            Listener::start(format!("listener {n}"), n, nodes.clone(), plan)
        });
        let mut scene = Scene {
            clock,
            listeners: listeners.collect(),
            publishers: Vec::new(),
            history: History::default(),
            reader: Reader::start(nodes.clone(), topics.clone()),
            share: cast.share,
            topics,
            nodes,
        };
        scene.until_joined("every subscription is answered").await;
        scene
    }

    /// One more publisher, to all topics in turn.
    pub fn publish(&mut self, name: &str, door: Door, pace: Duration) {
        let publisher = Publisher::start(self.clock, name.to_owned(), door, self.topics.clone(), pace);
        self.publishers.push(publisher);
    }

    /// Waits until each publisher got so many more messages acknowledged.
    pub async fn flow(&mut self, more: u64) {
        for publisher in &mut self.publishers {
            publisher.until_more(more, SOON).await;
        }
    }

    /// Waits until every listener has a connection on which all its subscriptions were answered.
    pub async fn until_joined(&mut self, what: &str) {
        let share = self.share;
        for listener in &mut self.listeners {
            listener.until(what, SOON, |p| p.here.len() == share).await;
        }
    }

    /// The longest that a publisher waited for an answer.
    pub fn slowest(&self) -> Duration {
        self.publishers.iter().map(|p| p.tally().slowest).max().unwrap_or_default()
    }

    /// No publisher goes on.
    pub async fn hush(&mut self) {
        for publisher in self.publishers.drain(..) {
            self.history.published.extend(publisher.stop().await);
        }
    }

    /// Ends it: `redis` is where the ingest queue is, if these nodes have one there.
    pub async fn close(mut self, running: &Running, redis: Option<&str>, allowed: Allowed) -> Run {
        self.hush().await;
        if let Some(url) = redis {
            until_drained(&mut connect(url).await).await;
        }
        self.history.healed = self.clock.now();
        for listener in &self.listeners {
            let cut = listener.progress.borrow().connections;
            listener.come_back();
            let mut progress = listener.progress.clone();
            let back = progress.wait_for(|p| p.connections > cut);
            let _ = tokio::time::timeout(SOON, back).await.expect("it comes back");
        }
        self.until_joined("everybody is back").await;
        let mut probes = 1;
        self.probe(Door::http(&self.nodes, 0, SOON), PROBES[0]).await;
        if let Some(url) = redis {
            probes = 3;
            self.probe(Door::xadd(url), PROBES[1]).await;
            self.probe(Door::rpush(url), PROBES[2]).await;
        }
        let share = self.share;
        for listener in &mut self.listeners {
            listener.until("the probes are heard", SOON, |p| p.marks.len() == share * probes).await;
        }
        for listener in self.listeners {
            self.history.streams.extend(listener.stop().await);
        }
        self.history.reads = self.reader.stop();
        let node = self.nodes.pick(0).expect("a node runs");
        for topic in self.topics {
            let log = read_log(&client(), node, &topic).await;
            self.history.logs.insert(topic, log);
        }
        let verdict = judge(&self.history, allowed);
        running.tell(&verdict);
        verdict.assert_clean();
        assert!(self.history.published.iter().any(|p| matches!(p.answer, Answer::Yes(_))), "nothing was published");
        Run { verdict, history: self.history }
    }

    async fn probe(&mut self, door: Door, by: &str) {
        self.history.probes.insert(by.to_owned());
        self.history.published.extend(door.probe(self.clock, by, &self.topics, SOON).await);
    }
}

/// Reads history all the time, from whoever is there.
struct Reader {
    reads: Arc<Mutex<Vec<Read>>>,
    task: JoinHandle<()>,
}

impl Reader {
    fn start(nodes: Nodes, topics: Vec<String>) -> Reader {
        let reads = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn({
            let reads = reads.clone();
            async move {
                let client = client();
                for (turn, topic) in topics.iter().cycle().enumerate() {
                    tokio::time::sleep(READS).await;
                    if let Some(node) = nodes.pick(turn)
                        && let Some(items) = read(&client, node, topic).await
                    {
                        reads.lock().unwrap().push(Read { by: "a reader".into(), topic: topic.clone(), items });
                    }
                }
            }
        });
        Reader { reads, task }
    }

    fn stop(self) -> Vec<Read> {
        self.task.abort();
        std::mem::take(&mut self.reads.lock().unwrap())
    }
}

/// The newest messages of a topic, if it can be read now.
async fn read(client: &reqwest::Client, node: SocketAddr, topic: &str) -> Option<Vec<(Position, Mark)>> {
    let answer = client.get(format!("http://{node}/v1/topics/{topic}/messages?last=100")).send().await.ok()?;
    let page: Value = answer.json().await.ok()?;
    let item = |item: &Value| {
        let at = item["at"].as_str().expect("a position").parse().expect("a position");
        (at, Mark::parse(topic, item["data"].as_str().expect("text")))
    };
    Some(page["items"].as_array()?.iter().map(item).collect())
}

/// Waits until everything that was published into the ingest queue is bridged.
pub async fn until_drained(redis: &mut MultiplexedConnection) {
    let looking = async {
        for source in SOURCES {
            while !is_drained(redis, source).await {
                tokio::time::sleep(LOOK).await;
            }
        }
    };
    tokio::time::timeout(DRAINED, looking).await.expect("what was published is bridged in time");
}

/// Whether the cursor of a partition stands at its last entry, with nothing waiting to be moved over.
async fn is_drained(redis: &mut MultiplexedConnection, source: &str) -> bool {
    let is_list = source == "fanfare:list";
    let stream = if is_list { "{fanfare:list}:in" } else { source };
    let (cursor, waiting, moving, last): (Option<String>, u64, u64, StreamRangeReply) = redis::pipe()
        .cmd("HGET")
        .arg(format!("{{{source}}}:cursor"))
        .arg("at")
        .cmd("LLEN")
        .arg("fanfare:list")
        .cmd("LLEN")
        .arg("{fanfare:list}:wake")
        .cmd("XREVRANGE")
        .arg(stream)
        .arg("+")
        .arg("-")
        .arg("COUNT")
        .arg(1)
        .query_async(redis)
        .await
        .expect("Redis runs");
    let at_end = last.ids.first().is_none_or(|last| cursor.as_ref() == Some(&last.id));
    at_end && (!is_list || waiting + moving == 0)
}

/// The answer to one frame on a connection of its own.
pub async fn ask_once(node: SocketAddr, frame: &str, patience: Duration) -> Value {
    let (mut socket, _) = connect_async(format!("ws://{node}/ws")).await.expect("the node takes connections");
    socket.send(Message::text(frame)).await.expect("it is open");
    let asking = async {
        loop {
            let message = socket.next().await.expect("it stays open").expect("it stays open");
            let Message::Text(text) = message else { continue };
            let frame: Value = serde_json::from_str(&text).expect("JSON");
            if frame["hello"].is_null() {
                return frame;
            }
        }
    };
    tokio::time::timeout(patience, asking).await.expect("it is answered in time")
}
