//! One client's state: the version it speaks, its name, and the commands that wait for EXEC. Sans I/O: commands go in,
//! slots come out, each of which becomes one reply, in order.

use std::mem::take;

use bytes::Bytes;

use super::answers;
use super::commands::{self, Fields, Meaning, Names};
use super::resp::{Reply, Version};

#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Commands between MULTI and EXEC, and their bytes.
    pub queued: usize,
    pub queued_bytes: usize,
}

pub(super) struct Session {
    names: Names,
    bounds: Bounds,
    pub version: Version,
    id: i64,
    name: Bytes,
    queue: Option<Queue>,
}

#[derive(Default)]
struct Queue {
    commands: Vec<(&'static str, Vec<Bytes>)>,
    bytes: usize,
    spoiled: bool,
}

/// What will be one reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Reply(Reply),
    Add(Fields),
    Push(Vec<Bytes>),
    StreamLength,
    ListLength,
    Exec(Vec<Slot>),
    /// The last one: after it the connection is closed.
    Quit,
}

impl Session {
    pub fn new(names: Names, bounds: Bounds, id: i64) -> Session {
        Session { names, bounds, version: Version::Resp2, id, name: Bytes::new(), queue: None }
    }

    pub fn on_command(&mut self, args: Vec<Bytes>) -> Slot {
        let name = match commands::check(&args) {
            Ok(name) => name,
            Err(refusal) => {
                self.spoil();
                return Slot::Reply(refusal);
            }
        };
        match (name, &mut self.queue) {
            ("exec" | "discard" | "multi" | "quit" | "reset", _) | (_, None) => {}
            (_, Some(queue)) => {
                let bytes: usize = args.iter().map(Bytes::len).sum();
                if queue.commands.len() >= self.bounds.queued || queue.bytes + bytes > self.bounds.queued_bytes {
                    queue.spoiled = true;
                    let Bounds { queued, queued_bytes } = self.bounds;
                    let text = format!(
                        "ERR too many commands since MULTI: at most {queued} and {queued_bytes} bytes are taken; use several"
                    );
                    return Slot::Reply(Reply::Error(text));
                }
                queue.bytes += bytes;
                queue.commands.push((name, args));
                return Slot::Reply(Reply::Simple("QUEUED"));
            }
        }
        self.run(name, args)
    }

    /// A command that could not be read: what is queued cannot be run as it was meant.
    pub fn on_too_large(&mut self, text: String) -> Slot {
        self.spoil();
        Slot::Reply(Reply::Error(format!("ERR too-large: {text}")))
    }

    fn spoil(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.spoiled = true;
        }
    }

    fn run(&mut self, name: &'static str, args: Vec<Bytes>) -> Slot {
        match commands::read(name, args, &self.names) {
            Meaning::Reply(reply) => Slot::Reply(reply),
            Meaning::Add(fields) => Slot::Add(fields),
            Meaning::Push(elements) => Slot::Push(elements),
            Meaning::StreamLength => Slot::StreamLength,
            Meaning::ListLength => Slot::ListLength,
            Meaning::Quit => Slot::Quit,
            Meaning::Hello(args) => Slot::Reply(self.hello(&args)),
            Meaning::Client(args) => Slot::Reply(self.client(&args)),
            Meaning::Reset => {
                (self.version, self.name, self.queue) = (Version::Resp2, Bytes::new(), None);
                Slot::Reply(Reply::Simple("RESET"))
            }
            Meaning::Multi if self.queue.is_some() => Slot::Reply(Reply::error("ERR MULTI calls can not be nested")),
            Meaning::Multi => {
                self.queue = Some(Queue::default());
                Slot::Reply(Reply::OK)
            }
            Meaning::Discard => Slot::Reply(match take(&mut self.queue) {
                Some(_) => Reply::OK,
                None => Reply::error("ERR DISCARD without MULTI"),
            }),
            Meaning::Exec => match take(&mut self.queue) {
                None => Slot::Reply(Reply::error("ERR EXEC without MULTI")),
                Some(queue) if queue.spoiled => {
                    Slot::Reply(Reply::error("EXECABORT Transaction discarded because of previous errors."))
                }
                Some(queue) => {
                    Slot::Exec(queue.commands.into_iter().map(|(name, args)| self.run(name, args)).collect())
                }
            },
        }
    }

    /// `HELLO [protover [AUTH user password] [SETNAME name]]`
    fn hello(&mut self, args: &[Bytes]) -> Reply {
        let mut version = self.version;
        if let Some(wanted) = args.get(1) {
            version = match std::str::from_utf8(wanted).ok().and_then(|text| text.parse::<i64>().ok()) {
                None => return Reply::error("ERR Protocol version is not an integer or out of range"),
                Some(2) => Version::Resp2,
                Some(3) => Version::Resp3,
                Some(_) => return Reply::error("NOPROTO unsupported protocol version"),
            };
        }
        let mut name = None;
        let mut at = 2;
        while at < args.len() {
            let more = args.len() - at - 1;
            if args[at].eq_ignore_ascii_case(b"auth") && more >= 2 {
                match commands::sign_in(&args[at + 1]) {
                    Reply::OK => at += 3,
                    refusal => return refusal,
                }
            } else if args[at].eq_ignore_ascii_case(b"setname") && more >= 1 {
                if !is_client_name(&args[at + 1]) {
                    return bad_client_name();
                }
                name = Some(args[at + 1].clone());
                at += 2;
            } else {
                let text = format!("ERR Syntax error in HELLO option '{}'", answers::shown(&args[at]));
                return Reply::Error(text);
            }
        }
        self.version = version;
        self.name = name.unwrap_or(take(&mut self.name));
        let proto = if version == Version::Resp3 { 3 } else { 2 };
        Reply::Map(vec![
            (Reply::bulk("server"), Reply::bulk("redis")),
            (Reply::bulk("version"), Reply::bulk(answers::REDIS_VERSION)),
            (Reply::bulk("proto"), Reply::Integer(proto)),
            (Reply::bulk("id"), Reply::Integer(self.id)),
            (Reply::bulk("mode"), Reply::bulk("standalone")),
            (Reply::bulk("role"), Reply::bulk("master")),
            (Reply::bulk("modules"), Reply::Array(Vec::new())),
        ])
    }

    fn client(&mut self, args: &[Bytes]) -> Reply {
        let sub = args[1].to_ascii_lowercase();
        match (sub.as_slice(), &args[2..]) {
            (b"setname", [name]) if is_client_name(name) => {
                self.name = name.clone();
                Reply::OK
            }
            (b"setname", [_]) => bad_client_name(),
            (b"getname", []) if self.name.is_empty() => Reply::Null,
            (b"getname", []) => Reply::Bulk(self.name.clone()),
            (b"id", []) => Reply::Integer(self.id),
            (b"setinfo", [_, _]) => Reply::OK,
            (b"no-evict" | b"no-touch", [switch]) => match switch.to_ascii_lowercase().as_slice() {
                b"on" | b"off" => Reply::OK,
                _ => Reply::error("ERR syntax error"),
            },
            (b"tracking", [switch]) if switch.eq_ignore_ascii_case(b"off") => Reply::OK,
            (b"reply", [switch]) if switch.eq_ignore_ascii_case(b"on") => Reply::OK,
            (b"reply", [_]) => Reply::error("ERR every command is answered here; read the replies"),
            (b"info" | b"list", []) => {
                let proto = if self.version == Version::Resp3 { 3 } else { 2 };
                let name = answers::shown(&self.name);
                Reply::bulk(format!("id={} name={name} db=0 resp={proto} user=default\n", self.id))
            }
            (b"setname" | b"getname" | b"id" | b"setinfo" | b"no-evict" | b"no-touch", _) => {
                commands::wrong_number(&format!("client|{}", answers::shown(&sub)))
            }
            _ => answers::unknown_sub("CLIENT", &args[1]),
        }
    }
}

fn is_client_name(name: &[u8]) -> bool {
    name.iter().all(|b| (b'!'..=b'~').contains(b))
}

fn bad_client_name() -> Reply {
    Reply::error("ERR Client names cannot contain spaces, newlines or special characters.")
}
