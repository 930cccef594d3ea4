//! The sockets of the door: accepts under a limit, reads commands, and writes their replies in order. What was sent in
//! one go is handed on in one go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Options;
use super::commands::Names;
use super::queue::Intake;
use super::resp::{Bad, Read, Reader, Reply, Version};
use super::session::{Session, Slot};
use crate::dispatcher::notice::Throttle;
use crate::dispatcher::{Content, write_id};
use crate::domain::error::Reason;
use crate::telemetry;

/// Bytes that are asked for in one read.
const READ: usize = 16 * 1024;

/// How long a connection that was closed by us is read to its end.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) struct Door {
    pub options: Options,
    pub names: Names,
    pub intake: Intake,
    pub stop: CancellationToken,
    pub throttle: Arc<Throttle>,
}

/// Why a connection ends.
enum End {
    Closed,
    Stopping,
    /// It said nothing that the door understands.
    Bad(Bad),
    TooSlow,
}

impl Door {
    /// Accepts until the door is stopped.
    pub async fn listen(self, listener: TcpListener) {
        let (free, ids) = (Arc::new(Semaphore::new(self.options.connections)), AtomicI64::new(0));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            let (mut stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of sockets, as a rule: it passes when some are closed.
                    self.throttle.warn(Reason::TooMany, "door", || format!("cannot accept: {error}"));
                    tokio::time::sleep(self.options.accept_pause).await;
                    continue;
                }
            };
            let Ok(place) = free.clone().try_acquire_owned() else {
                let most = self.options.connections;
                self.throttle
                    .warn(Reason::TooMany, "door", || format!("{most} connections are open, no more are taken"));
                let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
                let _ = stream.shutdown().await;
                continue;
            };
            let _ = stream.set_nodelay(true);
            let id = ids.fetch_add(1, Ordering::Relaxed) + 1;
            let door = self.clone();
            tokio::spawn(async move {
                metrics::gauge!(telemetry::DOOR_CONNECTIONS).increment(1);
                door.serve(stream, peer, id).await;
                metrics::gauge!(telemetry::DOOR_CONNECTIONS).decrement(1);
                drop(place);
            });
        }
    }

    async fn serve(self, stream: TcpStream, peer: SocketAddr, id: i64) {
        let bounds = self.options.session_bounds();
        let mut connection = Connection {
            session: Session::new(self.names.clone(), bounds, id),
            reader: Reader::new(self.options.reader_bounds()),
            stream,
            buffer: BytesMut::new(),
            out: BytesMut::new(),
            door: self,
        };
        let Err(end) = connection.run().await else { return };
        let (throttle, stream) = (&connection.door.throttle, &mut connection.stream);
        let why = match end {
            End::Closed => return,
            End::Stopping => "stopping",
            End::TooSlow => "slow",
            End::Bad(bad @ Bad::Protocol(_)) => {
                connection.out.clear();
                Reply::Error(format!("ERR {bad}")).write(connection.session.version, &mut connection.out);
                let _ = timeout(connection.door.options.write, stream.write_all(&connection.out)).await;
                "protocol"
            }
            End::Bad(Bad::Foreign) => {
                throttle.warn(Reason::BadFrame, "door", || {
                    format!("{peer} did not speak Redis' protocol (HTTP, perhaps) and was closed")
                });
                "foreign"
            }
        };
        metrics::counter!(telemetry::DOOR_CLOSED, "why" => why).increment(1);
        let _ = stream.shutdown().await;
        // With bytes unread the socket would be reset, and replies on their way with it.
        let mut rest = [0; 4096];
        let drained = async { while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
        let _ = timeout(LINGER, drained).await;
    }
}

struct Connection {
    door: Door,
    session: Session,
    reader: Reader,
    stream: TcpStream,
    buffer: BytesMut,
    out: BytesMut,
}

impl Connection {
    /// `Ok` after QUIT.
    async fn run(&mut self) -> Result<(), End> {
        let mut begun = None;
        loop {
            match self.answer_what_came().await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(end) => return Err(end),
            }
            // A command that has begun must end in time; between commands a client may be as quiet as it likes.
            begun = self.reader.is_within().then(|| begun.unwrap_or_else(Instant::now));
            if self.buffer.is_empty() && self.buffer.capacity() > READ {
                self.buffer = BytesMut::new();
            }
            self.buffer.reserve(READ);
            let read = async {
                match begun {
                    Some(begun) => {
                        let deadline = begun + self.door.options.command;
                        timeout_at(deadline, self.stream.read_buf(&mut self.buffer)).await.map_err(|_| End::TooSlow)
                    }
                    None => Ok(self.stream.read_buf(&mut self.buffer).await),
                }
            };
            tokio::select! {
                biased;
                () = self.door.stop.cancelled() => return Err(End::Stopping),
                read = read => match read? {
                    Ok(0) | Err(_) => return Err(End::Closed),
                    Ok(_) => {}
                },
            }
        }
    }

    /// Handles every command that has come whole. `true` after QUIT.
    async fn answer_what_came(&mut self) -> Result<bool, End> {
        let (mut slots, mut adding, mut bytes) = (Vec::new(), 0, 0);
        loop {
            let read = match self.reader.next(&mut self.buffer) {
                Ok(Some(read)) => read,
                Ok(None) => {
                    self.flush(&mut slots).await?;
                    return Ok(false);
                }
                Err(bad) => {
                    // What came before it was in order, and is answered.
                    self.flush(&mut slots).await?;
                    return Err(End::Bad(bad));
                }
            };
            let slot = match read {
                Read::Command(args) => {
                    bytes += args.iter().map(|a| a.len()).sum::<usize>();
                    self.session.on_command(args)
                }
                Read::TooLarge(text) => self.session.on_too_large(text),
            };
            let quit = slot == Slot::Quit;
            match &slot {
                Slot::Add(_) => adding += 1,
                Slot::Push(elements) => adding += elements.len(),
                // They see what was written before them, and nothing that comes after.
                Slot::StreamLength | Slot::ListLength | Slot::Exec(_) => self.flush(&mut slots).await?,
                Slot::Reply(_) | Slot::Quit => {}
            }
            let alone = matches!(slot, Slot::StreamLength | Slot::ListLength | Slot::Exec(_));
            // HELLO is answered in the version that it asks for, what came before it in the one before.
            slots.push((slot, self.session.version));
            let full = adding >= self.door.options.pipeline
                || slots.len() >= self.door.options.pipeline
                || bytes >= self.door.options.pipeline_bytes;
            if alone || full || quit {
                self.flush(&mut slots).await?;
                (adding, bytes) = (0, 0);
            }
            if quit {
                return Ok(true);
            }
        }
    }

    /// Adds what is to be added, all at once, and writes all replies.
    async fn flush(&mut self, slots: &mut Vec<(Slot, Version)>) -> Result<(), End> {
        if slots.is_empty() {
            return Ok(());
        }
        let mut slots = std::mem::take(slots);
        let before = self.door.intake.kept();
        let mut contents = Vec::new();
        slots.iter_mut().for_each(|(slot, _)| gather(slot, &mut contents));
        let answers = if contents.is_empty() { Vec::new() } else { self.door.intake.add(contents).await };
        let mut answers = answers.into_iter();
        let mut seen = Seen { stream: before, list: 0 };
        for (slot, version) in slots {
            seen.list = 0;
            reply_to(slot, &mut answers, &mut seen).write(version, &mut self.out);
        }
        let written = timeout(self.door.options.write, self.stream.write_all(&self.out)).await;
        self.out.clear();
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Closed),
            Err(_) => Err(End::TooSlow),
        }
    }
}

/// What a command of a transaction sees of those before it.
struct Seen {
    stream: usize,
    list: usize,
}

/// Takes out what is to be added, in order.
fn gather(slot: &mut Slot, contents: &mut Vec<Content>) {
    match slot {
        Slot::Add(fields) => contents.push(Content::Fields(std::mem::take(fields))),
        Slot::Push(elements) => contents.extend(elements.iter().cloned().map(Content::Document)),
        Slot::Exec(slots) => slots.iter_mut().for_each(|slot| gather(slot, contents)),
        Slot::Reply(_) | Slot::StreamLength | Slot::ListLength | Slot::Quit => {}
    }
}

fn reply_to(
    slot: Slot,
    answers: &mut impl Iterator<Item = Result<crate::domain::store::EntryId, String>>,
    seen: &mut Seen,
) -> Reply {
    match slot {
        Slot::Reply(reply) => reply,
        Slot::Quit => Reply::OK,
        Slot::Add(_) => match answers.next() {
            Some(Ok(id)) => {
                seen.stream += 1;
                Reply::bulk(write_id(id))
            }
            Some(Err(text)) => Reply::Error(text),
            None => Reply::error("ERR internal: this was not answered"),
        },
        Slot::Push(elements) => {
            let (count, results): (usize, Vec<_>) = (elements.len(), answers.take(elements.len()).collect());
            let stored = results.iter().filter(|result| result.is_ok()).count();
            seen.list += stored;
            match results.into_iter().find_map(Result::err) {
                None if stored == count => Reply::Integer(seen.list as i64),
                None => Reply::error("ERR internal: this was not answered"),
                Some(text) if count == 1 => Reply::Error(text),
                Some(text) => Reply::Error(format!("{text}; {stored} of the {count} elements were taken")),
            }
        }
        Slot::StreamLength => Reply::Integer(seen.stream as i64),
        Slot::ListLength => Reply::Integer(seen.list as i64),
        Slot::Exec(slots) => Reply::Array(slots.into_iter().map(|slot| reply_to(slot, answers, seen)).collect()),
    }
}
