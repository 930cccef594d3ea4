//! How one subscribes and publishes at each server. Whatever stands around it, a message holds one `@`, and nothing else
//! that a server sends does: so deliveries are counted, however they are framed or joined.

use std::str::FromStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Fanfare,
    /// Whatever comes by `/pub` goes to all others as it is.
    Plain,
    SocketIo,
    Nchan,
    Nats,
    Mqtt,
}

/// What is sent in one frame.
pub enum Payload {
    Text(String),
    Binary(Vec<u8>),
}

impl FromStr for Dialect {
    type Err = String;

    fn from_str(name: &str) -> Result<Dialect, String> {
        Ok(match name {
            "hub" => Dialect::Fanfare,
            "naive" | "uwebsockets" => Dialect::Plain,
            "socketio" => Dialect::SocketIo,
            "nchan" => Dialect::Nchan,
            "nats" => Dialect::Nats,
            "mosquitto" => Dialect::Mqtt,
            _ => return Err(format!("unknown peer {name}: naive, uwebsockets, socketio, nchan, nats or mosquitto")),
        })
    }
}

impl Dialect {
    /// The path of a subscriber or a publisher.
    pub fn path(self, subscribes: bool) -> &'static str {
        match (self, subscribes) {
            (Dialect::Fanfare, true) => "/ws?sub=bench",
            (Dialect::Fanfare, false) => "/ws",
            (Dialect::Plain, true) => "/sub",
            (Dialect::Plain, false) => "/pub",
            (Dialect::SocketIo, _) => "/socket.io/?EIO=4&transport=websocket",
            (Dialect::Nchan, true) => "/sub/bench",
            (Dialect::Nchan, false) => "/pub/bench",
            (Dialect::Nats, _) => "/",
            (Dialect::Mqtt, _) => "/mqtt",
        }
    }

    pub fn subprotocol(self) -> Option<&'static str> {
        (self == Dialect::Mqtt).then_some("mqtt")
    }

    /// What one says first.
    pub fn opening(self, subscribes: bool) -> Vec<Payload> {
        match (self, subscribes) {
            (Dialect::Fanfare | Dialect::Plain | Dialect::Nchan, _) => Vec::new(),
            (Dialect::SocketIo, _) => vec![Payload::Text("40".into())],
            (Dialect::Nats, subscribes) => {
                let mut text = "CONNECT {\"verbose\":false}\r\n".to_string();
                if subscribes {
                    text.push_str("SUB bench 1\r\n");
                }
                vec![Payload::Binary(text.into())]
            }
            (Dialect::Mqtt, subscribes) => {
                // No name, a clean session, no keep-alive; then one filter at most once.
                let connect = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00".to_vec();
                let subscribe = b"\x82\x0a\x00\x01\x00\x05bench\x00".to_vec();
                let opening = if subscribes { vec![connect, subscribe] } else { vec![connect] };
                opening.into_iter().map(Payload::Binary).collect()
            }
        }
    }

    /// The frame that publishes a message with so many bytes of data.
    pub fn message(self, bytes: usize) -> Payload {
        let data = |less: usize| format!("@{}", "x".repeat(bytes.saturating_sub(less + 1)));
        match self {
            Dialect::Fanfare => Payload::Text(format!(r#"{{"pub":"bench","data":"{}"}}"#, data(2))),
            Dialect::Plain | Dialect::Nchan => Payload::Text(data(0)),
            Dialect::SocketIo => Payload::Text(format!(r#"42["bench","{}"]"#, data(2))),
            Dialect::Nats => Payload::Binary(format!("PUB bench {bytes}\r\n{}\r\n", data(0)).into()),
            Dialect::Mqtt => {
                let (mut packet, mut rest) = (vec![0x30], bytes + 7);
                while rest >= 0x80 {
                    packet.push((rest & 0x7f) as u8 | 0x80);
                    rest >>= 7;
                }
                packet.push(rest as u8);
                packet.extend(b"\x00\x05bench");
                packet.extend(data(0).into_bytes());
                Payload::Binary(packet)
            }
        }
    }
}

impl Payload {
    /// As a client sends it; the mask is all zeros, which every server takes.
    pub fn framed(&self) -> Vec<u8> {
        let (first, bytes) = match self {
            Payload::Text(text) => (0x81, text.as_bytes()),
            Payload::Binary(bytes) => (0x82, &bytes[..]),
        };
        let mut frame = vec![first];
        match bytes.len() {
            short @ 0..126 => frame.push(0x80 | short as u8),
            middle @ 126..65_536 => frame.extend([&[0xfe][..], &(middle as u16).to_be_bytes()].concat()),
            long => frame.extend([&[0xff][..], &(long as u64).to_be_bytes()].concat()),
        }
        frame.extend([0; 4]);
        frame.extend(bytes);
        frame
    }
}
