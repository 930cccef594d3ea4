//! WebSocket frames that we write ourselves, and the pipe between tungstenite and our outbox.
//!
//! Parsing, control frames and the closing handshake are tungstenite's; it reads from bytes that the shard has read and
//! writes into the connection's own queue. Messages are framed once here and shared by all connections.

use std::io::{self, Read, Write};

use bytes::{BufMut, Bytes, BytesMut};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

pub const PING: Bytes = Bytes::from_static(&[0x89, 0x00]);

/// One unmasked, final text frame.
pub fn text_frame(payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 10);
    put_header(&mut frame, payload.len());
    frame.put_slice(payload);
    frame.freeze()
}

/// Several text frames as one whose payload is the JSON array of theirs.
pub fn array_frame<'a>(frames: impl Iterator<Item = &'a Bytes>) -> Bytes {
    let payloads: Vec<&[u8]> = frames.map(|f| payload_of(f)).collect();
    let len = payloads.iter().map(|p| p.len() + 1).sum::<usize>() + 1;
    let mut frame = BytesMut::with_capacity(len + 10);
    put_header(&mut frame, len);
    for (i, payload) in payloads.iter().enumerate() {
        frame.put_u8(if i == 0 { b'[' } else { b',' });
        frame.put_slice(payload);
    }
    frame.put_u8(b']');
    frame.freeze()
}

fn put_header(frame: &mut BytesMut, len: usize) {
    frame.put_u8(0x81);
    match len {
        0..=125 => frame.put_u8(len as u8),
        126..=0xffff => {
            frame.put_u8(126);
            frame.put_u16(len as u16);
        }
        _ => {
            frame.put_u8(127);
            frame.put_u64(len as u64);
        }
    }
}

/// The payload of a frame that `text_frame` made.
fn payload_of(frame: &[u8]) -> &[u8] {
    match frame[1] {
        126 => &frame[4..],
        127 => &frame[10..],
        _ => &frame[2..],
    }
}

/// A server-side context that holds no buffer while idle.
pub fn context(max_frame: usize) -> WebSocketContext {
    let config = WebSocketConfig::default()
        .read_buffer_size(0)
        .write_buffer_size(0)
        .max_message_size(Some(max_frame))
        .max_frame_size(Some(max_frame));
    WebSocketContext::new(Role::Server, Some(config))
}

/// What tungstenite takes for the socket: reads from what has come, writes into what will go.
pub struct Pipe<'i, 'o> {
    pub input: &'i [u8],
    pub output: &'o mut Vec<u8>,
}

impl Read for Pipe<'_, '_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(room)
    }
}

impl Write for Pipe<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_class_are_read_back_by_a_client() {
        for len in [0, 125, 126, 65_535, 65_536] {
            let payload = vec![b'a'; len];
            let frame = text_frame(&payload);
            assert_eq!(payload_of(&frame), payload);
            let mut client = WebSocketContext::new(Role::Client, None);
            let mut output = Vec::new();
            let mut pipe = Pipe { input: &frame, output: &mut output };
            assert_eq!(client.read(&mut pipe).unwrap().into_data(), payload);
        }
    }

    #[test]
    fn an_array_frame_holds_the_payloads() {
        let frame = array_frame([text_frame(b"{\"a\":1}"), text_frame(b"2")].iter());
        assert_eq!(payload_of(&frame), b"[{\"a\":1},2]");
    }
}
