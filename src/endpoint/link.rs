//! One connection: a socket that notices a peer which is gone, and a driver whose end is known.
//!
//! The crate's own reconnecting connection is not used: it gives up after some tries, which a connection that only
//! listens never learns. Who reconnects, and what is said meanwhile, is up to those who use the endpoint.

use std::future::Future;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, RedisConnectionInfo, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

use super::Place;

/// Unsent data of this age breaks a TCP connection, and so do that long without any answer to keepalives.
const DEAD_PEER: Duration = Duration::from_secs(20);

/// An open connection. It closes when this is dropped.
pub struct Link {
    pub connection: MultiplexedConnection,
    /// Ends when the connection does, and says why.
    driver: JoinHandle<String>,
}

/// What a connection is opened for.
pub enum Use<F> {
    /// Commands and answers.
    Commands,
    /// Subscriptions too; what is pushed goes to the closure, which must not block.
    Pushes(F),
}

impl Use<fn(PushInfo) -> Result<(), ()>> {
    /// Commands and answers, where no closure says what type it would have.
    pub fn commands() -> Self {
        Use::Commands
    }
}

/// Connects and logs in. Commands on it fail after `response`. The connection ends when `end` does, if not before.
pub(super) async fn open<F>(
    place: &Place,
    login: &RedisConnectionInfo,
    used: Use<F>,
    response: Duration,
    end: impl Future<Output = String> + Send + 'static,
) -> Result<Link, String>
where
    F: Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static,
{
    // Answers to commands are read in the older form; only the newer one has pushes.
    let mut settings = login.clone().set_protocol(ProtocolVersion::RESP2);
    let mut config = AsyncConnectionConfig::new().set_response_timeout(Some(response));
    if let Use::Pushes(push) = used {
        settings = settings.set_protocol(ProtocolVersion::RESP3);
        config = config.set_push_sender(push);
    }
    match place {
        Place::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|e| e.to_string())?;
            tune(&stream).map_err(|e| e.to_string())?;
            drive(&settings, stream, config, end).await
        }
        Place::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|e| e.to_string())?;
            drive(&settings, stream, config, end).await
        }
    }
}

impl Link {
    /// Waits for the end of the connection and says why. Not to be asked again after it has answered.
    pub async fn ended(&mut self) -> String {
        match (&mut self.driver).await {
            Ok(why) => why,
            Err(_) => "the connection was cut".into(),
        }
    }

    pub fn has_ended(&self) -> bool {
        self.driver.is_finished()
    }

    /// Closes now, and returns when nothing more can be sent or received.
    pub async fn cut(mut self) {
        // One that has ended may have been waited for already, which is allowed once.
        if !self.driver.is_finished() {
            self.driver.abort();
            let _ = (&mut self.driver).await;
        }
    }

    /// Whether the server is a master by its own word.
    pub(super) async fn verify_master(&mut self) -> Result<(), String> {
        let answer = self.ask(&redis::cmd("ROLE")).await?;
        let role = match &answer {
            Value::Array(parts) => parts.first().and_then(text_of),
            // Users may be kept from it; INFO says the same.
            _ => {
                let mut info = redis::cmd("INFO");
                let info = self.ask(info.arg("replication")).await?;
                text_of(&info).and_then(|text| Some(text.lines().find_map(|l| l.strip_prefix("role:"))?.trim().into()))
            }
        };
        match role.as_deref() {
            Some("master") => Ok(()),
            Some(other) => Err(format!("the sentinels name it as the master, but it says that it is a {other}")),
            None => Err("it does not say whether it is a master".into()),
        }
    }

    async fn ask(&mut self, cmd: &redis::Cmd) -> Result<Value, String> {
        self.connection.send_packed_command(cmd).await.map_err(|error| error.to_string())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn drive<S>(
    settings: &RedisConnectionInfo,
    stream: S,
    config: AsyncConnectionConfig,
    end: impl Future<Output = String> + Send + 'static,
) -> Result<Link, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (connection, driver) =
        MultiplexedConnection::new_with_config(settings, stream, config).await.map_err(|e| e.to_string())?;
    let driver = tokio::spawn(async move {
        tokio::select! {
            () = driver => "the connection was closed".to_string(),
            why = end => why,
        }
    });
    Ok(Link { connection, driver })
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

pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    }
}
