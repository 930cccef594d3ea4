//! Connections to the Redis that publishers write to: opened when they are needed, dropped at the first doubt.
//!
//! The crate's reconnecting connection is not used: it gives up after some tries, and a blocking command on a shared
//! connection stops every other one. So there is one shared connection for scripts, and one for each that waits.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ScriptInvocation, ServerErrorKind};
use tokio::sync::Mutex;

use crate::dispatcher::SourceError;
use crate::endpoint::{self, Endpoint, Patience, Use};

pub(super) struct Link {
    endpoint: Endpoint,
    patience: Patience,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    link: Option<endpoint::Link>,
    generation: u64,
}

impl Link {
    /// Takes one of the `endpoint::FORMS`; connects nowhere yet.
    pub fn new(url: &str, patience: Patience) -> Result<Link, String> {
        let endpoint = Endpoint::parse(url)?;
        if endpoint.seeds().is_some() {
            return Err("Redis Cluster is not in this version; use one Redis, or Sentinel".into());
        }
        Ok(Link { endpoint, patience, current: Mutex::default() })
    }

    /// The same server, with a connection of its own.
    pub fn another(&self) -> Link {
        Link { endpoint: self.endpoint.clone(), patience: self.patience, current: Mutex::default() }
    }

    /// The address without the password.
    pub fn shown(&self) -> String {
        self.endpoint.shown()
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
        if current.link.as_ref().is_none_or(endpoint::Link::has_ended) {
            let opened = self.endpoint.connect(Use::commands(), Patience { response, ..self.patience }).await;
            current.link = Some(opened.map_err(|text| self.unreachable(&text))?);
            current.generation += 1;
        }
        let connection = current.link.as_ref().expect("it was opened above").connection.clone();
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
                current.link = None;
            }
            return Err(self.unreachable(&error.to_string()));
        }
        if error.code() == Some("OOM") {
            return Err(SourceError::Full);
        }
        Err(SourceError::Broken(format!("the ingest Redis at {} answers: {error}", self.shown())))
    }

    fn unreachable(&self, error: &str) -> SourceError {
        SourceError::Unreachable(format!("the ingest Redis at {} cannot be used: {error}", self.shown()))
    }
}
