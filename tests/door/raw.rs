//! A client that sends bytes as they are, and reads replies of both versions.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

pub struct Raw(BufReader<TcpStream>);

impl Raw {
    pub async fn connect(address: SocketAddr) -> Raw {
        Raw(BufReader::new(TcpStream::connect(address).await.unwrap()))
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).await.unwrap();
    }

    /// Sends what may meet a connection that is closed already.
    pub async fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.0.get_mut().write_all(bytes).await;
    }

    /// Sends a command, and reads its reply.
    pub async fn ask(&mut self, args: &[&str]) -> String {
        self.send(&command(args)).await;
        self.reply().await.expect("an answer")
    }

    /// The next reply as redis-cli shows it; `None` when the connection is closed.
    pub async fn reply(&mut self) -> Option<String> {
        let reading = tokio::time::timeout(Duration::from_secs(30), self.read());
        reading.await.expect("an answer within its time")
    }

    async fn read(&mut self) -> Option<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await.unwrap_or(0) == 0 {
            return None;
        }
        let (mark, rest) = line.trim_end_matches("\r\n").split_at(1);
        Some(match mark {
            "+" => rest.to_owned(),
            "-" => format!("(error) {rest}"),
            ":" => format!("(integer) {rest}"),
            "_" => "(nil)".to_owned(),
            "$" if rest == "-1" => "(nil)".to_owned(),
            "$" => {
                let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
                self.0.read_exact(&mut bytes).await.unwrap();
                bytes.truncate(bytes.len() - 2);
                format!("\"{}\"", String::from_utf8_lossy(&bytes))
            }
            "*" | "%" => {
                let count = rest.parse::<usize>().unwrap() * if mark == "%" { 2 } else { 1 };
                let mut items = Vec::new();
                for _ in 0..count {
                    items.push(Box::pin(self.read()).await?);
                }
                let [open, close] = if mark == "%" { ["{", "}"] } else { ["[", "]"] };
                format!("{open}{}{close}", items.join(", "))
            }
            _ => panic!("no reply of Redis' protocol: {line:?}"),
        })
    }
}

/// A command on the wire.
pub fn command(args: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend(format!("${}\r\n{arg}\r\n", arg.len()).bytes());
    }
    bytes
}
