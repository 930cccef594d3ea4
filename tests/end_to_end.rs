//! The built binary as its users meet it: it says what to paste, and stops as asked without leaving anything behind.

#[path = "support/hub.rs"]
mod hub;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hub::{Client, Heard};

/// The demo, on free ports; killed if the test fails.
struct Demo {
    child: Child,
    lines: Vec<String>,
}

impl Demo {
    fn start() -> Demo {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .args(["demo", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--redis-listen=127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = Vec::new();
        for line in output.lines() {
            lines.push(line.unwrap());
            if lines.last().is_some_and(|l| l.contains("Ctrl-C")) {
                break;
            }
        }
        Demo { child, lines }
    }

    /// The address behind this text in what it printed.
    fn address(&self, before: &str) -> SocketAddr {
        let line =
            self.lines.iter().find(|l| l.contains(before)).unwrap_or_else(|| panic!("{before}: {:?}", self.lines));
        let rest = line.split_once(before).unwrap().1;
        rest.split(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').next().unwrap().parse().unwrap()
    }

    fn terminate(&self) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM)
            .unwrap();
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_says_what_to_paste_and_the_page_is_there() {
    let begun = Instant::now();
    let demo = Demo::start();
    let http = demo.address("http://");
    let page = reqwest::get(format!("http://{http}/")).await.unwrap();
    assert!(page.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
    assert!(page.text().await.unwrap().contains("<title>Fanfare</title>"));
    assert!(begun.elapsed() < Duration::from_secs(20), "it hangs");

    // The line that it printed, as a shell runs it.
    let mut client = Client::connect(http, "?sub=hello").await;
    client.next().await;
    client.next().await;
    let line = demo.lines.iter().find_map(|l| l.split_once("Paste this")).unwrap().1.trim();
    let run = Command::new("sh").arg("-c").arg(line).output().unwrap();
    assert!(run.status.success(), "{run:?}");
    assert_eq!(client.next().await["data"]["text"], "안녕하세요 · hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_what_was_accepted_then_closes_and_exits_with_0() {
    let mut demo = Demo::start();
    let (http, door) = (demo.address("http://"), demo.address("redis://"));
    let mut client = Client::connect(http, "?sub=last").await;
    client.next().await;
    client.next().await;

    // Publishers in the middle of their work.
    let redis = redis::Client::open(format!("redis://{door}")).unwrap();
    let publishers: Vec<_> = (0..4)
        .map(|p| {
            let redis = redis.clone();
            tokio::spawn(async move {
                let mut connection = redis.get_multiplexed_async_connection().await.unwrap();
                let mut accepted = Vec::new();
                for n in 0.. {
                    let mut command = redis::cmd("XADD");
                    command.arg("fanfare:in").arg("*").arg("topic").arg("last").arg("data").arg(format!("\"{p}-{n}\""));
                    match command.query_async::<String>(&mut connection).await {
                        Ok(_) => accepted.push(format!("{p}-{n}")),
                        Err(_) => return accepted,
                    }
                }
                unreachable!()
            })
        })
        .collect();
    let mut heard = Vec::new();
    let closed = loop {
        match client.hear().await {
            Heard::Text(text) => {
                let message: serde_json::Value = serde_json::from_str(&text).unwrap();
                heard.push(message["data"].as_str().unwrap().to_owned());
                if heard.len() == 100 {
                    demo.terminate();
                }
            }
            other => break other,
        }
    };
    assert_eq!(closed, Heard::Closed(4000, "drain".into()));
    for publisher in publishers {
        for accepted in publisher.await.unwrap() {
            assert!(heard.contains(&accepted), "{accepted} was accepted and not given");
        }
    }
    drop(client);
    let status = tokio::task::spawn_blocking(move || demo.child.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}
