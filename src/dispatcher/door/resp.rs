//! The framing of Redis' protocol: commands out of bytes, within bounds, and replies into bytes.
//!
//! Only arrays of bulk strings are commands. A command that is too large is read past and answered, so that its
//! connection can go on; what is no command at all ends the connection.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use redis_protocol::resp2::decode::decode_bytes;
use redis_protocol::resp2::encode::extend_encode as encode_resp2;
use redis_protocol::resp2::types::BytesFrame as Frame;
use redis_protocol::resp3::encode::complete::extend_encode as encode_resp3;
use redis_protocol::resp3::types::BytesFrame as Frame3;

/// The digits of a length and what stands around them.
const MOST_HEADER: usize = 24;

/// The longest of all bulk strings, as Redis has it.
const MOST_BULK: usize = 512 * 1024 * 1024;

#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub arguments: usize,
    pub argument: usize,
    pub command: usize,
    /// How much of a command that is too large is read past.
    pub skipped: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    Command(Vec<Bytes>),
    /// A command that was too large, read past.
    TooLarge(String),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Bad {
    /// Not an array: an inline command, HTTP, anything.
    #[error("not an array of Redis' protocol")]
    Foreign,
    #[error("Protocol error: {0}")]
    Protocol(String),
}

/// Finds the end of the first command; goes on where it stopped when more bytes have come.
pub(super) struct Reader {
    bounds: Bounds,
    /// Bytes of the command that were looked at.
    seen: usize,
    /// Arguments that still come; `None` before the first header.
    left: Option<usize>,
    /// Bytes of the argument that is being read, with its line end.
    bulk: Option<usize>,
    too_large: Option<String>,
    /// Bytes of it that were thrown away.
    skipped: usize,
}

impl Reader {
    pub fn new(bounds: Bounds) -> Reader {
        Reader { bounds, seen: 0, left: None, bulk: None, too_large: None, skipped: 0 }
    }

    /// Whether a command has begun and not ended.
    pub fn is_within(&self) -> bool {
        self.seen > 0 || self.skipped > 0 || self.left.is_some()
    }

    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Read>, Bad> {
        while !self.find_end(buffer)? {
            if self.too_large.is_none() {
                return Ok(None);
            }
            self.skip(buffer)?;
            if buffer.is_empty() {
                return Ok(None);
            }
            if self.seen == 0 && !self.could_go_on(buffer) {
                return Ok(None);
            }
        }
        let seen = std::mem::take(&mut self.seen);
        let command = buffer.split_to(seen).freeze();
        self.left = None;
        self.skipped = 0;
        if let Some(text) = self.too_large.take() {
            return Ok(Some(Read::TooLarge(text)));
        }
        let wrong = || Bad::Protocol("this command cannot be read".to_owned());
        match decode_bytes(&command) {
            Ok(Some((Frame::Array(parts), _))) => {
                let part = |frame| match frame {
                    Frame::BulkString(bytes) => Some(bytes),
                    _ => None,
                };
                parts
                    .into_iter()
                    .map(part)
                    .collect::<Option<_>>()
                    .map(|args| Some(Read::Command(args)))
                    .ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }

    /// Looks on from `seen`; `true` when the command is whole.
    fn find_end(&mut self, buffer: &mut BytesMut) -> Result<bool, Bad> {
        loop {
            if let Some(bulk) = self.bulk {
                if buffer.len() < self.seen + bulk {
                    return Ok(false);
                }
                self.seen += bulk;
                if &buffer[self.seen - 2..self.seen] != b"\r\n" {
                    return Err(Bad::Protocol("a bulk string is longer than it says".to_owned()));
                }
                self.bulk = None;
                continue;
            }
            match self.left {
                None => {
                    let Some(&first) = buffer.first() else { return Ok(false) };
                    if first != b'*' {
                        return Err(Bad::Foreign);
                    }
                    let Some(count) = self.header(buffer, "multibulk", "mbulk")? else { return Ok(false) };
                    if count <= 0 {
                        // Redis passes over empty commands.
                        buffer.advance(std::mem::take(&mut self.seen));
                        continue;
                    }
                    let count = count as usize;
                    if count > self.bounds.arguments {
                        let most = self.bounds.arguments;
                        self.refuse(format!("this command has {count} arguments, at most {most} are taken"));
                    }
                    self.left = Some(count);
                }
                Some(0) => return Ok(true),
                Some(left) => {
                    let Some(&first) = buffer.get(self.seen) else { return Ok(false) };
                    if first != b'$' {
                        return Err(Bad::Protocol(format!("expected '$', got '{}'", first.escape_ascii())));
                    }
                    let Some(length) = self.header(buffer, "bulk", "bulk")? else { return Ok(false) };
                    let length = usize::try_from(length).ok().filter(|l| *l <= MOST_BULK);
                    let length = length.ok_or_else(|| Bad::Protocol("invalid bulk length".to_owned()))?;
                    if length > self.bounds.argument {
                        let most = self.bounds.argument;
                        self.refuse(format!("an argument has {length} bytes, at most {most} are taken"));
                    } else if self.seen + length > self.bounds.command {
                        let most = self.bounds.command;
                        self.refuse(format!("this command has more than {most} bytes; send several"));
                    }
                    self.bulk = Some(length + 2);
                    self.left = Some(left - 1);
                }
            }
        }
    }

    fn refuse(&mut self, text: String) {
        self.too_large.get_or_insert(text);
    }

    /// A length after its mark, at `seen`.
    fn header(&mut self, buffer: &[u8], what: &str, short: &str) -> Result<Option<i64>, Bad> {
        let rest = &buffer[self.seen + 1..];
        let Some(end) = rest.iter().take(MOST_HEADER).position(|b| *b == b'\n') else {
            if rest.len() >= MOST_HEADER {
                return Err(Bad::Protocol(format!("too big {short} count string")));
            }
            return Ok(None);
        };
        let digits = rest[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok());
        let plain = |text: &&str| !(text.starts_with('+') || text.len() > 1 && text.starts_with('0'));
        let number = digits.filter(plain).and_then(|text| text.parse::<i64>().ok());
        let number = number.filter(|n| *n <= 1024 * 1024 || what == "bulk");
        let number = number.ok_or_else(|| Bad::Protocol(format!("invalid {what} length")))?;
        self.seen += 1 + end + 1;
        Ok(Some(number))
    }

    /// Throws away what was looked at of a command that is too large.
    fn skip(&mut self, buffer: &mut BytesMut) -> Result<(), Bad> {
        let mut gone = std::mem::take(&mut self.seen);
        buffer.advance(gone);
        if let Some(bulk) = self.bulk {
            // All but its end, which is still to be checked.
            let part = buffer.len().min(bulk.saturating_sub(2));
            buffer.advance(part);
            gone += part;
            self.bulk = Some(bulk - part);
        }
        self.skipped += gone;
        if self.skipped > self.bounds.skipped {
            let text = self.too_large.as_deref().unwrap_or_default();
            return Err(Bad::Protocol(format!("{text}; far more than that")));
        }
        Ok(())
    }

    fn could_go_on(&self, buffer: &[u8]) -> bool {
        match self.bulk {
            Some(bulk) => buffer.len() >= bulk,
            None => buffer.contains(&b'\n') || buffer.len() >= MOST_HEADER,
        }
    }
}

/// What is answered, in either version of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Simple(&'static str),
    Error(String),
    Integer(i64),
    Bulk(Bytes),
    Null,
    Array(Vec<Reply>),
    /// In version 2 an array of names and values.
    Map(Vec<(Reply, Reply)>),
}

/// The version that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Resp2,
    Resp3,
}

impl Reply {
    pub const OK: Reply = Reply::Simple("OK");

    pub fn error(text: impl Into<String>) -> Reply {
        Reply::Error(text.into())
    }

    pub fn bulk(text: impl Into<String>) -> Reply {
        Reply::Bulk(Bytes::from(text.into()))
    }

    pub fn write(self, version: Version, out: &mut BytesMut) {
        let head = |out: &mut BytesMut, mark: u8, count: usize| {
            out.put_u8(mark);
            out.put_slice(format!("{count}\r\n").as_bytes());
        };
        match self {
            Reply::Array(items) => {
                head(out, b'*', items.len());
                items.into_iter().for_each(|item| item.write(version, out));
            }
            Reply::Map(items) => {
                match version {
                    Version::Resp2 => head(out, b'*', items.len() * 2),
                    Version::Resp3 => head(out, b'%', items.len()),
                }
                for (name, value) in items {
                    name.write(version, out);
                    value.write(version, out);
                }
            }
            flat => {
                let frame = match flat {
                    Reply::Simple(text) => Frame::SimpleString(Bytes::from_static(text.as_bytes())),
                    Reply::Error(text) => Frame::Error(one_line(text).into()),
                    Reply::Integer(number) => Frame::Integer(number),
                    Reply::Bulk(bytes) => Frame::BulkString(bytes),
                    _ => Frame::Null,
                };
                let written = match (version, frame) {
                    (Version::Resp3, Frame::Null) => encode_resp3(out, &Frame3::Null, false),
                    (_, frame) => encode_resp2(out, &frame, false),
                };
                debug_assert!(written.is_ok(), "the buffer grows");
            }
        }
    }
}

/// An error is one line, whatever a client's bytes put into it.
fn one_line(text: String) -> String {
    if text.contains(['\r', '\n']) { text.replace(['\r', '\n'], " ") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { arguments: 8, argument: 32, command: 100, skipped: 1_000 };

    fn read_all(bytes: &[u8], piece: usize) -> (Vec<Read>, Option<Bad>, bool) {
        let (mut reader, mut buffer, mut found) = (Reader::new(BOUNDS), BytesMut::new(), Vec::new());
        for part in bytes.chunks(piece.max(1)) {
            buffer.extend_from_slice(part);
            loop {
                match reader.next(&mut buffer) {
                    Ok(Some(read)) => found.push(read),
                    Ok(None) => break,
                    Err(bad) => return (found, Some(bad), reader.is_within()),
                }
            }
        }
        (found, None, reader.is_within())
    }

    fn command(args: &[&'static str]) -> Read {
        Read::Command(args.iter().map(|a| Bytes::from_static(a.as_bytes())).collect())
    }

    #[test]
    fn commands_come_out_whole_however_their_bytes_arrive() {
        let bytes = b"*1\r\n$4\r\nPING\r\n*0\r\n*-1\r\n*2\r\n$4\r\nECHO\r\n$0\r\n\r\n*1\r\n$4\r\nPI";
        for piece in 1..bytes.len() {
            let (found, bad, within) = read_all(bytes, piece);
            assert_eq!((found, bad), (vec![command(&["PING"]), command(&["ECHO", ""])], None), "{piece}");
            assert!(within);
        }
    }

    #[test]
    fn what_is_too_large_is_read_past() {
        let many = format!("*9\r\n{}", "$1\r\nx\r\n".repeat(9));
        let long = format!("*2\r\n$4\r\nECHO\r\n$40\r\n{}\r\n", "x".repeat(40));
        let whole = format!("*6\r\n{}", format!("$30\r\n{}\r\n", "x".repeat(30)).repeat(6));
        for (text, shows) in [(many, "9 arguments"), (long, "40 bytes"), (whole, "more than 100")] {
            let bytes = format!("{text}*1\r\n$4\r\nPING\r\n");
            for piece in [1, 2, 3, 7, 31, bytes.len()] {
                let (found, bad, within) = read_all(bytes.as_bytes(), piece);
                assert_eq!(bad, None, "{piece} {text}");
                let [Read::TooLarge(said), ping] = &found[..] else { panic!("{piece} {found:?}") };
                assert!(said.contains(shows) && *ping == command(&["PING"]) && !within, "{said}");
            }
        }
        let endless = format!("*1\r\n$100000\r\n{}", "x".repeat(2_000));
        assert!(matches!(read_all(endless.as_bytes(), 64).1, Some(Bad::Protocol(_))));
    }

    #[test]
    fn what_is_no_command_ends_the_connection_as_redis_says_it() {
        for (bytes, error) in [
            (&b"PING\r\n"[..], "not an array of Redis' protocol"),
            (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", "not an array of Redis' protocol"),
            (b"\r\n", "not an array of Redis' protocol"),
            (b"\x16\x03\x01", "not an array of Redis' protocol"),
            (b"*x\r\n", "Protocol error: invalid multibulk length"),
            (b"*+1\r\n", "Protocol error: invalid multibulk length"),
            (b"*01\r\n", "Protocol error: invalid multibulk length"),
            (b"*1 \r\n", "Protocol error: invalid multibulk length"),
            (b"*99999999999\r\n", "Protocol error: invalid multibulk length"),
            (b"*1\n$4\r\nPING\r\n", "Protocol error: invalid multibulk length"),
            (b"*1\r\n:4\r\n", "Protocol error: expected '$', got ':'"),
            (b"*1\r\n*1\r\n$1\r\nx\r\n", "Protocol error: expected '$', got '*'"),
            (b"*1\r\n+PING\r\n", "Protocol error: expected '$', got '+'"),
            (b"*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
            (b"*1\r\n$x\r\n", "Protocol error: invalid bulk length"),
            (b"*1\r\n$\r\n", "Protocol error: invalid bulk length"),
            (b"*1\r\n$99999999999\r\n", "Protocol error: invalid bulk length"),
            (b"*1\r\n$3\r\nPING\r\n", "Protocol error: a bulk string is longer than it says"),
            (b"*1111111111111111111111111111", "Protocol error: too big mbulk count string"),
            (b"*1\r\n$1111111111111111111111111111", "Protocol error: too big bulk count string"),
        ] {
            let (found, bad, _) = read_all(bytes, 5);
            assert_eq!(found, [], "{}", bytes.escape_ascii());
            assert_eq!(bad.map(|b| b.to_string()).as_deref(), Some(error), "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_alike_in_any_pieces(bytes: Vec<u8>, piece in 1usize..9) {
            let (whole, bad, _) = read_all(&bytes, usize::MAX);
            let pieces = read_all(&bytes, piece);
            prop_assert_eq!((whole, bad), (pieces.0, pieces.1));
        }

        #[test]
        fn almost_commands_too(text in "(\\*[0-3]\r\n|\\$[0-9]{1,2}\r\n|x{0,9}\r\n){0,12}", piece in 1usize..9) {
            let (whole, bad, _) = read_all(text.as_bytes(), usize::MAX);
            let pieces = read_all(text.as_bytes(), piece);
            prop_assert_eq!((whole, bad), (pieces.0, pieces.1));
        }
    }

    #[test]
    fn replies_in_both_versions() {
        let reply = || {
            Reply::Array(vec![
                Reply::OK,
                Reply::Integer(-1),
                Reply::Null,
                Reply::bulk("a\r\nb"),
                Reply::error("ERR two\r\nlines"),
                Reply::Map(vec![(Reply::bulk("k"), Reply::Array(vec![]))]),
            ])
        };
        let written = |version| {
            let mut out = BytesMut::new();
            reply().write(version, &mut out);
            String::from_utf8(out.to_vec()).unwrap()
        };
        let same = "*6\r\n+OK\r\n:-1\r\nNULL$4\r\na\r\nb\r\n-ERR two  lines\r\nMAP$1\r\nk\r\n*0\r\n";
        assert_eq!(written(Version::Resp2), same.replace("NULL", "$-1\r\n").replace("MAP", "*2\r\n"));
        assert_eq!(written(Version::Resp3), same.replace("NULL", "_\r\n").replace("MAP", "%1\r\n"));
    }
}
