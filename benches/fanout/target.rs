//! A server under test with its crowd, as the measuring process sees them.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::dialect::Dialect;

/// How long a process may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a server still does after the last delivery is counted too.
const REST: Duration = Duration::from_millis(2);

pub struct Target {
    pub name: String,
    server: Process,
    crowd: Process,
    /// The ports of the publishers, whose sockets are no subscribers'.
    publishers: String,
    /// Bytes of a message on the wire.
    frame: usize,
    clock: ClockId,
    before: Duration,
    _scratch: Option<tempfile::TempDir>,
}

impl Target {
    pub fn hub(store: &str, subscribers: usize, bytes: usize) -> Target {
        let mut server = Process::own(&["hub", store]);
        let address = server.line();
        Target::with("hub", server, &address, subscribers, bytes, None)
    }

    /// Starts a peer; the answer to one that is not installed says so.
    pub fn peer(name: &str, subscribers: usize, bytes: usize) -> Result<Target, String> {
        name.parse::<Dialect>()?;
        if name == "naive" {
            let mut server = Process::own(&["naive"]);
            let address = server.line();
            return Ok(Target::with(name, server, &address, subscribers, bytes, None));
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/fanout/peers");
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
        let server = Process::start(command).map_err(|e| e.to_string())?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        server.listens(address)?;
        Ok(Target::with(name, server, &address.to_string(), subscribers, bytes, Some(scratch)))
    }

    fn with(
        name: &str,
        server: Process,
        address: &str,
        subscribers: usize,
        bytes: usize,
        scratch: Option<tempfile::TempDir>,
    ) -> Target {
        let numbers = [subscribers, bytes].map(|n| n.to_string());
        let mut crowd = Process::own(&["crowd", name, address, &numbers[0], &numbers[1]]);
        let publishers = crowd.line();
        let clock = ClockId::pid_cpu_clock_id(nix::unistd::Pid::from_raw(server.child.id() as i32)).expect("it runs");
        Target {
            name: name.into(),
            server,
            crowd,
            publishers,
            frame: 0,
            clock,
            before: Duration::ZERO,
            _scratch: scratch,
        }
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
        self.server.say(&format!("{} {times} {}", self.frame, self.publishers));
        self.server.line();
        self.crowd.line();
    }

    /// Processor time and latencies since the last time.
    pub fn spent(&mut self) -> (Duration, Vec<Duration>) {
        std::thread::sleep(REST);
        let now = Duration::from_nanos(clock_gettime(self.clock).expect("it runs").num_nanoseconds() as u64);
        let spent = now - std::mem::replace(&mut self.before, now);
        self.crowd.say("latencies");
        let line = self.crowd.line();
        let number = |word: &str| Duration::from_micros(word.parse().expect("a number"));
        (spent, line.split_whitespace().map(number).collect())
    }

    pub fn end(self) {
        self.crowd.end();
        self.server.end();
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
