//! A real Redis Cluster for a test: three masters with a replica each, as processes on free ports in directories of their
//! own. Slots can be moved, the way to a replica cut, masters killed. All of it is gone when this is dropped.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Connection, FromRedisValue, cmd};

pub const MASTERS: usize = 3;
const SLOTS: u16 = 16_384;
/// Longer than anything here should take, on a machine with other work.
const SOON: Duration = Duration::from_secs(60);
/// Between two looks at a server; there is nothing else to wait for.
const LOOK: Duration = Duration::from_millis(10);
/// The user that replicas log in with, so that they can be locked out.
const REPLICA: &str = "replica";

pub struct Cluster {
    /// Masters first; the replica of the first master is the one after the last master.
    pub servers: Vec<Server>,
}

pub struct Server {
    child: Option<Child>,
    /// Ends the server and clears up when this process ends without having done so.
    guard: Option<Child>,
    dir: tempfile::TempDir,
    pub port: u16,
    bus: u16,
    settings: Vec<String>,
}

impl Cluster {
    /// Three masters and three replicas, with every slot served and every replica in step. A master is given up by the
    /// others when it has been silent for `node_timeout`.
    pub fn start(node_timeout: Duration) -> Cluster {
        Cluster::start_with(node_timeout, &[])
    }

    pub fn start_with(node_timeout: Duration, settings: &[&str]) -> Cluster {
        let timeout = node_timeout.as_millis().to_string();
        let servers = (0..2 * MASTERS).map(|_| Server::start(&timeout, settings)).collect();
        let cluster = Cluster { servers };
        cluster.join();
        cluster
    }

    fn join(&self) {
        for (n, server) in self.servers.iter().enumerate() {
            let mut connection = server.connection();
            // Epochs that differ from the start, so that no two masters have to agree on them first.
            ask::<()>(&mut connection, &["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]);
            server.let_replicas_in();
            if n < MASTERS {
                let share = usize::from(SLOTS) / MASTERS;
                let last = if n + 1 == MASTERS { usize::from(SLOTS) } else { (n + 1) * share } - 1;
                let (first, last) = ((n * share).to_string(), last.to_string());
                ask::<()>(&mut connection, &["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            }
        }
        let mut first = self.servers[0].connection();
        for server in &self.servers[1..] {
            ask::<()>(&mut first, &["CLUSTER", "MEET", "127.0.0.1", &server.port.to_string(), &server.bus.to_string()]);
        }
        for server in &self.servers {
            until("every server knows the others", || {
                server.nodes().matches(" connected").count() == 2 * MASTERS && !server.nodes().contains("handshake")
            });
        }
        for n in 0..MASTERS {
            let id: String = ask(&mut self.servers[n].connection(), &["CLUSTER", "MYID"]);
            let mut replica = self.servers[MASTERS + n].connection();
            ask::<()>(&mut replica, &["CLUSTER", "REPLICATE", &id]);
        }
        self.until_whole();
    }

    /// Waits until every slot is served and every replica that lives is in step.
    pub fn until_whole(&self) {
        for server in self.alive() {
            until("every slot is served", || server.say(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
            until("every replica is in step", || {
                let info = server.say(&["INFO", "replication"]);
                info.contains("role:master") || info.contains("master_link_status:up")
            });
            // What the servers think of each other spreads by and by.
            until("everybody knows who is whose replica", || {
                let nodes = server.nodes();
                self.alive().count() < 2 * MASTERS
                    || nodes.matches(" slave ").count() + nodes.matches(",slave ").count() == MASTERS
            });
        }
    }

    pub fn alive(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| server.child.is_some())
    }

    /// A URL that names all servers, masters and replicas.
    pub fn url(&self) -> String {
        let seeds: Vec<String> = self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        format!("redis+cluster://{}", seeds.join(","))
    }

    /// Which server serves a slot now, by its own word and that of the others.
    pub fn owner(&self, slot: u16) -> usize {
        let mut found = None;
        until("somebody serves the slot", || {
            found = self.servers.iter().position(|server| server.child.is_some() && server.serves(slot));
            found.is_some()
        });
        found.expect("it was found")
    }

    /// A connection to the server that serves the slot of this key.
    pub fn connection_for(&self, key: &str) -> Connection {
        let slot: u16 = ask(&mut self.alive().next().expect("one lives").connection(), &["CLUSTER", "KEYSLOT", key]);
        self.servers[self.owner(slot)].connection()
    }

    pub fn slot_of(&self, key: &str) -> u16 {
        ask(&mut self.alive().next().expect("one lives").connection(), &["CLUSTER", "KEYSLOT", key])
    }

    /// Moves a slot with all its keys to another master, as redis-cli does it; `between` is called while it is under way,
    /// with half of the keys moved.
    pub fn move_slot(&self, slot: u16, to: usize, between: impl FnOnce()) {
        let from = self.owner(slot);
        assert_ne!(from, to);
        let (mut source, mut target) = (self.servers[from].connection(), self.servers[to].connection());
        let id = |connection: &mut Connection| ask::<String>(connection, &["CLUSTER", "MYID"]);
        let (source_id, target_id, slot) = (id(&mut source), id(&mut target), slot.to_string());
        ask::<()>(&mut target, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_id]);
        ask::<()>(&mut source, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_id]);
        let mut between = Some(between);
        loop {
            let all: usize = ask(&mut source, &["CLUSTER", "COUNTKEYSINSLOT", &slot]);
            let some = if between.is_some() { (all / 2).max(1) } else { all.max(1) }.to_string();
            let keys: Vec<String> = ask(&mut source, &["CLUSTER", "GETKEYSINSLOT", &slot, &some]);
            if !keys.is_empty() {
                let mut migrate = cmd("MIGRATE");
                migrate.arg("127.0.0.1").arg(self.servers[to].port).arg("").arg(0).arg(5_000).arg("KEYS").arg(keys);
                migrate.exec(&mut source).expect("keys move");
            }
            match between.take() {
                Some(between) => between(),
                None if all == 0 => break,
                None => {}
            }
        }
        // The new owner first, so that there is never nobody.
        for server in [to, from].into_iter().chain((0..MASTERS).filter(|n| *n != to && *n != from)) {
            if self.servers[server].child.is_some() {
                let mut connection = self.servers[server].connection();
                ask::<()>(&mut connection, &["CLUSTER", "SETSLOT", &slot, "NODE", &target_id]);
            }
        }
    }

    /// Waits until the replica of a master has what was written before.
    pub fn until_in_step(&self, server: usize) {
        let mut connection = self.servers[server].connection();
        let offset = |info: String| {
            let line = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:").map(str::to_owned));
            line.expect("every Redis says how far it is").trim().parse::<u64>().expect("a number")
        };
        let written = offset(ask(&mut connection, &["INFO", "replication"]));
        let replica = &self.servers[(server + MASTERS) % (2 * MASTERS)];
        until("the replica is in step", || offset(replica.say(&["INFO", "replication"])) >= written);
    }

    /// Lets nothing more of what is written on a server get to its replicas, which are cut off and cannot come back. The
    /// server itself goes on, and notices no more than that they are away.
    pub fn cut_replicas_off(&self, server: usize) {
        let mut connection = self.servers[server].connection();
        ask::<()>(&mut connection, &["ACL", "SETUSER", REPLICA, "off"]);
        ask::<i64>(&mut connection, &["CLIENT", "KILL", "TYPE", "replica"]);
        until("no replica is left", || {
            ask::<String>(&mut connection, &["INFO", "replication"]).contains("connected_slaves:0")
        });
    }

    /// Waits until another server serves what this one did.
    pub fn until_taken_over(&self, dead: usize, slot: u16) -> usize {
        let mut owner = dead;
        until("a replica takes over", || {
            owner = self.owner(slot);
            owner != dead
        });
        self.alive().for_each(|server| {
            until("every slot is served again", || server.say(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
        });
        owner
    }

    /// How often any server refused a call with keys of several slots.
    pub fn cross_slot_errors(&self) -> usize {
        self.alive().filter(|server| server.say(&["INFO", "errorstats"]).contains("CROSSSLOT")).count()
    }

    /// How many answers of a kind, like `MOVED`, all servers that live have given.
    pub fn errors(&self, kind: &str) -> u64 {
        let line = format!("errorstat_{kind}:count=");
        let count = |server: &Server| {
            let stats = server.say(&["INFO", "errorstats"]);
            stats.lines().find_map(|text| text.strip_prefix(&line)?.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        self.alive().map(count).sum()
    }
}

impl Server {
    fn start(node_timeout: &str, settings: &[&str]) -> Server {
        // A port may be taken between our look and the server's bind.
        for _ in 0..20 {
            let (port, bus) = (free_port(), free_port());
            let own = ["--cluster-enabled", "yes", "--cluster-node-timeout", node_timeout, "--cluster-port"];
            let kept = [
                "--cluster-replica-validity-factor",
                "0",
                "--cluster-allow-replica-migration",
                "no",
                "--repl-diskless-sync-delay",
                "0",
                "--appendonly",
                "no",
                "--repl-timeout",
                "10",
            ];
            let mut all: Vec<String> = own.iter().map(|s| s.to_string()).collect();
            all.push(bus.to_string());
            all.extend(kept.iter().chain(settings).map(|s| s.to_string()));
            let dir = tempfile::tempdir().expect("a temporary directory");
            let mut server = Server { child: None, guard: None, dir, port, bus, settings: all };
            if server.run() {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    /// Runs it and waits until it answers. `false`: it ended instead.
    fn run(&mut self) -> bool {
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", ""])
            .arg("--dir")
            .arg::<&Path>(self.dir.path())
            .args(&self.settings)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let clear_up = format!("read _; kill -9 {}; rm -rf {}", child.id(), self.dir.path().display());
        self.child = Some(child);
        let guard = Command::new("sh").args(["-c", &clear_up]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn();
        self.guard = Some(guard.expect("sh runs"));
        let begun = Instant::now();
        while begun.elapsed() < SOON {
            let ended = self.child.as_mut().is_none_or(|child| child.try_wait().expect("it is our child").is_some());
            if ended {
                self.kill();
                return false;
            }
            if self.client().get_connection().is_ok_and(|mut c| cmd("PING").exec(&mut c).is_ok()) {
                return true;
            }
            std::thread::sleep(LOOK);
        }
        panic!("redis-server does not answer on port {}", self.port);
    }

    pub fn is_alive(&self) -> bool {
        self.child.is_some()
    }

    /// Kills it as a crash would, and waits for its end.
    pub fn kill(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            guard.kill().expect("it is our child");
            guard.wait().expect("it is our child");
        }
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
        }
    }

    /// Starts it again with what it knows of the cluster, and without its data.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.run(), "redis-server does not start again on port {}", self.port);
    }

    /// The same, and its line to its master can be cut like those of the others.
    pub fn restart_like_others(&mut self) {
        self.restart();
        self.let_replicas_in();
    }

    /// Replicas log in with a user of their own, and so does this one where it is a replica.
    fn let_replicas_in(&self) {
        let mut connection = self.connection();
        ask::<()>(&mut connection, &["ACL", "SETUSER", REPLICA, "on", "nopass", "+@all", "~*", "&*"]);
        ask::<()>(&mut connection, &["CONFIG", "SET", "masteruser", REPLICA]);
        ask::<()>(&mut connection, &["CONFIG", "SET", "masterauth", "any"]);
    }

    /// Stalls it: connections stay, nothing is answered.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    fn client(&self) -> redis::Client {
        redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).expect("a URL")
    }

    pub fn connection(&self) -> Connection {
        self.client().get_connection().expect("it runs")
    }

    pub fn say(&self, words: &[&str]) -> String {
        ask(&mut self.connection(), words)
    }

    fn nodes(&self) -> String {
        self.say(&["CLUSTER", "NODES"])
    }

    /// Whether it says of itself that it serves a slot, as a master.
    fn serves(&self, slot: u16) -> bool {
        let nodes = self.nodes();
        let Some(own) = nodes.lines().find(|line| line.contains("myself")) else { return false };
        let words: Vec<&str> = own.split_whitespace().collect();
        words[2].contains("master")
            && words[8..].iter().filter(|range| !range.starts_with('[')).any(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                (first.parse().unwrap()..=last.parse::<u16>().unwrap()).contains(&slot)
            })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn ask<T: FromRedisValue>(connection: &mut Connection, words: &[&str]) -> T {
    cmd(words[0]).arg(&words[1..]).query(connection).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "{what}: not after {SOON:?}");
        std::thread::sleep(LOOK);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
