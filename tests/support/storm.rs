//! Many clients that are cut at once and come back at once, each as the README's client does: with the last `at` of its
//! topic as `after`. They check every frame: resumed with proof, and every message in its order.
#![allow(dead_code, reason = "each binary uses its own part")]

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use fanfare::domain::position::Position;
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// What no step of a client may take.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Clients of one source address; more ports than that are not sure to be free.
const PER_ADDRESS: usize = 10_000;
/// Handshakes under way while the crowd first gathers.
const GATHERING: usize = 200;

pub struct Crowd {
    http: SocketAddr,
    clients: Vec<Client>,
}

struct Client {
    number: usize,
    topic: String,
    at: Option<Position>,
    socket: Option<WebSocketStream<TcpStream>>,
    /// Whether it was told to ask again.
    was_asked_again: bool,
}

/// How long each took from the cut to having all, in order.
pub struct Times(Vec<Duration>);

impl Times {
    pub fn at(&self, share: f64) -> Duration {
        self.0[((self.0.len() - 1) as f64 * share) as usize]
    }
}

pub fn topic(n: usize) -> String {
    format!("storm.t{n}")
}

impl Crowd {
    /// So many clients, dealt out to the topics, each subscribed.
    pub async fn gather(http: SocketAddr, clients: usize, topics: usize) -> Crowd {
        let client =
            |number| Client { number, topic: topic(number % topics), at: None, socket: None, was_asked_again: false };
        let mut crowd = Crowd { http, clients: (0..clients).map(client).collect() };
        crowd.each(GATHERING, move |mut client| async move { client.join(http).await.then_some(client) }).await;
        crowd
    }

    /// Each hears its topic up to this offset, some of them a few messages less, as a cut finds them.
    pub async fn hear(&mut self, offset: u64, spread: u64) {
        self.each(usize::MAX, move |mut client| async move {
            let until = offset - client.number as u64 % (spread + 1);
            client.hear_until(until).await.then_some(client)
        })
        .await;
    }

    /// All lines end in the same moment, without a word.
    pub fn cut(&mut self) {
        for client in &mut self.clients {
            client.was_asked_again = false;
            if let Some(socket) = client.socket.take() {
                // The kernel resets the connection when it is dropped.
                let _ = socket.get_ref().set_zero_linger();
            }
        }
    }

    /// Topics of which a node that did not keep up told somebody to subscribe again.
    pub fn topics_asked_again(&self) -> usize {
        let again = self.clients.iter().filter(|client| client.was_asked_again);
        again.map(|client| &client.topic).collect::<HashSet<_>>().len()
    }

    /// From now on they connect there.
    pub fn move_to(&mut self, http: SocketAddr) {
        self.http = http;
    }

    /// All come back at once and hear everything up to this offset.
    pub async fn come_back(&mut self, offset: u64) -> Times {
        let (begun, http) = (Instant::now(), self.http);
        let mut times = self
            .each(usize::MAX, move |mut client| async move {
                let whole = client.join(http).await && client.hear_until(offset).await;
                whole.then_some(client)
            })
            .await
            .into_iter()
            .map(|done| done - begun)
            .collect::<Vec<_>>();
        times.sort();
        Times(times)
    }

    /// Has every client do something, at most so many at the same time; gives when each was done.
    async fn each<F>(&mut self, at_once: usize, work: impl Fn(Client) -> F) -> Vec<Instant>
    where
        F: Future<Output = Option<Client>> + Send + 'static,
    {
        let (mut waiting, mut working) = (std::mem::take(&mut self.clients).into_iter(), JoinSet::new());
        let mut done = Vec::new();
        loop {
            while working.len() < at_once
                && let Some(client) = waiting.next()
            {
                let work = work(client);
                working.spawn(async move { (tokio::time::timeout(PATIENCE, work).await, Instant::now()) });
            }
            let Some(ended) = working.join_next().await else { break };
            let (client, at) = ended.expect("no client panics");
            self.clients.push(client.expect("in time").expect("its line holds"));
            done.push(at);
        }
        done
    }
}

impl Client {
    /// Connects and subscribes, after its position if it has one. Without one it takes that of the answer.
    async fn join(&mut self, http: SocketAddr) -> bool {
        let after = self.at.map_or(String::new(), |at| format!("&after={at}"));
        let url = format!("ws://{http}/ws?sub={}{after}", self.topic);
        let source = Ipv4Addr::new(127, 0, 0, 1 + (self.number / PER_ADDRESS) as u8);
        let socket = loop {
            let tcp = TcpSocket::new_v4().expect("a file is free");
            tcp.bind((IpAddr::from(source), 0).into()).expect("a port is free");
            // A listener that is flooded may refuse; so does a page's browser try again.
            if let Ok(stream) = tcp.connect(http).await
                && let Ok((socket, _)) = client_async(&url, stream).await
            {
                break socket;
            }
        };
        self.socket = Some(socket);
        let Some(_hello) = self.next().await else { return false };
        let answer = loop {
            let Some(answer) = self.next().await else { return false };
            // A node that is flooded may not bring the topic in time; it says when to ask again.
            let Some(wait) = answer["retry_after"].as_f64() else { break answer };
            self.was_asked_again = true;
            tokio::time::sleep(Duration::from_secs_f64(wait)).await;
            let after = self.at.map_or(String::new(), |at| format!(r#","after":"{at}""#));
            let again = format!(r#"{{"sub":"{}"{after}}}"#, self.topic);
            if self.socket.as_mut().expect("it is open").send(Message::text(again)).await.is_err() {
                return false;
            }
        };
        let at: Position = answer["at"].as_str().unwrap_or_else(|| panic!("{answer}")).parse().expect("a position");
        if let Some(kept) = self.at {
            assert_eq!((&answer["resumed"], at), (&true.into(), kept), "resumed with proof: {answer}");
        }
        self.at = Some(at);
        true
    }

    async fn hear_until(&mut self, offset: u64) -> bool {
        while self.at.is_none_or(|at| at.offset < offset) {
            let Some(frame) = self.next().await else { return false };
            let at: Position = frame["at"].as_str().unwrap_or_else(|| panic!("{frame}")).parse().expect("a position");
            assert_eq!(Some(at), self.at.map(Position::next), "lost, repeated or out of order");
            self.at = Some(at);
        }
        true
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            match self.socket.as_mut()?.next().await?.ok()? {
                Message::Text(text) => return serde_json::from_str(text.as_str()).ok(),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }
}

/// Publishes messages to every topic, many in one request.
pub async fn publish(http: SocketAddr, topics: usize, each: usize) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let items: Vec<String> = (0..topics * each)
        .map(|n| format!(r#"{{"topic":"{}","data":"{}"}}"#, topic(n % topics), "x".repeat(100)))
        .collect();
    for items in items.chunks(500) {
        let body = format!("[{}]", items.join(","));
        let url = format!("http://{http}/v1/messages");
        let answer = client.post(url).header("content-type", "application/json").body(body).send().await;
        let answer: Value = answer.expect("an answer").json().await.expect("JSON");
        assert_eq!(answer["failed"], 0, "{answer}");
    }
}

/// Scripts that a Redis has run: with nothing being published, reads.
pub fn scripts_run(url: &str) -> u64 {
    let mut connection = redis::Client::open(url).expect("a URL").get_connection().expect("a connection");
    let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut connection).expect("it answers");
    let calls = |line: &str| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok();
    stats.lines().filter(|l| l.starts_with("cmdstat_eval")).filter_map(calls).sum()
}
