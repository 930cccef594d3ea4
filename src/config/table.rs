//! The table: every setting once. Arguments, variables, the keys of `fanfare.toml`, `--help` and `docs/config.md` are
//! made of it.

use std::net::SocketAddr;
use std::time::Duration;

use super::Options;
use super::queues::QueueRule;
use super::unit::{Kind, Value};
use crate::domain::access::{Name, Origin};
use crate::domain::binding::Binding;
use crate::domain::schedule::Schedule;
use crate::domain::secret::Secret;
use crate::domain::topic::Rule;
use crate::domain::webhook;
use crate::endpoint::{self, Endpoint};

pub struct Setting {
    /// As in `fanfare.toml`. The flag is `--` with dashes, the variable `FANFARE_` in capitals.
    pub name: &'static str,
    pub section: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    slot: fn(&mut Options) -> Slot<'_>,
}

/// Where a setting lies in the options.
pub enum Slot<'a> {
    Flag(&'a mut bool),
    Usize(&'a mut usize),
    U32(&'a mut u32),
    U64(&'a mut u64),
    Duration(&'a mut Duration),
    Address(&'a mut SocketAddr),
    Optional(&'a mut Option<SocketAddr>),
    Text(&'a mut String),
    List(&'a mut Vec<String>),
    Rules(&'a mut Vec<Rule>),
    Queues(&'a mut Vec<QueueRule>),
    Bindings(&'a mut Vec<Binding>),
    Schedules(&'a mut Vec<Schedule>),
}

impl Setting {
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    pub fn variable(&self) -> String {
        format!("FANFARE_{}", self.name.to_ascii_uppercase())
    }

    /// Puts a value that this setting's kind has read.
    pub fn put(&self, options: &mut Options, value: Value) {
        const FITS: &str = "the bounds of the setting fit its slot";
        match ((self.slot)(options), value) {
            (Slot::Flag(slot), Value::Flag(value)) => *slot = value,
            (Slot::Usize(slot), Value::Number(value)) => *slot = value.try_into().expect(FITS),
            (Slot::U32(slot), Value::Number(value)) => *slot = value.try_into().expect(FITS),
            (Slot::U64(slot), Value::Number(value)) => *slot = value,
            (Slot::Duration(slot), Value::Duration(value)) => *slot = value,
            (Slot::Address(slot), Value::Address(Some(value))) => *slot = value,
            (Slot::Optional(slot), Value::Address(value)) => *slot = value,
            (Slot::Text(slot), Value::Text(value)) => *slot = value,
            (Slot::List(slot), Value::List(value)) => *slot = value,
            (Slot::Rules(slot), Value::Rules(value)) => *slot = value,
            (Slot::Queues(slot), Value::Queues(value)) => *slot = value,
            (Slot::Bindings(slot), Value::Bindings(value)) => *slot = value,
            (Slot::Schedules(slot), Value::Schedules(value)) => *slot = value,
            _ => unreachable!("the kind of {} fits its slot", self.name),
        }
    }

    /// What these options say for it, as text.
    pub fn shown(&self, options: &Options) -> String {
        let mut options = options.clone();
        self.kind.write(&match (self.slot)(&mut options) {
            Slot::Flag(slot) => Value::Flag(*slot),
            Slot::Usize(slot) => Value::Number(*slot as u64),
            Slot::U32(slot) => Value::Number(u64::from(*slot)),
            Slot::U64(slot) => Value::Number(*slot),
            Slot::Duration(slot) => Value::Duration(*slot),
            Slot::Address(slot) => Value::Address(Some(*slot)),
            Slot::Optional(slot) => Value::Address(*slot),
            Slot::Text(slot) => Value::Text(slot.clone()),
            Slot::List(slot) => Value::List(slot.clone()),
            Slot::Rules(slot) => Value::Rules(slot.clone()),
            Slot::Queues(slot) => Value::Queues(slot.clone()),
            Slot::Bindings(slot) => Value::Bindings(slot.clone()),
            Slot::Schedules(slot) => Value::Schedules(slot.clone()),
        })
    }
}

const fn count(least: u64, most: u64) -> Kind {
    Kind::Count { least, most }
}

const fn size(least: u64, most: u64) -> Kind {
    Kind::Size { least, most }
}

const fn seconds(least_ms: u64, most_s: u64) -> Kind {
    Kind::Duration { least: Duration::from_millis(least_ms), most: Duration::from_secs(most_s) }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

const STORE: Kind = Kind::Text {
    takes: "disk, disk:PATH, memory, or a Redis: redis://[USER:PASSWORD@]HOST[:PORT][/DB], unix:/PATH, \
                                                 redis+sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]/MASTER[/DB]",
    check: check_store,
};
const DATA: Kind = Kind::Text { takes: "a path", check: |_| Ok(()) };
const INGEST: Kind = Kind::Text { takes: "auto, door, off, or a Redis as in `store`", check: check_ingest };
const KEY: Kind = Kind::Text { takes: "1 to 64 characters of A-Z a-z 0-9 _ : . -", check: check_key };
const LOG: Kind = Kind::Text {
    takes: "error, warn, info, debug or trace, also by part: info,fanfare::store=debug",
    check: check_log,
};
const SECRET: Kind = Kind::Text {
    takes: "whsec_ and the base64 of 24 to 64 random bytes",
    check: |text| if text.is_empty() { Ok(()) } else { Secret::parse(text).map(drop) },
};
const ORIGINS: Kind = Kind::List {
    takes: "origins joined by commas, each scheme://host[:port] exactly; null; * for every site",
    check: |text| if matches!(text, "*" | "null") { Ok(()) } else { Origin::parse(text).map(drop) },
};
const WEBHOOK_HOSTS: Kind = Kind::List {
    takes: "host names, *.DOMAIN, addresses and networks (10.1.0.0/16) joined by commas; * for every host",
    check: |text| webhook::Hosts::read(&[text.to_string()]).map(drop),
};
const HOSTS: Kind = Kind::List {
    takes: "host names joined by commas, without ports; * for every name",
    check: |text| if text == "*" { Ok(()) } else { Name::parse(text).map(drop) },
};

macro_rules! settings {
    ($($section:literal { $($name:literal $kind:expr, $slot:ident($($field:tt)+), $help:expr;)+ })+) => {
        &[$($(Setting {
            name: $name,
            section: $section,
            kind: $kind,
            help: $help,
            slot: |options| Slot::$slot(&mut options.$($field)+),
        },)+)+]
    };
}

pub const SETTINGS: &[Setting] = settings! {
    "Where it listens" {
        "listen" Kind::Address { or: None }, Address(listen),
            "Address for browsers and HTTP: /ws, /v1, the demo page.";
        "admin_listen" Kind::Address { or: Some("same") }, Optional(admin_listen),
            "Address for /metrics and detailed health; \"same\" puts them on the public address.";
        "redis_listen" Kind::Address { or: Some("off") }, Optional(redis_listen),
            "Address of the door that speaks Redis' protocol, open where `ingest` is \"door\".";
        "shards" count(0, 1024), Usize(shards),
            "Threads that hold connections; 0 takes one less than there are cores.";
        "shutdown" seconds(0, 600), Duration(shutdown),
            "How long a stop may take to finish what was accepted.";
        "handshake" seconds(100, 300), Duration(handshake),
            "How long a client may take to send its request's head.";
    }
    "Who may use it" {
        "insecure" Kind::Flag, Flag(insecure),
            "Run without keys: whoever reaches the address may publish and subscribe.";
        "origins" ORIGINS, List(origins),
            "Sites whose pages may use the hub, by WebSocket and by HTTP, beside its own and, on loopback, those of this machine.";
        "hosts" HOSTS, List(hosts),
            "Names under which the hub is reached, beside addresses, localhost and the hosts of `origins`.";
    }
    "Store" {
        "store" STORE, Text(store),
            "Where topics are kept. \"disk\" is the folder `data`; \"memory\" is gone with the process.";
        "data" DATA, Text(data),
            "The folder of the store \"disk\". Without it: fanfare in $XDG_STATE_HOME, else in ~/.local/state.";
        "prefix" KEY, Text(prefix),
            "What all keys and channels in Redis begin with.";
        "redis_connect" seconds(10, 300), Duration(redis_connect),
            "How long connecting to Redis may take.";
        "redis_answer" seconds(10, 300), Duration(redis_answer),
            "How long Redis may take to answer.";
        "redis_fsync" Kind::Choice(&["ask", "always", "everysec", "no"]), Text(redis_fsync),
            "The appendfsync of a Redis that does not tell it, as hosted ones do not; \"ask\" believes only what it tells.";
        "durability" Kind::Choice(&["auto", "memory", "disk", "replica"]), Text(durability),
            "The level of acknowledgement where a publisher asks for none; \"auto\" is what the store gives without waiting for others.";
        "replicas" count(0, 16), Usize(replicas),
            "Replicas of Redis that must have a message of the level \"replica\"; with 0 there is no such level.";
        "replica_wait" seconds(10, 60), Duration(replica_wait),
            "How long that may take before the answer is `unconfirmed`.";
        "feed" count(16, 1 << 24), Usize(feed),
            "Stored messages that may wait on their way from the store to the connections.";
        "store_bytes" size(0, 1 << 50), U64(store_bytes),
            "Bytes of all messages together in an embedded store; beyond it the oldest go first. 0: 1 GiB in memory; on disk 10 GiB or 80 % of the volume, whichever is less.";
        "max_topics" count(1, 1 << 32), Usize(max_topics),
            "Topics an embedded store keeps a record of; beyond it new ones are refused.";
        "idempotency_keys" count(1, 1 << 32), U64(idempotency_keys),
            "Idempotency keys an embedded store remembers; beyond it publishes with a new key are refused.";
        "store_waiting" count(64, 1 << 24), Usize(store_waiting),
            "Calls that may wait for an embedded store; beyond it they are refused.";
        "store_waiting_bytes" size(MIB, 1 << 40), Usize(store_waiting_bytes),
            "Bytes those calls may hold.";
    }
    "History" {
        "history_messages" count(1, 1 << 32), U64(retention.messages),
            "Messages kept of one topic.";
        "history_bytes" size(64 * KIB, 1 << 40), U64(retention.bytes),
            "Bytes kept of one topic.";
        "history_age" seconds(1000, 3650 * DAY), Duration(retention.age),
            "How long a message is kept.";
        "record_age" seconds(60_000, 3650 * DAY), Duration(retention.record),
            "How long the record of a topic (its epochs, its marks of ingest) outlives its messages, and an empty queue its last use; at least twice `ingest_keep`.";
        "history_cache" size(0, 1 << 40), Usize(history_cache),
            "Bytes of the newest messages of followed topics that this node keeps in memory, so that many who come back at \
             once need not all read the store; 0 keeps none.";
        "idempotency_window" seconds(1000, 7 * DAY), Duration(retention.idempotency_window),
            "How long an idempotency key is remembered.";
        "topic" Kind::Rules, Rules(rules),
            "What is said of topics of a pattern; the first rule that a topic meets counts, the rest is as above.";
    }
    "Queues" {
        "binding" Kind::Bindings, Bindings(bindings),
            "Messages of topics that become jobs of a queue as well (`[bindings.NAME]`).";
        "schedule" Kind::Schedules, Schedules(schedules),
            "Jobs and messages at the times of a cron expression (`[schedules.NAME]`).";
        "webhook_secret" SECRET, Text(webhook_secret),
            "What posts to webhooks of queues are signed with; without one no queue may name a webhook.";
        "webhook_hosts" WEBHOOK_HOSTS, List(webhook_hosts),
            "Where webhooks may go: hosts and domains; `*` is every host. Addresses that are not public are refused unless they, their network or the whole name of their host is listed.";
        "webhook_ca" DATA, Text(webhook_ca),
            "A file of certificates in PEM that may vouch for webhooks by https, beside those that browsers trust.";
        "queue_stats" seconds(100, HOUR), Duration(queue_stats),
            "Time between two messages on $queue.NAME.stats, to those who listen there.";
        "max_queues" count(1, 1 << 32), Usize(queue_count),
            "Queues an embedded store keeps a record of; beyond it new ones are refused.";
        "queue_bytes" size(0, 1 << 50), U64(queue_bytes),
            "Bytes of all jobs together in an embedded store, dead letters too; beyond it puts are refused. 0: what fits the store.";
        "queue_keys" count(1, 1 << 32), U64(queue_keys),
            "De-duplication and idempotency keys of jobs an embedded store remembers; beyond it puts with a new key are refused.";
        "queue" Kind::Queues, Queues(queues),
            "What is said of queues of a pattern; the first rule that a queue meets counts, unless it has settings of its own.";
    }
    "Cursors" {
        "cursor_age" seconds(60_000, 3650 * DAY), Duration(cursors.unused),
            "How long a cursor may be unused; then it is removed. While it is there, so is the record of its topic.";
        "max_cursors" count(1, 1_000_000), Usize(cursors.each),
            "Cursors of one owner in one topic; without tokens all clients are one owner.";
        "store_cursors" count(1, 1 << 32), U64(cursors.total),
            "Cursors an embedded store keeps; beyond it new ones are refused.";
    }
    "Ingest" {
        "ingest" INGEST, Text(ingest),
            "Where back ends publish with a Redis client. \"auto\" is the store's Redis, or the door if there is none.";
        "ingest_stream" KEY, Text(ingest_stream),
            "The stream that XADD writes; further partitions are this name with :1, :2, ….";
        "ingest_list" KEY, Text(ingest_list),
            "The list that RPUSH writes.";
        "ingest_partitions" count(1, 64), Usize(ingest_partitions),
            "Partitions of the stream.";
        "ingest_lease" seconds(500, 60), Duration(ingest_lease),
            "How long a partition belongs to a hub that has stopped renewing it.";
        "ingest_keep" seconds(0, DAY), Duration(ingest_keep),
            "How long entries are kept after they were applied, to be applied again where a failover lost them.";
        "dead_letters" count(1, 1_000_000), Usize(dead_letters),
            "Entries that could not be used and are kept to be looked at; the oldest go first.";
    }
    "Limits" {
        "max_frame" size(KIB, 16 * MIB), Usize(limits.frame),
            "Bytes of one frame, of one message's HTTP body, of one entry's data.";
        "max_batch_body" size(KIB, 256 * MIB), Usize(limits.batch_body),
            "Bytes of one HTTP body with many messages.";
        "max_batch" count(1, 100_000), Usize(limits.batch),
            "Messages in one HTTP body.";
        "max_depth" count(1, 120), Usize(limits.depth),
            "Depth of nested JSON.";
        "max_array" count(1, 10_000), Usize(limits.array),
            "Commands in one array.";
        "max_word" count(16, 4096), Usize(limits.word),
            "Bytes of a name, a key, an idempotency key, an id.";
        "max_tags" count(0, 256), Usize(limits.tags),
            "Tags of one message.";
        "max_tag_bytes" size(64, 64 * KIB), Usize(limits.tag_bytes),
            "Bytes of all tags of one message.";
        "max_ttl" seconds(1000, 3650 * DAY), Duration(limits.ttl),
            "The longest time to live a publisher may ask for.";
        "max_history" count(1, 10_000), U32(limits.history),
            "Messages in one answer to a question for history.";
        "max_subscriptions" count(1, 1_000_000), Usize(limits.subscriptions),
            "Topics one connection subscribes to.";
        "max_connections" count(1, 10_000_000), Usize(limits.connections),
            "Connections of this node.";
        "memory_limit" size(0, 1 << 50), Usize(limits.memory),
            "Bytes that may wait for all connections together, `history_cache` included: beyond it streams go on from the store later, the slowest are cut (4002) and new sockets refused (4504). 0: 70 % of what the machine, the container or the process' own limit allows.";
        "max_credit" count(1, 1_000), Usize(limits.credit),
            "Jobs of one queue that one connection may hold at once.";
        "max_takes" count(1, 10_000), Usize(limits.takes),
            "Queues that one connection takes from.";
        "max_held" count(1, 1_000_000), Usize(limits.held),
            "Jobs that one connection may hold in all.";
        "max_timeout" seconds(1000, HOUR), Duration(limits.timeout),
            "The longest that a request may wait for its reply.";
        "max_in_flight" count(1, 10_000), Usize(limits.in_flight),
            "Commands of one connection that wait for the store at the same time.";
        "rate" count(1, 1_000_000), U32(limits.rate),
            "Commands a second from one connection.";
        "burst" count(1, 1_000_000), U32(limits.burst),
            "Commands at once from one connection.";
        "strikes" count(1, 1000), U32(limits.strikes),
            "Bad frames in a row until a connection is closed.";
        "outbox" size(64 * KIB, 1024 * MIB), Usize(limits.outbox),
            "Bytes that may wait for one connection.";
        "outbox_age" seconds(100, HOUR), Duration(limits.outbox_age),
            "How long a connection may take none of them.";
        "ping" seconds(1000, HOUR), Duration(limits.ping),
            "Time between pings to a quiet connection.";
        "pong" seconds(100, HOUR), Duration(limits.pong),
            "How long its answer may take.";
    }
    "Log" {
        "log" LOG, Text(log),
            "What is logged, to standard error.";
        "log_format" Kind::Choice(&["plain", "json"]), Text(log_format),
            "How: for people or for machines.";
    }
};

fn check_store(text: &str) -> Result<(), String> {
    match text.split_once(':').map_or(text, |(scheme, _)| scheme) {
        "memory" if text == "memory" => Ok(()),
        "disk" if text != "disk:" => Ok(()),
        "disk" => Err("names no folder; write disk:PATH, or disk for the usual one".into()),
        _ if endpoint::is_redis(text) => check_redis(text),
        _ => Err(format!("{text:?} is no store; it takes {}", STORE.takes())),
    }
}

fn check_ingest(text: &str) -> Result<(), String> {
    match text {
        "auto" | "door" | "off" => Ok(()),
        _ if endpoint::is_redis(text) => check_redis(text),
        _ => Err(format!("{text:?} does not fit; it takes {}", INGEST.takes())),
    }
}

/// Never shows the text: it may hold a password.
fn check_redis(text: &str) -> Result<(), String> {
    Endpoint::parse(text).map(drop)
}

fn check_key(text: &str) -> Result<(), String> {
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:.-".contains(&b));
    match fits && (1..=64).contains(&text.len()) {
        true => Ok(()),
        false => Err(format!("{text:?} does not fit; it takes {}", KEY.takes())),
    }
}

fn check_log(text: &str) -> Result<(), String> {
    // A lone word would be taken for the name of a part.
    let worded = text.split(',').all(|part| part.contains('=') || part.parse::<tracing::Level>().is_ok());
    match text.parse::<tracing_subscriber::filter::Targets>() {
        Ok(_) if worded => Ok(()),
        _ => Err(format!("{text:?} does not fit; it takes {}", LOG.takes())),
    }
}
