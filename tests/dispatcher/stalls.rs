//! Several dispatchers over one queue, stalled and killed at every step: nothing lost, nothing twice, order kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare::dispatcher::{Dispatcher, Pause};
use futures::FutureExt;
use redis::Commands;

use crate::ingest::{House, data, until};
use crate::server::RedisServer;

const TOPICS: u64 = 20;
const LEASE: Duration = Duration::from_millis(300);
const STALL: Duration = Duration::from_millis(450);

/// A small generator whose numbers depend on its seed alone.
#[derive(Clone)]
struct Dice(Arc<AtomicU64>);

impl Dice {
    fn roll(&self, sides: u64) -> u64 {
        let mut x = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % sides
    }
}

/// A node whose steps are stalled for longer than its lease, now and then.
async fn node(house: &House, url: &str, dice: &Dice) -> Dispatcher {
    let dice = dice.clone();
    let pause = Pause::new(move |_| {
        let stall = if dice.roll(8) == 0 { STALL } else { Duration::ZERO };
        async move {
            if !stall.is_zero() {
                tokio::time::sleep(stall).await;
            }
        }
        .boxed()
    });
    house
        .bridge_with(url, |settings, options| {
            settings.terms.lease = LEASE;
            settings.terms.renewal = LEASE / 3;
            settings.block = Duration::from_millis(50);
            options.batch = 100;
            options.pause = pause;
        })
        .await
}

async fn nothing_is_lost_repeated_or_reordered(house: House, server: RedisServer, seed: u64) {
    let dice = Dice(Arc::new(AtomicU64::new(seed)));
    let published = Arc::new(AtomicU64::new(0));
    let ended = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let publisher = std::thread::spawn({
        let (mut connection, published, ended) = (server.connection(), published.clone(), ended.clone());
        move || {
            let mut n = 0;
            while !ended.load(Ordering::Relaxed) {
                for _ in 0..3 {
                    let topic = n % TOPICS;
                    let _: String = connection
                        .xadd("fanfare:in", "*", &[("topic", format!("s{topic}")), ("data", n.to_string())])
                        .unwrap();
                    let _: u64 =
                        connection.rpush("fanfare:list", format!(r#"{{"topic":"l{topic}","data":{n}}}"#)).unwrap();
                    let _: String = connection
                        .xadd("fanfare:in", "*", &[("queue", format!("s{topic}")), ("data", n.to_string())])
                        .unwrap();
                    let _: u64 =
                        connection.rpush("fanfare:list", format!(r#"{{"queue":"l{topic}","data":{n}}}"#)).unwrap();
                    n += 1;
                }
                published.store(n, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(4));
            }
        }
    });
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(node(&house, &server.url(), &dice).await);
    }
    // The length of the run is what is asked for here, not a wait for something.
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        drop(nodes.remove(dice.roll(3) as usize));
        nodes.push(node(&house, &server.url(), &dice).await);
    }
    ended.store(true, Ordering::Relaxed);
    publisher.join().unwrap();
    drop(nodes);
    let _last = house.bridge_with(&server.url(), |settings, _| settings.terms.lease = LEASE).await;
    let count = published.load(Ordering::Relaxed);
    for topic in 0..TOPICS {
        let expected: Vec<String> = (0..count).filter(|n| n % TOPICS == topic).map(|n| data(&n.to_string())).collect();
        for door in ["s", "l"] {
            let name = format!("{door}{topic}");
            until(&format!("the end of {name}"), || async { house.bodies(&name).await.last() == expected.last() })
                .await;
            let found = house.bodies(&name).await;
            assert!(found == expected, "seed {seed}, {name}: {} of {}\n{found:?}", found.len(), expected.len());
            until(&format!("the last job of {name}"), || async { house.jobs(&name).await.last() == expected.last() })
                .await;
            let found = house.jobs(&name).await;
            assert!(found == expected, "seed {seed}, queue {name}: {} of {}\n{found:?}", found.len(), expected.len());
        }
    }
    println!(
        "seed {seed}: {count} messages and {count} jobs through each door, 12 kills, 0 lost, 0 repeated, in order"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_embedded_store() {
    nothing_is_lost_repeated_or_reordered(House::memory().await, RedisServer::start(), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_redis_store_on_the_same_server() {
    let server = RedisServer::start();
    let house = House::over(&server.url()).await;
    nothing_is_lost_repeated_or_reordered(house, server, 2).await;
}
