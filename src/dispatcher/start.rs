//! Starts the bridges and takes them down: the dispatcher as the rest of the program sees it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::bridge::Bridge;
use super::notice::Throttle;
use super::redis::{RedisDead, Shared, Watcher};
use super::{Board, Pause, Source, SourceStatus, door, redis};
use crate::domain::dead::{DeadLetterBox, DeadLetters};
use crate::domain::limits::Limits;
use crate::hub::Hub;

/// Where publishers write.
pub enum Ingest {
    Redis(redis::Options),
    /// The hub's own door, and where it keeps its dead letters.
    Door(door::Options, Arc<dyn DeadLetterBox>),
}

#[derive(Debug, Clone)]
pub struct Options {
    pub limits: Limits,
    /// Entries in one batch, 500.
    pub batch: usize,
    /// How long `stop` waits for what was accepted, 10 s.
    pub patience: Duration,
    pub pause: Pause,
}

impl Default for Options {
    fn default() -> Options {
        Options { limits: Limits::default(), batch: 500, patience: Duration::from_secs(10), pause: Pause::default() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the ingest queue (--ingest): {0}")]
    Redis(String),
    #[error("the Redis-protocol door (--redis-listen): {0}")]
    Door(String),
}

/// The running dispatcher.
pub struct Dispatcher {
    boards: Vec<Arc<Board>>,
    bridges: Vec<JoinHandle<()>>,
    stop: CancellationToken,
    patience: Duration,
    dead: Arc<dyn DeadLetters>,
    watcher: Option<JoinHandle<()>>,
    door: Option<SocketAddr>,
}

/// Starts to bridge. A Redis that is away does not hinder it: it works when it is there.
pub async fn start(hub: Hub, ingest: Ingest, options: Options) -> Result<Dispatcher, StartError> {
    let (stop, throttle) = (CancellationToken::new(), Arc::new(Throttle::default()));
    let mut dispatcher = Starting { hub, options, stop, throttle, boards: Vec::new(), bridges: Vec::new() };
    match ingest {
        Ingest::Redis(mut settings) => {
            settings.pause = dispatcher.options.pause.clone();
            let shared = Shared::new(settings).map_err(StartError::Redis)?;
            tracing::info!(redis = shared.shown(), "bridging what publishers write there");
            for (source, board) in shared.sources() {
                dispatcher.bridge(source, board);
            }
            let watcher = Watcher::new(shared.clone(), dispatcher.boards[0].clone(), dispatcher.throttle.clone());
            let mut dispatcher = dispatcher.done(Arc::new(RedisDead::new(shared.clone())));
            dispatcher.watcher = Some(tokio::spawn(watcher.run()));
            Ok(dispatcher)
        }
        Ingest::Door(settings, dead) => {
            let board = Board::new(door::SOURCE);
            let opened =
                door::open(settings, dead.clone(), board.clone(), dispatcher.stop.clone(), dispatcher.throttle.clone())
                    .await;
            let (source, address) = opened.map_err(StartError::Door)?;
            board.owner(true);
            dispatcher.bridge(source, board);
            let mut dispatcher = dispatcher.done(dead);
            dispatcher.door = Some(address);
            Ok(dispatcher)
        }
    }
}

struct Starting {
    hub: Hub,
    options: Options,
    stop: CancellationToken,
    throttle: Arc<Throttle>,
    boards: Vec<Arc<Board>>,
    bridges: Vec<JoinHandle<()>>,
}

impl Starting {
    fn bridge<S: Source>(&mut self, source: S, board: Arc<Board>) {
        let bridge = Bridge {
            source,
            hub: self.hub.clone(),
            limits: self.options.limits.clone(),
            batch: self.options.batch,
            pause: self.options.pause.clone(),
            board: board.clone(),
            throttle: self.throttle.clone(),
        };
        self.bridges.push(tokio::spawn(bridge.run(self.stop.clone())));
        self.boards.push(board);
    }

    fn done(self, dead: Arc<dyn DeadLetters>) -> Dispatcher {
        Dispatcher {
            boards: self.boards,
            bridges: self.bridges,
            stop: self.stop,
            patience: self.options.patience,
            dead,
            watcher: None,
            door: None,
        }
    }
}

impl Dispatcher {
    /// How each source is, from what is known at this moment.
    pub fn status(&self) -> Vec<SourceStatus> {
        self.boards.iter().map(|board| board.read()).collect()
    }

    pub fn dead(&self) -> Arc<dyn DeadLetters> {
        self.dead.clone()
    }

    /// Where the door listens, if there is one.
    pub fn door(&self) -> Option<SocketAddr> {
        self.door
    }

    /// Takes nothing more in, finishes what was accepted, and gives leases up; all within the patience of the options.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(watcher) = self.watcher.take() {
            watcher.abort();
        }
        let deadline = tokio::time::Instant::now() + self.patience;
        for mut bridge in self.bridges.drain(..) {
            if tokio::time::timeout_at(deadline, &mut bridge).await.is_err() {
                tracing::warn!("the dispatcher did not finish in time");
                bridge.abort();
                let _ = bridge.await;
            }
        }
    }
}

/// Dropped without `stop`, it ends at once, as a process that is killed.
impl Drop for Dispatcher {
    fn drop(&mut self) {
        for task in self.bridges.drain(..).chain(self.watcher.take()) {
            task.abort();
        }
        self.stop.cancel();
    }
}
