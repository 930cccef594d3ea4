//! F13: clocks on the wall jump by an hour, forwards and back, while queues are worked on. That of a node is nothing to leases,
//! delays, windows of keys and runs of schedules, with a store on Redis and on its own disk; that of a Redis ends leases and
//! windows early or late, and loses nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fleet::Fleet;
use crate::form::{Running, begin, is_long, pick};
use crate::node::client;
use crate::scene::SOON;
use crate::server::RedisServer;
use crate::timepiece::Timepiece;
use crate::workshop::{Crew, Workshop};

const HOUR: i64 = 3_600;
/// A delay and a lease that clocks jump in the midst of.
const SPAN: Duration = Duration::from_secs(2);
/// The store's clock follows that on the wall by one second in a hundred at the most.
const LEAST: Duration = Duration::from_millis(1_950);
const HOURLY: &str = r#"{"name":"hourly","cron":"0 * * * *","queue":"hours","data":1}"#;
/// So often a scheduler looks at the clock on the wall.
const LOOKED: Duration = Duration::from_secs(11);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_jumps_keeps_leases_delays_and_windows_on_redis() {
    let running = begin("F13 queues: clocks of nodes on Redis").await;
    let redis = RedisServer::start();
    let clocks = [Timepiece::new(), Timepiece::new()];
    let begun = hour();
    let fleet = Fleet::with_clocks(&clocks, &redis.url(), &["--schedule", HOURLY]);
    jump(&running, &clocks, fleet, begun).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_jumps_keeps_leases_delays_and_windows_on_its_disk() {
    let running = begin("F13 queues: the clock of a node on its disk").await;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let clocks = [Timepiece::new()];
    let store = format!("disk:{}", folder.path().join("store").display());
    let begun = hour();
    let fleet = Fleet::with_clocks(&clocks, &store, &["--schedule", HOURLY]);
    jump(&running, &clocks, fleet, begun).await;
}

/// Every node's clock jumps forwards, back behind where it was, and to where it was; those of two nodes opposite ways.
async fn jump(running: &Running, clocks: &[Timepiece], fleet: Fleet, begun: u64) {
    let mut workshop = Workshop::open(fleet.addresses.clone(), Crew::default()).await;
    let node = fleet.addresses.pick(0).expect("a node runs");
    for round in 0..pick(1, 5) {
        for ahead in [HOUR, -HOUR, 0] {
            let mut spans = Vec::new();
            for node in &fleet.running {
                spans.push(Spans::begin(node.http).await);
            }
            for (n, clock) in clocks.iter().enumerate() {
                clock.set(if n % 2 == 0 { ahead } else { -ahead });
            }
            let held = futures::future::join_all(spans.into_iter().map(Spans::end));
            // A scheduler takes its time to look, which the short form has not.
            let is_looked_at = round == 0 && ahead == HOUR && is_long();
            let run = async {
                while is_looked_at && runs(node).await == 0 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            // The hour that was jumped over is run for, late.
            let run = tokio::time::timeout(SOON + LOOKED, run);
            let (held, run) = tokio::join!(held, run);
            run.expect("the schedule runs");
            let longest = held.into_iter().max().unwrap_or_default();
            workshop.flow(5).await;
            running.tell(format_args!("round {round}, {ahead} s: spans of {SPAN:?} lasted {longest:.1?} at the most"));
        }
    }
    // And once, however often it was jumped over.
    let (ran, most) = (runs(node).await, 1 + hour() - begun);
    running.tell(format_args!("of one hour jumped over and back {} times there are {ran} runs", pick(1, 5)));
    assert!(ran <= most, "{ran} runs of at most {most}");
    let done = workshop.close(running).await;
    assert_eq!(done.figures.refused, 0, "no lease ended: {:?}", done.figures);
}

/// The hour that it is.
fn hour() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    now.as_secs() / HOUR as u64
}

/// Jobs that the schedule has put.
async fn runs(node: SocketAddr) -> u64 {
    let (status, seen) = ask(client().get(format!("http://{node}/v1/queues/hours"))).await;
    if status == 404 {
        0
    } else {
        seen["stats"]["totals"]["put"].as_u64().unwrap_or_else(|| panic!("a number in {seen}"))
    }
}

/// What should last for a while: a delay, a lease, the window of a key.
struct Spans {
    node: SocketAddr,
    delayed: (String, Instant),
    lent: (String, Instant),
    key: String,
    first: String,
}

impl Spans {
    async fn begin(node: SocketAddr) -> Spans {
        let key = format!("key {node} {:?}", std::time::SystemTime::now());
        let first = put(node, "keyed", Some(&key), "").await;
        let lent = put(node, &format!("lent-{}", node.port()), None, "").await;
        let held = Instant::now();
        let given = take(node, "lent", Some(SPAN)).await;
        assert_eq!(given, (lent.clone(), 1));
        let since = Instant::now();
        let delayed = put(node, &format!("delayed-{}", node.port()), None, &format!("?delay={}", SPAN.as_secs())).await;
        Spans { node, delayed: (delayed, since), lent: (lent, held), key, first }
    }

    /// Waits until they are over; says how long the longest of them lasted.
    async fn end(self) -> Duration {
        let Spans { node, delayed, lent, key, first } = self;
        assert_eq!(put(node, "keyed", Some(&key), "").await, first, "the window of its key has not ended");
        let over = |queue: &'static str, (job, since): (String, Instant), tries: u64| async move {
            assert_eq!(take(node, queue, None).await, (job, tries), "{queue}");
            let lasted = since.elapsed();
            assert!(lasted >= LEAST, "{queue}: {lasted:?}");
            lasted
        };
        let (delay, lease) = tokio::join!(over("delayed", delayed, 1), over("lent", lent, 2));
        delay.max(lease)
    }
}

/// Says which job it is.
async fn put(node: SocketAddr, queue: &str, key: Option<&str>, query: &str) -> String {
    let request = client().post(format!("http://{node}/v1/queues/{queue}/messages{query}")).json(&1);
    let request = if let Some(key) = key { request.header("idempotency-key", key) } else { request };
    let (status, answer) = ask(request).await;
    answer["job"].as_str().unwrap_or_else(|| panic!("{status}: {answer}")).to_owned()
}

/// Takes the next one of this node's own queue and, but where it asks for a lease, acknowledges it; says which try it was.
async fn take(node: SocketAddr, queue: &str, lease: Option<Duration>) -> (String, u64) {
    let base = format!("http://{node}/v1/queues/{queue}-{}", node.port());
    let mut wish = json!({ "wait": SOON.as_secs() - 5 });
    if let Some(lease) = lease {
        wish["lease"] = lease.as_secs_f64().into();
    }
    let (status, answer) = ask(client().post(format!("{base}/take")).json(&wish)).await;
    let job = &answer["jobs"][0];
    let word = |name: &str| job[name].as_str().unwrap_or_else(|| panic!("{queue}: {status}: {answer}")).to_owned();
    if lease.is_none() {
        let (status, answer) = ask(client().post(format!("{base}/ack")).json(&json!({ "tag": word("tag") }))).await;
        assert!(status == 200 && answer["failed"].is_null(), "{answer}");
    }
    (word("job"), job["try"].as_u64().expect("a number"))
}

async fn ask(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("it answers");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_whose_clock_jumps_loses_no_job() {
    let running = begin("F13 queues: the clock of Redis").await;
    let clock = Timepiece::new();
    let redis = RedisServer::start_in(&["--appendonly", "no"], clock.variables());
    let fleet = Fleet::start(2, &redis.url(), &[]);
    let mut workshop = Workshop::open(fleet.addresses.clone(), Crew::default()).await;
    let mut ahead = 0;
    for _ in 0..pick(1, 10) {
        // All leases end at once; what comes back an hour later waits until the clock is there, and all else goes on.
        for step in [HOUR, -HOUR, HOUR] {
            for worker in &mut workshop.workers {
                worker.until("it holds a job", SOON, |(holds, _)| *holds > 0).await;
            }
            ahead += step;
            clock.set(ahead);
            workshop.flow(10).await;
        }
    }
    let done = workshop.close(&running).await;
    assert!(done.figures.refused > 0 && done.figures.again > 0, "no lease ended: {:?}", done.figures);
}
