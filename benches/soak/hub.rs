//! The hub under test: this program once more, in a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fanfare::config::{self, Mode};
use fanfare::server::Server;

/// Where the hub keeps its messages, unless another store was asked for.
pub fn store_in(folder: &Path) -> String {
    format!("disk:{}", folder.join("store").display())
}

/// The hub as this process sees it. It ends with its standard input.
pub struct Hub {
    child: Child,
    pub http: SocketAddr,
    pub door: SocketAddr,
}

impl Hub {
    pub fn start(store: &str) -> Hub {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["hub", store])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a second process");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("the hub tells its addresses");
        let (http, door) = line.trim().split_once(' ').expect("two addresses");
        Hub { http: http.parse().expect("an address"), door: door.parse().expect("an address"), child }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where a topic stands: the offset of its newest message.
    pub async fn head(&self, topic: &str) -> u64 {
        let url = format!("http://{}/v1/topics/{topic}/messages?last=0", self.http);
        let page: serde_json::Value = reqwest::get(url).await.expect("an answer").json().await.expect("JSON");
        let at = page["at"].as_str().expect("a position");
        at.split_once('.').expect("a position").1.parse().expect("an offset")
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The other process.
pub fn serve(store: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    runtime.block_on(async {
        let flags = ["fanfare", "--insecure", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"];
        let store = format!("--store={store}");
        // A client that pauses must find what it missed, and history must be full after the warm-up whatever the rate;
        // what waits for a client is small, so that it does fall behind.
        let kept = ["--history-messages=1000000", "--history-age=60s", "--outbox=128KiB"];
        let more = ["--redis-listen=127.0.0.1:0", "--log=warn", &store].into_iter().chain(kept);
        let matches =
            clap::Command::new("fanfare").args(config::arguments()).get_matches_from(flags.into_iter().chain(more));
        let config = config::load(Mode::Serve, &matches, [], Path::new("/nonexistent")).expect("good flags");
        let server = Server::start(&config, Mode::Serve).await.expect("it starts");
        println!("{} {}", server.http, server.door.expect("a door"));
        let ended = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        let _ = ended.await;
        server.stop().await;
    });
}
