//! F16 on queues: the nodes that bridge ingest queues into queues are killed and stalled, also while another one is. Each entry
//! is one job, none is lost, and groups stay in their order.

use std::time::Duration;

use crate::checker::{Answer, Clock, JobPut, Mark};
use crate::fleet::Fleet;
use crate::form::{begin, pick};
use crate::publisher::{Flood, connect};
use crate::scene::{SOURCES, until_drained};
use crate::server::RedisServer;
use crate::trouble::{Dice, Faults};
use crate::workshop::{Crew, QUEUES, Workshop};

/// Entries a second from each of two back ends.
const PACE: u64 = 200;
const PIPELINE: u64 = 10;
/// So soon must another node have a partition.
const TAKEN_OVER: Duration = Duration::from_secs(7);
/// A node that comes back may find a machine with much other work.
const SETTINGS: [&str; 4] = ["--ingest-lease", "1500ms", "--redis-connect", "10s"];
/// One of each kind of trouble at the least.
const ROUNDS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_entry_is_one_job_while_those_who_bridge_them_are_killed_and_stalled() {
    let running = begin("F16 queues: owners killed and stalled").await;
    let redis = RedisServer::start();
    let fleet = Fleet::start(3, &redis.url(), &SETTINGS);
    let addresses = fleet.addresses.clone();
    let mut faults = Faults::new(fleet, connect(&redis.url()).await, Dice::roll(&running));
    let crew = Crew { producers: 0, workers: 9, moment: Duration::from_millis(5), ..Crew::default() };
    let mut workshop = Workshop::open(addresses, crew).await;
    for source in SOURCES {
        faults.owner(source).await;
    }
    let count = pick(1_600, 20_000);
    let putting = [Flood::Xadd, Flood::Rpush].map(|door| tokio::spawn(put(door, workshop.clock, redis.url(), count)));
    let mut rounds = 0;
    while rounds < ROUNDS || !putting.iter().all(|task| task.is_finished()) {
        faults.round().await;
        rounds += 1;
    }
    for task in putting {
        workshop.entries.extend(task.await.expect("a back end does not panic"));
    }
    let longest = faults.taken_over.iter().max().copied().unwrap_or_default();
    running.tell(format_args!(
        "{} killed, {} stalled, taken over within {longest:.1?} (a lease of 1.5 s)",
        faults.fleet.kills, faults.fleet.pauses
    ));
    assert!(longest < TAKEN_OVER, "{longest:?}");
    until_drained(&mut connect(&redis.url()).await).await;
    let done = workshop.close(&running).await;
    assert_eq!(done.figures.put, 2 * count as usize);
}

/// So many entries through one door, to both queues in turn.
async fn put(door: Flood, clock: Clock, url: String, count: u64) -> Vec<JobPut> {
    let mut connection = connect(&url).await;
    let mut tick = tokio::time::interval(Duration::from_secs(1) * PIPELINE as u32 / PACE as u32);
    let mut puts: Vec<JobPut> = Vec::new();
    for first in (0..count).step_by(PIPELINE as usize) {
        tick.tick().await;
        let (mut pipeline, asked, known) = (redis::pipe(), clock.now(), puts.len());
        for n in first..(first + PIPELINE).min(count) {
            let (queue, groups) = QUEUES[n as usize % QUEUES.len()];
            let group = (groups > 0).then(|| format!("g{}", n / QUEUES.len() as u64 % groups));
            let mark = Mark::new(door.name(), n);
            let data = format!("\"{}\"", mark.payload(queue));
            match door {
                Flood::Xadd => {
                    pipeline.cmd("XADD").arg("fanfare:in").arg("*").arg("queue").arg(queue).arg("data").arg(data);
                    if let Some(group) = &group {
                        pipeline.arg("group").arg(group);
                    }
                }
                Flood::Rpush => {
                    let group = group.as_ref().map_or(String::new(), |group| format!(r#","group":"{group}""#));
                    let document = format!(r#"{{"queue":"{queue}","data":{data}{group}}}"#);
                    pipeline.cmd("RPUSH").arg("fanfare:list").arg(document);
                }
            }
            let (queue, answer) = (queue.to_owned(), Answer::Yes(None));
            puts.push(JobPut { queue, mark, group, key: None, asked, answered: asked, answer });
        }
        pipeline.exec_async(&mut connection).await.expect("this Redis takes everything");
        puts[known..].iter_mut().for_each(|put| put.answered = clock.now());
    }
    puts
}
