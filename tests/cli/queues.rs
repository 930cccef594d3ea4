//! `fanfare queue` and `fanfare work`.

use std::process::{Child, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use super::{Hub, PATIENCE, code, cutting_proxy, fanfare, follow, text};

impl Hub {
    fn stats(&self, queue: &str) -> Value {
        self.lines(&["queue", "stats", queue])[0]["stats"].clone()
    }

    fn put(&self, queue: &str, data: &str) -> Value {
        self.lines(&["queue", "put", queue, data])[0].clone()
    }

    fn work(&self, arguments: &[&str]) -> Worker {
        let arguments: Vec<&str> = ["work"].iter().chain(arguments).copied().collect();
        let mut child = self.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let lines = follow(child.stdout.take().unwrap());
        Worker { child, lines }
    }
}

/// A `fanfare work` with the lines that its programs print.
struct Worker {
    child: Child,
    lines: std::sync::mpsc::Receiver<Value>,
}

impl Worker {
    fn next(&self) -> Value {
        self.lines.recv_timeout(PATIENCE).expect("a line of the program")
    }

    fn terminate(&self) {
        let id = self.child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }

    fn end(mut self) -> i32 {
        self.terminate();
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "never came: {what}");
        std::thread::yield_now();
    }
}

/// A pipe with a name: a program that reads it goes on when the test has written to it.
fn pipe(hub: &Hub) -> String {
    let path = hub.folder.path().join("go");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    path.display().to_string()
}

#[test]
fn a_queue_is_made_after_a_preset_and_says_what_was_set() {
    let hub = Hub::start();
    let made = &hub.lines(&["queue", "create", "orders", "--like", "sqs-fifo", "--set", "lease=90s"])[0];
    assert_eq!(made["queue"], "orders");
    let settings = &made["settings"];
    assert_eq!(
        (&settings["lease"], &settings["dedupe_content"], &settings["backoff"]),
        (&json!(90), &json!(true), &json!([]))
    );
    // What is not named stays.
    let changed = &hub.lines(&["queue", "create", "orders", "--set", "max_deliveries=3"])[0]["settings"];
    assert_eq!((&changed["lease"], &changed["max_deliveries"]), (&json!(90), &json!(3)));
    let first = hub.put("orders", "1");
    assert_eq!(hub.put("orders", "1")["job"], first["job"], "what it holds is the key");
    assert_eq!(hub.lines(&["queue", "list"]), [json!({ "queue": "orders" })]);
    assert_eq!(hub.stats("orders")["waiting"][4], 1);
    for (arguments, expected) in [
        (&["queue", "create", "q", "--set", "leese=1s"][..], 2),
        (&["queue", "create", "q", "--set", "lease=1ms"], 1),
        (&["queue", "create", "q", "--like", "sqs"], 1),
        (&["queue", "stats", "nothing"], 1),
        (&["queue", "put", "q", "{"], 2),
        (&["queue", "ack", "orders", "made-up"], 1),
        (&["queue"], 2),
        (&["work", "q"], 2),
        (&["work", "a b", "--exec", "true"], 1),
    ] {
        let output = hub.run(arguments);
        assert_eq!(code(&output), expected, "{arguments:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty(), "{arguments:?} says why");
    }
    let output =
        fanfare(hub.folder.path(), &["work", "q", "--exec", "true", "--url=http://127.0.0.1:1"]).output().unwrap();
    assert_eq!(code(&output), 3);
    hub.lines(&["queue", "delete", "orders"]);
    assert_eq!(hub.lines(&["queue", "list"]).len(), 0);
}

#[test]
fn jobs_are_taken_looked_at_and_settled_by_their_tags() {
    let hub = Hub::start();
    for n in 0..4 {
        hub.lines(&["queue", "put", "q", &n.to_string(), "--priority", &n.to_string(), "--name", "n"]);
    }
    hub.lines(&["queue", "put", "q", "--text", "later", "--delay", "3600"]);
    assert_eq!(hub.lines(&["queue", "jobs", "q", "--place", "delayed"])[0]["data"], "later");
    hub.lines(&["queue", "pause", "q"]);
    assert_eq!(hub.lines(&["queue", "take", "q"]).len(), 0);
    hub.lines(&["queue", "resume", "q"]);
    let taken = hub.lines(&["queue", "take", "q", "--max", "3", "--wait", "5", "--lease", "60", "--worker", "me"]);
    let data: Vec<&Value> = taken.iter().map(|job| &job["data"]).collect();
    assert_eq!(data, [&json!(3), &json!(2), &json!(1)]);
    let tag = |n: usize| taken[n]["tag"].as_str().unwrap();
    assert_eq!(hub.lines(&["queue", "jobs", "q", "--place", "in-flight"]).len(), 3);
    hub.lines(&["queue", "ack", "q", tag(0), tag(1)]);
    hub.lines(&["queue", "nack", "q", tag(2), "--delay", "0", "--error", "not now"]);
    let again = hub.run(&["queue", "ack", "q", tag(0)]);
    assert_eq!(code(&again), 1, "{}", text(&again.stderr));
    let jobs = hub.lines(&["queue", "jobs", "q"]);
    assert_eq!((&jobs[0]["data"], &jobs[0]["error"]), (&json!(1), &json!("not now")));
    assert!(jobs[0]["attempts"][0]["worker"].as_str().unwrap().ends_with("/me"), "{}", jobs[0]);
    assert_eq!(hub.lines(&["queue", "jobs", "q", "--limit", "1"]).len(), 1);
    hub.lines(&["queue", "remove", "q", jobs[0]["job"].as_str().unwrap()]);
    hub.lines(&["queue", "purge", "q"]);
    let stats = hub.stats("q");
    assert_eq!((&stats["delayed"], &stats["totals"]["acked"]), (&json!(0), &json!(2)));
}

#[test]
fn a_program_gets_each_job_as_a_line_and_its_exit_code_answers() {
    let hub = Hub::start();
    hub.lines(&["queue", "create", "q", "--set", "max_deliveries=1"]);
    for n in 0..3 {
        hub.put("q", &n.to_string());
    }
    let program = r#"read -r job; printf '%s\n' "$job"; echo "{\"env\":\"$FANFARE_JOB_QUEUE $FANFARE_JOB_TRY\"}"
        case "$job" in *'"data":1'*) echo "one is bad" >&2; exit 3;; esac"#;
    let worker = hub.work(&["q", "--exec", program]);
    for n in 0..3 {
        let job = worker.next();
        assert_eq!((&job["data"], &job["try"]), (&json!(n), &json!(1)));
        assert_eq!(worker.next()["env"], "q 1");
    }
    assert_eq!(worker.end(), 0);
    let stats = hub.stats("q");
    assert_eq!((&stats["totals"]["acked"], &stats["dead"], &stats["in_flight"]), (&json!(2), &json!(1), &json!(0)));
    let dead = &hub.lines(&["queue", "dead", "q"])[0];
    assert_eq!(
        (&dead["data"], &dead["error"], &dead["cause"]),
        (&json!(1), &json!("one is bad"), &json!("max-deliveries"))
    );
    // It is mended, sent back and done.
    hub.lines(&["queue", "edit", "q", dead["job"].as_str().unwrap(), "7"]);
    hub.lines(&["queue", "redrive", "q", "--cause", "max-deliveries"]);
    let worker = hub.work(&["q", "--exec", program]);
    assert_eq!(worker.next()["data"], 7);
    worker.next();
    assert_eq!(worker.end(), 0);
    assert_eq!(hub.stats("q")["totals"]["acked"], 3);
}

#[test]
fn a_batch_is_one_run_and_a_line_answers_for_one_job() {
    let hub = Hub::start();
    for n in 0..5 {
        hub.put("q", &n.to_string());
    }
    let program = r#"n=0; while read -r job; do n=$((n+1))
        tag=$(printf %s "$job" | sed 's/.*"tag":"\([^"]*\)".*/\1/')
        case "$job" in *'"data":2'*) echo "{\"term\":\"$tag\",\"text\":\"two\"}"; echo "{\"ack\":\"$tag\"}";; esac
        case "$job" in *'"data":3'*) echo "{\"nack\":\"$tag\",\"delay\":3600,\"text\":\"three\"}";; esac
        done; echo "{\"jobs\":$n}""#;
    let worker = hub.work(&["q", "--batch", "5", "--exec", program]);
    assert_eq!(worker.next(), json!({ "jobs": 5 }));
    assert_eq!(worker.end(), 0);
    let stats = hub.stats("q");
    assert_eq!((&stats["totals"]["acked"], &stats["dead"], &stats["delayed"]), (&json!(3), &json!(1), &json!(1)));
    let dead = &hub.lines(&["queue", "dead", "q"])[0];
    assert_eq!((&dead["data"], &dead["error"], &dead["cause"]), (&json!(2), &json!("two"), &json!("term")));
}

#[test]
fn a_worker_that_is_told_to_stop_finishes_what_runs_and_gives_back_the_rest() {
    let hub = Hub::start();
    let go = pipe(&hub);
    for n in 0..3 {
        hub.put("q", &n.to_string());
    }
    // One run of two jobs at a time; the third is held and not begun.
    let program = format!("echo '{{\"begun\":1}}'; cat {go} >/dev/null");
    let worker = hub.work(&["q", "--batch", "2", "--credit", "3", "--exec", &program]);
    worker.next();
    until("all are held", || hub.stats("q")["in_flight"] == 3);
    worker.terminate();
    std::fs::write(&go, "go").unwrap();
    assert_eq!(worker.end_of_itself(), 0);
    let stats = hub.stats("q");
    assert_eq!(
        (&stats["totals"]["acked"], &stats["waiting"][4], &stats["in_flight"]),
        (&json!(2), &json!(1), &json!(0))
    );
    let left = &hub.lines(&["queue", "jobs", "q"])[0];
    assert_eq!((&left["data"], &left["tries"]), (&json!(2), &json!(0)), "it does not count as tried");
}

impl Worker {
    fn end_of_itself(mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }
}

#[test]
fn what_runs_longer_than_its_lease_is_held_by_extending_it() {
    let hub = Hub::start();
    let go = pipe(&hub);
    hub.put("q", "1");
    let program = format!("echo '{{\"begun\":1}}'; cat {go} >/dev/null");
    let worker = hub.work(&["q", "--lease", "0.6", "--exec", &program]);
    worker.next();
    let lease_end = || hub.lines(&["queue", "jobs", "q", "--place", "in-flight"])[0]["until"].as_u64().unwrap();
    let first = lease_end();
    until("it is held beyond two leases", || lease_end() > first + 1_200);
    std::fs::write(&go, "go").unwrap();
    assert_eq!(worker.end(), 0);
    let totals = hub.stats("q")["totals"].clone();
    assert_eq!((&totals["acked"], &totals["taken"], &totals["lease_ended"]), (&json!(1), &json!(1), &json!(0)));
}

#[test]
fn a_line_that_is_cut_gives_the_jobs_back_and_the_worker_comes_back_for_them() {
    let hub = Hub::start();
    for n in 0..20 {
        hub.put("q", &n.to_string());
    }
    let proxy = cutting_proxy(hub.http, vec![700, 900, 1_300, usize::MAX]);
    let url = format!("http://{proxy}");
    let worker = hub.work(&["q", "--url", &url, "--batch", "4", "--exec", "cat >/dev/null"]);
    until("all are done", || hub.stats("q")["totals"]["acked"] == 20);
    assert_eq!(worker.end(), 0);
    assert_eq!(hub.stats("q")["dead"], 0);
}
