//! Every setting once: read from the command line, the environment and `fanfare.toml`, checked whole at start.
//!
//! A flag goes before a variable, a variable before the file, the file before the default. The table of settings is in
//! `table`; what comes out are plain options for each part. Inner parts never see this module.

mod bindings;
mod demo;
mod docs;
mod faults;
mod file;
mod folder;
mod judge;
mod nearest;
mod objects;
mod queues;
mod rules;
mod schedules;
mod start_when;
mod table;
mod unit;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches};
use nearest::nearest;

use folder::{find_folder, state_folder};
use judge::{judge_demo, judge_serve, judge_together};

pub use docs::{markdown, redacted, toml};
pub use faults::Faults;
pub use queues::{QueueRule, queue_fields};
pub use table::{SETTINGS, Setting};

use crate::domain::binding::Binding;
use crate::domain::cursor::CursorBounds;
use crate::domain::limits::Limits;
use crate::domain::queue::QueueRules;
use crate::domain::schedule::Schedule;
use crate::domain::store::Retention;
use crate::domain::topic::Rule;
use crate::endpoint;

/// What the settings say, checked.
#[derive(Clone, PartialEq)]
pub struct Options {
    pub listen: SocketAddr,
    /// `None`: on the public address.
    pub admin_listen: Option<SocketAddr>,
    /// `None`: no Redis-protocol door.
    pub redis_listen: Option<SocketAddr>,
    /// 0: one less than there are cores.
    pub shards: usize,
    pub shutdown: Duration,
    pub handshake: Duration,
    pub insecure: bool,
    pub origins: Vec<String>,
    pub hosts: Vec<String>,
    /// `memory`, `disk:PATH` or a Redis; `disk` alone until `load` has found the folder.
    pub store: String,
    pub data: String,
    /// Only the command line can say it.
    pub accept_loss: bool,
    pub prefix: String,
    pub redis_connect: Duration,
    pub redis_answer: Duration,
    pub redis_fsync: String,
    pub durability: String,
    pub replicas: usize,
    pub replica_wait: Duration,
    pub feed: usize,
    pub history_cache: usize,
    pub store_bytes: u64,
    pub max_topics: usize,
    pub idempotency_keys: u64,
    pub store_waiting: usize,
    pub store_waiting_bytes: usize,
    pub retention: Retention,
    pub cursors: CursorBounds,
    pub rules: Vec<Rule>,
    pub queues: Vec<QueueRule>,
    pub queue_count: usize,
    pub queue_bytes: u64,
    pub queue_keys: u64,
    pub bindings: Vec<Binding>,
    pub schedules: Vec<Schedule>,
    /// Empty: none.
    pub webhook_secret: String,
    pub webhook_hosts: Vec<String>,
    /// Empty: none.
    pub webhook_ca: String,
    pub queue_stats: Duration,
    pub ingest: String,
    pub ingest_stream: String,
    pub ingest_list: String,
    pub ingest_partitions: usize,
    pub ingest_lease: Duration,
    pub ingest_keep: Duration,
    pub dead_letters: usize,
    pub limits: Limits,
    pub log: String,
    pub log_format: String,
}

impl Default for Options {
    fn default() -> Options {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Options {
            listen: loopback(8080),
            admin_listen: Some(loopback(9090)),
            redis_listen: Some(loopback(6380)),
            shards: 0,
            shutdown: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            insecure: false,
            origins: Vec::new(),
            hosts: Vec::new(),
            store: "disk".into(),
            data: String::new(),
            accept_loss: false,
            prefix: "fanfare".into(),
            redis_connect: Duration::from_secs(2),
            redis_answer: Duration::from_secs(5),
            redis_fsync: "ask".into(),
            durability: "auto".into(),
            replicas: 1,
            replica_wait: Duration::from_secs(1),
            feed: 16_384,
            store_bytes: 0,
            history_cache: crate::domain::limits::HISTORY_CACHE,
            max_topics: 1_000_000,
            idempotency_keys: 1_000_000,
            store_waiting: 65_536,
            store_waiting_bytes: 64 * 1024 * 1024,
            retention: Retention::default(),
            cursors: CursorBounds::default(),
            rules: Vec::new(),
            queues: Vec::new(),
            queue_count: 10_000,
            queue_bytes: 0,
            queue_keys: 1_000_000,
            bindings: Vec::new(),
            schedules: Vec::new(),
            webhook_secret: String::new(),
            webhook_hosts: vec!["*".into()],
            webhook_ca: String::new(),
            queue_stats: Duration::from_secs(2),
            ingest: "auto".into(),
            ingest_stream: "fanfare:in".into(),
            ingest_list: "fanfare:list".into(),
            ingest_partitions: 1,
            ingest_lease: Duration::from_secs(5),
            ingest_keep: Duration::from_secs(60),
            dead_letters: 10_000,
            limits: Limits::default(),
            log: "info".into(),
            log_format: "plain".into(),
        }
    }
}

/// As the log may show them: passwords left out.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(SETTINGS.iter().map(|s| (s.name, docs::redacted(&s.shown(self))))).finish()
    }
}

/// Where back ends publish with a Redis client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ingest {
    Redis(String),
    Door,
    Off,
}

impl Options {
    pub fn ingest(&self) -> Ingest {
        match self.ingest.as_str() {
            "off" => Ingest::Off,
            "door" => Ingest::Door,
            "auto" if endpoint::is_redis(&self.store) => Ingest::Redis(self.store.clone()),
            "auto" if self.redis_listen.is_none() => Ingest::Off,
            "auto" => Ingest::Door,
            url => Ingest::Redis(url.to_string()),
        }
    }

    /// How queues are kept that have no settings of their own.
    pub fn queue_rules(&self) -> QueueRules {
        queues::rules(&self.queues)
    }

    /// How long the record of any topic is kept at least, and with it its fences.
    pub fn shortest_record(&self) -> Duration {
        let ruled = self.rules.iter().filter_map(|rule| rule.record);
        ruled.fold(self.retention.record, Duration::min)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// For real: keys, or a word that there are none.
    Serve,
    /// On this machine only, in memory, without keys, on the next free ports.
    Demo,
    /// `fanfare` without a word: like the demo, but what it is given is kept.
    Alone,
    /// Only to be looked at.
    Show,
}

impl Mode {
    /// On this machine only, to look at.
    pub fn is_demo(self) -> bool {
        matches!(self, Mode::Demo | Mode::Alone)
    }
}

/// The options, and where each came from.
#[derive(Debug, Clone)]
pub struct Config {
    pub options: Options,
    places: BTreeMap<&'static str, Place>,
}

impl Config {
    /// Whether somebody has said it, or it is the default.
    pub fn is_given(&self, setting: &str) -> bool {
        debug_assert!(SETTINGS.iter().any(|s| s.name == setting), "{setting} is no setting");
        self.places.contains_key(setting)
    }
}

/// Where a setting was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Flag(String),
    Variable(String),
    File { path: PathBuf, line: usize, key: String },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Flag(flag) => write!(f, "--{flag}"),
            Place::Variable(name) => f.write_str(name),
            Place::File { path, line, key } => write!(f, "{} line {line}, {key}", path.display()),
        }
    }
}

/// The command line's part of the table, for `serve` and `demo`.
pub fn arguments() -> Vec<Arg> {
    let config = Arg::new("config")
        .long("config")
        .value_name("PATH")
        .help("Read settings from this file [default: ./fanfare.toml if there is one] [env: FANFARE_CONFIG]");
    let defaults = Options::default();
    let settings = SETTINGS.iter().map(|setting| {
        let default = match setting.shown(&defaults) {
            text if text.is_empty() => "none".to_string(),
            text => text,
        };
        let arg = Arg::new(setting.name)
            .long(setting.flag())
            .value_name(setting.kind.placeholder())
            .help_heading(setting.section)
            .action(ArgAction::Append)
            .help(format!("{} [default: {default}]", setting.help))
            .long_help(format!(
                "{}\nTakes {}. [default: {default}] [env: {}]",
                setting.help,
                setting.kind.takes(),
                setting.variable()
            ));
        match setting.kind {
            unit::Kind::Flag => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            _ => arg,
        }
    });
    // No setting of the table: whoever writes it into a file would accept every loss that is to come.
    let accept_loss = Arg::new("accept-loss")
        .long("accept-loss")
        .action(ArgAction::SetTrue)
        .help_heading("Store")
        .help("Open a store on disk that has lost data, with what is whole; every topic begins a new life");
    [config, accept_loss].into_iter().chain(settings).collect()
}

/// Variables that begin like ours and are none of the table's: ours for clients and for programs that work on jobs, and what Kubernetes and Docker set for
/// a service that is called `fanfare`.
fn is_other_variable(name: &str) -> bool {
    matches!(name, "FANFARE_CONFIG" | "FANFARE_URL" | "FANFARE_PORT" | "FANFARE_NAME")
        || name.starts_with("FANFARE_JOB")
        || ["FANFARE_SERVICE_", "FANFARE_PORT_", "FANFARE_ENV_"].iter().any(|prefix| name.starts_with(prefix))
}

/// Reads and checks everything. `flags` are matches of `arguments`, `environment` all variables of the process,
/// `directory` is where `fanfare.toml` is looked for when nobody names a file.
pub fn load(
    mode: Mode,
    flags: &ArgMatches,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    directory: &std::path::Path,
) -> Result<Config, Faults> {
    let mut faults = Vec::new();
    let environment: Vec<_> = environment.into_iter().collect();
    let state = state_folder(&environment);
    let variables = ours(environment, &mut faults);

    // Weakest first, so that the stronger overwrite.
    let mut given: Vec<(&'static Setting, Place, Vec<String>)> = Vec::new();
    let named = flags.get_one::<String>("config").or_else(|| variables.get("FANFARE_CONFIG")).map(PathBuf::from);
    // The demo is the same wherever it is started; it reads a file only when told.
    let usual = Some(directory.join("fanfare.toml")).filter(|path| !mode.is_demo() && path.exists());
    if let Some(path) = named.or(usual) {
        given.extend(file::read(&path, &mut faults));
    }
    for (name, value) in &variables {
        match SETTINGS.iter().find(|setting| setting.variable() == *name) {
            Some(setting) => given.push((setting, Place::Variable(name.clone()), vec![value.clone()])),
            None if is_other_variable(name) => {}
            None => faults.push(format!("{name}: there is no such setting{}", nearest(name, |s| s.variable()))),
        }
    }
    for setting in SETTINGS {
        if let Some(values) = flags.get_many::<String>(setting.name) {
            given.push((setting, Place::Flag(setting.flag()), values.cloned().collect()));
        }
    }

    let (mut options, mut places) = (Options::default(), BTreeMap::new());
    for (setting, place, texts) in given {
        match setting.kind.read(&texts) {
            Ok(value) => {
                setting.put(&mut options, value);
                places.insert(setting.name, place);
            }
            Err(text) => faults.push(format!("{place}: {text}")),
        }
    }
    if !places.contains_key("ingest_stream") {
        options.ingest_stream = format!("{}:in", options.prefix);
    }
    if !places.contains_key("ingest_list") {
        options.ingest_list = format!("{}:list", options.prefix);
    }
    options.accept_loss = flags.get_flag("accept-loss");
    let mut config = Config { options, places };
    if mode == Mode::Demo && !config.is_given("store") {
        config.options.store = "memory".into();
    }
    if mode.is_demo() {
        demo::add_rules(&mut config.options.rules);
    }
    find_folder(&mut config, state, &mut faults);
    match mode {
        Mode::Serve => judge_serve(&config, &mut faults),
        Mode::Demo | Mode::Alone => judge_demo(&mut config, &mut faults),
        Mode::Show => {}
    }
    judge_together(&config, &mut faults);
    if faults.is_empty() { Ok(config) } else { Err(Faults(faults)) }
}

/// Our variables. An empty one counts as not set, which is how compose files write that.
fn ours(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    faults: &mut Vec<String>,
) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, value) in environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with("FANFARE_")) else { continue };
        match value.into_string() {
            Ok(value) if value.is_empty() => {}
            Ok(value) => drop(found.insert(name.to_string(), value)),
            Err(_) => faults.push(format!("{name}: its value is not UTF-8")),
        }
    }
    found
}

impl Config {
    fn place(&self, name: &str) -> String {
        self.places.get(name).map_or_else(|| name.to_string(), Place::to_string)
    }
}

#[cfg(test)]
mod tests;
