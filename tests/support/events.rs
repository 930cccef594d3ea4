//! A client of event streams that follows the letter of the specification: an id counts with the empty line of its
//! event, a stream begins without an id, and what stands behind the last empty line was never said.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// What no answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `message` where the stream names none.
    pub kind: String,
    pub data: String,
}

impl Event {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// An open stream, or the answer that took its place.
pub struct Stream {
    socket: TcpStream,
    rest: Vec<u8>,
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    /// As `EventSource` keeps it.
    pub last_event_id: String,
    id: String,
    kind: String,
    data: Vec<String>,
    pub retry: Option<u64>,
    /// Comments, as they came.
    pub comments: Vec<String>,
    /// Bytes of the body that were read.
    pub bytes: usize,
}

impl Stream {
    /// `GET /v1/sse` with a query like `?topic=a`.
    pub async fn open(http: SocketAddr, query: &str, last_event_id: &str) -> Stream {
        let id = if last_event_id.is_empty() { None } else { Some(("last-event-id", last_event_id)) };
        let headers: Vec<_> = id.into_iter().chain([("accept", "text/event-stream")]).collect();
        Stream::request(http, "GET", query, &headers, None).await.expect("an answer")
    }

    /// `None`: the connection ended without one.
    pub async fn request(
        http: SocketAddr,
        method: &str,
        query: &str,
        headers: &[(&str, &str)],
        window: Option<u32>,
    ) -> Option<Stream> {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(window) = window {
            socket.set_recv_buffer_size(window).unwrap();
        }
        let mut socket = socket.connect(http).await.ok()?;
        let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("{method} /v1/sse{query} HTTP/1.1\r\nhost: {http}\r\n{more}\r\n");
        socket.write_all(head.as_bytes()).await.ok()?;
        Stream::answer(socket).await
    }

    /// Reads the head of an answer on a connection.
    pub async fn answer(socket: TcpStream) -> Option<Stream> {
        Stream::answer_behind(socket, Vec::new()).await
    }

    async fn answer_behind(socket: TcpStream, rest: Vec<u8>) -> Option<Stream> {
        let mut stream = Stream {
            socket,
            rest,
            status: 0,
            headers: BTreeMap::new(),
            last_event_id: String::new(),
            id: String::new(),
            kind: String::new(),
            data: Vec::new(),
            retry: None,
            comments: Vec::new(),
            bytes: 0,
        };
        let first = stream.line().await?;
        stream.status = first.split(' ').nth(1)?.parse().ok()?;
        while let Some((name, value)) = stream.line().await?.split_once(": ") {
            stream.headers.insert(name.to_lowercase(), value.to_string());
        }
        stream.bytes = 0;
        Some(stream)
    }

    /// The next event; `None` at the end of the stream. `retry` and comments are noted on the way.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                self.last_event_id = self.id.clone();
                let kind = std::mem::take(&mut self.kind);
                let data = std::mem::take(&mut self.data);
                if data.is_empty() {
                    continue;
                }
                let kind = if kind.is_empty() { "message".to_string() } else { kind };
                return Some(Event { kind, data: data.join("\n") });
            }
            self.take(&line);
        }
    }

    fn take(&mut self, line: &str) {
        if let Some(comment) = line.strip_prefix(':') {
            return self.comments.push(comment.to_string());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_string();
        match field {
            "event" => self.kind = value,
            "data" => self.data.push(value),
            "id" => self.id = value,
            "retry" => self.retry = value.parse().ok(),
            other => panic!("a field {other:?}"),
        }
    }

    /// The next event of this kind; whatever else comes is passed over.
    pub async fn next_of(&mut self, kind: &str) -> Event {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("the stream ended before a {kind:?}"));
            if event.kind == kind {
                return event;
            }
        }
    }

    /// Reads until a comment has come.
    pub async fn comment(&mut self) -> String {
        loop {
            if let Some(comment) = self.comments.pop() {
                return comment;
            }
            let line = self.line().await.expect("an open stream");
            assert!(line.starts_with(':') || line.starts_with("retry"), "{line:?}");
            self.take(&line);
        }
    }

    /// The rest of an answer that is no stream, as long as its length says.
    pub async fn body(&mut self) -> Value {
        let length: usize = self.headers["content-length"].parse().unwrap();
        while self.rest.len() < length {
            assert!(self.read().await, "the answer is cut short");
        }
        serde_json::from_slice(&self.rest[..length]).unwrap()
    }

    /// Reads until so many bytes of the body have come, torn or not; `false`: it ended before.
    pub async fn swallow(&mut self, bytes: usize) -> bool {
        while self.rest.len() < bytes {
            if !self.read().await {
                return false;
            }
        }
        true
    }

    /// The answer behind this one on the same connection.
    pub async fn next_answer(mut self) -> Stream {
        let length: usize = self.headers["content-length"].parse().unwrap();
        self.swallow(length).await;
        let rest = self.rest.split_off(length);
        Stream::answer_behind(self.socket, rest).await.expect("a second answer")
    }

    pub fn into_socket(self) -> TcpStream {
        self.socket
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                self.bytes += line.len();
                let line = String::from_utf8(line).expect("UTF-8");
                return Some(line.trim_end_matches(['\n', '\r']).to_string());
            }
            if !self.read().await {
                return None;
            }
        }
    }

    async fn read(&mut self) -> bool {
        let mut room = [0; 16 * 1024];
        let read = tokio::time::timeout(PATIENCE, self.socket.read(&mut room)).await;
        let count = read.expect("something comes in time").unwrap_or(0);
        self.rest.extend_from_slice(&room[..count]);
        count > 0
    }
}
