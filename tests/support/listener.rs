//! A subscriber that behaves as the client of the README: it keeps the last `at` of each topic, comes back after a close
//! and sends it as `after`. It writes down whatever it hears.

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
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::history::{Heard, Mark, Stream};

/// How long a handshake may take until another node is tried.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// The wait before coming back, as a page has it, but shorter.
const COME_BACK: Duration = Duration::from_millis(50);

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Where the living nodes are; changed by whoever kills and starts them.
#[derive(Clone)]
pub struct Nodes(Arc<Mutex<Vec<Option<SocketAddr>>>>);

#[allow(dead_code, reason = "each test binary uses its own part")]
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

/// How far a listener is, for whoever waits for it.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    pub connections: u32,
    /// Topics whose subscription was answered.
    pub joined: HashSet<String>,
    pub messages: u64,
    pub gaps: u64,
    /// The last count heard of each publisher, over all topics.
    pub marks: HashSet<Mark>,
    /// What went wrong beside the stream: errors, closes.
    pub complaints: Vec<String>,
}

pub struct Listener {
    pub progress: watch::Receiver<Progress>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<Stream>>,
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
}

#[allow(dead_code, reason = "each test binary uses its own part")]
impl Listener {
    /// `counted`: marks of these publishers are noted in the progress.
    pub fn start(
        name: String,
        first: usize,
        nodes: Nodes,
        topics: Vec<String>,
        counted: &'static [&'static str],
    ) -> Listener {
        let (sender, progress) = watch::channel(Progress::default());
        let (stop, stopped) = watch::channel(false);
        let streams =
            topics.iter().map(|t| Stream { listener: name.clone(), topic: t.clone(), heard: Vec::new() }).collect();
        let index = topics.iter().enumerate().map(|(i, topic)| (topic.clone(), i)).collect();
        let at = vec![None; topics.len()];
        let notes = Notes { streams, index, at, counted, progress: sender };
        let task = tokio::spawn(listen(notes, first, nodes, stopped));
        Listener { progress, stop, task }
    }

    /// Waits until it is so far.
    pub async fn until(&mut self, what: &str, patience: Duration, is_so: impl Fn(&Progress) -> bool) {
        let waited = tokio::time::timeout(patience, self.progress.wait_for(|p| is_so(p))).await.map(|r| r.is_ok());
        assert!(waited == Ok(true), "{what}: not after {patience:?}; {:?}", self.progress.borrow());
    }

    /// Ends it and answers what it heard.
    pub async fn stop(self) -> Vec<Stream> {
        self.stop.send_replace(true);
        self.task.await.expect("a listener does not panic")
    }
}

struct Notes {
    streams: Vec<Stream>,
    index: HashMap<String, usize>,
    /// The README's `at`.
    at: Vec<Option<Position>>,
    counted: &'static [&'static str],
    progress: watch::Sender<Progress>,
}

async fn listen(mut notes: Notes, first: usize, nodes: Nodes, mut stop: watch::Receiver<bool>) -> Vec<Stream> {
    for turn in 0.. {
        let following = async {
            if let Some(address) = nodes.pick(first + turn)
                && let Ok(Ok((socket, _))) =
                    tokio::time::timeout(HANDSHAKE, connect_async(format!("ws://{address}/ws"))).await
            {
                notes.progress.send_modify(|p| p.connections += 1);
                notes.follow(socket).await;
            }
            tokio::time::sleep(COME_BACK).await;
        };
        tokio::select! {
            () = following => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    notes.streams
}

impl Notes {
    /// Until the connection ends.
    async fn follow(&mut self, mut socket: Socket) {
        let asked = self.at.clone();
        for (stream, after) in self.streams.iter().zip(&asked) {
            let after = after.map_or(String::new(), |at| format!(r#","after":"{at}""#));
            let frame = format!(r#"{{"sub":"{}"{after}}}"#, stream.topic);
            if socket.feed(Message::text(frame)).await.is_err() {
                return;
            }
        }
        if socket.flush().await.is_err() {
            return;
        }
        let why = loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => self.note(&text, &asked),
                Some(Ok(Message::Close(frame))) => break format!("closed: {frame:?}"),
                Some(Ok(_)) => {}
                Some(Err(error)) => break error.to_string(),
                None => break "the end".to_owned(),
            }
        };
        self.progress.send_modify(|p| p.complaints.push(why));
    }

    fn note(&mut self, text: &str, asked: &[Option<Position>]) {
        let Ok(frame) = serde_json::from_str::<Frame>(text) else {
            return self.progress.send_modify(|p| p.complaints.push(format!("not understood: {text}")));
        };
        if frame.error.is_some() {
            return self.progress.send_modify(|p| p.complaints.push(text.to_owned()));
        }
        let Some(&i) = frame.topic.or(frame.gap).and_then(|topic| self.index.get(topic)) else { return };
        let position = |text: &str| text.parse::<Position>().expect("a position");
        if let Some(at) = frame.at.map(position) {
            self.at[i] = Some(at);
        }
        match frame {
            Frame { data: Some(data), at: Some(at), .. } => {
                let mark = Mark::parse(data).expect("a mark");
                let counted = self.counted.contains(&mark.by.as_str()).then(|| mark.clone());
                self.streams[i].heard.push(Heard::Message { at: position(at), mark });
                self.progress.send_modify(|p| {
                    p.messages += 1;
                    p.marks.extend(counted);
                });
            }
            Frame { ok: Some("sub"), at: Some(at), resumed, .. } => {
                self.streams[i].heard.push(Heard::Joined { asked: asked[i], at: position(at), resumed });
                self.progress.send_modify(|p| _ = p.joined.insert(self.streams[i].topic.clone()));
            }
            Frame { gap: Some(_), after: Some(after), why: Some(why), to, .. } => {
                let (after, to) = (position(after), to.map(position));
                self.streams[i].heard.push(Heard::Gap { after, to, why: why.to_owned() });
                self.progress.send_modify(|p| p.gaps += 1);
            }
            _ => self.progress.send_modify(|p| p.complaints.push(text.to_owned())),
        }
    }
}
