//! One socket's life: what has come is read and decided on, until one side closes. What topics it hears is the shard's
//! part; how frames go out is in `outgoing`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tungstenite::protocol::WebSocketContext;

use super::counters;
use super::event_stream::{HEARTBEAT, Trail};
use super::held::Work;
use super::outgoing::Pending;
use super::subscriptions::Subscriptions;
use super::websocket::close_frame;
use super::wire;
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

pub struct Connection {
    pub key: usize,
    pub name: Box<str>,
    /// Whether the client asked for arrays of messages.
    pub batch: bool,
    pub format: Format,
    pub stream: TcpStream,
    pub transport: Transport,
    pub io: RefCell<Io>,
    pub protocol: RefCell<Protocol>,
    pub subscriptions: RefCell<Subscriptions>,
    /// What it takes from queues and holds; none for most.
    pub work: RefCell<Option<Box<Work>>>,
    /// A job had no room: none is given until there is.
    pub held_back: Cell<bool>,
    /// Settlements that wait for the store; `in_flight` counts them too.
    pub settling: Cell<usize>,
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

/// In which shape bytes go out and come in.
pub enum Transport {
    WebSocket(Box<RefCell<WebSocketContext>>),
    EventStream(Box<RefCell<Trail>>),
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
    pub codec: Box<dyn Codec>,
    pub session: Session,
}

impl Connection {
    pub fn is_open(&self) -> bool {
        self.io.borrow().state == State::Open
    }

    /// The word for the transport, as metrics have it.
    pub fn door(&self) -> &'static str {
        match self.transport {
            Transport::WebSocket(_) => counters::WEBSOCKET,
            Transport::EventStream(_) => counters::SSE,
        }
    }

    pub fn trail(&self) -> Option<&RefCell<Trail>> {
        match &self.transport {
            Transport::WebSocket(_) => None,
            Transport::EventStream(trail) => Some(trail),
        }
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

    /// Begins to close, in the way of the transport.
    pub fn start_close(&self, code: CloseCode, now: Instant) {
        match &self.transport {
            Transport::WebSocket(context) => self.close_websocket(context, close_frame(code), false, now),
            Transport::EventStream(trail) => self.end_stream(&trail.borrow(), code, now),
        }
    }

    /// Whether nothing more is to be said or heard: an event stream is over with its last byte.
    pub fn is_over(&self) -> bool {
        let io = self.io.borrow();
        let said_all = matches!(self.transport, Transport::EventStream(_)) && io.outbox.is_empty();
        io.state == State::Ended || matches!(io.state, State::Closing { .. }) && said_all
    }

    /// Commands are not read while so much waits that their answers might not fit.
    pub fn takes_commands(&self, limits: &Limits) -> bool {
        let io = self.io.borrow();
        let is_listening = match io.state {
            State::Open => !self.leaving.get(),
            State::Closing { .. } => true,
            State::Cut(_) | State::Ended => false,
        };
        // An event stream brings nothing but its end.
        let is_mute = matches!(self.transport, Transport::EventStream(_));
        is_listening && (is_mute || io.outbox.bytes() <= limits.outbox / 2)
    }

    /// Whether a read of history may add a page to what waits, or one frame of so many bytes if that is more.
    pub fn has_room(&self, frame: usize, limits: &Limits) -> bool {
        let (outbox, shares) = (&self.io.borrow().outbox, Shares(limits.outbox));
        outbox.bytes() <= shares.low_water() && outbox.fits(frame, shares.streams(false)) && !outbox.budget().is_spent()
    }

    /// The peer sent something, whatever it was.
    pub fn on_sign_of_life(&self) {
        self.io.borrow_mut().pong_due = None;
    }

    /// Once a second: pings, and the bounds in time.
    pub fn on_tick(&self, limits: &Limits, now: Instant) {
        let io = &mut *self.io.borrow_mut();
        if self.hungry.get() {
            // It may have waited for the budget of the whole node, not for its own peer.
            self.wake.notify_one();
        }
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
                    let beat = match self.transport {
                        Transport::WebSocket(_) => {
                            io.pong_due.get_or_insert(now + limits.pong);
                            wire::PING
                        }
                        // Nothing comes back; that it is taken is seen by the outbox and by the kernel.
                        Transport::EventStream(_) => HEARTBEAT,
                    };
                    let _ = io.outbox.push(beat, usize::MAX, now);
                    self.write(io, now);
                }
            }
            State::Closing { until, .. } if now >= until => self.fail(io),
            _ => {}
        }
    }
}

/// Names connections for people: unique on this node while it runs.
pub fn name(number: u64) -> Box<str> {
    format!("c{number}").into()
}
