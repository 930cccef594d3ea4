//! Queues on a Redis Cluster: each has its slot, which may move.

use super::cluster_servers::Cluster;
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_work_on_every_master_and_while_their_slot_moves() {
    let cluster = Cluster::start(Duration::from_secs(60));
    let keeper = keeper(&cluster.url(), Options::default()).await;
    let names: Vec<String> = (0..12).map(|n| format!("jobs.{n}")).collect();
    let batch = names.iter().flat_map(|name| (0..5).map(move |n| job(name, &n.to_string())));
    let answers = keeper.queues.queues.put(batch.collect()).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let mut listed = keeper.queues.admin.list(None, 100).await.unwrap();
    listed.sort_by_key(|queue| names.iter().position(|name| name == queue.as_str()));
    assert_eq!(listed, names.iter().map(|name| queue(name)).collect::<Vec<_>>());

    let slot = cluster.slot_of("fanfare:{q:jobs.3}:");
    let to = (cluster.owner(slot) + 1) % 3;
    let putting = async {
        let mut put = 0;
        for n in 5..400 {
            if keeper.put(Put { group: Some("g".into()), ..job("jobs.3", &n.to_string()) }).await.is_ok() {
                put += 1;
            }
        }
        put
    };
    let moving = tokio::task::spawn_blocking(move || {
        cluster.move_slot(slot, to, || ());
        cluster
    });
    let (put, cluster) = tokio::join!(putting, moving);
    let cluster = cluster.unwrap();
    assert_eq!(put, 395, "nothing is refused over it");
    let mut taken = Vec::new();
    loop {
        let more = keeper.take("jobs.3", 100).await;
        if more.jobs.is_empty() {
            break;
        }
        for job in &more.jobs {
            assert_eq!(keeper.settle("jobs.3", job, How::Ack).await, Ok(Settled::Done));
        }
        taken.extend(texts(&more));
    }
    assert_eq!(taken, (0..400).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(cluster.cross_slot_errors(), 0);
    wakes::wakes_come_when_there_is_something_to_take(keeper).await;
}
