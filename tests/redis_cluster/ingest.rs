//! The ingest queue on a cluster: the slots of the queue and of the topics lie on different masters. What a topic's master
//! had taken and lost is applied again from what the queue keeps: exactly that, and in order.

use super::*;
use crate::ingest::{House, data, until};
use redis::Commands;

const PARTIAL: &[&str] = &["--cluster-require-full-coverage", "no"];

/// Publishes `numbers` to each topic, half of the topics by the stream and half by the list.
fn publish(cluster: &Cluster, topics: &[String], numbers: std::ops::Range<usize>) {
    let (mut stream, mut list) = (cluster.connection_for("fanfare:in"), cluster.connection_for("fanfare:list"));
    for n in numbers {
        for (place, name) in topics.iter().enumerate() {
            if place % 2 == 0 {
                let _: String =
                    stream.xadd("fanfare:in", "*", &[("topic", name.as_str()), ("data", &n.to_string())]).unwrap();
            } else {
                let _: u64 = list.rpush("fanfare:list", format!(r#"{{"topic":"{name}","data":{n}}}"#)).unwrap();
            }
        }
    }
}

async fn until_applied(house: &House, topics: &[String], last: usize) {
    for name in topics {
        let newest = async || {
            let page = house.hub.read(&topic(name), ReadFrom::Last(1), ReadLimit::default()).await;
            page.is_ok_and(|page| page.messages.iter().any(|m| m.body.as_bytes() == data(&last.to_string()).as_bytes()))
        };
        until(&format!("{last} in {name}"), &newest).await;
    }
}

async fn bodies(house: &House, name: &str) -> (Vec<String>, usize) {
    let (name, mut from) = (topic(name), "zzzzzzz.0".parse::<Position>().unwrap());
    let (mut bodies, mut lives) = (Vec::new(), std::collections::HashSet::new());
    loop {
        let page = house.hub.read(&name, ReadFrom::After(from), ReadLimit::default()).await.unwrap();
        for message in &page.messages {
            bodies.push(String::from_utf8_lossy(message.body.as_bytes()).into_owned());
            lives.insert(message.at.epoch);
        }
        if page.is_last() {
            return (bodies, lives.len());
        }
        from = page.end;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_master_had_taken_from_the_queue_is_applied_again_exactly() {
    let mut cluster = Cluster::start_with(SHORT, PARTIAL);
    let queues = ["fanfare:in", "fanfare:list"].map(|key| cluster.owner(cluster.slot_of(key)));
    let dies = (0..servers::MASTERS).find(|server| !queues.contains(server)).expect("three masters, two queues");
    let lost = topics_on(&cluster, dies, 4);
    // One that is quiet after the loss, and one that begins in it.
    let (quiet, begun) = (lost[2].clone(), lost[3].clone());
    let mut topics = lost[..2].to_vec();
    topics.extend(topics_on(&cluster, queues[0], 2));
    let house = House::over(&cluster.url()).await;
    let dispatcher = house.bridge(&cluster.url()).await;
    publish(&cluster, &topics, 0..100);
    publish(&cluster, std::slice::from_ref(&quiet), 0..10);
    until_applied(&house, &topics, 99).await;
    until_applied(&house, std::slice::from_ref(&quiet), 9).await;

    cluster.until_in_step(dies);
    cluster.cut_replicas_off(dies);
    publish(&cluster, &topics, 100..200);
    publish(&cluster, &[quiet.clone(), begun.clone()], 10..20);
    until_applied(&house, &topics, 199).await;
    until_applied(&house, &[quiet.clone(), begun.clone()], 19).await;
    until("all is committed", || async { dispatcher.status().iter().all(|s| s.lag_entries == 0) }).await;
    cluster.servers[dies].kill();
    publish(&cluster, &topics, 200..300);
    let slot = slot_of(&cluster, &topics[0]);
    assert_ne!(cluster.until_taken_over(dies, slot), dies);

    until_applied(&house, &topics, 299).await;
    until_applied(&house, &[quiet.clone(), begun.clone()], 19).await;
    let expected = |range: std::ops::Range<usize>| range.map(|n| data(&n.to_string())).collect::<Vec<_>>();
    for (place, name) in topics.iter().enumerate() {
        let (bodies, lives) = bodies(&house, name).await;
        assert_eq!(bodies, expected(0..300), "{name}");
        assert_eq!(lives > 1, place < 2, "{name} has {lives} lives");
    }
    assert_eq!(bodies(&house, &quiet).await.0, expected(0..20));
    assert_eq!(bodies(&house, &begun).await.0, expected(10..20));
    assert_eq!(cluster.cross_slot_errors(), 0);
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slot_of_the_queue_moves_and_its_master_hands_over_while_entries_come_in() {
    let cluster = Cluster::start(NEVER);
    let topics = [topics_on(&cluster, 0, 2), topics_on(&cluster, 1, 2)].concat();
    let house = House::over(&cluster.url()).await;
    let dispatcher = house.bridge(&cluster.url()).await;
    publish(&cluster, &topics, 0..100);
    let slots = ["fanfare:in", "fanfare:list"].map(|key| cluster.slot_of(key));
    for slot in slots {
        let to = (cluster.owner(slot) + 1) % servers::MASTERS;
        cluster.move_slot(slot, to, || ());
    }
    publish(&cluster, &topics, 100..200);
    until_applied(&house, &topics, 199).await;
    let master = cluster.owner(slots[0]);
    cluster.servers[servers::MASTERS + master].say(&["CLUSTER", "FAILOVER"]);
    cluster.until_taken_over(master, slots[0]);
    publish(&cluster, &topics, 200..300);
    until_applied(&house, &topics, 299).await;
    for name in &topics {
        let expected: Vec<String> = (0..300).map(|n| data(&n.to_string())).collect();
        assert_eq!(bodies(&house, name).await.0, expected, "{name}");
    }
    assert_eq!((cluster.cross_slot_errors(), dispatcher.dead().count().await), (0, Ok(0)));
    dispatcher.stop().await;
}
