//! From a URL to a connection: sockets that notice a peer which is gone, and a driver whose end is known.
//!
//! The crate's own reconnecting connection is not used: it gives up after some tries, which a connection that only
//! listens never learns. Who reconnects, and what is said meanwhile, is up to `writer` and `feed`.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, PushInfo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Unsent data of this age breaks a TCP connection, and so do that long without any answer to keepalives.
const DEAD_PEER: Duration = Duration::from_secs(20);

/// Where a Redis is, and how to log in there.
#[derive(Clone)]
pub(super) struct Address {
    info: ConnectionInfo,
}

/// An open connection. It closes when this is dropped.
pub(super) struct Link {
    pub connection: MultiplexedConnection,
    /// Ends when the connection does.
    pub driver: JoinHandle<()>,
}

/// What a connection is opened for.
pub(super) enum Use<F> {
    /// Commands and answers.
    Commands,
    /// Subscriptions too; what is pushed goes to the closure, which must not block.
    Pushes(F),
}

impl Address {
    /// Takes `redis://[user:password@]host[:port][/db]` or `unix:/path[?db=0]`.
    pub fn parse(url: &str) -> Result<Address, String> {
        if url.starts_with("rediss:") || url.starts_with("valkeys:") {
            return Err("TLS to Redis is not in this version; use redis:// over a network you trust or a tunnel".into());
        }
        // The error of the crate may show the URL, and with it a password.
        let info = url.into_connection_info().map_err(|_| {
            "not a Redis URL; write redis://[user:password@]host[:port][/db] or unix:/path/to/socket[?db=0]".to_string()
        })?;
        Ok(Address { info })
    }

    /// The address without the password.
    pub fn shown(&self) -> String {
        self.info.addr().to_string()
    }

    pub fn database(&self) -> i64 {
        self.info.redis_settings().db()
    }

    /// Connects and logs in, all within `patience`. Commands on it fail after `response`.
    pub async fn connect<F>(&self, used: Use<F>, patience: Duration, response: Duration) -> Result<Link, String>
    where
        F: Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static,
    {
        // Answers to commands are read in the older form; only the newer one has pushes.
        let mut settings = self.info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
        let mut config = AsyncConnectionConfig::new().set_response_timeout(Some(response));
        if let Use::Pushes(push) = used {
            settings = settings.set_protocol(ProtocolVersion::RESP3);
            config = config.set_push_sender(push);
        }
        let opening = async {
            match self.info.addr() {
                ConnectionAddr::Tcp(host, port) => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|e| e.to_string())?;
                    tune(&stream).map_err(|e| e.to_string())?;
                    drive(&settings, stream, config).await
                }
                ConnectionAddr::Unix(path) => {
                    let stream = UnixStream::connect(path).await.map_err(|e| e.to_string())?;
                    drive(&settings, stream, config).await
                }
                _ => Err("this kind of address is not supported".to_string()),
            }
        };
        match timeout(patience, opening).await {
            Ok(result) => result.map_err(|text| format!("{}: {text}", self.shown())),
            Err(_) => Err(format!("{}: no answer within {patience:?}", self.shown())),
        }
    }
}

impl Link {
    /// Closes now, and returns when nothing more can be sent or received.
    pub async fn cut(mut self) {
        // One that has ended may have been waited for already, which is allowed once.
        if !self.driver.is_finished() {
            self.driver.abort();
            let _ = (&mut self.driver).await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn drive<S>(
    settings: &redis::RedisConnectionInfo,
    stream: S,
    config: AsyncConnectionConfig,
) -> Result<Link, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (connection, driver) =
        MultiplexedConnection::new_with_config(settings, stream, config).await.map_err(|e| e.to_string())?;
    Ok(Link { connection, driver: tokio::spawn(driver) })
}

fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_keepalive(
        &socket2::TcpKeepalive::new().with_time(DEAD_PEER / 2).with_interval(DEAD_PEER / 4).with_retries(2),
    )?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(DEAD_PEER))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_the_url() {
        for (url, shown) in [
            ("redis://localhost", "localhost:6379"),
            ("redis://:secret@10.0.0.1:7000/3", "10.0.0.1:7000"),
            ("redis://user:secret@example.org/0", "example.org:6379"),
            ("unix:/run/redis.sock", "/run/redis.sock"),
            ("unix:///run/redis.sock?db=2", "/run/redis.sock"),
        ] {
            assert_eq!(Address::parse(url).map(|a| a.shown()), Ok(shown.to_string()), "{url}");
        }
        let address = Address::parse("redis://:secret@10.0.0.1:7000/3").ok().unwrap();
        assert_eq!((address.info.redis_settings().db(), address.info.redis_settings().password()), (3, Some("secret")));
    }

    #[test]
    fn what_is_no_address_is_refused_without_showing_a_password() {
        for url in ["", "redis:/", "http://localhost", "localhost:6379", "redis://:secret@host:port"] {
            let text = Address::parse(url).map(|a| a.shown()).unwrap_err();
            assert!(text.contains("redis://[") && !text.contains("secret"), "{url}: {text}");
        }
        assert!(Address::parse("rediss://host").map(|a| a.shown()).unwrap_err().contains("TLS"));
    }
}
