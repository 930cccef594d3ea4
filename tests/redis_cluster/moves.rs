//! Slots that move from master to master while messages flow: nothing is lost, repeated or reordered.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// What one publisher was told of its messages of one topic.
#[derive(Default)]
struct Told {
    stored: Vec<(String, Position)>,
    refused: HashSet<String>,
    unknown: usize,
}

/// Publishes to topics in turn, several calls on their way at a time, until it is told to stop.
async fn publish(
    store: Arc<dyn Store>,
    by: usize,
    topics: Vec<String>,
    stop: Arc<AtomicBool>,
) -> HashMap<String, Told> {
    let mut told: HashMap<String, Told> = HashMap::new();
    let mut calls = std::collections::VecDeque::new();
    for n in 0.. {
        let stopping = stop.load(Ordering::Relaxed);
        if !stopping {
            let bodies: Vec<(String, String)> = topics.iter().map(|t| (t.clone(), format!("{by}:{n}"))).collect();
            let answer = store.append(bodies.iter().map(|(t, body)| message(t, body)).collect());
            calls.push_back((bodies, answer));
            if calls.len() < 16 {
                continue;
            }
        }
        let Some((bodies, answer)) = calls.pop_front() else { return told };
        for ((topic, body), outcome) in bodies.into_iter().zip(answer.await) {
            let told = told.entry(topic).or_default();
            match outcome {
                Ok(Appended::Stored { at, .. }) => told.stored.push((body, at)),
                Err(StoreError::Unavailable(_)) => _ = told.refused.insert(body),
                Err(StoreError::Unconfirmed(_)) => told.unknown += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    told
}

fn number(body: &str) -> u64 {
    body.split_once(':').unwrap().1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_under_load_lose_repeat_and_reorder_nothing() {
    let cluster = Cluster::start(NEVER);
    let stores = [store(&cluster).await, store(&cluster).await];
    let mut topics = topics_on(&cluster, 0, 4);
    let (moved, stays) = (topics[0].clone(), topics_on(&cluster, 1, 2));
    topics.extend(stays.clone());
    let mut ears = [Ear::open(&*stores[0]), Ear::open(&*stores[1])];
    for ear in &mut ears {
        ear.watch(&moved).await;
        ear.watch(&stays[0]).await;
    }
    let (stop, moved_before) = (Arc::new(AtomicBool::new(false)), cluster.errors("MOVED"));
    let publishers: Vec<_> = stores
        .iter()
        .enumerate()
        .map(|(by, store)| tokio::spawn(publish(store.clone(), by, topics.clone(), stop.clone())))
        .collect();
    let slot = slot_of(&cluster, &moved);
    let moving = tokio::task::spawn_blocking({
        let dwell = || std::thread::sleep(Duration::from_millis(150));
        move || {
            for to in [1, 2, 0, 1] {
                dwell();
                cluster.move_slot(slot, to, dwell);
            }
            dwell();
            cluster
        }
    });
    let cluster = moving.await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let (mut stored, mut refused, mut unknown) = (0, 0, 0);
    let told: Vec<HashMap<String, Told>> =
        futures::future::join_all(publishers).await.into_iter().map(Result::unwrap).collect();
    for name in &topics {
        let log = all(&*stores[0], name).await;
        let places: HashMap<&str, Position> = log.iter().map(|(at, body)| (body.as_str(), *at)).collect();
        assert_eq!(places.len(), log.len(), "{name}: something is there twice");
        assert!(log.windows(2).all(|pair| pair[0].0.offset + 1 == pair[1].0.offset), "{name}: offsets follow");
        for (by, told) in told.iter().enumerate() {
            let own = log.iter().filter(|(_, body)| body.starts_with(&format!("{by}:"))).map(|(_, body)| number(body));
            assert!(own.collect::<Vec<_>>().is_sorted(), "{name}: {by}'s messages are in order");
            let told = &told[name];
            for (body, at) in &told.stored {
                assert_eq!(places.get(body.as_str()), Some(at), "{name}: {body} was acknowledged");
            }
            assert!(told.refused.iter().all(|body| !places.contains_key(body.as_str())), "{name}: refused, and stored");
            stored += told.stored.len();
            refused += told.refused.len();
            unknown += told.unknown;
        }
    }
    let lives: HashSet<_> = all(&*stores[0], &moved).await.iter().map(|(at, _)| at.epoch).collect();
    eprintln!(
        "{stored} stored, {refused} refused, {unknown} unconfirmed; {} MOVED, {} ASK, {} TRYAGAIN; {} epochs of the moved topic",
        cluster.errors("MOVED") - moved_before,
        cluster.errors("ASK"),
        cluster.errors("TRYAGAIN"),
        lives.len()
    );
    assert_eq!((cluster.cross_slot_errors(), unknown), (0, 0));
    assert!(stored > 1_000 && cluster.errors("MOVED") > moved_before && lives.len() > 1);

    // Every node hears the topic where its slot is now, and was told that it was out of the feed; the others were not.
    let last = put_at_last(&*stores[0], &moved, "last").await;
    for ear in &mut ears {
        let heard = ear.until("last").await;
        assert!(heard.contains(&format!("watching {moved}")));
        assert!(!heard.contains(&format!("watching {}", stays[0])) && !heard.contains(&"interrupted".to_string()));
    }
    // What is read from the beginning of the first life goes over all of them, and says so each time.
    let first = all(&*stores[1], &moved).await[0].0;
    let page =
        stores[1].read(&topic(&moved), ReadFrom::After(first), ReadLimit { messages: u32::MAX, bytes: usize::MAX });
    let page = page.await.unwrap();
    assert!(page.missing.is_none() && page.end.epoch == first.epoch && page.head == last);
    let next = stores[1].read(&topic(&moved), ReadFrom::After(page.end), ReadLimit::default()).await.unwrap();
    assert_eq!(next.missing.map(|m| m.why.as_str()), Some("failover"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_for_a_slot_on_its_way_wait_for_their_bound_and_fail_with_nothing_stored() {
    let cluster = Cluster::start(NEVER);
    let store = store(&cluster).await;
    let name = topics_on(&cluster, 0, 1).remove(0);
    put(&*store, &name, "before").await.unwrap();
    let slot = slot_of(&cluster, &name);
    let stuck = std::thread::spawn({
        let (wait, go_on) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let handle = (told, wait);
        let cluster = cluster;
        let thread = move || {
            cluster.move_slot(slot, 1, || {
                tell.send(()).unwrap();
                go_on.recv().unwrap();
            });
            cluster
        };
        move || (handle, std::thread::spawn(thread))
    });
    let ((half_way, go_on), moving) = stuck.join().unwrap();
    tokio::task::spawn_blocking(move || half_way.recv()).await.unwrap().unwrap();
    let refused = put(&*store, &name, "while it moves").await.unwrap_err();
    assert!(matches!(&refused, StoreError::Unavailable(text) if text.contains("TRYAGAIN")), "{refused}");
    let waiting = put(&*store, &name, "after it moved");
    tokio::pin!(waiting);
    assert!(futures::poll!(&mut waiting).is_pending());
    go_on.send(()).unwrap();
    waiting.await.unwrap();
    let cluster = tokio::task::spawn_blocking(|| moving.join()).await.unwrap().unwrap();
    let bodies: Vec<String> = all(&*store, &name).await.into_iter().map(|(_, body)| body).collect();
    assert_eq!(
        (bodies.as_slice(), cluster.owner(slot)),
        (["before".to_string(), "after it moved".into()].as_slice(), 1)
    );
}
