//! The scene of a fault on queues: producers, workers and two queues around some nodes, one of them with groups. When the
//! faults are over the workers go on until every job is acknowledged or dead; then the checker judges.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::checker::{Clock, Delivery, JobPut, Left, Mark, Terms, Work, WorkFigures, judge_work};
use crate::form::Running;
use crate::listener::Nodes;
use crate::node::client;
use crate::producer::{self, Producer};
use crate::scene::SOON;
use crate::worker::{self, Worker};

/// With the number of their groups.
pub const QUEUES: [(&str, u64); 2] = [("jobs", 0), ("lines", 12)];
/// The longest that the workers may need for what is left.
const DRAINED: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// More than the tries that a job can lose to the faults.
const MAX_DELIVERIES: u32 = 100;
/// Producers that ask for the level `replica`, where some do.
const CAREFUL: &[&str] = &["careful-2", "careful-3"];
const WINDOW: Duration = Duration::from_secs(60);
const PACE: Duration = Duration::from_millis(20);
const CREDIT: usize = 6;

/// Who takes part.
pub struct Crew {
    pub producers: usize,
    pub workers: usize,
    /// Of a delivery.
    pub lease: Duration,
    /// Bytes of a job beside its mark.
    pub padding: usize,
    /// How long a worker works on a job, and up to as long again.
    pub moment: Duration,
    /// The second half of the producers asks for the level `replica`; they are called `careful-…`.
    pub careful: bool,
}

impl Default for Crew {
    fn default() -> Crew {
        let (lease, moment) = (Duration::from_secs(2), Duration::from_millis(30));
        Crew { producers: 4, workers: 6, lease, padding: 0, moment, careful: false }
    }
}

pub struct Workshop {
    pub clock: Clock,
    pub nodes: Nodes,
    pub producers: Vec<Producer>,
    pub workers: Vec<Worker>,
    /// What was put by others than the producers.
    pub entries: Vec<JobPut>,
    /// When what was done may be undone, see `Terms`.
    pub undone: Vec<(Duration, Duration)>,
}

/// What is left of it.
pub struct Done {
    pub figures: WorkFigures,
    /// From one delivery of a job to the next one, the longest.
    pub again: Duration,
}

impl Workshop {
    /// Makes the queues and begins.
    pub async fn open(nodes: Nodes, crew: Crew) -> Workshop {
        let clock = Clock::start();
        let node = nodes.pick(0).expect("a node runs");
        let settings = json!({ "lease": crew.lease.as_secs_f64(), "max_deliveries": MAX_DELIVERIES, "backoff": [] });
        for (queue, _) in QUEUES {
            let request = client().put(format!("http://{node}/v1/queues/{queue}")).json(&settings);
            let answer = request.send().await.expect("it answers");
            assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap_or_default());
        }
        let workers = (0..crew.workers).map(|n| {
            let queues = QUEUES.iter().map(|(queue, _)| *queue).collect();
            let plan =
                worker::Plan { clock, nodes: nodes.clone(), first: n, queues, credit: CREDIT, moment: crew.moment };
            Worker::start(format!("worker {n}"), plan)
        });
        let workers = workers.collect();
        let producers = (0..crew.producers).map(|n| {
            let (nodes, queues) = (nodes.clone(), QUEUES.to_vec());
            let (patience, padding) = (Duration::from_secs(10), crew.padding);
            let is_careful = crew.careful && n >= crew.producers / 2;
            let durability = is_careful.then_some("replica");
            let plan = producer::Plan { clock, nodes, first: n / 2, queues, pace: PACE, patience, padding, durability };
            match n % 2 {
                _ if is_careful && n % 2 == 0 => Producer::by_http(&format!("careful-{n}"), plan),
                _ if is_careful => Producer::by_websocket(&format!("careful-{n}"), plan),
                0 => Producer::by_http(&format!("keys-{n}"), plan),
                _ => Producer::by_websocket(&format!("ws-{n}"), plan),
            }
        });
        let producers = producers.collect();
        let mut workshop = Workshop { clock, nodes, producers, workers, entries: Vec::new(), undone: Vec::new() };
        if crew.producers > 0 {
            workshop.flow(5).await;
        }
        workshop
    }

    /// Waits until each producer has put so many more, and every worker was given another one.
    pub async fn flow(&mut self, more: u64) {
        for producer in &mut self.producers {
            producer.until_more(more, SOON).await;
        }
        for worker in &mut self.workers {
            let had = worker.holds.borrow().1;
            worker.until("it is given another job", SOON, |(_, all)| *all > had).await;
        }
    }

    /// The longest that a producer waited for an answer.
    pub fn slowest(&self) -> Duration {
        self.producers.iter().map(|producer| producer.tally().slowest).max().unwrap_or_default()
    }

    /// Ends it: no more is put, what is there is worked off, and all is judged.
    pub async fn close(self, running: &Running) -> Done {
        let mut work = Work { puts: self.entries, ..Work::default() };
        for producer in self.producers {
            work.puts.extend(producer.stop().await);
        }
        let node = self.nodes.pick(0).expect("a node runs");
        let begun = Instant::now();
        for (queue, _) in QUEUES {
            loop {
                let counted = counted(node, queue).await;
                if counted.0 == 0 {
                    work.counters.insert(queue.to_owned(), counted);
                    break;
                }
                assert!(begun.elapsed() < DRAINED, "{queue} is not worked off: {counted:?} alive and dead");
                tokio::time::sleep(LOOK).await;
            }
        }
        let drained = begun.elapsed();
        let mut cuts = 0;
        for worker in self.workers {
            let notes = worker.stop().await;
            cuts += notes.cuts.len().saturating_sub(1);
            work.deliveries.extend(notes.deliveries);
            work.ends.extend(notes.ends);
        }
        for (queue, _) in QUEUES {
            for place in ["ready", "parked", "delayed", "in-flight", "dead"] {
                work.left.extend(left(node, queue, place).await);
            }
        }
        let terms = Terms { undone: self.undone, safe: CAREFUL, max_deliveries: MAX_DELIVERIES, window: WINDOW };
        let (verdict, figures) = judge_work(&work, &terms);
        let again = longest_again(&work.deliveries);
        let WorkFigures { put, delivered, again: repeated, acked, refused, left, lost, undone } = figures;
        running.tell(format_args!(
            "{put} jobs put, {acked} acknowledged, {delivered} deliveries ({repeated} again, after {again:.1?} at the \
             most), {refused} late answers refused, {cuts} connections of workers ended; left {left}, lost {lost}, \
             {undone} acknowledgements undone; worked off within {drained:.1?}; faults {:?}",
            verdict.counts()
        ));
        verdict.assert_clean();
        assert!(put > 0 && acked > 0, "nothing was done");
        Done { figures, again }
    }
}

/// The longest from one delivery of a job to the next one; where nobody heard of those between, because a node died with
/// them, each of them has its share.
fn longest_again(deliveries: &[Delivery]) -> Duration {
    let mut by_job: HashMap<_, BTreeMap<u32, Duration>> = HashMap::new();
    for delivery in deliveries {
        by_job.entry((&delivery.queue, delivery.job)).or_default().insert(delivery.tries, delivery.got);
    }
    let gaps = by_job.values().flat_map(|tries| tries.iter().zip(tries.iter().skip(1)));
    gaps.map(|(before, after)| after.1.saturating_sub(*before.1) / (after.0 - before.0)).max().unwrap_or_default()
}

/// Jobs that are not dead, and dead ones.
pub async fn counted(node: SocketAddr, queue: &str) -> (u64, u64) {
    let stats = &show(node, &format!("/v1/queues/{queue}")).await["stats"];
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("a number in {stats}"));
    let waiting: u64 = stats["waiting"].as_array().expect("by priority").iter().map(number).sum();
    (waiting + number(&stats["delayed"]) + number(&stats["in_flight"]), number(&stats["dead"]))
}

async fn left(node: SocketAddr, queue: &str, place: &str) -> Vec<Left> {
    let mut left = Vec::new();
    loop {
        let path = format!("/v1/queues/{queue}/jobs?place={place}&limit=500&skip={}", left.len());
        let page = show(node, &path).await;
        for job in page["jobs"].as_array().unwrap_or_else(|| panic!("a page: {page}")) {
            let text = |name: &str| job[name].as_str().unwrap_or_else(|| panic!("{name} in {job}"));
            let (id, mark) = (text("job").parse().expect("the id of a job"), Mark::parse(queue, text("data")));
            left.push(Left { queue: queue.to_owned(), job: id, mark, is_dead: place == "dead" });
        }
        if page["more"] != true {
            return left;
        }
    }
}

async fn show(node: SocketAddr, path: &str) -> Value {
    let answer = client().get(format!("http://{node}{path}")).send().await.expect("it answers");
    serde_json::from_str(&answer.text().await.expect("it answers")).expect("JSON")
}
