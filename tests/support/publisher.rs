//! Publishers at every door. Each sends one message after the other, awaits the answer and writes down what it was told;
//! what may or may not be stored is repeated under the same idempotency key where the door has one.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::time::Duration;

use fanfare::domain::position::Position;
use futures::{SinkExt, StreamExt};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use crate::checker::{Answer, Clock, Mark, Publish};
use crate::listener::{Nodes, Socket};

/// Between two messages by one socket, of whose commands a hub takes 100 a second.
pub const WEBSOCKET_PACE: Duration = Duration::from_millis(11);
/// How long a Redis client waits for one answer, and for many at once.
const REDIS: Duration = Duration::from_secs(2);
const PATIENT: Duration = Duration::from_secs(20);
/// Commands in one pipeline.
const PIPELINE: u64 = 25;
/// The wait before the next attempt where the last one was not taken.
const AGAIN: Duration = Duration::from_millis(50);

/// A way to publish one message.
pub enum Door {
    Http(Http),
    WebSocket { nodes: Nodes, first: usize, socket: Option<Box<Socket>>, patience: Duration },
    Xadd(Queue),
    Rpush(Queue),
}

pub struct Http {
    client: reqwest::Client,
    nodes: Nodes,
    first: usize,
    /// Repeats what was not confirmed.
    repeats: bool,
    /// Bytes beside the mark.
    padding: usize,
    /// The level that is asked for.
    durability: Option<&'static str>,
}

/// Straight into the ingest queue; connects anew after a failure.
pub struct Queue {
    client: redis::Client,
    connection: Option<MultiplexedConnection>,
}

impl Queue {
    fn new(url: &str) -> Queue {
        Queue { client: redis::Client::open(url).expect("a URL"), connection: None }
    }

    async fn send(&mut self, command: &redis::Cmd) -> Answer {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let config = redis::AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(REDIS))
                    .set_response_timeout(Some(REDIS));
                match self.client.get_multiplexed_async_connection_with_config(&config).await {
                    Ok(connection) => connection,
                    Err(_) => return Answer::No,
                }
            }
        };
        match command.exec_async(&mut connection).await {
            Ok(()) => {
                self.connection = Some(connection);
                Answer::Yes(None)
            }
            // Redis says so itself, and has done nothing.
            Err(error) if matches!(error.code(), Some("OOM" | "READONLY" | "LOADING" | "NOREPLICAS")) => {
                self.connection = Some(connection);
                Answer::No
            }
            Err(_) => Answer::Unknown,
        }
    }
}

impl Door {
    /// `patience`: how long an answer may take until it counts as none.
    pub fn http(nodes: &Nodes, first: usize, patience: Duration) -> Door {
        let client = reqwest::Client::builder().no_proxy().timeout(patience).build().expect("a client");
        Door::Http(Http { client, nodes: nodes.clone(), first, repeats: false, padding: 0, durability: None })
    }

    /// Repeats under an idempotency key until it is told where the message is.
    pub fn http_with_keys(nodes: &Nodes, first: usize, patience: Duration) -> Door {
        match Door::http(nodes, first, patience) {
            Door::Http(http) => Door::Http(Http { repeats: true, ..http }),
            _ => unreachable!("it is HTTP"),
        }
    }

    /// So many bytes more in each message; by HTTP.
    pub fn padded(self, padding: usize) -> Door {
        match self {
            Door::Http(http) => Door::Http(Http { padding, ..http }),
            _ => unreachable!("only HTTP is padded"),
        }
    }

    /// At this level of durability; by HTTP.
    pub fn lasting(self, level: &'static str) -> Door {
        match self {
            Door::Http(http) => Door::Http(Http { durability: Some(level), ..http }),
            _ => unreachable!("only HTTP is asked for a level here"),
        }
    }

    pub fn websocket(nodes: &Nodes, first: usize, patience: Duration) -> Door {
        Door::WebSocket { nodes: nodes.clone(), first, socket: None, patience }
    }

    pub fn xadd(url: &str) -> Door {
        Door::Xadd(Queue::new(url))
    }

    pub fn rpush(url: &str) -> Door {
        Door::Rpush(Queue::new(url))
    }

    fn repeats(&self) -> bool {
        matches!(self, Door::Http(Http { repeats: true, .. }))
    }

    async fn publish(&mut self, topic: &str, mark: &Mark) -> Answer {
        let payload = mark.payload(topic);
        match self {
            Door::Http(http) => http.publish(topic, mark, payload).await,
            Door::WebSocket { nodes, first, socket, patience } => {
                if socket.is_none() {
                    let Some(node) = nodes.pick(*first) else { return Answer::No };
                    match timeout(*patience, connect_async(format!("ws://{node}/ws"))).await {
                        Ok(Ok((fresh, _))) => *socket = Some(Box::new(fresh)),
                        _ => return Answer::No,
                    }
                }
                let mut open = socket.take().expect("it was opened");
                let frame = json!({ "id": mark.n, "pub": topic, "data": payload });
                let asking = async {
                    open.send(Message::text(frame.to_string())).await.ok()?;
                    loop {
                        match open.next().await?.ok()? {
                            Message::Text(text) => {
                                let answer: Value = serde_json::from_str(&text).expect("JSON");
                                if answer["hello"].is_null() {
                                    return Some(answer);
                                }
                            }
                            Message::Close(_) => return None,
                            _ => {}
                        }
                    }
                };
                let Ok(Some(answer)) = timeout(*patience, asking).await else { return Answer::Unknown };
                *socket = Some(open);
                assert_eq!(answer["id"], mark.n, "{answer}");
                match answer["error"].as_str() {
                    None => Answer::Yes(Some(position(&answer["stored"]))),
                    Some(word) => refused(word, answer["retry_after"].is_number(), &answer),
                }
            }
            Door::Xadd(queue) => {
                let mut command = redis::cmd("XADD");
                command.arg("fanfare:in").arg("*").arg("topic").arg(topic).arg("data").arg(format!("\"{payload}\""));
                queue.send(&command).await
            }
            Door::Rpush(queue) => {
                let mut command = redis::cmd("RPUSH");
                command.arg("fanfare:list").arg(format!(r#"{{"topic":"{topic}","data":"{payload}"}}"#));
                queue.send(&command).await
            }
        }
    }

    /// One message to each topic, each until it is taken.
    pub async fn probe(mut self, clock: Clock, by: &str, topics: &[String], patience: Duration) -> Vec<Publish> {
        let mut published = Vec::new();
        for (n, topic) in topics.iter().enumerate() {
            let mark = Mark::new(by, n as u64);
            let begun = clock.now();
            loop {
                let asked = clock.now();
                let answer = self.publish(topic, &mark).await;
                if matches!(answer, Answer::Yes(_)) {
                    published.push(Publish { topic: topic.clone(), mark, asked, answered: clock.now(), answer });
                    break;
                }
                assert!(clock.now() - begun < patience, "{mark} to {topic}: {answer:?}");
                tokio::time::sleep(AGAIN).await;
            }
        }
        published
    }
}

impl Http {
    async fn publish(&mut self, topic: &str, mark: &Mark, payload: String) -> Answer {
        let Some(node) = self.nodes.pick(self.first) else { return Answer::No };
        let payload = match self.padding {
            0 => payload,
            padding => format!("{payload} {}", "x".repeat(padding)),
        };
        let level = self.durability.map_or(String::new(), |level| format!("?durability={level}"));
        let url = format!("http://{node}/v1/topics/{topic}/messages{level}");
        let mut request = self.client.post(url).json(&payload);
        if self.repeats {
            request = request.header("idempotency-key", mark.to_string());
        }
        let answer = match request.send().await {
            Ok(answer) => answer,
            // Nobody took it.
            Err(error) if error.is_connect() => return Answer::No,
            Err(_) => return Answer::Unknown,
        };
        let (status, retry) = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
        let Ok(body) = answer.json::<Value>().await else { return Answer::Unknown };
        match (status, body["reason"].as_str()) {
            // 200: the same key was stored before.
            (200 | 201, _) => Answer::Yes(Some(position(&body["stored"]))),
            (503 | 507, Some(word)) => refused(word, retry, &body),
            _ => panic!("{status}, Retry-After: {retry}: {body}"),
        }
    }
}

/// What a refusal means; each of these must say when to come again.
fn refused(word: &str, retry: bool, answer: &Value) -> Answer {
    match word {
        "unavailable" | "storage-full" if retry => Answer::No,
        "unconfirmed" if retry => Answer::Unknown,
        _ => panic!("no publisher can do anything with this: {answer}"),
    }
}

fn position(value: &Value) -> Position {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("a position: {value}"))
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    pub yes: u64,
    pub no: u64,
    pub unknown: u64,
    pub slowest: Duration,
}

/// A publisher that goes on until it is stopped.
pub struct Publisher {
    pub name: String,
    pub tally: watch::Receiver<Tally>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<Publish>>,
}

impl Publisher {
    /// One message in each `pace`, one topic after the other.
    pub fn start(clock: Clock, name: String, mut door: Door, topics: Vec<String>, pace: Duration) -> Publisher {
        let (stop, stopped) = watch::channel(false);
        let (sender, tally) = watch::channel(Tally::default());
        let by = name.clone();
        let task = tokio::spawn(async move {
            let mut published = Vec::new();
            let mut tick = tokio::time::interval(pace);
            // What an outage held up is not made up for in a burst, which the rate of a connection would refuse.
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for n in 0.. {
                let (topic, mark) = (&topics[n as usize % topics.len()], Mark::new(&by, n));
                loop {
                    tick.tick().await;
                    let asked = clock.now();
                    let answer = door.publish(topic, &mark).await;
                    let answered = clock.now();
                    sender.send_modify(|tally| {
                        match answer {
                            Answer::Yes(_) => tally.yes += 1,
                            Answer::No => tally.no += 1,
                            Answer::Unknown => tally.unknown += 1,
                        }
                        tally.slowest = tally.slowest.max(answered - asked);
                    });
                    published.push(Publish { topic: topic.clone(), mark: mark.clone(), asked, answered, answer });
                    if matches!(answer, Answer::Yes(_)) || !door.repeats() || *stopped.borrow() {
                        break;
                    }
                }
                if *stopped.borrow() {
                    break;
                }
            }
            published
        });
        Publisher { name, tally, stop, task }
    }

    /// Waits until so many more messages were acknowledged.
    pub async fn until_more(&mut self, more: u64, patience: Duration) {
        let enough = self.tally.borrow().yes + more;
        let waiting = self.tally.wait_for(|tally| tally.yes >= enough);
        let has_more = matches!(timeout(patience, waiting).await, Ok(Ok(_)));
        assert!(has_more, "{} gets no yes within {patience:?}: {:?}", self.name, self.tally());
    }

    pub fn tally(&self) -> Tally {
        *self.tally.borrow()
    }

    pub async fn stop(self) -> Vec<Publish> {
        self.stop.send_replace(true);
        self.task.await.expect("a publisher gets answers that it understands")
    }
}

/// A back end with nothing but a Redis client that sends many at once.
#[derive(Debug, Clone, Copy)]
pub enum Flood {
    Xadd,
    Rpush,
}

impl Flood {
    pub fn name(self) -> &'static str {
        match self {
            Flood::Xadd => "xadd",
            Flood::Rpush => "rpush",
        }
    }

    fn add(self, pipeline: &mut redis::Pipeline, topic: &str, mark: &Mark) {
        let payload = mark.payload(topic);
        match self {
            Flood::Xadd => {
                pipeline.cmd("XADD").arg("fanfare:in").arg("*").arg("topic").arg(topic);
                pipeline.arg("data").arg(format!("\"{payload}\""));
            }
            Flood::Rpush => {
                let document = format!(r#"{{"topic":"{topic}","data":"{payload}"}}"#);
                pipeline.cmd("RPUSH").arg("fanfare:list").arg(document);
            }
        };
    }

    /// So many messages, one topic after the other, and so many a second.
    pub async fn publish(self, clock: Clock, url: String, topics: Vec<String>, count: u64, pace: u64) -> Vec<Publish> {
        let mut connection = connect(&url).await;
        let mut tick = tokio::time::interval(Duration::from_secs(1) * PIPELINE as u32 / pace as u32);
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut published = Vec::with_capacity(count as usize);
        for first in (0..count).step_by(PIPELINE as usize) {
            tick.tick().await;
            let numbers = first..(first + PIPELINE).min(count);
            published.extend(self.send(clock, &mut connection, self.name(), &topics, numbers).await);
        }
        published
    }

    /// So many at once: when this returns they wait to be bridged.
    pub async fn burst(self, clock: Clock, url: &str, by: &str, topics: &[String], count: u64) -> Vec<Publish> {
        self.send(clock, &mut connect(url).await, by, topics, 0..count).await
    }

    async fn send(
        self,
        clock: Clock,
        connection: &mut MultiplexedConnection,
        by: &str,
        topics: &[String],
        numbers: std::ops::Range<u64>,
    ) -> Vec<Publish> {
        let (mut pipeline, mut published) = (redis::pipe(), Vec::new());
        let asked = clock.now();
        for n in numbers {
            let (topic, mark) = (topics[n as usize % topics.len()].clone(), Mark::new(by, n));
            self.add(&mut pipeline, &topic, &mark);
            published.push(Publish { topic, mark, asked, answered: asked, answer: Answer::Yes(None) });
        }
        pipeline.exec_async(connection).await.expect("this Redis takes everything");
        let answered = clock.now();
        published.iter_mut().for_each(|publish| publish.answered = answered);
        published
    }
}

/// A connection for a test that asks Redis itself.
pub async fn connect(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("a URL");
    // A machine with other work may let us wait.
    let patient =
        redis::AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENT)).set_response_timeout(Some(PATIENT));
    client.get_multiplexed_async_connection_with_config(&patient).await.expect("Redis runs")
}
