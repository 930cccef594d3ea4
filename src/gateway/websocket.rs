//! What makes a connection a WebSocket: frames come out of tungstenite, and it ends with the closing handshake.

use std::cell::RefCell;
use std::io;
use std::time::Instant;

use bytes::Bytes;
use tungstenite::protocol::{CloseFrame, WebSocketContext};
use tungstenite::{Error as WsError, Message as WsMessage, error::CapacityError};

use super::connection::{CLOSE_WAIT, Connection, State, Transport};
use super::wire::Pipe;
use crate::domain::error::CloseCode;

/// What stands for all codes that peers close with.
const PEER_CLOSED: u16 = 1000;

/// What reading brought.
pub enum Incoming {
    Frame(Bytes),
    /// Nothing more for now.
    Dry,
}

impl Connection {
    /// Begins the closing handshake. A node that goes down still gives what waits, as far as the peer takes it in time;
    /// otherwise only a frame that has begun is finished before the close frame.
    pub(super) fn close_websocket(
        &self,
        context: &RefCell<WebSocketContext>,
        frame: CloseFrame,
        deaf: bool,
        now: Instant,
    ) {
        self.closed.set(Some(frame.code.into()));
        let is_drained = frame.code == CloseCode::Drain.code().into();
        let mut output = Vec::new();
        let mut pipe = Pipe { input: &[], output: &mut output };
        // A context that is closing already has nothing to add.
        let _ = context.borrow_mut().close(&mut pipe, Some(frame));
        let io = &mut *self.io.borrow_mut();
        if !is_drained {
            io.outbox.cut();
        }
        io.pending = Vec::new();
        if !output.is_empty() {
            let _ = io.outbox.push(output.into(), usize::MAX, now);
        }
        io.state = State::Closing { until: now + CLOSE_WAIT, deaf };
        self.write(io, now);
    }

    /// Takes the next whole frame out of `input`, which loses what was read. Answers pings and closes on the way.
    pub fn next_frame(&self, input: &mut &[u8], now: Instant) -> Incoming {
        let Transport::WebSocket(context) = &self.transport else { return Incoming::Dry };
        loop {
            let mut output = Vec::new();
            let mut pipe = Pipe { input, output: &mut output };
            let read = context.borrow_mut().read(&mut pipe);
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
                    self.on_protocol_error(context, error, now);
                    return Incoming::Dry;
                }
            }
        }
    }

    fn on_protocol_error(&self, context: &RefCell<WebSocketContext>, error: WsError, now: Instant) {
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
        self.close_websocket(context, frame, deaf, now);
    }

    /// The handshake is over, the peer is gone, or it breaks the protocol while it is being closed.
    fn end(&self, now: Instant) {
        let io = &mut *self.io.borrow_mut();
        self.write(io, now);
        self.fail(io);
    }
}

pub fn close_frame(code: CloseCode) -> CloseFrame {
    CloseFrame { code: code.code().into(), reason: code.word().into() }
}
