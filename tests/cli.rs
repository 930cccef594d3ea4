//! The client commands as a shell runs them: the built binary against a hub of its own on free ports.

#[path = "cli/queues.rs"]
mod queues;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

/// Longer than anything here takes; only so that a test that fails also ends.
const PATIENCE: Duration = Duration::from_secs(60);

struct Hub {
    child: Child,
    folder: tempfile::TempDir,
    http: SocketAddr,
    door: SocketAddr,
}

impl Hub {
    fn start() -> Hub {
        let folder = tempfile::tempdir().unwrap();
        let any = ["--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--redis-listen=127.0.0.1:0"];
        let mut child = fanfare(folder.path(), &["serve", "--insecure", "--store=memory"])
            .args(any)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = |label: &str, scheme: &str| -> SocketAddr {
            let line = lines.by_ref().map(Result::unwrap).find(|line| line.trim_start().starts_with(label));
            let line = line.unwrap_or_else(|| panic!("the hub did not say its {label}"));
            let text = line.split(scheme).nth(1).unwrap();
            text.split(['/', ' ']).next().unwrap().parse().unwrap()
        };
        let (http, door) = (address("http", "http://"), address("redis", "redis://"));
        Hub { child, folder, http, door }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = fanfare(self.folder.path(), arguments);
        command.env("FANFARE_URL", format!("http://{}", self.http));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed and print JSON lines.
    fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.run(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn publish(&self, topic: &str, data: &str) -> String {
        self.lines(&["publish", topic, data])[0]["stored"].as_str().unwrap().to_string()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fanfare(folder: &std::path::Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
    command.args(arguments).env_clear().current_dir(folder).stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn data(lines: &[Value]) -> Vec<Value> {
    lines.iter().map(|line| line["data"].clone()).collect()
}

/// The lines of a running command, each waited for at most so long.
fn follow(out: ChildStdout) -> mpsc::Receiver<Value> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let _ = sender.send(serde_json::from_str(&line).unwrap());
        }
    });
    lines
}

#[test]
fn what_is_published_is_printed_by_who_subscribes() {
    let hub = Hub::start();
    let receipt = &hub.lines(&["publish", "news", r#"{"hi": 1}"#, "--name=greeting", "--tag=via=shell", "--ttl=60"])[0];
    assert_eq!((receipt["topic"].as_str(), receipt["durability"].as_str()), (Some("news"), Some("memory")));
    let message = &hub.lines(&["subscribe", "news", "--last=1", "--count=1"])[0];
    assert_eq!((&message["at"], &message["data"]["hi"]), (&receipt["stored"], &1.into()));
    assert_eq!((message["name"].as_str(), message["tags"]["via"].as_str()), (Some("greeting"), Some("shell")));

    let at = hub.publish("news", "-1");
    hub.lines(&["publish", "news", "--text", "it's {not} json"]);
    assert_eq!(data(&hub.lines(&["subscribe", "news", &format!("--after={at}"), "--count=1"])), ["it's {not} json"]);
    let since = hub.lines(&["subscribe", "news", "--since=1h", "--count=3"]);
    assert_eq!(since[0]["at"], receipt["stored"]);
    let since = hub.lines(&["subscribe", "news", "--since=2001-01-01T00:00:00Z", "--count=3", "--strict"]);
    assert_eq!(since[0]["at"], receipt["stored"]);
    assert_eq!(hub.lines(&["publish", "--user", "a.b", "1"])[0]["topic"], "user.a~2Eb");

    let first = hub.lines(&["publish", "news", "7", "--idempotency-key=k"]);
    assert_eq!(hub.lines(&["publish", "news", "7", "--idempotency-key=k"]), first);
}

#[test]
fn each_line_of_standard_input_is_a_message_in_its_order() {
    let hub = Hub::start();
    let mut child = hub.command(&["publish", "t", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    for i in 0..2_500 {
        // One line in the middle is no JSON, one is refused by the hub.
        match i {
            1_200 => writeln!(input, "oops").unwrap(),
            1_201 => writeln!(input, "\"{}\"", "x".repeat(70_000)).unwrap(),
            _ => writeln!(input, "{i}").unwrap(),
        }
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    let told = text(&output.stderr);
    assert_eq!(code(&output), 1, "{told}");
    assert!(told.contains("line 1201: not JSON at byte 0") && told.contains("--text"), "{told}");
    assert!(told.contains("line 1202: too-large") && told.contains("not every line was published"), "{told}");
    assert_eq!(text(&output.stdout).lines().count(), 2_498);
    let kept = hub.lines(&["subscribe", "t", "--last=500", "--count=500"]);
    assert_eq!(data(&kept), (2_000..2_500).map(Value::from).collect::<Vec<_>>());
}

#[test]
fn a_live_subscription_prints_each_message_when_it_comes() {
    let hub = Hub::start();
    let at = hub.publish("a", "0");
    let after = format!("--after={at}");
    let mut child = hub.command(&["subscribe", "a", &after, "--count=3"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = follow(child.stdout.take().unwrap());
    for i in 1..=3 {
        hub.publish("a", &i.to_string());
        assert_eq!(lines.recv_timeout(PATIENCE).unwrap()["data"], i);
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Passes bytes on to the hub until the hub has said `budget` bytes, then cuts the line; once for each budget.
fn cutting_proxy(hub: SocketAddr, budgets: Vec<usize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for budget in budgets.into_iter().chain(std::iter::repeat(usize::MAX)) {
            let Ok((client, _)) = listener.accept() else { return };
            let server = TcpStream::connect(hub).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            let _ =
                std::io::copy(&mut server.try_clone().unwrap().take(budget as u64), &mut client.try_clone().unwrap());
            let _ = client.shutdown(std::net::Shutdown::Both);
            let _ = server.shutdown(std::net::Shutdown::Both);
        }
    });
    address
}

#[test]
fn a_cut_line_is_resumed_without_loss_or_repetition() {
    let hub = Hub::start();
    for i in 0..200 {
        hub_post(&hub, "a", i);
    }
    // Within the first frames, within messages, twice. (The handshake alone has fewer bytes than the first cut.)
    let url = format!("http://{}", cutting_proxy(hub.http, vec![330, 1_500, 6_000]));
    let output = hub.run(&["subscribe", "a", "--last=200", "--count=200", "--strict", "--url", &url]);
    let told = text(&output.stderr);
    assert_eq!(code(&output), 0, "{told}");
    assert_eq!(told.matches("coming back").count(), 3, "{told}");
    let lines: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(data(&lines), (0..200).map(Value::from).collect::<Vec<_>>());
}

#[test]
fn a_line_that_is_cut_before_the_hub_spoke_counts_as_no_hub() {
    let hub = Hub::start();
    let url = format!("--url=http://{}", cutting_proxy(hub.http, vec![20]));
    assert_eq!(code(&hub.run(&["subscribe", "a", &url])), 3);
    assert_eq!(code(&hub.run(&["subscribe", "a", "--after=zz.1", "--strict", &url])), 4, "the next try gets through");
}

/// Publishes without starting a process.
fn hub_post(hub: &Hub, topic: &str, data: i64) {
    let mut socket = TcpStream::connect(hub.http).unwrap();
    let body = data.to_string();
    let head = format!(
        "POST /v1/topics/{topic}/messages HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        hub.http,
        body.len()
    );
    socket.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[test]
fn missed_messages_are_told_and_strict_ends_with_four() {
    let hub = Hub::start();
    hub.publish("a", "1");
    let output = hub.run(&["subscribe", "a", "--after=zz.1", "--strict"]);
    assert_eq!(code(&output), 4);
    assert!(text(&output.stderr).contains("a: messages were missed (epoch)"), "{}", text(&output.stderr));
}

#[test]
fn exit_codes_mean_what_the_help_says() {
    let hub = Hub::start();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("--url=http://{nobody}");
    for (arguments, expected, shows) in [
        (&["publish", "a b", "1"][..], 1, "bad-name"),
        (&["publish", "a", "1", "--durability=disk"], 1, "forbidden"),
        (&["publish", "a", "{hi:1}"], 2, "for plain text say --text"),
        (&["publish", "a"], 2, "say what to publish"),
        (&["publish"], 2, "say where to publish"),
        (&["publish", "--user=1", "a", "1"], 2, "only DATA"),
        (&["publish", "a", "1", "--tag=x"], 2, "KEY=VALUE"),
        (&["publish", "a", "1", "--url=localhost:8080"], 2, "--url"),
        (&["publish", "a", "1", "--url=https://localhost"], 2, "plain HTTP"),
        (&["publish", "a", "1", &nobody], 3, "was not reached"),
        (&["subscribe", "a b"], 1, "bad-name"),
        (&["subscribe", "a", "--after=now"], 1, "is not a position"),
        (&["subscribe", "a", "b", "--after=k3.1"], 2, "one topic"),
        (&["subscribe", "a", "--count=0"], 2, "count"),
        (&["subscribe", "a", "--since=yesterday"], 2, "1h or 2d ago"),
        (&["subscribe", "a", "--since=1h", "--last=1"], 2, "cannot be used with"),
        (&["subscribe", "a", &nobody], 3, "was not reached"),
        (&["health", &nobody], 1, "was not reached"),
        (&["ingest", "dead", "retry", "none"], 1, "not-found"),
        (&["ingest", "dead", "drop"], 2, "<ID>"),
        (&["nonsense"], 2, "nonsense"),
        (&["serve", "--store=memory", "--rate=x", "--ping=5"], 2, "3 faults in the settings"),
    ] {
        let output = hub.run(arguments);
        let told = text(&output.stderr);
        assert_eq!(code(&output), expected, "{arguments:?}: {told}");
        assert!(told.contains(shows), "{arguments:?}: {told}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
    }
}

#[test]
fn health_is_one_line_and_one_code() {
    let hub = Hub::start();
    let told = &hub.lines(&["health", "--ready"])[0];
    assert_eq!(*told, serde_json::json!({ "alive": true, "ready": true }));
    // As in a container, where only the hub's own setting is known.
    let listen = hub.http.to_string();
    let output = fanfare(hub.folder.path(), &["health"]).env("FANFARE_LISTEN", listen).output().unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
}

#[test]
fn a_reader_that_goes_away_ends_a_subscription_quietly() {
    let hub = Hub::start();
    let mut child = hub.command(&["subscribe", "a", "--last=5"]).stdout(Stdio::piped()).spawn().unwrap();
    hub.publish("a", "1");
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    drop(out);
    hub.publish("a", "2");
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), text(&output.stderr)), (0, String::new()));
}

#[test]
fn rejected_entries_are_listed_sent_back_and_dropped() {
    let hub = Hub::start();
    let mut door = TcpStream::connect(hub.door).unwrap();
    let words = ["XADD", "fanfare:in", "*", "channel", "news", "data", "1"];
    let mut command = format!("*{}\r\n", words.len());
    words.iter().for_each(|word| command.push_str(&format!("${}\r\n{word}\r\n", word.len())));
    for _ in 0..2 {
        door.write_all(command.as_bytes()).unwrap();
        // The answer comes after the entry was dealt with.
        let mut answer = String::new();
        BufReader::new(&door).read_line(&mut answer).unwrap();
    }
    let listed = hub.lines(&["ingest", "dead"]);
    assert_eq!(listed.len(), 2);
    assert_eq!(
        (listed[0]["fields"]["channel"].as_str(), listed[0]["reason"].as_str()),
        (Some("news"), Some("bad-frame"))
    );
    assert_eq!(hub.lines(&["ingest", "dead", "list", "--limit=1"]), listed[..1]);
    let id = |i: usize| listed[i]["id"].as_str().unwrap();
    assert_eq!(hub.lines(&["ingest", "dead", "retry", id(0)])[0]["retried"], id(0));
    let output = hub.run(&["ingest", "dead", "drop", "none", id(1)]);
    assert_eq!(code(&output), 1, "one was not there");
    assert!(text(&output.stdout).contains(&format!("{{\"dropped\":{:?}}}", id(1))), "{}", text(&output.stdout));
}

#[test]
fn settings_are_shown_with_their_place_and_as_the_page() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("fanfare.toml"), "rate = 7\n").unwrap();
    let output =
        fanfare(folder.path(), &["config", "--store=memory", "--ping=9s"]).env("FANFARE_PONG", "3s").output().unwrap();
    let told = text(&output.stdout);
    for line in ["rate = 7  # ./fanfare.toml line 1, rate", "ping = \"9s\"  # --ping", "pong = \"3s\"  # FANFARE_PONG"]
    {
        assert!(told.contains(line), "{told}");
    }
    let page = fanfare(folder.path(), &["config", "--markdown"]).output().unwrap();
    assert_eq!(text(&page.stdout), include_str!("../docs/config.md"));
}
