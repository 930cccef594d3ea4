//! A subscriber that behaves as the client of the README: it keeps the last `at` of each topic, comes back after a close
//! and sends it as `after`. It writes down whatever it hears, and when.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanfare::domain::position::Position;
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::checker::{Clock, Heard, Mark, Stream};

/// How long a handshake may take until another node is tried.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// The wait before coming back, as a page has it, but shorter.
const COME_BACK: Duration = Duration::from_millis(50);

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Where the living nodes are; changed by whoever kills and starts them.
#[derive(Clone)]
pub struct Nodes(Arc<Mutex<Vec<Option<SocketAddr>>>>);

impl Nodes {
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Nodes {
        Nodes(Arc::new(Mutex::new(addresses.into_iter().map(Some).collect())))
    }

    pub fn set(&self, node: usize, address: Option<SocketAddr>) {
        self.0.lock().unwrap()[node] = address;
    }

    /// The node of this number, or the next one that lives.
    pub fn pick(&self, number: usize) -> Option<SocketAddr> {
        let nodes = self.0.lock().unwrap();
        (0..nodes.len()).find_map(|i| nodes[(number + i) % nodes.len()])
    }
}

/// How a listener is made.
#[derive(Clone)]
pub struct Plan {
    pub clock: Clock,
    pub topics: Vec<String>,
    /// Marks of these publishers are noted in the progress.
    pub counted: &'static [&'static str],
    /// It asks for a sign of life so often, and leaves a line that gives none for half as long again. `None`: it waits
    /// for the end of the connection.
    pub watches: Option<Duration>,
}

/// How far a listener is, for whoever waits for it.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    pub connections: u32,
    /// Topics whose subscription was answered, ever, and on this connection.
    pub joined: HashSet<String>,
    pub here: HashSet<String>,
    pub messages: u64,
    pub gaps: u64,
    /// Subscriptions that were refused for now.
    pub refusals: u64,
    /// The marks heard of those that are counted.
    pub marks: HashSet<Mark>,
    /// What went wrong beside the stream: errors, closes.
    pub complaints: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Orders {
    stop: bool,
    /// How often it was told to come back.
    returns: u32,
    /// Told to be away: it has no connection meanwhile.
    away: bool,
}

pub struct Listener {
    pub progress: watch::Receiver<Progress>,
    orders: watch::Sender<Orders>,
    task: JoinHandle<Vec<Stream>>,
}

impl Listener {
    pub fn start(name: String, first: usize, nodes: Nodes, plan: Plan) -> Listener {
        let (sender, progress) = watch::channel(Progress::default());
        let (orders, ordered) = watch::channel(Orders::default());
        let Plan { clock, topics, counted, watches } = plan;
        let streams =
            topics.iter().map(|t| Stream { listener: name.clone(), topic: t.clone(), heard: Vec::new() }).collect();
        let index = topics.iter().enumerate().map(|(i, topic)| (topic.clone(), i)).collect();
        let at = vec![None; topics.len()];
        let again = vec![None; topics.len()];
        let notes = Notes { clock, streams, index, at, again, counted, watches, is_open: false, progress: sender };
        let task = tokio::spawn(listen(notes, first, nodes, ordered));
        Listener { progress, orders, task }
    }

    /// Waits until it is so far.
    pub async fn until(&mut self, what: &str, patience: Duration, is_so: impl Fn(&Progress) -> bool) {
        let waited = tokio::time::timeout(patience, self.progress.wait_for(|p| is_so(p))).await.map(|r| r.is_ok());
        assert!(waited == Ok(true), "{what}: not after {patience:?}; {:?}", self.progress.borrow());
    }

    /// Cuts its connection, if it has one; it comes back by itself.
    pub fn come_back(&self) {
        self.orders.send_modify(|orders| orders.returns += 1);
    }

    /// Cuts its connection and stays away, or comes back.
    pub fn stay_away(&self, away: bool) {
        self.orders.send_modify(|orders| orders.away = away);
    }

    /// Ends it and answers what it heard.
    pub async fn stop(self) -> Vec<Stream> {
        self.orders.send_modify(|orders| orders.stop = true);
        self.task.await.expect("a listener does not panic")
    }
}

/// What the frames of the hub may hold.
#[derive(Deserialize)]
struct Frame<'a> {
    topic: Option<&'a str>,
    at: Option<&'a str>,
    data: Option<&'a str>,
    ok: Option<&'a str>,
    resumed: Option<bool>,
    gap: Option<&'a str>,
    after: Option<&'a str>,
    to: Option<&'a str>,
    why: Option<&'a str>,
    error: Option<&'a str>,
    retry_after: Option<f64>,
}

struct Notes {
    clock: Clock,
    streams: Vec<Stream>,
    index: HashMap<String, usize>,
    /// The README's `at`.
    at: Vec<Option<Position>>,
    /// When a subscription that was refused for now is tried again.
    again: Vec<Option<Instant>>,
    counted: &'static [&'static str],
    watches: Option<Duration>,
    is_open: bool,
    progress: watch::Sender<Progress>,
}

async fn listen(mut notes: Notes, first: usize, nodes: Nodes, mut orders: watch::Receiver<Orders>) -> Vec<Stream> {
    for turn in 0.. {
        let Orders { stop, away, .. } = *orders.borrow_and_update();
        if stop {
            break;
        }
        let following = async {
            if away {
                std::future::pending::<()>().await;
            }
            if let Some(address) = nodes.pick(first + turn)
                && let Ok(Ok((socket, _))) =
                    tokio::time::timeout(HANDSHAKE, connect_async(format!("ws://{address}/ws"))).await
            {
                notes.is_open = true;
                notes.progress.send_modify(|p| {
                    p.connections += 1;
                    p.here.clear();
                });
                notes.follow(socket).await;
            }
        };
        tokio::select! {
            () = following => notes.on_cut(),
            // The connection goes with the future that holds it.
            _ = orders.changed() => {
                notes.on_cut();
                continue;
            }
        }
        tokio::time::sleep(COME_BACK).await;
    }
    notes.streams
}

impl Notes {
    fn on_cut(&mut self) {
        if std::mem::take(&mut self.is_open) {
            let now = self.clock.now();
            self.streams.iter_mut().for_each(|stream| stream.heard.push((now, Heard::Cut)));
            self.progress.send_modify(|p| p.here.clear());
        }
    }

    async fn subscribe(&mut self, socket: &mut Socket, topic: usize) -> bool {
        self.again[topic] = None;
        let after = self.at[topic].map_or(String::new(), |at| format!(r#","after":"{at}""#));
        let frame = format!(r#"{{"sub":"{}"{after}}}"#, self.streams[topic].topic);
        socket.feed(Message::text(frame)).await.is_ok()
    }

    /// Until the connection ends.
    async fn follow(&mut self, mut socket: Socket) {
        let asked = self.at.clone();
        for topic in 0..self.streams.len() {
            if !self.subscribe(&mut socket, topic).await {
                return;
            }
        }
        if socket.flush().await.is_err() {
            return;
        }
        // The next question for a sign of life, and until when something must be heard.
        let mut ask = self.watches.map(|period| Instant::now() + period);
        let mut dead = None;
        let why = loop {
            let again = self.again.iter().flatten().min().copied();
            let wake = [ask, dead, again].into_iter().flatten().min();
            let sleeping = async {
                match wake {
                    Some(wake) => sleep_until(wake).await,
                    None => std::future::pending().await,
                }
            };
            let heard = tokio::select! {
                heard = socket.next() => heard,
                () = sleeping => {
                    let now = Instant::now();
                    if dead.is_some_and(|dead| dead <= now) {
                        break "no sign of life".to_owned();
                    }
                    if ask.is_some_and(|ask| ask <= now) {
                        let period = self.watches.expect("it asks");
                        (ask, dead) = (None, Some(now + period / 2));
                        if socket.send(Message::text(r#"{"ping":0}"#)).await.is_err() {
                            break "the end".to_owned();
                        }
                    }
                    for topic in 0..self.again.len() {
                        if self.again[topic].is_some_and(|again| again <= now) {
                            self.subscribe(&mut socket, topic).await;
                        }
                    }
                    let _ = socket.flush().await;
                    continue;
                }
            };
            match heard {
                Some(Ok(Message::Text(text))) => {
                    (ask, dead) = (self.watches.map(|period| Instant::now() + period), None);
                    self.note(&text, &asked);
                }
                Some(Ok(Message::Close(frame))) => break format!("closed: {frame:?}"),
                Some(Ok(_)) => {}
                Some(Err(error)) => break error.to_string(),
                None => break "the end".to_owned(),
            }
        };
        self.progress.send_modify(|p| p.complaints.push(why));
    }

    fn note(&mut self, text: &str, asked: &[Option<Position>]) {
        let complain = |text: &str| self.progress.send_modify(|p| p.complaints.push(text.to_owned()));
        let Ok(frame) = serde_json::from_str::<Frame>(text) else { return complain(text) };
        let topic = frame.topic.or(frame.gap).and_then(|topic| self.index.get(topic)).copied();
        if frame.error.is_some() {
            match (topic, frame.retry_after) {
                (Some(topic), Some(wait)) => {
                    self.again[topic] = Some(Instant::now() + Duration::from_secs_f64(wait));
                    self.progress.send_modify(|p| p.refusals += 1);
                }
                _ => complain(text),
            }
            return;
        }
        let Some(i) = topic else { return };
        let position = |text: &str| text.parse::<Position>().expect("a position");
        if let Some(at) = frame.at.map(position) {
            self.at[i] = Some(at);
        }
        let now = self.clock.now();
        match frame {
            Frame { data: Some(data), at: Some(at), .. } => {
                let mark = Mark::parse(&self.streams[i].topic, data);
                let counted = self.counted.contains(&mark.by.as_str()).then(|| mark.clone());
                self.streams[i].heard.push((now, Heard::Message { at: position(at), mark }));
                self.progress.send_modify(|p| {
                    p.messages += 1;
                    p.marks.extend(counted);
                });
            }
            Frame { ok: Some("sub"), at: Some(at), resumed, why, .. } => {
                let why = why.map(str::to_owned);
                self.streams[i].heard.push((now, Heard::Joined { asked: asked[i], at: position(at), resumed, why }));
                self.progress.send_modify(|p| {
                    p.joined.insert(self.streams[i].topic.clone());
                    p.here.insert(self.streams[i].topic.clone());
                });
            }
            Frame { gap: Some(_), after: Some(after), why: Some(why), to, .. } => {
                let (after, to) = (position(after), to.map(position));
                self.streams[i].heard.push((now, Heard::Gap { after, to, why: why.to_owned() }));
                self.progress.send_modify(|p| p.gaps += 1);
            }
            _ => complain(text),
        }
    }
}
