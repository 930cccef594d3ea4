//! The built binary as a process of its own: started, killed, stalled, started again with the same arguments, asked over
//! HTTP. It is gone when this is dropped, also when a test panics.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fanfare::domain::position::Position;
use serde_json::Value;

use crate::checker::Mark;

/// A position that no topic has had: reading after it tells everything that is kept.
const BEFORE_ALL: &str = "zzzzzzz.0";

pub struct Node {
    name: String,
    args: Vec<String>,
    variables: Vec<(&'static str, PathBuf)>,
    child: Option<Child>,
    pub http: SocketAddr,
    pub admin: SocketAddr,
    log: tempfile::TempDir,
    starts: u32,
}

#[allow(dead_code, reason = "each test binary uses its own part")]
impl Node {
    /// Starts a node on a Redis, on free ports, and waits until it listens.
    pub fn start(name: &str, store: &str, settings: &[&str]) -> Node {
        Node::start_with(name, store, settings, Vec::new())
    }

    /// The same, with variables in its environment.
    pub fn start_with(name: &str, store: &str, settings: &[&str], variables: Vec<(&'static str, PathBuf)>) -> Node {
        let fixed =
            ["serve", "--insecure", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--store", store];
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut node = Node {
            name: name.to_owned(),
            args: fixed.iter().chain(settings).map(|arg| arg.to_string()).collect(),
            variables,
            child: None,
            http: nowhere,
            admin: nowhere,
            log: tempfile::tempdir().expect("a temporary directory"),
            starts: 0,
        };
        node.run();
        node
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The memory that it has in use, in bytes.
    pub fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid().expect("it runs"));
        let status = std::fs::read_to_string(path).expect("it runs, on Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line with it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Kills it with -9 and waits for its end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
        }
    }

    /// Starts it again with the same arguments; its addresses are new.
    pub fn restart(&mut self) {
        self.kill();
        self.run();
    }

    /// Stalls it: connections stay, nothing is answered.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid().expect("it runs").to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    fn run(&mut self) {
        self.starts += 1;
        let log = File::create(self.log.path().join(format!("{}.log", self.starts))).expect("a file for the log");
        // Another build may be put to the test, such as the one that users get.
        let binary = std::env::var("FANFARE_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_fanfare").to_owned());
        let mut child = Command::new(binary)
            .args(&self.args)
            .env_remove("FANFARE_BIN")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.log.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary was built");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
        self.child = Some(child);
        let mut address = |label: &str| {
            let line = lines.by_ref().find_map(|line| Some(line.trim().strip_prefix(label)?.trim().to_owned()))?;
            line.strip_prefix("http://")?.split('/').next()?.parse().ok()
        };
        match (address("http "), address("admin ")) {
            (Some(http), Some(admin)) => (self.http, self.admin) = (http, admin),
            _ => panic!("{} does not start: {}", self.name, self.log()),
        }
        std::thread::spawn(move || lines.for_each(drop));
    }

    /// What it has logged over all its starts.
    pub fn log(&self) -> String {
        let read = |n| std::fs::read_to_string(self.log.path().join(format!("{n}.log"))).unwrap_or_default();
        (1..=self.starts).map(read).collect()
    }

    /// Shows the end of its log, for the report of a failure.
    pub fn show_log(&self, lines: usize) {
        let log = self.log();
        let lines: Vec<&str> = log.lines().rev().take(lines).collect();
        eprintln!("--- {}, the end of its log", self.name);
        lines.iter().rev().for_each(|line| eprintln!("{line}"));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_log(30);
        }
        self.kill();
    }
}

pub fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().expect("a client")
}

/// The whole log of a topic, oldest first.
#[allow(dead_code, reason = "each test binary uses its own part")]
pub async fn read_log(client: &reqwest::Client, http: SocketAddr, topic: &str) -> Vec<(Position, Mark)> {
    let (mut log, mut after) = (Vec::new(), BEFORE_ALL.to_owned());
    loop {
        let url = format!("http://{http}/v1/topics/{topic}/messages?after={after}&limit=1000");
        let answer = client.get(url).send().await.expect("it answers").text().await.expect("it answers");
        let page: Value = serde_json::from_str(&answer).expect("JSON");
        for item in page["items"].as_array().unwrap_or_else(|| panic!("a page: {answer}")) {
            let text = |name: &str| item[name].as_str().unwrap_or_else(|| panic!("{name} in {item}"));
            log.push((text("at").parse().expect("a position"), Mark::parse(topic, text("data"))));
        }
        after = page["at"].as_str().expect("a position").to_owned();
        if page["more"] != true {
            return log;
        }
    }
}

/// The sum of a metric over all its labels that hold this text.
#[allow(dead_code, reason = "each test binary uses its own part")]
pub async fn metric(client: &reqwest::Client, admin: SocketAddr, name: &str, label: &str) -> f64 {
    let answer = client.get(format!("http://{admin}/metrics")).send().await.expect("it answers");
    let text = answer.text().await.expect("it answers");
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// The status of `/readyz` and what it says.
#[allow(dead_code, reason = "each test binary uses its own part")]
pub async fn ready(client: &reqwest::Client, address: SocketAddr) -> (u16, String) {
    let answer = client.get(format!("http://{address}/readyz")).send().await.expect("it answers");
    (answer.status().as_u16(), answer.text().await.expect("it answers"))
}
