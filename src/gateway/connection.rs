//! One socket's life: what has come is read and decided on, until one side closes. What topics it hears is the shard's
//! part; how frames go out is in `outgoing`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tungstenite::protocol::{CloseFrame, WebSocketContext};
use tungstenite::{Error as WsError, Message as WsMessage, error::CapacityError};

use super::outgoing::Pending;
use super::subscriptions::Subscriptions;
use super::wire::{self, Pipe};
use crate::domain::codec::{Codec, Format};
use crate::domain::command::RequestId;
use crate::domain::error::CloseCode;
use crate::domain::limits::Limits;
use crate::domain::name::Topic;
use crate::domain::session::Session;
use crate::domain::store::ReadFrom;
use crate::hub::outbox::{Outbox, Shares};

/// How long a closing handshake may take before the socket is dropped.
pub const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// What stands for all codes that peers close with.
const PEER_CLOSED: u16 = 1000;

pub struct Connection {
    pub key: usize,
    pub name: Box<str>,
    /// Whether the client asked for arrays of messages.
    pub batch: bool,
    pub format: Format,
    pub stream: TcpStream,
    pub io: RefCell<Io>,
    pub protocol: RefCell<Protocol>,
    pub subscriptions: RefCell<Subscriptions>,
    /// Commands that wait for the store.
    pub in_flight: Cell<usize>,
    /// The node goes down: when nothing is in flight any more, this connection is closed.
    pub leaving: Cell<bool>,
    /// Those of them that read history, each in its turn; at most `Limits::in_flight`.
    pub histories: RefCell<VecDeque<History>>,
    /// A read waits until less waits to be written.
    pub hungry: Cell<bool>,
    /// The code of the close frame that was sent, or that came; `None`: there was none.
    pub closed: Cell<Option<u16>>,
    /// Wakes the connection's task: something waits to be written, or it shall end.
    pub wake: Notify,
}

/// A read of history that was asked for.
pub struct History {
    pub id: Option<RequestId>,
    pub topic: Topic,
    pub from: ReadFrom,
    pub limit: u32,
    pub ignored: Vec<String>,
}

/// What is on its way out.
pub struct Io {
    pub outbox: Outbox,
    /// Frames of the present batch, sent together at its end.
    pub pending: Vec<Pending>,
    pub state: State,
    /// A page of history is on its way, and the room for it is kept free.
    pub reading: bool,
    /// Frames wait for the end of what is being read.
    pub corked: bool,
    pub next_ping: Instant,
    pub pong_due: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Open,
    /// Shall be closed with this code by its task.
    Cut(CloseCode),
    /// Our close frame is queued; the peer has until then to answer. `deaf`: what still comes is not looked at.
    Closing {
        until: Instant,
        deaf: bool,
    },
    /// Nothing more to do but drop the socket.
    Ended,
}

pub struct Protocol {
    pub websocket: Box<WebSocketContext>,
    pub codec: Box<dyn Codec>,
    pub session: Session,
}

/// What reading brought.
pub enum Incoming {
    Frame(Bytes),
    /// Nothing more for now.
    Dry,
}

impl Connection {
    pub fn is_open(&self) -> bool {
        self.io.borrow().state == State::Open
    }

    /// The node goes down: closes as soon as everything that was asked has been answered, and reads no more.
    pub fn leave(&self) {
        self.leaving.set(true);
        if self.in_flight.get() == 0 {
            self.close(CloseCode::Drain);
        } else {
            self.wake.notify_one();
        }
    }

    /// A command that waited for the store has been answered.
    pub fn on_answered(&self) {
        self.in_flight.set(self.in_flight.get() - 1);
        if self.leaving.get() {
            self.leave();
        }
    }

    /// Marks the connection to be closed by its own task.
    pub fn close(&self, code: CloseCode) {
        self.cut(&mut self.io.borrow_mut(), code);
    }

    pub(super) fn cut(&self, io: &mut Io, code: CloseCode) {
        if io.state == State::Open {
            io.state = State::Cut(code);
            self.wake.notify_one();
        }
    }

    pub(super) fn fail(&self, io: &mut Io) {
        io.state = State::Ended;
        self.wake.notify_one();
    }

    /// Begins the closing handshake: only a frame that has begun is finished before the close frame.
    pub fn start_close(&self, code: CloseCode, now: Instant) {
        self.close_websocket(close_frame(code), false, now);
    }

    fn close_websocket(&self, frame: CloseFrame, deaf: bool, now: Instant) {
        self.closed.set(Some(frame.code.into()));
        let mut output = Vec::new();
        let mut pipe = Pipe { input: &[], output: &mut output };
        // A context that is closing already has nothing to add.
        let _ = self.protocol.borrow_mut().websocket.close(&mut pipe, Some(frame));
        let io = &mut *self.io.borrow_mut();
        io.outbox.cut();
        io.pending = Vec::new();
        if !output.is_empty() {
            let _ = io.outbox.push(output.into(), usize::MAX, now);
        }
        io.state = State::Closing { until: now + CLOSE_WAIT, deaf };
        self.write(io, now);
    }

    /// Takes the next whole frame out of `input`, which loses what was read. Answers pings and closes on the way.
    pub fn next_frame(&self, input: &mut &[u8], now: Instant) -> Incoming {
        loop {
            let mut output = Vec::new();
            let mut pipe = Pipe { input, output: &mut output };
            let read = self.protocol.borrow_mut().websocket.read(&mut pipe);
            *input = pipe.input;
            if !output.is_empty() {
                let io = &mut *self.io.borrow_mut();
                // Pongs and close frames are a few bytes; the peer that never reads is cut by the age of its outbox.
                let _ = io.outbox.push(output.into(), usize::MAX, now);
                self.write(io, now);
            }
            match read {
                Ok(WsMessage::Text(text)) => return Incoming::Frame(text.into()),
                Ok(WsMessage::Binary(bytes)) => return Incoming::Frame(bytes),
                Ok(WsMessage::Close(_)) => {
                    let io = &mut *self.io.borrow_mut();
                    if io.state == State::Open {
                        self.closed.set(Some(PEER_CLOSED));
                        io.state = State::Closing { until: now + CLOSE_WAIT, deaf: false };
                    }
                }
                Ok(_) => {}
                Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Incoming::Dry,
                Err(error) => {
                    self.on_protocol_error(error, now);
                    return Incoming::Dry;
                }
            }
        }
    }

    fn on_protocol_error(&self, error: WsError, now: Instant) {
        use tungstenite::protocol::frame::coding::CloseCode as Standard;
        let standard = |code, reason: String| (CloseFrame { code, reason: reason.into() }, false);
        let (frame, deaf) = match error {
            _ if !self.is_open() => return self.end(now),
            // tungstenite would keep the rest of the frame, however long it is.
            WsError::Capacity(CapacityError::MessageTooLong { .. }) => (close_frame(CloseCode::TooLarge), true),
            WsError::Utf8(_) => standard(Standard::Invalid, "text frames are UTF-8".into()),
            WsError::Protocol(error) => {
                let mut reason = error.to_string();
                reason.truncate(reason.floor_char_boundary(120));
                standard(Standard::Protocol, reason)
            }
            _ => return self.end(now),
        };
        self.close_websocket(frame, deaf, now);
    }

    /// The handshake is over, the peer is gone, or it breaks the protocol while it is being closed.
    fn end(&self, now: Instant) {
        let io = &mut *self.io.borrow_mut();
        self.write(io, now);
        self.fail(io);
    }

    /// Commands are not read while so much waits that their answers might not fit.
    pub fn takes_commands(&self, limits: &Limits) -> bool {
        let io = self.io.borrow();
        let is_listening = match io.state {
            State::Open => !self.leaving.get(),
            State::Closing { .. } => true,
            State::Cut(_) | State::Ended => false,
        };
        is_listening && io.outbox.bytes() <= limits.outbox / 2
    }

    /// Whether a read of history may add a page to what waits, or one frame of so many bytes if that is more.
    pub fn has_room(&self, frame: usize, limits: &Limits) -> bool {
        let (outbox, shares) = (&self.io.borrow().outbox, Shares(limits.outbox));
        outbox.bytes() <= shares.low_water() && outbox.fits(frame, shares.streams(false))
    }

    /// The peer sent something, whatever it was.
    pub fn on_sign_of_life(&self) {
        self.io.borrow_mut().pong_due = None;
    }

    /// Once a second: pings, and the bounds in time.
    pub fn on_tick(&self, limits: &Limits, now: Instant) {
        let io = &mut *self.io.borrow_mut();
        match io.state {
            State::Open => {
                if !io.outbox.is_empty() {
                    // The ping may stand behind what waits, and the pong is not read: it is the taking that counts.
                    io.pong_due = io.pong_due.map(|_| now + limits.pong);
                }
                if io.outbox.stalled(now) > limits.outbox_age {
                    self.cut(io, CloseCode::Slow);
                } else if io.pong_due.is_some_and(|due| now >= due) {
                    self.cut(io, CloseCode::Idle);
                } else if now >= io.next_ping {
                    io.next_ping = now + limits.ping;
                    io.pong_due.get_or_insert(now + limits.pong);
                    let _ = io.outbox.push(wire::PING, usize::MAX, now);
                    self.write(io, now);
                }
            }
            State::Closing { until, .. } if now >= until => self.fail(io),
            _ => {}
        }
    }
}

fn close_frame(code: CloseCode) -> CloseFrame {
    CloseFrame { code: code.code().into(), reason: code.word().into() }
}

/// Names connections for people: unique on this node while it runs.
pub fn name(number: u64) -> Box<str> {
    format!("c{number}").into()
}
