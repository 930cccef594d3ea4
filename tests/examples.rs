//! The examples as their readers run them: one command each, against the built hub on free ports, each to its own end. The
//! chat is a page and is tested in a browser: `tests/browser/chat.test.js`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A demo of its own for each example; killed when the test ends.
struct Hub {
    child: Child,
    http: String,
    redis: String,
}

impl Hub {
    fn start() -> Hub {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .args(["demo", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--redis-listen=127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        while !said.contains("Ctrl-C") && output.read_line(&mut said).unwrap() > 0 {}
        let after = |text: &str| {
            let rest = said.split_once(text).unwrap_or_else(|| panic!("{text}: {said}")).1;
            rest.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect::<String>()
        };
        let redis = format!("redis://127.0.0.1:{}", after("redis-cli -p "));
        Hub { http: format!("http://{}", after("http://")), redis, child }
    }

    /// Runs an example to its end; answers what it printed.
    fn run(&self, program: &str, file: &str) -> String {
        let ran = Command::new(program)
            .arg(root().join("examples").join(file))
            .envs([
                ("FANFARE_URL", &*self.http),
                ("FANFARE_REDIS", &self.redis),
                ("FANFARE", env!("CARGO_BIN_EXE_fanfare")),
            ])
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{program} does not run ({error}); ./dev test installs it"));
        let Output { status, stdout, stderr } = ran;
        let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{file}: {out}{err}");
        out.into_owned()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Of the test environment that `./dev` makes, or the one that is on the path.
fn python() -> String {
    let own: PathBuf = root().join(".dev/venv/bin/python");
    if own.exists() { own.to_string_lossy().into_owned() } else { "python3".to_owned() }
}

#[test]
fn letters_that_a_mail_server_refuses_are_tried_again_then_dead_then_sent_after_all() {
    let said = Hub::start().run(&python(), "email/main.py");
    for line in [
        "sent to ann@example.org, try 1",
        "refused for busy@example.org, try 1 of 3",
        "sent to busy@example.org, try 2",
        "refused for full@example.org, try 3 of 3",
        "dead letters: 1",
        "dead: full@example.org because max-deliveries",
        "no room in this mailbox",
        "sent to full@example.org, try 1",
        "dead letters: 0",
        "delivered: ann busy full",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn what_is_unread_is_counted_for_each_device() {
    let said = Hub::start().run("sh", "notifications/run.sh");
    let counts: Vec<&str> = said.lines().filter(|line| line.ends_with("unread")).collect();
    assert_eq!(
        counts,
        [
            "phone: 0 unread",
            "laptop: 0 unread",
            "phone: 3 unread",
            "laptop: 3 unread",
            "phone: 0 unread",
            "laptop: 3 unread"
        ],
        "{said}"
    );
    assert!(said.contains("안녕하세요"), "{said}");
}

#[test]
fn the_events_of_an_order_keep_their_order_and_those_that_are_repeated_are_one_job() {
    let said = Hub::start().run(&python(), "orders/main.py");
    assert!(said.contains("sent 24 events, 12 of them repeated"), "{said}");
    assert!(said.contains("12 jobs for 3 orders, each order's in its order"), "{said}");
}

#[test]
fn readings_go_through_partitions_in_the_order_of_their_sensors() {
    let said = Hub::start().run(&python(), "ingest/main.py");
    assert!(said.contains("wrote 1000 readings of 10 sensors"), "{said}");
    assert!(said.contains("1000 readings, each sensor's in order"), "{said}");
}

/// It brings a hub of its own.
#[test]
fn a_batch_starts_when_enough_jobs_wait_or_when_its_schedule_says_so() {
    let ran = Command::new("sh")
        .arg(root().join("examples/batch/run.sh"))
        .env("FANFARE", env!("CARGO_BIN_EXE_fanfare"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (said, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{said}{err}");
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("put") || line.contains("batch of")).collect();
    let [ten, full, three, nightly] = lines[..] else { panic!("{said}{err}") };
    assert_eq!((ten, three), ("put 1 to 10", "put 11 to 13"), "{said}");
    // The night may come in the same moment.
    assert!(full.starts_with("a batch of 10 invoices"), "{said}");
    assert_eq!(nightly, "a batch of 3 invoices: the night came", "{said}");
}
