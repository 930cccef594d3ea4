//! What a job costs the server: the time that Redis itself counts for our scripts, so that the build of the hub does not
//! matter. Of many rounds the quickest quarter counts, so that what else the machine does matters little.
//! `cargo test --test redis_queues speed -- --ignored --nocapture`

use super::*;

const BODY: usize = 200;
const ROUNDS: usize = 40;

/// Microseconds of all script calls since this was asked last.
fn cost(hand: &mut redis::Connection) -> u64 {
    let info: String = redis::cmd("INFO").arg("commandstats").query(hand).unwrap();
    redis::cmd("CONFIG").arg("RESETSTAT").exec(hand).unwrap();
    let line = info.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap_or_default();
    line.split([':', ',']).find_map(|field| field.strip_prefix("usec=")?.parse().ok()).unwrap_or(0)
}

fn memory(hand: &mut redis::Connection) -> u64 {
    let info: String = redis::cmd("INFO").arg("memory").query(hand).unwrap();
    info.lines().find_map(|line| line.strip_prefix("used_memory:")?.parse().ok()).unwrap_or(0)
}

/// Of a job, by the quickest quarter of rounds.
fn per_job(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 4]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn what_a_job_costs_the_server() {
    println!("| jobs waiting | at once | shape | put | take | ack |\n|--:|--:|---|--:|--:|--:|");
    for depth in [1_000, 100_000] {
        let server = RedisServer::start();
        let keeper = keeper(&server.url(), Options::default()).await;
        let mut hand = server.connection();
        for group in [false, true] {
            let name = if group { "groups" } else { "plain" };
            let one = |n: usize| {
                let put = job(name, &"x".repeat(BODY));
                Put { group: group.then(|| format!("g{n}").into()), ..put }
            };
            let before = memory(&mut hand);
            for first in (0..depth).step_by(1000) {
                let answers = keeper.queues.queues.put((first..first + 1000).map(one).collect()).await;
                assert!(answers.iter().all(Result::is_ok));
            }
            let bytes = (memory(&mut hand) - before) as f64 / depth as f64;
            println!("| {depth} | | {name} | {bytes:.0} bytes of memory a job of {BODY} | | |");
            for batch in [1, 100] {
                // So that a round takes longer than the grain of what is counted.
                let calls = if batch == 1 { 20 } else { 1 };
                let jobs = (calls * batch) as f64;
                let (mut puts, mut takes, mut acks) = (Vec::new(), Vec::new(), Vec::new());
                cost(&mut hand);
                for _ in 0..ROUNDS {
                    for _ in 0..calls {
                        let answers = keeper.queues.queues.put((0..batch).map(one).collect()).await;
                        assert!(answers.iter().all(Result::is_ok));
                    }
                    puts.push(cost(&mut hand) as f64 / jobs);
                    let mut taken = Vec::new();
                    for _ in 0..calls {
                        taken.push(keeper.take(name, batch).await.jobs);
                    }
                    takes.push(cost(&mut hand) as f64 / jobs);
                    for jobs in taken {
                        let acks = jobs.iter().map(|job| Settle { job: job.id, token: job.token, how: How::Ack });
                        let answers = keeper.queues.queues.settle(&queue(name), acks.collect()).await;
                        assert!(answers.iter().all(|answer| *answer == Ok(Settled::Done)) && answers.len() == batch);
                    }
                    acks.push(cost(&mut hand) as f64 / jobs);
                }
                let [put, take, ack] = [puts, takes, acks].map(per_job);
                println!("| {depth} | {batch} | {name} | {put:.1} | {take:.1} | {ack:.1} |");
            }
        }
    }
}
