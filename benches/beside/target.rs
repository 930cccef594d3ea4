//! A server under test with its crowd, as the measuring process sees them.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::dialect::Dialect;

/// How long a process may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a server still does after the last delivery is counted too.
const REST: Duration = Duration::from_millis(2);

/// A server that nobody is connected to yet.
pub struct Server {
    name: String,
    process: Process,
    address: String,
    clock: ClockId,
    _scratch: Option<tempfile::TempDir>,
}

impl Server {
    pub fn hub(store: &str) -> Server {
        let mut process = Process::own(&["hub", store]);
        let address = process.line();
        Server::of("hub", process, address, None)
    }

    /// Starts a peer; the answer to one that is not installed says so.
    pub fn peer(name: &str) -> Result<Server, String> {
        name.parse::<Dialect>()?;
        if name == "naive" {
            let mut process = Process::own(&["naive"]);
            let address = process.line();
            return Ok(Server::of(name, process, address, None));
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/beside/peers");
        let scratch = tempfile::tempdir().map_err(|e| e.to_string())?;
        let port = free_port();
        let config = |file: &str| -> PathBuf {
            let text = std::fs::read_to_string(folder.join(file)).expect("a file of this bench");
            let text = text.replace("PORT", &port.to_string()).replace("FOLDER", &scratch.path().display().to_string());
            let path = scratch.path().join(file);
            std::fs::write(&path, text).expect("a scratch file");
            path
        };
        // Each ends with this process, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "taskset", "-c", "0"]);
        match name {
            "uwebsockets" | "socketio" => {
                let package = if name == "socketio" { "socket.io" } else { name };
                if !folder.join("node_modules").join(package).exists() {
                    return Err(format!("npm ci --prefix {}", folder.display()));
                }
                command.arg("node").arg(folder.join(format!("{name}.js"))).arg(port.to_string());
            }
            "nchan" => _ = command.args(["nginx", "-p"]).arg(scratch.path()).arg("-c").arg(config("nchan.conf")),
            "nats" => _ = command.args(["nats-server", "-c"]).arg(config("nats.conf")),
            _ => _ = command.args(["mosquitto", "-c"]).arg(config("mosquitto.conf")),
        }
        let process = Process::start(command).map_err(|e| e.to_string())?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        process.listens(address)?;
        Ok(Server::of(name, process, address.to_string(), Some(scratch)))
    }

    fn of(name: &str, process: Process, address: String, scratch: Option<tempfile::TempDir>) -> Server {
        let clock = ClockId::pid_cpu_clock_id(nix::unistd::Pid::from_raw(process.child.id() as i32)).expect("it runs");
        Server { name: name.into(), process, address, clock, _scratch: scratch }
    }

    /// Processor time since it began.
    pub fn spent(&self) -> Duration {
        Duration::from_nanos(clock_gettime(self.clock).expect("it runs").num_nanoseconds() as u64)
    }

    /// Resident memory, in KiB.
    pub fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells it");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

/// A server with its crowd.
pub struct Target {
    pub server: Server,
    crowd: Process,
    /// The ports of the publishers, whose sockets are no subscribers'.
    publishers: String,
    /// Bytes of a message on the wire.
    frame: usize,
    before: Duration,
}

impl Target {
    /// Connects so many subscribers, and the publishers of messages with so many bytes.
    pub fn with(server: Server, subscribers: usize, bytes: usize) -> Target {
        let numbers = [subscribers, bytes].map(|n| n.to_string());
        let mut crowd = Process::own(&["crowd", &server.name, &server.address, &numbers[0], &numbers[1]]);
        let publishers = crowd.line();
        Target { server, crowd, publishers, frame: 0, before: Duration::ZERO }
    }

    pub fn name(&self) -> &str {
        &self.server.name
    }

    /// Until every subscriber hears: some servers answer no subscription.
    pub fn warm_up(&mut self) {
        std::thread::sleep(Duration::from_millis(500));
        for _ in 0..4 {
            self.publish(1, 1);
        }
        self.spent();
    }

    pub fn frame(&self) -> usize {
        self.frame
    }

    /// Has a burst published, and waits until every subscriber has it.
    pub fn publish(&mut self, publishers: usize, window: usize) {
        self.crowd.say(&format!("publish {publishers} {window}"));
        self.frame = self.crowd.line().parse().expect("a number");
    }

    /// Has as many ready frames sent by the server's process, past the server.
    pub fn floor(&mut self, times: usize) {
        self.crowd.say(&format!("await {times}"));
        self.crowd.line();
        self.server.process.say(&format!("{} {times} {}", self.frame, self.publishers));
        self.server.process.line();
        self.crowd.line();
    }

    /// Processor time and latencies since the last time.
    pub fn spent(&mut self) -> (Duration, Vec<Duration>) {
        std::thread::sleep(REST);
        let now = self.server.spent();
        let spent = now - std::mem::replace(&mut self.before, now);
        self.crowd.say("latencies");
        let line = self.crowd.line();
        let number = |word: &str| Duration::from_micros(word.parse().expect("a number"));
        (spent, line.split_whitespace().map(number).collect())
    }

    /// Ends the crowd; what it leaves behind at the server is gone when this returns.
    pub fn leave(self) -> Server {
        self.crowd.end();
        std::thread::sleep(Duration::from_millis(500));
        self.server
    }

    pub fn end(self) {
        self.crowd.end();
        self.server.process.end();
    }
}

struct Process {
    child: Child,
    orders: ChildStdin,
    reports: BufReader<ChildStdout>,
}

impl Process {
    /// This program in another role.
    fn own(arguments: &[&str]) -> Process {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(arguments);
        Process::start(command).expect("a second process")
    }

    fn start(mut command: Command) -> std::io::Result<Process> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take().expect("a pipe");
        let reports = BufReader::new(child.stdout.take().expect("a pipe"));
        Ok(Process { child, orders, reports })
    }

    fn listens(&self, address: SocketAddr) -> Result<(), String> {
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if begun.elapsed() > PATIENCE {
                return Err("it does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn say(&mut self, order: &str) {
        writeln!(self.orders, "{order}").expect("the process listens");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reports.read_line(&mut line).expect("the process answers");
        assert!(!line.is_empty(), "a process of this bench has ended");
        line.trim_end().into()
    }

    fn end(mut self) {
        drop(self.orders);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    // On a machine of one core both share it.
    let _ = sched_setaffinity(None, &set);
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it listens").port()
}
