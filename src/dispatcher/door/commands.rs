//! What each command of the door means: arguments in, an answer out, or something to add to the queue. No socket and no
//! store here; texts and order of checks are those of Redis 7 wherever Redis would refuse too.

use bytes::Bytes;

use super::answers;
use super::resp::Reply;

/// The keys that publishers write to here.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub stream: String,
    pub list: String,
}

/// What a command comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Reply(Reply),
    /// One entry of the stream; answered with its id.
    Add(Fields),
    /// Elements of the list; answered with their number.
    Push(Vec<Bytes>),
    StreamLength,
    /// Everything that was pushed and answered has been applied, so what waits in the list is nothing.
    ListLength,
    Multi,
    Exec,
    Discard,
    Hello(Vec<Bytes>),
    Client(Vec<Bytes>),
    Reset,
    Quit,
}

pub(super) type Fields = Vec<(Bytes, Bytes)>;

/// The commands: name, and the number of arguments with the name; negative: at least so many.
pub(super) const COMMANDS: [(&str, i64); 20] = [
    ("ping", -1),
    ("echo", 2),
    ("hello", -1),
    ("auth", -2),
    ("select", 2),
    ("client", -2),
    ("command", -1),
    ("info", -1),
    ("config", -2),
    ("multi", 1),
    ("exec", 1),
    ("discard", 1),
    ("xadd", -5),
    ("rpush", -3),
    ("xlen", 2),
    ("llen", 2),
    ("reset", 1),
    ("quit", -1),
    ("publish", 3),
    ("lpush", -3),
];

/// The name of a command, if it is one of the door's and has as many arguments as it needs.
pub(super) fn check(args: &[Bytes]) -> Result<&'static str, Reply> {
    let name = String::from_utf8_lossy(&args[0]).to_ascii_lowercase();
    let Some((known, arity)) = COMMANDS.iter().find(|(known, _)| *known == name) else {
        return Err(unknown(args));
    };
    let count = args.len() as i64;
    if (*arity >= 0 && count != *arity) || count < -*arity {
        return Err(wrong_number(known));
    }
    Ok(known)
}

/// What a command says; its name is known to be right.
pub(super) fn read(name: &'static str, mut args: Vec<Bytes>, names: &Names) -> Meaning {
    use Meaning::*;
    match name {
        "ping" => Reply(match args.len() {
            1 => self::Reply::Simple("PONG"),
            2 => self::Reply::Bulk(args.swap_remove(1)),
            _ => wrong_number(name),
        }),
        "echo" => Reply(self::Reply::Bulk(args.swap_remove(1))),
        "select" => Reply(match args[1].as_ref() {
            b"0" => self::Reply::OK,
            other if std::str::from_utf8(other).is_ok_and(|t| t.parse::<i32>().is_ok()) => {
                self::Reply::error("ERR DB index is out of range")
            }
            _ => self::Reply::error("ERR value is not an integer or out of range"),
        }),
        "auth" => Reply(auth(&args[1..])),
        "command" => Reply(answers::command(&args)),
        "info" => Reply(answers::info(&args[1..])),
        "config" => Reply(answers::config(&args)),
        "hello" => Hello(args),
        "client" => Client(args),
        "multi" => Multi,
        "exec" => Exec,
        "discard" => Discard,
        "reset" => Reset,
        "quit" => Quit,
        "xadd" => add(args, names).map_or_else(Reply, Add),
        "rpush" => push(args, names).map_or_else(Reply, Push),
        "xlen" if args[1] == names.stream => StreamLength,
        "llen" if args[1] == names.list => ListLength,
        // An emptied list is no key at all.
        "xlen" if args[1] == names.list => Reply(self::Reply::Integer(0)),
        "llen" if args[1] == names.stream => Reply(wrong_type()),
        "xlen" => Reply(other_key(&args[1], &names.stream, "--ingest-stream", "XADD")),
        "llen" => Reply(other_key(&args[1], &names.list, "--ingest-list", "RPUSH")),
        "publish" => Reply(self::Reply::Error(format!(
            "ERR nothing would keep what PUBLISH sends; publish with XADD {} * topic {} data <json>, or RPUSH {} <json>",
            names.stream,
            answers::shown(&args[1]),
            names.list
        ))),
        "lpush" => {
            Reply(self::Reply::Error(format!("ERR LPUSH would turn the order round; use RPUSH {} <json>", names.list)))
        }
        _ => Reply(unknown(&args)),
    }
}

/// `XADD key [NOMKSTREAM] [MAXLEN|MINID [=|~] threshold [LIMIT count]] *|id field value [field value ...]`
fn add(args: Vec<Bytes>, names: &Names) -> Result<Fields, Reply> {
    let mut at = 2;
    let (mut trimming, mut roughly, mut limited) = (false, false, false);
    loop {
        let Some(option) = args.get(at) else { return Err(wrong_number("xadd")) };
        let more = at + 1 < args.len();
        if option.as_ref() == b"*" {
            break;
        } else if option.eq_ignore_ascii_case(b"nomkstream") {
            at += 1;
        } else if more && (option.eq_ignore_ascii_case(b"maxlen") || option.eq_ignore_ascii_case(b"minid")) {
            if trimming {
                return Err(Reply::error(
                    "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
                ));
            }
            trimming = true;
            at += 1;
            if args.len() > at + 1 && (args[at].as_ref() == b"~" || args[at].as_ref() == b"=") {
                roughly = args[at].as_ref() == b"~";
                at += 1;
            }
            let threshold = std::str::from_utf8(&args[at]).unwrap_or_default();
            if option.eq_ignore_ascii_case(b"maxlen") {
                match threshold.parse::<i64>() {
                    Err(_) => return Err(Reply::error("ERR value is not an integer or out of range")),
                    Ok(n) if n < 0 => return Err(Reply::error("ERR The MAXLEN argument must be >= 0.")),
                    Ok(_) => {}
                }
            } else if !is_id(threshold) {
                return Err(bad_id());
            }
            at += 1;
        } else if more && option.eq_ignore_ascii_case(b"limit") {
            let count = std::str::from_utf8(&args[at + 1]).ok().and_then(|text| text.parse::<i64>().ok());
            match count {
                None => return Err(Reply::error("ERR value is not an integer or out of range")),
                Some(n) if n < 0 => return Err(Reply::error("ERR The LIMIT argument must be >= 0.")),
                Some(_) => (limited, at) = (true, at + 2),
            }
        } else {
            break;
        }
    }
    if limited && !roughly {
        return Err(if trimming {
            Reply::error("ERR syntax error, LIMIT cannot be used without the special ~ option")
        } else {
            Reply::error("ERR syntax error, LIMIT cannot be used without a trimming strategy")
        });
    }
    let id = &args[at];
    let fields = &args[at + 1..];
    if id.as_ref() != b"*" && !is_id(std::str::from_utf8(id).unwrap_or_default()) {
        return Err(bad_id());
    }
    if fields.len() < 2 || !fields.len().is_multiple_of(2) {
        return Err(wrong_number("xadd"));
    }
    if id.as_ref() != b"*" {
        let text = format!("ERR this hub gives the ids: write * in place of {}", answers::shown(id));
        return Err(Reply::Error(text));
    }
    if args[1] == names.list {
        return Err(wrong_type());
    }
    if args[1] != names.stream {
        return Err(other_key(&args[1], &names.stream, "--ingest-stream", "XADD"));
    }
    Ok(fields.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
}

fn push(mut args: Vec<Bytes>, names: &Names) -> Result<Vec<Bytes>, Reply> {
    if args[1] == names.stream {
        return Err(wrong_type());
    }
    if args[1] != names.list {
        return Err(other_key(&args[1], &names.list, "--ingest-list", "RPUSH"));
    }
    Ok(args.split_off(2))
}

fn auth(args: &[Bytes]) -> Reply {
    match args {
        [_] => Reply::error(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?",
        ),
        [user, _] => sign_in(user),
        _ => Reply::error("ERR syntax error"),
    }
}

/// The one user there is has no password, so any will do.
pub(super) fn sign_in(user: &[u8]) -> Reply {
    if user == b"default" {
        Reply::OK
    } else {
        Reply::error("WRONGPASS invalid username-password pair or user is disabled.")
    }
}

pub(super) fn wrong_number(name: &str) -> Reply {
    Reply::Error(format!("ERR wrong number of arguments for '{name}' command"))
}

fn wrong_type() -> Reply {
    Reply::error("WRONGTYPE Operation against a key holding the wrong kind of value")
}

fn bad_id() -> Reply {
    Reply::error("ERR Invalid stream ID specified as stream command argument")
}

fn is_id(text: &str) -> bool {
    let (ms, seq) = text.split_once('-').unwrap_or((text, "0"));
    ms.parse::<u64>().is_ok() && (seq == "*" || seq.parse::<u64>().is_ok())
}

fn other_key(key: &[u8], ours: &str, setting: &str, verb: &str) -> Reply {
    let key = answers::shown(key);
    let java = if key.starts_with("\\xac\\xed") {
        "; that key was serialised by Java: use StringRedisTemplate"
    } else if key.ends_with(ours) {
        "; a framework put a prefix before it: take that away (in Laravel, REDIS_PREFIX=)"
    } else {
        ""
    };
    Reply::Error(format!(
        "ERR {verb} is taken for the key {ours} only, not {key}{java}; or start the hub with {setting} {key}"
    ))
}

fn unknown(args: &[Bytes]) -> Reply {
    let mut shown = String::new();
    for arg in &args[1..] {
        let Some(room) = 128usize.checked_sub(shown.len()).filter(|room| *room > 0) else { break };
        let text = String::from_utf8_lossy(arg);
        shown.push('\'');
        shown.extend(text.chars().take(room));
        shown.push_str("' ");
    }
    let name: String = String::from_utf8_lossy(&args[0]).chars().take(128).collect();
    Reply::Error(format!("ERR unknown command '{name}', with args beginning with: {shown}"))
}
