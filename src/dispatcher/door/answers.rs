//! What the door tells about itself: the tables behind COMMAND, INFO and CONFIG GET, in the shapes that clients expect.

use bytes::Bytes;

use super::commands::{COMMANDS, wrong_number};
use super::resp::Reply;

/// The version of Redis whose behaviour the door has.
pub(super) const REDIS_VERSION: &str = "7.0.15";

/// Settings that clients and frameworks ask for.
const SETTINGS: [(&str, &str); 12] = [
    ("appendonly", "no"),
    ("bind", ""),
    ("databases", "1"),
    ("maxmemory", "0"),
    ("maxmemory-policy", "noeviction"),
    ("notify-keyspace-events", ""),
    ("port", "6380"),
    ("proto-max-bulk-len", "1048576"),
    ("requirepass", ""),
    ("save", ""),
    ("tcp-keepalive", "300"),
    ("timeout", "0"),
];

/// Bytes of a client as a text for an answer, bounded.
pub(super) fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.chars().take(100).collect(),
        _ => bytes[..bytes.len().min(60)].escape_ascii().to_string(),
    }
}

pub(super) fn command(args: &[Bytes]) -> Reply {
    let Some(sub) = args.get(1) else { return Reply::Array(all().map(describe).collect()) };
    match sub.to_ascii_lowercase().as_slice() {
        b"count" if args.len() == 2 => Reply::Integer(all().count() as i64),
        b"list" if args.len() == 2 => Reply::Array(all().map(|(name, _)| Reply::bulk(name)).collect()),
        b"info" if args.len() == 2 => Reply::Array(all().map(describe).collect()),
        b"info" => {
            let known = |wanted: &Bytes| all().find(|(name, _)| wanted.eq_ignore_ascii_case(name.as_bytes()));
            Reply::Array(args[2..].iter().map(|wanted| known(wanted).map_or(Reply::Null, describe)).collect())
        }
        b"docs" => {
            let wanted =
                |name: &str| args.len() == 2 || args[2..].iter().any(|a| a.eq_ignore_ascii_case(name.as_bytes()));
            Reply::Map(
                all().filter(|(name, _)| wanted(name)).map(|(name, _)| (Reply::bulk(name), docs(name))).collect(),
            )
        }
        b"count" | b"list" => wrong_number(&format!("command|{}", shown(sub).to_lowercase())),
        _ => unknown_sub("COMMAND", sub),
    }
}

/// All that are served; the two that only answer how to do it right are not told.
fn all() -> impl Iterator<Item = (&'static str, i64)> {
    COMMANDS.into_iter().filter(|(name, _)| !matches!(*name, "publish" | "lpush"))
}

fn describe((name, arity): (&'static str, i64)) -> Reply {
    let (flags, key): (&[&'static str], i64) = match name {
        "xadd" | "rpush" => (&["write", "denyoom", "fast"], 1),
        "xlen" | "llen" => (&["readonly", "fast"], 1),
        _ => (&["fast", "loading", "stale"], 0),
    };
    let none = || Reply::Array(Vec::new());
    Reply::Array(vec![
        Reply::bulk(name),
        Reply::Integer(arity),
        Reply::Array(flags.iter().map(|flag| Reply::Simple(flag)).collect()),
        Reply::Integer(key),
        Reply::Integer(key),
        Reply::Integer(key),
        none(),
        none(),
        none(),
        none(),
    ])
}

fn docs(name: &str) -> Reply {
    let group = match name {
        "xadd" | "xlen" => "stream",
        "rpush" | "llen" => "list",
        "multi" | "exec" | "discard" => "transactions",
        "config" | "command" | "info" => "server",
        _ => "connection",
    };
    Reply::Map(vec![(Reply::bulk("group"), Reply::bulk(group))])
}

/// A section is asked for by name; none, `all`, `default` and `everything` ask for all.
pub(super) fn info(sections: &[Bytes]) -> Reply {
    let version = env!("CARGO_PKG_VERSION");
    let all = [
        ("Server", format!("redis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\nfanfare_version:{version}\r\n")),
        ("Clients", "blocked_clients:0\r\n".to_owned()),
        ("Memory", "maxmemory:0\r\nmaxmemory_policy:noeviction\r\n".to_owned()),
        ("Persistence", "loading:0\r\nasync_loading:0\r\n".to_owned()),
        ("Replication", "role:master\r\nconnected_slaves:0\r\n".to_owned()),
        ("Cluster", "cluster_enabled:0\r\n".to_owned()),
        ("Keyspace", String::new()),
    ];
    let every =
        |section: &Bytes| [&b"all"[..], b"default", b"everything"].iter().any(|w| section.eq_ignore_ascii_case(w));
    let wanted = |name: &str| {
        sections.is_empty() || sections.iter().any(|s| every(s) || s.eq_ignore_ascii_case(name.as_bytes()))
    };
    let parts: Vec<String> =
        all.iter().filter(|(name, _)| wanted(name)).map(|(name, text)| format!("# {name}\r\n{text}")).collect();
    Reply::bulk(parts.join("\r\n"))
}

pub(super) fn config(args: &[Bytes]) -> Reply {
    match args[1].to_ascii_lowercase().as_slice() {
        b"get" if args.len() >= 3 => {
            let wanted =
                |name: &str| args[2..].iter().any(|pattern| matches(&pattern.to_ascii_lowercase(), name.as_bytes()));
            let found = SETTINGS.iter().filter(|(name, _)| wanted(name));
            Reply::Map(found.map(|(name, value)| (Reply::bulk(*name), Reply::bulk(*value))).collect())
        }
        b"get" => wrong_number("config|get"),
        b"set" | b"rewrite" | b"resetstat" => {
            Reply::error("ERR this is the door of a Fanfare hub: it is configured by the settings of the hub")
        }
        _ => unknown_sub("CONFIG", &args[1]),
    }
}

pub(super) fn unknown_sub(command: &str, sub: &[u8]) -> Reply {
    Reply::Error(format!("ERR unknown subcommand '{}'. Try {command} HELP.", shown(sub)))
}

/// A pattern with `*` and `?`, bounded work: it goes back to the last star only.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            (p, t) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_config_get() {
        for (pattern, text, fits) in [
            ("save", "save", true),
            ("*", "save", true),
            ("max*", "maxmemory-policy", true),
            ("*-*y", "maxmemory-policy", true),
            ("s?ve", "save", true),
            ("s?", "save", false),
            ("", "save", false),
            ("sav", "save", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), fits, "{pattern}");
        }
    }
}
