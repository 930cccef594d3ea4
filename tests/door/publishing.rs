//! Publishing through the door: pipelines, transactions, both versions, dead letters and their retry, failures, the end.

use fanfare::dispatcher::{self, Ingest, door};
use fanfare::domain::error::Reason;
use fanfare::store;

use crate::ingest::{House, data, letters, until};
use crate::raw::{Raw, command};

fn xadd(topic: &str, json: &str) -> Vec<u8> {
    command(&["XADD", "fanfare:in", "*", "topic", topic, "data", json])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_commands_in_one_go_are_answered_in_order() {
    let (house, door) = House::with_door(|_| {}).await;
    let address = door.door().unwrap();
    let bytes: Vec<u8> = (0..10_000)
        .flat_map(|n| match n % 100 {
            99 => command(&["ECHO", &n.to_string()]),
            _ => xadd("t", &n.to_string()),
        })
        .collect();
    let mut client = Raw::connect(address).await;
    let (sent, mut last) = (client.send(&bytes).await, (0, 0));
    let () = sent;
    for n in 0..10_000 {
        let reply = client.reply().await.unwrap();
        if n % 100 == 99 {
            assert_eq!(reply, format!("\"{n}\""));
        } else {
            let (ms, seq) = reply.trim_matches('"').split_once('-').expect(&reply);
            let id: (u64, u64) = (ms.parse().unwrap(), seq.parse().unwrap());
            assert!(id > last, "ids ascend");
            last = id;
        }
    }
    let expected: Vec<String> = (0..10_000).filter(|n| n % 100 != 99).map(|n| data(&n.to_string())).collect();
    // What was answered is stored.
    assert_eq!(house.bodies("t").await, expected);
    assert_eq!(client.ask(&["XLEN", "fanfare:in"]).await, "(integer) 9900");
    door.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_side_by_side_each_keep_their_order() {
    let (house, door) = House::with_door(|_| {}).await;
    let address = door.door().unwrap();
    let publishers = (0..20).map(|p| async move {
        let mut client = Raw::connect(address).await;
        for n in 0..50 {
            client.send(&xadd("t", &format!("[{p},{n}]"))).await;
            if n % 7 == 0 {
                client.reply().await.unwrap();
            }
        }
        for _ in 0..(50 - 8) {
            client.reply().await.unwrap();
        }
    });
    futures::future::join_all(publishers).await;
    let found = house.bodies("t").await;
    assert_eq!(found.len(), 1_000);
    for p in 0..20 {
        let prefix = format!("\"data\":[{p},");
        let own: Vec<&String> = found.iter().filter(|body| body.starts_with(&prefix)).collect();
        let expected: Vec<String> = (0..50).map(|n| data(&format!("[{p},{n}]"))).collect();
        assert!(own.iter().copied().eq(&expected));
    }
    door.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_not_mixed_with_what_others_write() {
    let (house, door) = House::with_door(|_| {}).await;
    let address = door.door().unwrap();
    let publishers = (0..4).map(|p| async move {
        let mut client = Raw::connect(address).await;
        for round in 0..20 {
            let mut bytes = command(&["MULTI"]);
            (0..30).for_each(|n| bytes.extend(xadd("t", &format!("[{p},{round},{n}]"))));
            bytes.extend(command(&["EXEC"]));
            client.send(&bytes).await;
            for _ in 0..31 {
                client.reply().await.unwrap();
            }
            assert_eq!(client.reply().await.unwrap().matches('-').count(), 30);
        }
    });
    futures::future::join_all(publishers).await;
    let found = house.bodies("t").await;
    assert_eq!(found.len(), 4 * 20 * 30);
    for run in found.chunks(30) {
        let head = &run[0][..run[0].rfind(',').unwrap()];
        let expected: Vec<String> = (0..30).map(|n| format!("{head},{n}]")).collect();
        assert_eq!(run, expected);
    }
    door.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_three_has_maps_and_its_own_null() {
    let (house, door) = House::with_door(|_| {}).await;
    let mut client = Raw::connect(door.door().unwrap()).await;
    let hello = client.ask(&["HELLO", "3", "AUTH", "default", "", "SETNAME", "shop"]).await;
    assert!(hello.starts_with("{\"server\", \"redis\", \"version\", \"7.0.15\", \"proto\", (integer) 3, "), "{hello}");
    assert_eq!(client.ask(&["CONFIG", "GET", "save"]).await, "{\"save\", \"\"}");
    assert_eq!(client.ask(&["CLIENT", "GETNAME"]).await, "\"shop\"");
    client.send(&command(&["COMMAND", "INFO", "nosuch"])).await;
    assert_eq!(client.reply().await.unwrap(), "[(nil)]");
    client.send(&xadd("t", "1")).await;
    assert!(client.reply().await.unwrap().starts_with('"'));
    // In one go: each is answered in the version that was spoken when it came.
    let asked = [command(&["HELLO", "2"]), command(&["COMMAND", "INFO", "x"]), command(&["HELLO", "3"])].concat();
    client.send(&asked).await;
    assert!(client.reply().await.unwrap().starts_with('['));
    client.send(&command(&["RESET"])).await;
    assert_eq!(client.reply().await.unwrap(), "[(nil)]");
    assert!(client.reply().await.unwrap().starts_with('{'));
    assert_eq!(client.reply().await.unwrap(), "RESET");
    let info = client.ask(&["INFO"]).await;
    assert!(info.contains("redis_version:7.0.15\r\n") && info.contains("loading:0\r\n"), "{info}");
    assert!(client.ask(&["INFO", "replication"]).await.contains("role:master"));
    assert!(!client.ask(&["INFO", "replication"]).await.contains("redis_version"));
    house.wait_for("t", &[&data("1")]).await;
    door.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_used_is_answered_with_an_id_kept_retried_and_settled() {
    let (house, door) = House::with_door(|_| {}).await;
    let mut client = Raw::connect(door.door().unwrap()).await;
    let bad = [("a b", "1"), ("t", "hello"), ("$x", "1")];
    let mut ids = Vec::new();
    for (topic, json) in bad {
        client.send(&xadd(topic, json)).await;
        ids.push(client.reply().await.unwrap().trim_matches('"').to_owned());
    }
    assert_eq!(client.ask(&["RPUSH", "fanfare:list", "{", r#"{"topic":"t","data":1}"#]).await, "(integer) 2");
    house.wait_for("t", &[&data("1")]).await;
    let dead = door.dead();
    // They are kept before they are answered.
    assert_eq!(dead.count().await, Ok(4));
    let kept = letters(&door).await;
    for (id, reason) in ids.iter().zip([Reason::BadName, Reason::BadJson, Reason::Forbidden]) {
        assert_eq!((kept[id].reason, kept[id].source.as_str()), (reason, "fanfare:in"));
    }
    let element = kept.values().find(|letter| letter.source == "fanfare:list").unwrap();
    assert_eq!(element.fields, [(b"document".to_vec(), b"{".to_vec())]);
    // Still no good, so each comes back as a new letter.
    for letter in kept.values() {
        assert_eq!(dead.retry(&letter.id).await, Ok(true));
    }
    let all_anew = || async {
        let now = letters(&door).await;
        now.len() == 4 && now.values().all(|letter| kept.values().all(|old| old.id != letter.id))
    };
    until("all letters anew", all_anew).await;
    for letter in letters(&door).await.into_values() {
        assert!(kept.values().any(|old| old.entry == letter.entry && old.fields == letter.fields));
        assert_eq!(dead.discard(&letter.id).await, Ok(true));
    }
    door.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retried_letter_that_can_be_used_now_is_stored_once() {
    let opened = store::open("memory", store::Options::default()).await.unwrap();
    let house = House { hub: fanfare::hub::Hub::new(opened.store), dead: opened.embedded_dead };
    let start = |frame: usize| {
        let mut options = dispatcher::Options::default();
        options.limits.frame = frame;
        let ingest = Ingest::Door(door::Options::new("127.0.0.1:0", "fanfare"), house.dead.clone().unwrap());
        dispatcher::start(house.hub.clone(), ingest, options)
    };
    let door = start(10).await.unwrap();
    let mut client = Raw::connect(door.door().unwrap()).await;
    let json = format!("\"{}\"", "x".repeat(20));
    client.send(&xadd("t", &json)).await;
    client.reply().await.unwrap();
    let letter = letters(&door).await.into_values().next().unwrap();
    assert_eq!(letter.reason, Reason::TooLarge);
    door.stop().await;
    assert_eq!(client.reply().await, None);
    let door = start(1_000).await.unwrap();
    assert_eq!(door.dead().retry(&letter.id).await, Ok(true));
    house.wait_for("t", &[&data(&json)]).await;
    until("it is settled", || async { door.dead().count().await == Ok(0) }).await;
    assert_eq!(door.dead().retry(&letter.id).await, Ok(false));
    door.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_gone_is_answered_with_an_error_command_by_command() {
    let opened = store::open("memory", store::Options::default()).await.unwrap();
    let house = House { hub: fanfare::hub::Hub::new(opened.store.clone()), dead: opened.embedded_dead };
    let ingest = Ingest::Door(door::Options::new("127.0.0.1:0", "fanfare"), house.dead.clone().unwrap());
    let door = dispatcher::start(house.hub.clone(), ingest, Default::default()).await.unwrap();
    let mut client = Raw::connect(door.door().unwrap()).await;
    opened.store.close().await;
    client.send(&xadd("t", "1")).await;
    let reply = client.reply().await.unwrap();
    assert!(reply.starts_with("(error) ERR unavailable: "), "{reply}");
    // A letter that cannot be kept is no yes either.
    client.send(&xadd("a b", "1")).await;
    assert!(client.reply().await.unwrap().starts_with("(error) ERR unavailable: "));
    let two = client.ask(&["RPUSH", "fanfare:list", r#"{"topic":"t","data":1}"#, r#"{"topic":"t","data":2}"#]).await;
    assert!(two.ends_with("; 0 of the 2 elements were taken"), "{two}");
    client.send(&[command(&["MULTI"]), command(&["PING"]), xadd("t", "1"), command(&["EXEC"])].concat()).await;
    for expected in ["OK", "QUEUED", "QUEUED"] {
        assert_eq!(client.reply().await.unwrap(), expected);
    }
    assert!(client.reply().await.unwrap().starts_with("[PONG, (error) ERR unavailable: "));
    assert_eq!(client.ask(&["XLEN", "fanfare:in"]).await, "(integer) 0");
    until("trouble is told", || async { door.status()[0].trouble.is_some() }).await;
    door.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_is_finished_when_the_door_stops() {
    let (house, door) = House::with_door(|_| {}).await;
    let mut client = Raw::connect(door.door().unwrap()).await;
    let bytes: Vec<u8> = (0..2_000).flat_map(|n| xadd("t", &n.to_string())).collect();
    client.send(&bytes).await;
    assert!(client.reply().await.is_some());
    door.stop().await;
    let mut answered = 1;
    while let Some(reply) = client.reply().await {
        assert!(reply.starts_with('"'), "{reply}");
        answered += 1;
    }
    assert_eq!(house.bodies("t").await.len(), answered, "what is stored was answered, and the other way round");
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_with_its_setting() {
    let (_house, door) = House::with_door(|_| {}).await;
    let house = House::memory().await;
    let options = door::Options::new(door.door().unwrap().to_string(), "fanfare");
    let second =
        dispatcher::start(house.hub.clone(), Ingest::Door(options, house.dead.unwrap()), Default::default()).await;
    assert!(second.err().unwrap().to_string().contains("--redis-listen"));
    door.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_go_through_the_door_in_order_and_what_a_queue_refuses_is_kept() {
    let (house, door) = House::with_door(|_| {}).await;
    let mut client = Raw::connect(door.door().unwrap()).await;
    for n in 0..200 {
        client.send(&command(&["XADD", "fanfare:in", "*", "queue", "jobs", "data", &n.to_string()])).await;
        client.send(&command(&["RPUSH", "fanfare:list", &format!(r#"{{"queue":"listed","data":{n}}}"#)])).await;
    }
    for _ in 0..400 {
        client.reply().await.unwrap();
    }
    // What was answered is stored.
    let expected: Vec<String> = (0..200).map(|n| data(&n.to_string())).collect();
    assert_eq!(house.jobs("jobs").await, expected);
    assert_eq!(house.jobs("listed").await, expected);
    client.ask(&["XADD", "fanfare:in", "*", "queue", "jobs", "data", "1", "delay", "5", "group", "g"]).await;
    until("the letter", || async { door.dead().count().await == Ok(1) }).await;
    let letter = letters(&door).await.into_values().next().unwrap();
    assert_eq!(letter.reason, Reason::BadFrame);
    assert_eq!(house.jobs("jobs").await, expected);
    door.stop().await;
}
