//! What Redis loses, refuses or forgets.

use fanfare::domain::message::Durability;
use fanfare::domain::store::EntryId;
use fanfare::domain::store::Fence;

use super::*;

#[tokio::test]
async fn scripts_that_redis_lost_are_loaded_again() {
    let server = RedisServer::start();
    let keeper = keeper(&server.url(), Options::default()).await;
    let mut hand = server.connection();
    let mut flush = || redis::cmd("SCRIPT").arg("FLUSH").exec(&mut hand).unwrap();
    for round in 0..5 {
        flush();
        keeper.put(job("jobs", "a")).await.unwrap();
        flush();
        let taken = keeper.take("jobs", 1).await;
        flush();
        assert_eq!(keeper.settle("jobs", &taken.jobs[0], How::Ack).await, Ok(Settled::Done), "round {round}");
        flush();
        assert_eq!(keeper.stats("jobs").await.totals.acked, round + 1);
    }
}

#[tokio::test]
async fn a_redis_without_room_refuses_jobs_and_gives_out_what_it_has() {
    let server = RedisServer::start();
    let keeper = keeper(&server.url(), Options::default()).await;
    let group = |text| Put { group: Some("g".into()), ..job("jobs", text) };
    for put in [job("jobs", "a"), group("b"), group("c"), job("jobs", "d")] {
        keeper.put(put).await.unwrap();
    }
    let limit = |most: &str| {
        let set = ["SET", "maxmemory", most, "maxmemory-policy", "noeviction"];
        redis::cmd("CONFIG").arg(&set).exec(&mut server.connection()).unwrap();
    };
    limit("1");
    for put in [job("jobs", "e"), group("f"), job("fresh", "g")] {
        let refused = keeper.put(put).await;
        assert!(matches!(&refused, Err(StoreError::Full(text)) if text.contains("maxmemory")), "{refused:?}");
    }
    let taken = keeper.take("jobs", 10).await;
    assert_eq!(texts(&taken), ["a", "b", "d"]);
    let nack = How::Nack { delay: Some(Duration::ZERO), error: None };
    assert_eq!(keeper.settle("jobs", &taken.jobs[2], nack).await, Ok(Settled::Done));
    for job in &taken.jobs[..2] {
        assert_eq!(keeper.settle("jobs", job, How::Ack).await, Ok(Settled::Done));
    }
    assert_eq!(texts(&keeper.take("jobs", 10).await), ["c", "d"]);
    assert!(keeper.queues.queues.sweep(&queue("jobs")).await.is_ok());
    assert_eq!(keeper.queues.admin.list(None, 10).await.unwrap(), [queue("jobs")]);
    limit("0");
    keeper.put(job("jobs", "e")).await.unwrap();
}

/// A replica takes over that had not heard of the last job: its number is given out again, its id is not.
#[tokio::test]
async fn no_id_is_given_out_twice_whatever_a_failover_loses() {
    let master = RedisServer::start();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
    let before = keeper(&master.url(), Options::default()).await;
    let kept = before.put(job("jobs", "kept")).await.unwrap();
    let have_it = redis::cmd("WAIT").arg(1).arg(20_000).query::<u32>(&mut {
        let mut connection = master.connection();
        redis::cmd("SET").arg("mark").arg(1).exec(&mut connection).unwrap();
        connection
    });
    assert_eq!(have_it, Ok(1));
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec(&mut replica.connection()).unwrap();
    let lost = before.put(job("jobs", "lost")).await.unwrap();
    let lent = before.take("jobs", 10).await;
    assert_eq!(lent.jobs.len(), 2);

    let after = keeper(&replica.url(), Options::default()).await;
    let newer = after.put(job("jobs", "newer")).await.unwrap();
    assert_eq!((kept.number(), lost.number(), newer.number()), (1, 2, 2));
    assert_ne!(lost, newer);
    let late = after.settle("jobs", &lent.jobs[1], How::Ack).await;
    assert_eq!(late, Ok(Settled::Gone), "the job that it means is lost");
    let taken = after.take("jobs", 10).await;
    assert_eq!(texts(&taken), ["kept", "newer"]);
    assert_eq!([taken.jobs[0].id, taken.jobs[1].id], [kept, newer]);
    assert_eq!(after.settle("jobs", &taken.jobs[0], How::Ack).await, Ok(Settled::Done));
}

#[tokio::test]
async fn a_level_is_proven_before_a_yes_and_told_as_unconfirmed_where_it_is_not() {
    let master = RedisServer::start();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
    let begun = std::time::Instant::now();
    while !replication(&master).contains("state=online") {
        assert!(begun.elapsed() < SOON, "the replica is not in step");
        tokio::task::yield_now().await;
    }
    let waiting = |replica_wait| Options { durability: Some(Durability::Replica), replica_wait, ..Options::default() };
    let patient = keeper(&master.url(), waiting(SOON)).await;
    let keeper = keeper(&master.url(), waiting(Duration::from_millis(200))).await;
    match patient.queues.queues.put(vec![job("jobs", "a"), job("jobs", "b")]).await.remove(0) {
        Ok(PutAnswer::Stored { durability, .. }) => assert_eq!(durability, Durability::Replica),
        other => panic!("{other:?}"),
    }
    let taken = patient.take("jobs", 1).await;
    assert_eq!(patient.settle("jobs", &taken.jobs[0], How::Ack).await, Ok(Settled::Done));
    replica.pause();
    let is_unconfirmed = |error: &StoreError| matches!(error, StoreError::Unconfirmed(text) if text.contains("0 of 1"));
    let put = keeper.put(job("jobs", "c")).await.unwrap_err();
    let take = keeper.take_as("jobs", 1, "worker").await.unwrap_err();
    assert!(is_unconfirmed(&put) && is_unconfirmed(&take), "{put} {take}");
    let nothing = keeper.take_as("empty", 1, "worker").await;
    assert_eq!(nothing.map(|taken| taken.jobs.len()), Ok(0), "nothing was given out that must be proven");
    replica.resume();
}

fn replication(server: &RedisServer) -> String {
    redis::cmd("INFO").arg("replication").query(&mut server.connection()).unwrap()
}

#[tokio::test]
async fn what_follows_a_fenced_job_that_failed_is_not_put() {
    let server = RedisServer::start();
    let keeper = keeper(&server.url(), Options::default()).await;
    redis::cmd("RPUSH").arg(&["fanfare:{q:jobs}:idem:taken", "x"]).exec(&mut server.connection()).unwrap();
    let fenced = |n: u64| {
        let fence = Fence::new("in", "life", EntryId { ms: n, seq: 0 });
        Put { fence: Some(fence), ..job("jobs", &n.to_string()) }
    };
    // More than one call of a script takes.
    let mut batch: Vec<Put> = (1..=250).map(fenced).collect();
    batch[49].idempotency_key = Some("taken".into());
    let answers = keeper.queues.queues.put(batch.clone()).await;
    let stored = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!((stored, answers[..49].iter().all(Result::is_ok)), (49, true));
    let mark = keeper.queues.queues.mark(&queue("jobs"), "in").await.unwrap().unwrap();
    assert_eq!((&*mark.life, mark.id.ms), ("life", 49));
    batch[49].idempotency_key = None;
    let answers = keeper.queues.queues.put(batch).await;
    assert!(answers[..49].iter().all(|answer| *answer == Ok(PutAnswer::Skipped)));
    assert!(answers[49..].iter().all(|answer| matches!(answer, Ok(PutAnswer::Stored { .. }))));
    assert_eq!(keeper.stats("jobs").await.totals.put, 250);
}

#[tokio::test]
async fn an_outage_fails_what_is_on_its_way_and_the_queue_comes_back() {
    let mut server = RedisServer::start_durable();
    let options = Options { connect_timeout: Duration::from_secs(1), ..Options::default() };
    let keeper = keeper(&server.url(), options).await;
    let first = keeper.put(job("jobs", "a")).await.unwrap();
    server.kill();
    let refused = keeper.put(job("jobs", "b")).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_) | StoreError::Unconfirmed(_)), "{refused}");
    server.restart();
    let begun = std::time::Instant::now();
    let second = loop {
        match keeper.put(Put { idempotency_key: Some("c".into()), ..job("jobs", "c") }).await {
            Ok(id) => break id,
            Err(error) => assert!(begun.elapsed() < SOON, "{error}"),
        }
        tokio::task::yield_now().await;
    };
    assert_ne!(first.0.epoch, second.0.epoch, "it is another life");
    assert_eq!((first.number(), second.number()), (1, 2));
    assert_eq!(texts(&keeper.take("jobs", 10).await), ["a", "c"]);
}
