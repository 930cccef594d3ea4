//! The clients. Each keeps the last position of each of its topics, comes back with it, and judges every message by it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::hub::Hub;
use super::publish::Published;

/// Every so many clients one pauses, one leaves and comes back, one follows several topics.
const SLOW: usize = 20;
const RETURNING: usize = 10;
const SEVERAL: usize = 4;
/// A paused client's window, so that what it does not read waits in the hub.
const WINDOW: u32 = 8 * 1024;
const PAUSE: Duration = Duration::from_secs(3);

pub struct Plan {
    pub sockets: usize,
    pub streams: usize,
}

/// What all clients saw.
#[derive(Default)]
pub struct Tally {
    begun: AtomicUsize,
    delivered: AtomicU64,
    lost: AtomicU64,
    repeated: AtomicU64,
    told_missing: AtomicU64,
    returns: AtomicU64,
    pauses: AtomicU64,
    /// Clients pause, leave and come back.
    pub restless: AtomicBool,
}

pub struct Clients {
    tasks: Vec<JoinHandle<()>>,
    /// How far each has come, by topic.
    seen: Vec<Arc<Mutex<HashMap<String, String>>>>,
}

/// One client.
struct Client {
    http: SocketAddr,
    index: usize,
    is_stream: bool,
    /// Its topics with the last position of each, once it is known.
    at: Arc<Mutex<HashMap<String, String>>>,
    id: String,
    tally: Arc<Tally>,
}

pub fn start(hub: &Hub, topics: &[String], tally: &Arc<Tally>, plan: Plan) -> Clients {
    let mut clients = Clients { tasks: Vec::new(), seen: Vec::new() };
    for index in 0..plan.sockets + plan.streams {
        let count = if index % SEVERAL == 0 { 3 } else { 1 };
        let own = (0..count).map(|i| (topics[(index / SEVERAL + i) % topics.len()].clone(), String::new()));
        let at = Arc::new(Mutex::new(own.collect::<HashMap<_, _>>()));
        let is_stream = index >= plan.sockets;
        clients.seen.push(at.clone());
        let client = Client { http: hub.http, index, is_stream, at, id: String::new(), tally: tally.clone() };
        clients.tasks.push(tokio::spawn(client.run()));
    }
    clients
}

impl Clients {
    /// Waits until every client has the newest message of its topics; gives how many topics of clients have not.
    pub async fn finish(self, hub: &Hub, topics: &[String], patience: Duration) -> usize {
        let mut heads = HashMap::new();
        for topic in topics {
            heads.insert(topic.clone(), hub.head(topic).await);
        }
        let behind = || {
            let behind = |seen: &Arc<Mutex<HashMap<String, String>>>| {
                let seen = seen.lock().expect("no client panics");
                seen.iter().filter(|(topic, at)| offset(at) != Some(heads[*topic])).count()
            };
            self.seen.iter().map(behind).sum::<usize>()
        };
        let end = Instant::now() + patience;
        while behind() > 0 && Instant::now() < end {
            sleep(Duration::from_millis(100)).await;
        }
        for task in &self.tasks {
            task.abort();
        }
        behind()
    }
}

impl Tally {
    /// Waits until all clients hear all of their topics.
    pub async fn all_begun(&self, clients: usize) {
        while self.begun.load(Ordering::Relaxed) < clients {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Prints it; `false` if anything was not as it must be.
    pub fn print(&self, published: &Published, missing: usize) -> bool {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        println!(
            "  published        {} by HTTP, {} by the door; {} were refused or not answered in time",
            of(&published.by_http),
            of(&published.by_door),
            of(&published.failed)
        );
        println!(
            "  delivered        {} messages; {} pauses, {} returns",
            of(&self.delivered),
            of(&self.pauses),
            of(&self.returns)
        );
        let (lost, repeated, told) = (of(&self.lost), of(&self.repeated), of(&self.told_missing));
        println!("  lost {lost}, repeated {repeated}, told as missing {told}, not reached by the end {missing}");
        let whole = lost == 0 && repeated == 0 && told == 0 && missing == 0;
        println!("  {}", if whole { "all was delivered, once and in order" } else { "NOT all was delivered" });
        whole
    }
}

impl Client {
    async fn run(mut self) {
        let is_slow = self.index % SLOW == 1;
        let mut has_begun = false;
        let mut draws = Draws(self.index as u64 + 1);
        loop {
            // Who returns leaves after a time of its own; who pauses stays.
            let leaves = (self.index % RETURNING == 3).then(|| Instant::now() + draws.between(3.0, 20.0));
            let pauses = is_slow.then(|| draws.between(3.0, 10.0));
            if let Err(error) = self.stay(leaves, pauses, &mut has_begun).await {
                eprintln!("  client {}: {error}", self.index);
            }
            if has_begun {
                self.tally.returns.fetch_add(1, Ordering::Relaxed);
            }
            sleep(draws.between(0.1, 2.0)).await;
        }
    }

    /// One connection, until it ends or it is time to leave.
    async fn stay(
        &mut self,
        leaves: Option<Instant>,
        pauses: Option<Duration>,
        has_begun: &mut bool,
    ) -> Result<(), String> {
        let socket = TcpSocket::new_v4().map_err(|e| e.to_string())?;
        if pauses.is_some() {
            socket.set_recv_buffer_size(WINDOW).map_err(|e| e.to_string())?;
        }
        let stream = socket.connect(self.http).await.map_err(|e| e.to_string())?;
        let mut line = match self.is_stream {
            true => Line::Stream { stream: self.ask_stream(stream).await?, rest: Vec::new() },
            false => Line::Socket(Box::new(self.ask_socket(stream).await?)),
        };
        let mut next_pause = pauses.map(|every| Instant::now() + every);
        let never = Instant::now() + Duration::from_secs(1 << 30);
        loop {
            let restless = self.tally.restless.load(Ordering::Relaxed);
            if restless && leaves.is_some_and(|at| Instant::now() >= at) {
                return Ok(());
            }
            if let (true, Some(at), Some(every)) = (restless, next_pause, pauses)
                && Instant::now() >= at
            {
                self.tally.pauses.fetch_add(1, Ordering::Relaxed);
                sleep(PAUSE).await;
                next_pause = Some(Instant::now() + every);
            }
            let texts = match timeout_at(leaves.filter(|_| restless).unwrap_or(never), line.next()).await {
                Err(_) => return Ok(()),
                Ok(None) => return Ok(()),
                Ok(Some(texts)) => texts,
            };
            for (id, text) in texts {
                self.judge(&text)?;
                // An id counts with its event.
                self.id = id.unwrap_or(std::mem::take(&mut self.id));
            }
            if !*has_begun && self.at.lock().expect("no client panics").values().all(|at| !at.is_empty()) {
                *has_begun = true;
                self.tally.begun.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn ask_socket(&self, stream: TcpStream) -> Result<WebSocketStream<TcpStream>, String> {
        let query: Vec<String> = {
            let at = self.at.lock().expect("no client panics");
            at.iter().map(|(topic, at)| format!("sub={topic}&after={at}")).collect()
        };
        let url = format!("ws://{}/ws?{}", self.http, query.join("&"));
        Ok(client_async(url, stream).await.map_err(|e| e.to_string())?.0)
    }

    async fn ask_stream(&self, mut stream: TcpStream) -> Result<TcpStream, String> {
        let mut topics: Vec<String> = self.at.lock().expect("no client panics").keys().cloned().collect();
        topics.sort();
        let query = topics.iter().map(|t| format!("topic={t}")).collect::<Vec<_>>().join("&");
        let id = if self.id.is_empty() { String::new() } else { format!("last-event-id: {}\r\n", self.id) };
        let head = format!("GET /v1/sse?{query} HTTP/1.1\r\nhost: {}\r\n{id}\r\n", self.http);
        stream.write_all(head.as_bytes()).await.map_err(|e| e.to_string())?;
        Ok(stream)
    }

    /// Holds a frame against what is known of its topic.
    fn judge(&self, text: &str) -> Result<(), String> {
        if text.contains("\"resumed\":false") || text.starts_with("{\"gap\"") {
            self.tally.told_missing.fetch_add(1, Ordering::Relaxed);
        }
        if text.contains("\"error\":") && !text.starts_with("{\"topic\"") {
            return Err(text.to_string());
        }
        let (Some(topic), Some(at)) = (field(text, "topic"), field(text, "at")) else { return Ok(()) };
        let mut known = self.at.lock().expect("no client panics");
        let Some(last) = known.get_mut(topic) else { return Err(format!("a topic nobody asked for: {text}")) };
        if text.starts_with("{\"topic\"") {
            self.tally.delivered.fetch_add(1, Ordering::Relaxed);
            match (offset(last), offset(at)) {
                (Some(last), Some(at)) if at == last + 1 => {}
                (Some(last), Some(at)) if at <= last => _ = self.tally.repeated.fetch_add(1, Ordering::Relaxed),
                (Some(last), Some(at)) => _ = self.tally.lost.fetch_add(at - last - 1, Ordering::Relaxed),
                _ => return Err(format!("a message before its answer: {text}")),
            }
        }
        *last = at.to_string();
        Ok(())
    }
}

/// An open connection of either kind.
enum Line {
    Socket(Box<WebSocketStream<TcpStream>>),
    Stream { stream: TcpStream, rest: Vec<u8> },
}

impl Line {
    /// What comes next: documents, each with the id of its event if it has one. `None`: it ended.
    async fn next(&mut self) -> Option<Vec<(Option<String>, String)>> {
        match self {
            Line::Socket(socket) => match socket.next().await {
                Some(Ok(Message::Text(text))) => Some(vec![(None, text.as_str().to_string())]),
                Some(Ok(Message::Close(_))) | Some(Err(_)) | None => None,
                Some(Ok(_)) => Some(Vec::new()),
            },
            Line::Stream { stream, rest } => {
                let mut room = vec![0; 16 * 1024];
                let count = stream.read(&mut room).await.ok().filter(|count| *count > 0)?;
                rest.extend_from_slice(&room[..count]);
                let end = rest.windows(2).rposition(|w| w == b"\n\n").map_or(0, |at| at + 2);
                let whole: Vec<u8> = rest.drain(..end).collect();
                Some(String::from_utf8_lossy(&whole).split("\n\n").filter_map(event).collect())
            }
        }
    }
}

/// The document of an event with its id.
fn event(text: &str) -> Option<(Option<String>, String)> {
    let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_string);
    Some((of("id: "), of("data: ")?))
}

/// A field whose value is a string without escapes, as names and positions are.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mark = format!("\"{name}\":\"");
    let rest = &text[text.find(&mark)? + mark.len()..];
    rest.split('"').next()
}

fn offset(at: &str) -> Option<u64> {
    at.split_once('.')?.1.parse().ok()
}

/// Times drawn for one client, the same in every run.
struct Draws(u64);

impl Draws {
    fn between(&mut self, least: f64, most: f64) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_secs_f64(least + (most - least) * (self.0 >> 33) as f64 / (1u64 << 31) as f64)
    }
}
