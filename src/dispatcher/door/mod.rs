//! The hub's own door for publishers that have a Redis client, and no Redis: it speaks Redis' protocol, takes what
//! publishes, and answers when that is stored. It is no Redis: nothing can be read here, and no other key written.

mod answers;
mod commands;
mod listener;
mod queue;
mod resp;
mod session;
mod source;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Board;
use super::notice::Throttle;
use crate::domain::dead::DeadLetterBox;
use commands::Names;
use listener::Door;
use queue::Intake;
pub(crate) use source::DoorSource;

/// The name of the source in metrics and status. Dead letters carry the key that was written to.
pub const SOURCE: &str = "door";

#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens, `127.0.0.1:6380`.
    pub listen: String,
    /// The keys that publishers write to, `fanfare:in` and `fanfare:list`.
    pub stream: String,
    pub list: String,
    /// Connections at a time, 1,000.
    pub connections: usize,
    /// Arguments of one command, 1,024.
    pub arguments: usize,
    /// Bytes of one argument, 1 MiB, and of one command, 1 MiB.
    pub argument_bytes: usize,
    pub command_bytes: usize,
    /// Bytes of a command that is too large that are read past, 64 MiB; beyond that its connection is closed.
    pub skipped_bytes: usize,
    /// Commands of one connection that are handed on together, 500, and their bytes, 4 MiB. The rest waits in the socket.
    pub pipeline: usize,
    pub pipeline_bytes: usize,
    /// Commands between MULTI and EXEC, 1,000, and their bytes, 4 MiB.
    pub queued: usize,
    pub queued_bytes: usize,
    /// Hand-overs of all connections that wait for the store, 1,024.
    pub waiting: usize,
    /// How long a command that has begun may take to arrive, 30 s; a client may be silent between commands.
    pub command: Duration,
    /// How long replies may take to be read, 30 s.
    pub write: Duration,
    /// How long `XLEN` counts an entry, 60 s, as a Redis keeps it for the hub.
    pub keep: Duration,
    /// How long accepting rests when there are no sockets left, 100 ms.
    pub accept_pause: Duration,
}

impl Options {
    /// The defaults, with keys that begin with a prefix.
    pub fn new(listen: impl Into<String>, prefix: &str) -> Options {
        const MIB: usize = 1024 * 1024;
        Options {
            listen: listen.into(),
            stream: format!("{prefix}:in"),
            list: format!("{prefix}:list"),
            connections: 1_000,
            arguments: 1_024,
            argument_bytes: MIB,
            command_bytes: MIB,
            skipped_bytes: 64 * MIB,
            pipeline: 500,
            pipeline_bytes: 4 * MIB,
            queued: 1_000,
            queued_bytes: 4 * MIB,
            waiting: 1_024,
            command: Duration::from_secs(30),
            write: Duration::from_secs(30),
            keep: Duration::from_secs(60),
            accept_pause: Duration::from_millis(100),
        }
    }

    fn reader_bounds(&self) -> resp::Bounds {
        resp::Bounds {
            arguments: self.arguments,
            argument: self.argument_bytes,
            command: self.command_bytes,
            skipped: self.skipped_bytes,
        }
    }

    fn session_bounds(&self) -> session::Bounds {
        session::Bounds { queued: self.queued, queued_bytes: self.queued_bytes }
    }
}

/// Listens, until `stop`: then connections finish what they were at, and the source ends after the last of them.
pub(super) async fn open(
    options: Options,
    dead: Arc<dyn DeadLetterBox>,
    board: Arc<Board>,
    stop: CancellationToken,
    throttle: Arc<Throttle>,
) -> Result<(DoorSource, SocketAddr), String> {
    let cannot = |error: std::io::Error| format!("cannot listen on {}: {error}", options.listen);
    let listener = TcpListener::bind(&options.listen).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    let names = Names { stream: options.stream.clone(), list: options.list.clone() };
    let (intake, requests) = Intake::new(options.waiting, options.keep);
    let source = DoorSource::new(requests, dead, names.clone(), board);
    let door = Door { options, names, intake, stop, throttle };
    tokio::spawn(door.listen(listener));
    Ok((source, address))
}
