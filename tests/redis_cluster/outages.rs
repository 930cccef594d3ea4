//! Masters that die or hang: their topics fail at once and come back in another life, and the others notice nothing.

use super::*;

/// Without this a cluster refuses everything while one slot is not served.
const PARTIAL: &[&str] = &["--cluster-require-full-coverage", "no"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_dies_takes_only_its_own_topics_along() {
    let mut cluster = Cluster::start_with(SHORT, PARTIAL);
    let store = store(&cluster).await;
    let (dies, lives) = (topics_on(&cluster, 0, 1).remove(0), topics_on(&cluster, 1, 1).remove(0));
    let slot = slot_of(&cluster, &dies);
    let mut ear = Ear::open(&*store);
    ear.watch(&dies).await;
    ear.watch(&lives).await;
    let first = put(&*store, &dies, "first").await.unwrap();
    ear.until("first").await;
    cluster.until_in_step(0);
    cluster.servers[0].kill();
    // While it is away: its topic is refused at once, nothing is kept for it, the other one goes on.
    let (mut refused, mut unconfirmed, mut taken) = (0, 0, 0);
    let back = loop {
        match put(&*store, &dies, "again").await {
            Ok(at) => break at,
            Err(StoreError::Unconfirmed(_)) => unconfirmed += 1,
            Err(StoreError::Unavailable(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
        put(&*store, &lives, "other").await.unwrap();
        taken += 1;
    };
    eprintln!("{refused} refused, {unconfirmed} unconfirmed, {taken} taken by another master meanwhile");
    assert!(refused > 0 && unconfirmed <= 1 && taken > 10);
    assert_ne!(cluster.until_taken_over(0, slot), 0);
    assert!(back.epoch != first.epoch && back.offset > first.offset, "{first} {back}");
    let page = store.read(&topic(&dies), ReadFrom::After(first), ReadLimit::default()).await.unwrap();
    assert_eq!(page.missing.map(|m| m.why.as_str()), Some("failover"));
    put_at_last(&*store, &dies, "last").await;
    let heard = ear.until("last").await;
    assert!(heard.contains(&format!("watching {dies}")), "{heard:?}");
    assert!(!heard.contains(&format!("watching {lives}")) && !heard.contains(&"interrupted".into()), "{heard:?}");
    assert_eq!(heard.iter().filter(|word| *word == "other").count(), taken);
    assert_eq!(store.status().trouble, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hangs_holds_no_other_up_and_its_answers_are_unconfirmed() {
    let cluster = Cluster::start(NEVER);
    let store = store(&cluster).await;
    let (hangs, lives) = (topics_on(&cluster, 0, 1).remove(0), topics_on(&cluster, 1, 1).remove(0));
    put(&*store, &hangs, "before").await.unwrap();
    cluster.servers[0].pause();
    let stalled = store.append(vec![message(&hangs, "stalled"), message(&lives, "beside it")]);
    let mut taken = 0;
    let outcomes = {
        tokio::pin!(stalled);
        loop {
            tokio::select! {
                outcomes = &mut stalled => break outcomes,
                at = put(&*store, &lives, "other") => taken += at.map(|_| 1).unwrap(),
            }
        }
    };
    assert!(matches!(outcomes[0], Err(StoreError::Unconfirmed(_))), "{outcomes:?}");
    assert!(matches!(outcomes[1], Ok(Appended::Stored { .. })), "{outcomes:?}");
    assert!(taken > 100, "{taken}");
    let trouble = store.status().trouble;
    cluster.servers[0].resume();
    put_at_last(&*store, &hangs, "after").await;
    let bodies: Vec<String> = all(&*store, &hangs).await.into_iter().map(|(_, body)| body).collect();
    assert_eq!((bodies.first().unwrap().as_str(), bodies.last().unwrap().as_str()), ("before", "after"), "{bodies:?}");
    eprintln!("{taken} stored beside it, told: {trouble:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hands_over_to_its_replica_loses_nothing() {
    let cluster = Cluster::start(NEVER);
    let store = store(&cluster).await;
    let name = topics_on(&cluster, 0, 1).remove(0);
    let mut ear = Ear::open(&*store);
    ear.watch(&name).await;
    put(&*store, &name, "before").await.unwrap();
    cluster.servers[servers::MASTERS].say(&["CLUSTER", "FAILOVER"]);
    assert_eq!(cluster.until_taken_over(0, slot_of(&cluster, &name)), servers::MASTERS);
    put_at_last(&*store, &name, "after").await;
    ear.until("after").await;
    let bodies: Vec<String> = all(&*store, &name).await.into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, ["before", "after"]);
}
