//! A Redis with replicas and three sentinels, as processes of their own, and the lines between them, which can be broken:
//! replication, the sentinels' own, or both, while clients still reach every server.
//!
//! Killing a master on one machine proves little: what it has sent is still delivered by the kernel. So each server
//! stands behind a door that knows by the address of a caller who it is, and leads replicas and sentinels through a
//! proxy each. All parties know a server by the address of its door, so nobody notices.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::proxy::{Proxy, Way};
use crate::server::RedisServer;

/// What the sentinels call the master.
pub const MASTER: &str = "main";
/// Without an answer for so long, a master is down.
pub const DOWN_AFTER: Duration = Duration::from_secs(1);
const SENTINELS: usize = 3;
const QUORUM: usize = 2;
/// Everything is told by addresses of the loopback.
const REPLICA: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SENTINEL: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// Until all know each other, or a failover is through, on a machine with other work.
const SOON: Duration = Duration::from_secs(40);

pub struct Replicated {
    pub servers: Vec<Server>,
    sentinels: Vec<SentinelProcess>,
}

/// One Redis behind its door.
pub struct Server {
    pub redis: RedisServer,
    door: Door,
}

impl Replicated {
    /// One master and so many replicas, all with these settings; returns when every sentinel knows them all.
    pub fn start(replicas: usize, settings: &[&str]) -> Replicated {
        let mut servers: Vec<Server> = Vec::new();
        for _ in 0..=replicas {
            let master = servers.first().map(|master| master.port());
            servers.push(Server::start(master, settings));
        }
        let sentinels = (0..SENTINELS).map(|_| SentinelProcess::start(servers[0].port())).collect();
        let set = Replicated { servers, sentinels };
        set.until("every replica is in step", || set.servers[0].replicas_online() == replicas);
        for sentinel in &set.sentinels {
            set.until("the sentinels know each other and the replicas", || sentinel.knows(SENTINELS - 1, replicas));
        }
        set
    }

    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|s| format!("127.0.0.1:{}", s.port)).collect();
        format!("redis+sentinel://{}/{MASTER}", hosts.join(","))
    }

    /// Which of the servers a sentinel calls the master.
    pub fn master(&self) -> usize {
        let port = self.running().next().expect("a sentinel runs").master_port();
        self.servers.iter().position(|server| server.port() == port).expect("one of ours")
    }

    /// Waits until all sentinels call this one of the servers the master, and it is one.
    pub fn until_master(&self, number: usize) {
        let port = self.servers[number].port();
        self.until("another master", || self.running().all(|s| s.master_port() == port));
        self.until("its role", || self.servers[number].role() == "master");
    }

    /// Waits until this one of the servers is a replica.
    pub fn until_replica(&self, number: usize) {
        self.until("a replica", || self.servers[number].role() == "slave");
    }

    /// Waits until any other server than this one is the master, and answers which.
    pub fn until_not(&self, number: usize) -> usize {
        let port = self.servers[number].port();
        self.until("another master", || self.running().all(|s| s.master_port() != port));
        self.master()
    }

    /// Asks for a failover while everything is well.
    pub fn fail_over(&self) {
        let mut command = redis::cmd("SENTINEL");
        command.arg("FAILOVER").arg(MASTER);
        let begins = || self.running().any(|sentinel| command.exec(&mut sentinel.connection()).is_ok());
        self.until("a sentinel that begins", begins);
    }

    pub fn kill_sentinel(&mut self, number: usize) {
        self.sentinels[number].kill();
    }

    fn running(&self) -> impl Iterator<Item = &SentinelProcess> {
        self.sentinels.iter().filter(|sentinel| sentinel.child.is_some())
    }

    fn until(&self, what: &str, is: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is() {
            assert!(begun.elapsed() < SOON, "{what}: not within {SOON:?}");
            sleep(Duration::from_millis(50));
        }
    }
}

impl Server {
    fn start(master: Option<u16>, settings: &[&str]) -> Server {
        let door = Door::open();
        let (own, source) = (door.port.to_string(), REPLICA.to_string());
        let mut all = vec!["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];
        all.extend(["--replica-announce-ip", "127.0.0.1", "--replica-announce-port", &own]);
        all.extend(["--bind-source-addr", &source]);
        let port = master.map(|port| port.to_string());
        if let Some(port) = &port {
            all.extend(["--replicaof", "127.0.0.1", port]);
        }
        all.extend(settings);
        let redis = RedisServer::start_with(&all);
        door.lead_to(redis.port());
        Server { redis, door }
    }

    /// Where everybody finds it.
    pub fn port(&self) -> u16 {
        self.door.port
    }

    /// The line of its replicas to it.
    pub fn replication(&self) -> &Proxy {
        self.door.replicas.get().expect("it leads somewhere")
    }

    /// The line of the sentinels to it.
    pub fn watching(&self) -> &Proxy {
        self.door.sentinels.get().expect("it leads somewhere")
    }

    /// Replicas and sentinels hear nothing of it any more; clients do.
    pub fn isolate(&self) {
        self.replication().set_both(Way::BlackHole);
        self.watching().set_both(Way::BlackHole);
    }

    pub fn heal(&self) {
        self.replication().heal();
        self.watching().heal();
    }

    pub fn role(&self) -> String {
        let info = self.info();
        let role = info.lines().find_map(|line| line.strip_prefix("role:")).unwrap_or("unknown");
        role.trim().to_owned()
    }

    fn replicas_online(&self) -> usize {
        self.info().lines().filter(|line| line.starts_with("slave") && line.contains("state=online")).count()
    }

    fn info(&self) -> String {
        redis::cmd("INFO").arg("replication").query(&mut self.redis.connection()).expect("it answers")
    }
}

/// Takes calls for a server and leads each through the line of whoever calls.
struct Door {
    port: u16,
    direct: Arc<OnceLock<SocketAddr>>,
    replicas: Arc<OnceLock<Proxy>>,
    sentinels: Arc<OnceLock<Proxy>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Door {
    fn open() -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let door = Door {
            port: listener.local_addr().expect("it is bound").port(),
            direct: Arc::default(),
            replicas: Arc::default(),
            sentinels: Arc::default(),
            stop: Some(stop),
        };
        let (direct, replicas, sentinels) = (door.direct.clone(), door.replicas.clone(), door.sentinels.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listening socket");
                let serve = async {
                    while let Ok((caller, from)) = listener.accept().await {
                        let line = match from.ip() {
                            ip if ip == REPLICA => replicas.get().map(Proxy::address),
                            ip if ip == SENTINEL => sentinels.get().map(Proxy::address),
                            _ => direct.get().copied(),
                        };
                        tokio::spawn(lead(caller, line));
                    }
                };
                tokio::select! { () = serve => {}, _ = stopped => {} }
            });
        });
        door
    }

    fn lead_to(&self, port: u16) {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let fresh = self.direct.set(target).is_ok();
        let lines = [&self.replicas, &self.sentinels].map(|line| line.set(Proxy::start(target)).is_ok());
        assert!(fresh && lines == [true, true], "a door leads to one server");
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

async fn lead(mut caller: TcpStream, line: Option<SocketAddr>) {
    let Some(line) = line else { return };
    if let Ok(mut server) = TcpStream::connect(line).await {
        let _ = (caller.set_nodelay(true), server.set_nodelay(true));
        let _ = tokio::io::copy_bidirectional(&mut caller, &mut server).await;
    }
}

struct SentinelProcess {
    child: Option<Child>,
    port: u16,
    _dir: tempfile::TempDir,
}

impl SentinelProcess {
    fn start(master: u16) -> SentinelProcess {
        // The port may be taken between our look and the sentinel's bind.
        (0..20).find_map(|_| SentinelProcess::run(master)).expect("redis-sentinel starts")
    }

    fn run(master: u16) -> Option<SentinelProcess> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound").port();
        let path = dir.path().join("sentinel.conf");
        let lines = [
            format!("port {port}\nbind 127.0.0.1\nbind-source-addr {SENTINEL}\ndir {}", dir.path().display()),
            // They would tell each other where they call from.
            format!("sentinel announce-ip 127.0.0.1\nsentinel announce-port {port}"),
            format!("sentinel monitor {MASTER} 127.0.0.1 {master} {QUORUM}"),
            format!("sentinel down-after-milliseconds {MASTER} {}", DOWN_AFTER.as_millis()),
            // Where they could not agree on who leads, they try again after twice this.
            format!("sentinel failover-timeout {MASTER} 3000\nsentinel parallel-syncs {MASTER} 1\n"),
        ];
        std::fs::write(&path, lines.join("\n")).expect("a file");
        let mut child = Command::new("redis-sentinel")
            .arg::<&Path>(&path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-sentinel is installed");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("+monitor master"));
        let sentinel = SentinelProcess { child: Some(child), port, _dir: dir };
        std::thread::spawn(move || lines.for_each(drop));
        // They look seldom by default, which would only make tests longer.
        let mut faster = redis::cmd("SENTINEL");
        faster.arg("DEBUG").arg("INFO-PERIOD").arg(1000).arg("PUBLISH-PERIOD").arg(500).arg("PING-PERIOD").arg(250);
        // Where the machine stalls they would do nothing for half a minute.
        faster.arg("TILT-TRIGGER").arg(20_000).arg("TILT-PERIOD").arg(1000);
        (ready && faster.exec(&mut sentinel.connection()).is_ok()).then_some(sentinel)
    }

    fn connection(&self) -> redis::Connection {
        let url = format!("redis://127.0.0.1:{}", self.port);
        redis::Client::open(url).expect("a URL").get_connection().expect("it runs")
    }

    fn master_port(&self) -> u16 {
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(MASTER);
        let (_, port): (String, u16) = ask.query(&mut self.connection()).expect("it knows the master");
        port
    }

    fn knows(&self, others: usize, replicas: usize) -> bool {
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("MASTER").arg(MASTER);
        let mut quorum = redis::cmd("SENTINEL");
        if quorum.arg("CKQUORUM").arg(MASTER).exec(&mut self.connection()).is_err() {
            return false;
        }
        let fields: std::collections::HashMap<String, String> = ask.query(&mut self.connection()).expect("it answers");
        fields["num-other-sentinels"] == others.to_string()
            && fields["num-slaves"] == replicas.to_string()
            && fields["flags"] == "master"
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
        }
    }
}

impl Drop for SentinelProcess {
    fn drop(&mut self) {
        self.kill();
    }
}
