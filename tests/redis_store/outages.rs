//! Restarts, crashes, stalls and failovers of Redis.

use super::*;

#[tokio::test]
async fn a_restart_with_data_begins_a_new_epoch_and_offsets_go_on() {
    let mut server = RedisServer::start_durable();
    let store = store(&server).await;
    assert_eq!(store.status().durability, Durability::Disk);
    let first = put(&store, "news", "one").await.unwrap();
    let second = put(&store, "news", "two").await.unwrap();
    server.restart();
    let third = put_at_last(&store, "news", "three").await;
    assert_ne!(third.epoch, second.epoch);
    assert_eq!(third.offset, 3);

    // A position of the old life goes on to its end, and then the change is told.
    let rest = page(&store, "news", ReadFrom::After(first)).await;
    assert_eq!((bodies(&rest), rest.end, rest.missing), (vec!["two".to_string()], second, None));
    assert!(!rest.is_last());
    let next = page(&store, "news", ReadFrom::After(rest.end)).await;
    assert_eq!((bodies(&next), next.is_last()), (vec!["three".to_string()], true));
    assert_eq!(next.missing, Some(Missing { why: GapCause::Failover, to: None }));
}

#[tokio::test]
async fn a_read_alone_notices_the_new_life() {
    let mut server = RedisServer::start_durable();
    let store = store(&server).await;
    let first = put(&store, "news", "one").await.unwrap();
    server.restart();
    put_at_last(&store, "other", "x").await;
    let page = page(&store, "news", ReadFrom::Last(0)).await;
    assert_ne!(page.head.epoch, first.epoch);
    assert_eq!(page.head.offset, 1);
}

#[tokio::test]
async fn a_redis_that_lost_everything_knows_no_old_position() {
    let mut server = RedisServer::start();
    let store = store(&server).await;
    put(&store, "news", "one").await.unwrap();
    let second = put(&store, "news", "two").await.unwrap();
    server.restart_empty();
    let fresh = put_at_last(&store, "news", "three").await;
    assert_eq!(fresh.offset, 1);
    let page = page(&store, "news", ReadFrom::After(second)).await;
    assert_eq!(page.missing.map(|m| m.why), Some(GapCause::Epoch));
    assert_eq!((bodies(&page), page.is_last()), (vec!["three".to_string()], true));
}

// Both supervisors try again for ever (neither counts its tries), so a longer outage takes no other way than this one,
// in which dozens of tries fail; a limit of tries like the six that client libraries have would show here.
#[tokio::test]
async fn the_feed_and_the_store_survive_an_outage() {
    let mut server = RedisServer::start();
    let store = store(&server).await;
    let mut ear = Ear::open(&store);
    ear.watch("a").await;
    ear.watch("b").await;
    server.kill();
    assert_eq!(ear.until("interrupted").await, ["interrupted"]);
    // Wished for during the outage.
    ear.watch.watch(&topic("c"));
    ear.watch.unwatch(&topic("b"));
    // Wait out many tries: each refused publish below says that Redis is away, at once.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        match put(&store, "a", "lost").await {
            Err(StoreError::Unavailable(_) | StoreError::Unconfirmed(_)) => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    }
    let begun = Instant::now();
    assert!(matches!(put(&store, "a", "lost").await, Err(StoreError::Unavailable(_))));
    assert!(begun.elapsed() < Duration::from_millis(100), "a publish fails at once while Redis is away");
    assert!(store.status().trouble.is_some());
    server.restart_empty();
    let mut heard = ear.until("restored").await;
    heard.retain(|word| word != "restored");
    assert_eq!(heard, ["watching c"]);
    put_at_last(&store, "b", "not watched").await;
    put_at_last(&store, "a", "back").await;
    put_at_last(&store, "c", "new").await;
    assert_eq!(ear.until("new").await, ["back", "new"]);
    assert_eq!(store.status().trouble, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_in_the_midst_of_appends_never_makes_a_false_yes() {
    let mut server = RedisServer::start_durable();
    let store = store(&server).await;
    let mut told: HashMap<String, Position> = HashMap::new();
    let mut unknown = 0;
    for crash in 0..5 {
        let mut on_their_way = Vec::new();
        for n in 0..400 {
            let names: Vec<String> = (0..5).map(|i| format!("{crash}-{n}-{i}")).collect();
            let batch = names.iter().enumerate().map(|(i, body)| message(&format!("t{i}"), body)).collect();
            on_their_way.push((names, store.append(batch)));
            if n % 20 == 0 {
                tokio::task::yield_now().await;
            }
            if n == 200 {
                // Some of it is answered, some is on its way, some waits.
                let (names, answer) = on_their_way.remove(0);
                collect(names, answer.await, &mut told, &mut unknown);
                server.kill();
            }
        }
        for (names, answer) in on_their_way {
            collect(names, answer.await, &mut told, &mut unknown);
        }
        server.restart();
        put_at_last(&store, "probe", &crash.to_string()).await;
    }
    let mut kept = HashMap::new();
    for i in 0..5 {
        for (at, body) in all(&store, &format!("t{i}")).await {
            assert!(kept.insert(body, at).is_none(), "stored twice");
        }
    }
    for (body, at) in &told {
        assert_eq!(kept.get(body), Some(at), "{body} was acknowledged");
    }
    eprintln!("{} acknowledged, {} kept, {unknown} refused or unconfirmed", told.len(), kept.len());
    assert!(!told.is_empty() && unknown > 0, "the crashes must fall into the midst");
}

fn collect(
    names: Vec<String>,
    outcomes: Vec<Result<Appended, StoreError>>,
    told: &mut HashMap<String, Position>,
    unknown: &mut usize,
) {
    for (name, outcome) in names.into_iter().zip(outcomes) {
        match outcome {
            Ok(Appended::Stored { at, .. }) => drop(told.insert(name, at)),
            Err(StoreError::Unavailable(_) | StoreError::Unconfirmed(_)) => *unknown += 1,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_stalled_redis_is_noticed_and_what_it_still_had_comes_before_what_follows() {
    let server = RedisServer::start();
    let impatient = RedisOptions { response_timeout: Duration::from_millis(300), ..options() };
    let store = open(&server.url(), impatient).await.unwrap();
    let mut ear = Ear::open(&store);
    ear.watch("news").await;
    put(&store, "news", "before").await.unwrap();
    server.pause();
    let stalled = store.append(vec![message("news", "stalled")]).await.remove(0);
    assert!(matches!(stalled, Err(StoreError::Unconfirmed(_))), "{stalled:?}");
    ear.until("interrupted").await;
    let mut refused = put(&store, "news", "refused").await;
    while matches!(refused, Err(StoreError::Unconfirmed(_))) {
        refused = put(&store, "news", "refused").await;
    }
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    server.resume();
    ear.until("restored").await;
    put_at_last(&store, "news", "after").await;
    ear.until("after").await;
    let kept: Vec<String> = all(&store, "news").await.into_iter().map(|(_, body)| body).collect();
    assert_eq!((kept.first().unwrap().as_str(), kept.last().unwrap().as_str()), ("before", "after"), "{kept:?}");
}

#[tokio::test]
async fn ten_thousand_watched_topics_are_subscribed_again() {
    let mut server = RedisServer::start();
    let store = store(&server).await;
    let mut ear = Ear::open(&store);
    for n in 0..10_000 {
        ear.watch.watch(&topic(&format!("t{n}")));
    }
    let mut watched = 0;
    while watched < 10_000 {
        assert!(matches!(ear.next().await, FeedEvent::Watching(_)));
        watched += 1;
    }
    server.restart_empty();
    ear.until("restored").await;
    let channels: Vec<String> =
        redis::cmd("PUBSUB").arg("CHANNELS").arg("fanfare:*").query(&mut server.connection()).unwrap();
    assert_eq!(channels.len(), 10_000);
    put_at_last(&store, "t9999", "here").await;
    ear.until("here").await;
}

#[tokio::test]
async fn a_replica_and_another_life_of_a_replicated_redis_are_noticed() {
    let (master, replica) = (RedisServer::start(), RedisServer::start());
    let mut connection = replica.connection();
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(master.port()).exec(&mut connection).unwrap();
    let refused = open(&replica.url(), options()).await.err().unwrap();
    assert!(refused.to_string().contains("master") || refused.to_string().contains("loading"), "{refused}");

    let store = store(&master).await;
    let first = put(&store, "news", "one").await.unwrap();
    let replicas: i64 = redis::cmd("WAIT").arg(1).arg(10_000).query(&mut master.connection()).unwrap();
    // WAIT counts what this connection wrote; the link itself is waited for by the write below.
    let _ = replicas;
    let mut writer = master.connection();
    redis::cmd("SET").arg("seen").arg(1).exec(&mut writer).unwrap();
    let replicas: i64 = redis::cmd("WAIT").arg(1).arg(10_000).query(&mut writer).unwrap();
    assert_eq!(replicas, 1);
    redis::cmd("REPLICAOF").arg(&["NO", "ONE"]).exec(&mut connection).unwrap();
    let promoted = self::store(&replica).await;
    let second = put(&promoted, "news", "two").await.unwrap();
    assert!(second.epoch != first.epoch && second.offset == 2);
    let page = page(&promoted, "news", ReadFrom::After(first)).await;
    assert_eq!((bodies(&page), page.missing.map(|m| m.why)), (vec!["two".to_string()], Some(GapCause::Failover)));
}
