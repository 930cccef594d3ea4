//! The scripts: lost ones, their order, and the keys that they touch.

use super::*;

/// Somebody who makes Redis forget its scripts all the time, and cuts all connections now and then.
pub struct Vandal {
    stop: Arc<AtomicBool>,
    rounds: std::thread::JoinHandle<u32>,
}

impl Vandal {
    pub fn begin(server: &RedisServer, cuts: bool) -> Vandal {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, mut connection) = (stop.clone(), server.connection());
        let rounds = std::thread::spawn(move || {
            let mut rounds = 0;
            while !stopped.load(Ordering::Relaxed) {
                rounds += 1;
                redis::cmd("SCRIPT").arg("FLUSH").exec(&mut connection).unwrap();
                if cuts && rounds % 20 == 0 {
                    let kind = if rounds % 40 == 0 { "pubsub" } else { "normal" };
                    redis::cmd("CLIENT").arg(&["KILL", "TYPE", kind, "SKIPME", "yes"]).exec(&mut connection).unwrap();
                }
                // A pace, not a wait: the server paces us by answering.
                redis::cmd("DEBUG").arg("SLEEP").arg("0.002").exec(&mut connection).unwrap();
            }
            rounds
        });
        Vandal { stop, rounds }
    }

    pub fn end(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.rounds.join().unwrap()
    }
}

// Two nodes, since a script that one of them loads is known to the other too: a later call of the other may be carried
// out before an earlier one that did not find the script.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_keep_their_order_though_scripts_get_lost() {
    let server = RedisServer::start_with(&["--enable-debug-command", "yes"]);
    let stores = [store(&server).await, store(&server).await];
    let vandal = Vandal::begin(&server, false);
    let writers = stores.into_iter().map(|store| {
        tokio::spawn(async move {
            let (mut last, mut refused) = ([0; 3], 0);
            let mut calls = std::collections::VecDeque::new();
            for n in 0..4_000 {
                calls.push_back((n % 3, store.append(vec![message(&format!("t{}", n % 3), &n.to_string())])));
                if calls.len() < 40 {
                    continue;
                }
                let (topic, call) = calls.pop_front().unwrap();
                match &call.await[0] {
                    Ok(Appended::Stored { at, .. }) => {
                        assert!(at.offset > last[topic], "{} after {}", at.offset, last[topic]);
                        last[topic] = at.offset;
                    }
                    Err(StoreError::Unavailable(_)) => refused += 1,
                    other => panic!("{other:?}"),
                }
            }
            refused
        })
    });
    let refused: Vec<_> = futures::future::join_all(writers).await.into_iter().map(Result::unwrap).collect();
    eprintln!("{} flushes, {refused:?} of 4000 calls each refused for the sake of order", vandal.end());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_scripts_and_cut_connections_under_load_lose_and_repeat_nothing() {
    let server = RedisServer::start_with(&["--enable-debug-command", "yes"]);
    let retention = Retention { messages: 1_000_000, ..Retention::default() };
    let store = open(&server.url(), RedisOptions { retention, ..options() }).await.unwrap();
    let mut ear = Ear::open(&store);
    ear.watch("t0").await;
    let vandal = Vandal::begin(&server, true);
    let mut unconfirmed = 0;
    for n in 0..600 {
        // Two batches on their way at a time; each is repeated until it is taken.
        let bodies = |half: usize| (0..10).map(|i| format!("{n}-{half}-{i}")).collect::<Vec<_>>();
        let batch = |half: usize| bodies(half).iter().map(|b| keyed(&format!("t{}", n % 5), b)).collect::<Vec<_>>();
        let (mut first, mut second) = tokio::join!(store.append(batch(0)), store.append(batch(1)));
        for (half, outcomes) in [(0, &mut first), (1, &mut second)] {
            while outcomes.iter().any(Result::is_err) {
                for error in outcomes.iter().filter_map(|o| o.as_ref().err()) {
                    assert!(matches!(error, StoreError::Unavailable(_) | StoreError::Unconfirmed(_)), "{error:?}");
                }
                unconfirmed += 1;
                *outcomes = store.append(batch(half)).await;
                tokio::task::yield_now().await;
            }
        }
    }
    let rounds = vandal.end();
    let mut seen = HashSet::new();
    for i in 0..5 {
        for (_, body) in all(&store, &format!("t{i}")).await {
            assert!(seen.insert(body), "stored twice");
        }
    }
    assert_eq!(seen.len(), 600 * 20);
    eprintln!("{rounds} flushes, {} cuts, {unconfirmed} batches repeated", rounds / 20);
    put_at_last(&store, "t0", "end").await;
    ear.until("end").await;
}

#[tokio::test]
async fn scripts_touch_only_the_keys_that_they_declare_on_a_cluster() {
    let server = RedisServer::start_with(&["--cluster-enabled", "yes", "--appendonly", "no"]);
    let mut connection = server.connection();
    redis::cmd("CLUSTER").arg(&["ADDSLOTSRANGE", "0", "16383"]).exec(&mut connection).unwrap();
    while !redis::cmd("CLUSTER").arg("INFO").query::<String>(&mut connection).unwrap().contains("cluster_state:ok") {}
    let refused = open(&server.url(), options()).await.err().unwrap().to_string();
    assert!(refused.contains("write redis+cluster://"), "{refused}");
    let store = open(&format!("redis+cluster://127.0.0.1:{}", server.port()), options()).await.unwrap();
    let batch: Vec<Append> = (0..200).map(|n| keyed(&format!("t{}", n % 60), &n.to_string())).collect();
    for outcome in store.append(batch).await {
        assert!(matches!(outcome, Ok(Appended::Stored { .. })), "{outcome:?}");
    }
    let page = page(&store, "t7", ReadFrom::Last(10)).await;
    assert_eq!(bodies(&page), ["7", "67", "127", "187"]);
}

#[tokio::test]
async fn the_channel_of_the_group_is_used_only_while_somebody_asks_for_it() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let mut listener = server.connection();
    listener.set_read_timeout(Some(SOON)).unwrap();
    let mut listener = listener.as_pubsub();
    listener.subscribe("fanfare:{t41}:wild-feed").unwrap();
    put(&store, "news", "unheard").await.unwrap();
    redis::cmd("SET").arg("fanfare:{t41}:wild").arg(1).exec(&mut server.connection()).unwrap();
    put(&store, "news", "heard").await.unwrap();
    let payload: String = listener.get_message().unwrap().get_payload().unwrap();
    assert!(payload.ends_with(" 0 news heard"), "{payload}");
}

#[tokio::test]
async fn a_key_that_is_not_ours_fails_its_topic_and_no_other() {
    let server = RedisServer::start();
    let store = store(&server).await;
    redis::cmd("SET").arg("fanfare:{t41}:log:news").arg("something else").exec(&mut server.connection()).unwrap();
    let batch = vec![message("a", "1"), message("news", "2"), message("b", "3"), message("news", "4")];
    let outcomes = store.append(batch).await;
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
    for outcome in [&outcomes[1], &outcomes[3]] {
        assert!(matches!(outcome, Err(StoreError::Broken(text)) if text.contains("WRONGTYPE")), "{outcome:?}");
    }
}
