//! Connections to the Redis that publishers write to: opened when they are needed, dropped at the first doubt.
//!
//! The crate's reconnecting connection is not used: it gives up after some tries, and a blocking command on a shared
//! connection stops every other one. So there is one shared connection for scripts, and one for each that waits.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError};
use redis::{ScriptInvocation, ServerErrorKind};
use tokio::sync::Mutex;

use crate::dispatcher::SourceError;

#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub connect: Duration,
    pub response: Duration,
}

pub(super) struct Link {
    client: Client,
    patience: Patience,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    connection: Option<MultiplexedConnection>,
    generation: u64,
}

impl Link {
    /// Takes `redis://[user:password@]host[:port][/db]` or `unix:/path`; connects nowhere yet.
    pub fn new(url: &str, patience: Patience) -> Result<Link, String> {
        // The crate's own error may show the URL, and with it a password.
        let wrong = "not a Redis URL; write redis://[user:password@]host[:port][/db] or unix:/path/to/socket";
        let info = url.into_connection_info().map_err(|_| wrong.to_owned())?;
        let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        let client = Client::open(info.set_tcp_settings(tcp)).map_err(|_| wrong.to_owned())?;
        Ok(Link { client, patience, current: Mutex::default() })
    }

    /// The same server, with a connection of its own.
    pub fn another(&self) -> Link {
        Link { client: self.client.clone(), patience: self.patience, current: Mutex::default() }
    }

    /// The address without the password.
    pub fn shown(&self) -> String {
        self.client.get_connection_info().addr().to_string()
    }

    pub async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, SourceError> {
        let (mut connection, generation) = self.connection(self.patience.response).await?;
        let answer = script.invoke_async(&mut connection).await;
        self.judge(answer, generation).await
    }

    /// Sends one command that may hold its connection up for so long.
    pub async fn ask<T: FromRedisValue>(&self, command: &Cmd, held_up: Duration) -> Result<T, SourceError> {
        let (mut connection, generation) = self.connection(self.patience.response + held_up).await?;
        let answer = command.query_async(&mut connection).await;
        self.judge(answer, generation).await
    }

    async fn connection(&self, response: Duration) -> Result<(MultiplexedConnection, u64), SourceError> {
        let mut current = self.current.lock().await;
        if current.connection.is_none() {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(self.patience.connect))
                .set_response_timeout(Some(response));
            let opened = self.client.get_multiplexed_async_connection_with_config(&config).await;
            let connection = opened.map_err(|error| self.unreachable(&error))?;
            current.connection = Some(connection);
            current.generation += 1;
        }
        let connection = current.connection.clone().expect("it was opened above");
        Ok((connection, current.generation))
    }

    async fn judge<T>(&self, answer: Result<T, RedisError>, generation: u64) -> Result<T, SourceError> {
        let error = match answer {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let busy = matches!(
            error.kind(),
            ErrorKind::Server(
                ServerErrorKind::ReadOnly
                    | ServerErrorKind::BusyLoading
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::TryAgain
                    | ServerErrorKind::ClusterDown
            )
        );
        let cut = error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error();
        if cut || busy {
            // A failed-over master has another address behind the same name, so it is looked up anew.
            let mut current = self.current.lock().await;
            if current.generation == generation {
                current.connection = None;
            }
            return Err(self.unreachable(&error));
        }
        if error.code() == Some("OOM") {
            return Err(SourceError::Full);
        }
        Err(SourceError::Broken(format!("the ingest Redis at {} answers: {error}", self.shown())))
    }

    fn unreachable(&self, error: &RedisError) -> SourceError {
        SourceError::Unreachable(format!("the ingest Redis at {} cannot be used: {error}", self.shown()))
    }
}
