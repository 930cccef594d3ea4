//! Connections to the Redis that publishers write to: opened when they are needed, dropped at the first doubt.
//!
//! The crate's reconnecting connection is not used: it gives up after some tries, and a blocking command on a shared
//! connection stops every other one. So there is one shared connection for scripts, and one for each that waits. On a
//! cluster that is one to each server: a command goes to the one that has the slot of its keys, and where the slot moves,
//! it follows. A command that was told to go elsewhere was not carried out, so it is never done twice.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ScriptInvocation, ServerErrorKind};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::{Instant, sleep};

use crate::dispatcher::SourceError;
use crate::endpoint::{self, Chart, Endpoint, Patience, Place, Use, slot_of};

/// Before a command is tried again that the cluster could not carry out at that moment.
const AGAIN: Duration = Duration::from_millis(50);

pub(super) struct Link {
    endpoint: Endpoint,
    patience: Patience,
    /// Who has which slot, on a cluster; asked for when it is first needed.
    chart: Arc<OnceCell<Chart>>,
    /// Connections; `None`: to the only server. Each is opened under a lock of its own, so that one server that does not
    /// answer holds nobody up who wants another.
    open: Lock<HashMap<Option<Place>, Slot>>,
    /// Counts connections, so that a late failure of an old one does no harm.
    opened: AtomicU64,
}

type Slot = Arc<Mutex<Option<Open>>>;

struct Open {
    link: endpoint::Link,
    generation: u64,
}

/// What a command is told that was not carried out.
enum Refused {
    /// The cluster has its keys elsewhere, or nowhere at this moment.
    Elsewhere(String),
    Error(SourceError),
}

impl Link {
    /// Takes one of the `endpoint::FORMS`; connects nowhere yet.
    pub fn new(url: &str, patience: Patience) -> Result<Link, String> {
        let endpoint = Endpoint::parse(url)?;
        Ok(Link { endpoint, patience, chart: Arc::default(), open: Lock::default(), opened: AtomicU64::new(0) })
    }

    /// The same servers, with connections of its own.
    pub fn another(&self) -> Link {
        let (endpoint, chart) = (self.endpoint.clone(), self.chart.clone());
        Link { endpoint, patience: self.patience, chart, open: Lock::default(), opened: AtomicU64::new(0) }
    }

    /// The address without the password.
    pub fn shown(&self) -> String {
        self.endpoint.shown()
    }

    /// Calls a script; `key` is one of its keys.
    pub async fn run<T: FromRedisValue>(&self, key: &str, script: &ScriptInvocation<'_>) -> Result<T, SourceError> {
        let until = Instant::now() + self.patience.response;
        loop {
            let place = self.place_of(key.as_bytes()).await?;
            let (mut connection, generation) = self.connection(&place, self.patience.response).await?;
            let answer = script.invoke_async(&mut connection).await;
            match self.judge(answer, place, generation).await {
                Ok(answer) => return Ok(answer),
                Err(refused) => self.wait_if(refused, until).await?,
            }
        }
    }

    /// Sends one command that may hold its connection up for so long; `key` is one of its keys.
    pub async fn ask<T: FromRedisValue>(
        &self,
        key: impl AsRef<[u8]>,
        command: &Cmd,
        held_up: Duration,
    ) -> Result<T, SourceError> {
        let until = Instant::now() + self.patience.response;
        loop {
            let place = self.place_of(key.as_ref()).await?;
            match self.ask_at(place, command, held_up).await {
                Ok(answer) => return Ok(answer),
                Err(refused) => self.wait_if(refused, until).await?,
            }
        }
    }

    /// Every server that has keys; on a single Redis the only one, which has no name.
    pub async fn masters(&self) -> Result<Vec<Option<Place>>, SourceError> {
        Ok(match self.chart().await? {
            None => vec![None],
            Some(chart) => chart.slots().masters().into_iter().cloned().map(Some).collect(),
        })
    }

    /// Sends one command to one of the masters.
    pub async fn ask_master<T: FromRedisValue>(&self, master: Option<Place>, command: &Cmd) -> Result<T, SourceError> {
        self.ask_at(master, command, Duration::ZERO).await.map_err(|refused| self.error(refused))
    }

    async fn ask_at<T: FromRedisValue>(
        &self,
        place: Option<Place>,
        command: &Cmd,
        held_up: Duration,
    ) -> Result<T, Refused> {
        let response = self.patience.response + held_up;
        let (mut connection, generation) = self.connection(&place, response).await.map_err(Refused::Error)?;
        let answer = command.query_async(&mut connection).await;
        self.judge(answer, place, generation).await
    }

    async fn chart(&self) -> Result<Option<&Chart>, SourceError> {
        if self.endpoint.seeds().is_none() {
            return Ok(None);
        }
        let opening = || Chart::open(self.endpoint.clone(), self.patience);
        self.chart.get_or_try_init(opening).await.map(Some).map_err(|text| self.unreachable(&text))
    }

    async fn place_of(&self, key: &[u8]) -> Result<Option<Place>, SourceError> {
        let Some(chart) = self.chart().await? else { return Ok(None) };
        match chart.slots().owner(slot_of(key)) {
            Some(place) => Ok(Some(place.clone())),
            None => {
                chart.doubt();
                Err(self.unreachable("no server of the cluster has the slot of this key"))
            }
        }
    }

    async fn connection(
        &self,
        place: &Option<Place>,
        response: Duration,
    ) -> Result<(MultiplexedConnection, u64), SourceError> {
        let slot = self.slot(place);
        let mut slot = slot.lock().await;
        if slot.as_ref().is_none_or(|open| open.link.has_ended()) {
            *slot = None;
            let patience = Patience { response, ..self.patience };
            let opened = match place {
                None => self.endpoint.connect(Use::commands(), patience).await,
                Some(place) => self.endpoint.connect_to(place, Use::commands(), patience).await,
            };
            match opened {
                Ok(link) => {
                    let generation = self.opened.fetch_add(1, Ordering::Relaxed) + 1;
                    *slot = Some(Open { link, generation });
                }
                Err(text) => {
                    self.doubt();
                    return Err(self.unreachable(&text));
                }
            }
        }
        let open = slot.as_ref().expect("it was opened above");
        Ok((open.link.connection.clone(), open.generation))
    }

    /// Where the connection to this server is kept. What leads nowhere any more goes when a new one comes.
    fn slot(&self, place: &Option<Place>) -> Slot {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = open.get(place) {
            return slot.clone();
        }
        let is_open =
            |slot: &Slot| slot.try_lock().is_ok_and(|one| one.as_ref().is_some_and(|one| !one.link.has_ended()));
        open.retain(|_, slot| Arc::strong_count(slot) > 1 || is_open(slot));
        open.entry(place.clone()).or_default().clone()
    }

    /// The chart may be out of date.
    fn doubt(&self) {
        if let Some(chart) = self.chart.get() {
            chart.doubt();
        }
    }

    async fn judge<T>(
        &self,
        answer: Result<T, RedisError>,
        place: Option<Place>,
        generation: u64,
    ) -> Result<T, Refused> {
        let error = match answer {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly, TryAgain};
        let kind = error.kind();
        if place.is_some() && matches!(kind, ErrorKind::Server(Moved | Ask | TryAgain | ClusterDown)) {
            self.doubt();
            return Err(Refused::Elsewhere(error.to_string()));
        }
        let busy = matches!(kind, ErrorKind::Server(ReadOnly | BusyLoading | MasterDown | TryAgain | ClusterDown));
        let cut = error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error();
        if cut || busy {
            // A failed-over master has another address behind the same name, so it is looked up anew.
            self.doubt();
            let slot = self.slot(&place);
            slot.lock().await.take_if(|open| open.generation == generation);
            return Err(Refused::Error(self.unreachable(&error.to_string())));
        }
        if error.code() == Some("OOM") {
            return Err(Refused::Error(SourceError::Full));
        }
        let hint = match error.kind() {
            ErrorKind::Server(Moved | Ask) => {
                "; it is a server of a cluster, which is written redis+cluster://HOST:PORT"
            }
            _ => "",
        };
        let text = format!("the ingest Redis at {} answers: {error}{hint}", self.shown());
        Err(Refused::Error(SourceError::Broken(text)))
    }

    /// Waits a moment if the command may be tried again.
    async fn wait_if(&self, refused: Refused, until: Instant) -> Result<(), SourceError> {
        if matches!(refused, Refused::Error(_)) || Instant::now() >= until {
            return Err(self.error(refused));
        }
        sleep(AGAIN).await;
        Ok(())
    }

    fn error(&self, refused: Refused) -> SourceError {
        match refused {
            Refused::Elsewhere(text) => self.unreachable(&text),
            Refused::Error(error) => error,
        }
    }

    fn unreachable(&self, error: &str) -> SourceError {
        SourceError::Unreachable(format!("the ingest Redis at {} cannot be used: {error}", self.shown()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_server_that_does_not_answer_holds_nobody_up_who_wants_another() {
        let long = Duration::from_secs(60);
        let link = Link::new("redis+cluster://127.0.0.1:1", Patience { connect: long, response: long }).unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = |listener: &TcpListener| {
            let address = listener.local_addr().unwrap();
            Some(Place::Tcp(address.ip().to_string(), address.port()))
        };
        let (silent_place, gone_place) = (place(&silent), place(&gone));
        drop(gone);
        tokio::select! {
            biased;
            _ = link.connection(&silent_place, long) => panic!("nobody answers there"),
            other = link.connection(&gone_place, long) => assert!(other.is_err()),
        }
        // What leads nowhere is not kept.
        drop(link.slot(&None));
        assert_eq!(link.open.lock().unwrap().len(), 1);
    }
}
