//! A whole hub in this process, on free ports of the loopback, and plain clients to it.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use fanfare::config::{self, Mode};
use fanfare::server::Server;
use futures::{SinkExt, StreamExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, client_async};

/// What no answer may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Starts a hub in memory with these further flags.
pub async fn start(flags: &[&str]) -> Server {
    let mut line = vec!["fanfare", "--insecure", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"];
    line.push("--redis-listen=127.0.0.1:0");
    if !flags.iter().any(|flag| flag.starts_with("--store=")) {
        line.push("--store=memory");
    }
    line.extend(flags);
    let matches =
        clap::Command::new("fanfare").args(config::arguments()).args_override_self(true).get_matches_from(line);
    let config = config::load(Mode::Serve, &matches, [], Path::new("/nonexistent")).expect("good flags");
    Server::start(&config, Mode::Serve).await.expect("it starts")
}

/// A bare WebSocket client.
pub struct Client(pub tokio_tungstenite::WebSocketStream<MaybeTlsStream<TcpStream>>);

/// What a socket brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Text(String),
    Closed(u16, String),
    /// The connection ended without a close frame.
    Gone,
}

impl Client {
    /// Connects to `/ws` with a query like `?sub=a`.
    pub async fn connect(http: SocketAddr, query: &str) -> Client {
        Client::connect_with(http, query, &[]).await.expect("a handshake")
    }

    pub async fn connect_with(
        http: SocketAddr,
        query: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Client, Error> {
        let mut request = format!("ws://{http}/ws{query}").into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        Ok(Client(tokio_tungstenite::connect_async(request).await?.0))
    }

    pub async fn say(&mut self, frame: &str) {
        self.0.send(Message::text(frame)).await.expect("an open socket");
    }

    /// The next text frame or the close.
    pub async fn hear(&mut self) -> Heard {
        tokio::time::timeout(PATIENCE, async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => return Heard::Text(text.as_str().to_owned()),
                    Some(Ok(Message::Close(Some(frame)))) => {
                        return Heard::Closed(frame.code.into(), frame.reason.as_str().to_owned());
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Heard::Gone,
                }
            }
        })
        .await
        .expect("the hub says something in time")
    }

    /// The next text frame, as JSON.
    pub async fn next(&mut self) -> serde_json::Value {
        match self.hear().await {
            Heard::Text(text) => serde_json::from_str(&text).expect("JSON"),
            other => panic!("a frame was expected, not {other:?}"),
        }
    }
}

/// A client whose window is small, so that what it does not read waits in the hub.
pub async fn narrow(http: SocketAddr, query: &str) -> Client {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a buffer");
    let stream = MaybeTlsStream::Plain(socket.connect(http).await.expect("it listens"));
    Client(client_async(format!("ws://{http}/ws{query}"), stream).await.expect("a handshake").0)
}

/// The value of a metric, over all its labels that hold `label`.
pub async fn metric(server: &Server, name: &str, label: &str) -> u64 {
    let url = format!("http://{}/metrics", server.admin.expect("it has an admin address"));
    let text = reqwest::get(url).await.expect("an answer").text().await.expect("text");
    let lines = text.lines().filter(|l| l.starts_with(name) && !l.starts_with('#') && l.contains(label));
    lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

/// Publishes by HTTP and gives the position.
pub async fn publish(http: SocketAddr, topic: &str, body: &str) -> String {
    let url = format!("http://{http}/v1/topics/{topic}/messages");
    let request = reqwest::Client::new().post(url).header("content-type", "application/json").body(body.to_owned());
    let answer: serde_json::Value = request.send().await.expect("an answer").json().await.expect("JSON");
    answer["stored"].as_str().unwrap_or_else(|| panic!("not stored: {answer}")).to_owned()
}

/// A numbered message of so many bytes.
pub fn text(payload: usize, n: u64) -> String {
    format!("\"{n}:{}\"", "x".repeat(payload))
}

/// The number in a message of `text`, which must be whole.
pub fn number(message: &serde_json::Value, payload: usize) -> u64 {
    let (n, rest) = message["data"].as_str().unwrap().split_once(':').unwrap();
    assert_eq!(rest.len(), payload, "a torn message");
    n.parse().unwrap()
}
