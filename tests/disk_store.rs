//! The store on disk through the built binary: killed with -9 under load, in use by another, full, copied and brought
//! back.

#[path = "support/checker/mod.rs"]
mod checker;
#[path = "support/node.rs"]
mod node;
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanfare::domain::error::Reason;
use fanfare::domain::message::Body;
use fanfare::domain::position::Position;
use fanfare::domain::queue::{How, Put, Queue, Settle, Settled, Take};
use fanfare::domain::store::{GapCause, ReadFrom, ReadLimit, Store, StoreError};
use fanfare::domain::topic::{Mode, Rule};
use fanfare::store::{Opened, Options, open};
use node::{Node, client};
use serde_json::Value;
use support::*;

const ALL: ReadLimit = ReadLimit { messages: 1_000_000, bytes: 1 << 30 };

fn url(folder: &Path) -> String {
    format!("disk:{}", folder.display())
}

async fn open_folder(folder: &Path, options: Options) -> Opened {
    open(&url(folder), options).await.expect("it opens")
}

/// Publishes by HTTP under a key; the position if it was acknowledged.
async fn publish(
    client: &reqwest::Client,
    http: std::net::SocketAddr,
    topic: &str,
    data: u64,
    key: &str,
) -> Option<String> {
    let url = format!("http://{http}/v1/topics/{topic}/messages");
    let request = client.post(url).header("idempotency-key", key).header("content-type", "application/json");
    let answer = request.body(data.to_string()).send().await.ok()?;
    let answer: Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
    assert_ne!(answer["durability"], "memory", "{answer}");
    answer["stored"].as_str().map(str::to_owned)
}

/// All that a topic holds: position to data.
async fn held(client: &reqwest::Client, http: std::net::SocketAddr, topic: &str) -> Vec<(String, u64)> {
    let url = format!("http://{http}/v1/topics/{topic}/messages?last=10000&limit=10000");
    let answer = client.get(url).send().await.expect("it answers").text().await.expect("it answers");
    let page: Value = serde_json::from_str(&answer).expect("JSON");
    let items = page["items"].as_array().unwrap_or_else(|| panic!("a page: {answer}"));
    items.iter().map(|item| (item["at"].as_str().unwrap().to_owned(), item["data"].as_u64().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_is_killed_under_load_keeps_what_it_has_acknowledged() {
    const ROUNDS: u64 = 8;
    const WRITERS: u64 = 6;
    let folder = tempfile::tempdir().unwrap();
    let settings = ["--history-messages=10000", "--max-history=10000", "--redis-listen=off"];
    let mut node = Node::start("hub", &url(folder.path()), &settings);
    let client = client();
    let mut acknowledged: BTreeMap<u64, String> = BTreeMap::new();
    let mut unanswered: Vec<u64> = Vec::new();
    let mut seed = 3u64;
    for round in 0..ROUNDS {
        let stops = Arc::new(AtomicBool::new(false));
        let (told, mut acks) = tokio::sync::mpsc::unbounded_channel();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (client, stops, http, told) = (client.clone(), stops.clone(), node.http, told.clone());
                tokio::spawn(async move {
                    let (mut done, mut open) = (Vec::new(), None);
                    for n in 0..100_000 {
                        let data = (round * WRITERS + writer) * 100_000 + n;
                        match publish(&client, http, &format!("t{writer}"), data, &format!("k{data}")).await {
                            Some(at) => {
                                done.push((data, at));
                                let _ = told.send(());
                            }
                            None => {
                                open = Some(data);
                                break;
                            }
                        }
                        if stops.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                    (done, open)
                })
            })
            .collect();
        for _ in 0..20 {
            acks.recv().await.expect("the writers are at work");
        }
        // The pace of the fault.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        tokio::time::sleep(Duration::from_millis((seed >> 33) % 200)).await;
        node.kill();
        stops.store(true, Ordering::Relaxed);
        for writer in writers {
            let (done, open) = writer.await.unwrap();
            acknowledged.extend(done);
            unanswered.extend(open);
        }
        node.restart();
        assert!(node.log().contains("the store is whole"), "{}", node.log());
    }
    assert!(acknowledged.len() as u64 >= ROUNDS * 20, "{} were acknowledged", acknowledged.len());
    let mut found = BTreeMap::new();
    for writer in 0..WRITERS {
        let all = held(&client, node.http, &format!("t{writer}")).await;
        let epochs: std::collections::BTreeSet<_> =
            all.iter().map(|(at, _)| at.split('.').next().unwrap().to_owned()).collect();
        assert_eq!(epochs.len(), 1, "a kill that lost nothing begins no new life: {epochs:?}");
        for (n, (at, data)) in all.into_iter().enumerate() {
            assert!(at.ends_with(&format!(".{}", n + 1)), "no hole: {at}");
            assert!(found.insert(data, at).is_none(), "{data} is there twice");
        }
    }
    for (data, at) in &acknowledged {
        assert_eq!(found.get(data), Some(at), "{data} was acknowledged");
    }
    for data in found.keys() {
        assert!(acknowledged.contains_key(data) || unanswered.contains(data), "nobody published {data}");
    }
    // The same again under the same key: the first position, or stored now for the first time.
    for data in unanswered.iter().chain(acknowledged.keys().rev().take(20)) {
        let topic = format!("t{}", data / 100_000 % WRITERS);
        let at = publish(&client, node.http, &topic, *data, &format!("k{data}")).await.expect("it is stored");
        if let Some(first) = found.get(data) {
            assert_eq!(&at, first, "{data}");
        }
    }
    println!("{ROUNDS} kills: {} acknowledged and there, {} not answered", acknowledged.len(), unanswered.len());
}

#[tokio::test]
async fn keys_fences_and_dead_letters_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let news = topic("news");
    let letter = fanfare::domain::dead::DeadLetter {
        id: String::new(),
        source: "fanfare:in".into(),
        entry: "1-0".into(),
        time: 1,
        reason: Reason::BadName,
        text: "no such topic".into(),
        fields: vec![(b"topic".to_vec(), b"a b".to_vec())],
    };
    let Opened { store, embedded_dead, .. } = open_folder(folder.path(), Options::default()).await;
    let dead = embedded_dead.unwrap();
    let first = stored(&store.append(vec![item_with_key(&news, "1", "k")]).await[0]);
    let mark = fence("in", "life", 5, 0);
    stored(&store.append(vec![fenced(&news, "2", mark.clone())]).await[0]);
    let (kept, retried, gone) = (dead.bury(letter.clone()), dead.bury(letter.clone()), dead.bury(letter));
    let (kept, retried, gone) = (kept.await.unwrap(), retried.await.unwrap(), gone.await.unwrap());
    assert_eq!((dead.retry(&retried).await, dead.settle(&retried).await), (Ok(true), Ok(true)));
    assert_eq!(fanfare::domain::dead::DeadLetters::discard(&*dead, &gone).await, Ok(true));
    assert_eq!(store.status().kind, "disk");
    store.close().await;
    drop((store, dead));

    let Opened { store, embedded_dead, .. } = open_folder(folder.path(), Options::default()).await;
    let dead = embedded_dead.unwrap();
    use fanfare::domain::store::Appended::{Repeated, Skipped};
    let again = store.append(vec![item_with_key(&news, "1", "k")]).await;
    assert!(matches!(again[..], [Ok(Repeated { at, .. })] if at == first), "{again:?}");
    assert!(matches!(store.append(vec![item_with_key(&news, "x", "k")]).await[..], [Err(StoreError::Conflict { .. })]));
    assert_eq!(store.append(vec![fenced(&news, "2", mark)]).await, [Ok(Skipped)]);
    let letters = dead.list(None, 10).await.unwrap();
    assert_eq!((letters.len(), &letters[0].id), (1, &kept));
    let next = dead.bury(letters[0].clone()).await.unwrap();
    assert!(next.parse::<u64>().unwrap() > gone.parse().unwrap(), "a number is not given out twice");
    let page = store.read(&news, ReadFrom::After(first.before()), ALL).await.unwrap();
    assert_eq!((bodies(&page), page.missing), (vec!["1".to_owned(), "2".to_owned()], None));
    store.close().await;
}

fn fanfare(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fanfare")).args(arguments).output().expect("the binary was built")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_in_use_names_who_uses_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start("hub", &url(folder.path()), &["--redis-listen=off"]);
    let line = ["serve", "--insecure", "--listen=127.0.0.1:0", "--admin-listen=same", "--redis-listen=off", "--store"];
    let url = url(folder.path());
    let second = fanfare(&[&line[..], &[&url]].concat());
    let told = said(&second);
    assert_eq!(second.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("in use by another process, {}", node.pid().unwrap())), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_running_hub_is_restored_with_new_lives() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (url(&folder.path().join("a")), url(&folder.path().join("b")));
    let copy = folder.path().join("copy.db");
    let copy = copy.to_str().unwrap();
    let node = Node::start("hub", &source, &["--max-history=10000", "--redis-listen=off"]);
    let client = client();
    for n in 0..50 {
        publish(&client, node.http, "news", n, &format!("k{n}")).await.expect("it is stored");
    }
    let before = held(&client, node.http, "news").await;
    let done = fanfare(&["backup", copy, "--store", &source]);
    assert!(done.status.success() && said(&done).contains("50 messages"), "{}", said(&done));
    // After the backup: these positions must not be given out again by what is restored from it.
    for n in 50..60 {
        publish(&client, node.http, "news", n, &format!("k{n}")).await.expect("it is stored");
    }
    let lost = held(&client, node.http, "news").await.pop().unwrap().0;
    let again = fanfare(&["backup", copy, "--store", &source]);
    assert!(!again.status.success() && said(&again).contains("it is there already"), "{}", said(&again));
    let onto = fanfare(&["restore", copy, "--store", &source]);
    assert!(!onto.status.success(), "{}", said(&onto));

    let done = fanfare(&["restore", copy, "--store", &target]);
    assert!(done.status.success() && said(&done).contains("50 messages"), "{}", said(&done));
    let onto = fanfare(&["restore", copy, "--store", &target]);
    assert!(!onto.status.success() && said(&onto).contains("a store is there already"), "{}", said(&onto));
    let restored = Node::start("restored", &target, &["--redis-listen=off"]);
    let known = before.last().unwrap().0.clone();
    let read = |after: String| {
        let (client, http) = (client.clone(), restored.http);
        async move {
            let url = format!("http://{http}/v1/topics/news/messages?after={after}");
            let answer = client.get(url).send().await.unwrap().text().await.unwrap();
            serde_json::from_str::<Value>(&answer).unwrap()
        }
    };
    let at = publish(&client, restored.http, "news", 99, "new").await.expect("it is stored");
    assert!(at.ends_with(".51") && at.split('.').next() != known.split('.').next(), "{at} after {known}");
    // One that was ahead of the backup is told; one that was not gets the rest of the old life, and then is told.
    let ahead = read(lost).await;
    assert!(ahead.to_string().contains("epoch") || ahead.to_string().contains("failover"), "{ahead}");
    let behind = read(before[39].0.clone()).await;
    assert_eq!(behind["items"].as_array().unwrap().len(), 10, "{behind}");
}

/// A small volume of its own.
struct Volume(tempfile::TempDir);

impl Volume {
    /// `None` where this process may not mount one.
    fn mount(size: &str) -> Option<Volume> {
        let folder = tempfile::tempdir().unwrap();
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(folder.path()).output();
        match done {
            Ok(output) if output.status.success() => Some(Volume(folder)),
            other => {
                eprintln!("NOT RUN: a small volume cannot be mounted here (root may): {other:?}");
                None
            }
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Appends until the store says that it is full; answers how many were stored.
async fn fill(store: &dyn Store, from: u64) -> u64 {
    let news = topic("news");
    for n in from.. {
        let batch = (0..20).map(|_| item(&news, vec![b'x'; 10_000])).collect();
        let answers = store.append(batch).await;
        match &answers[0] {
            Ok(_) => assert!(answers.iter().all(Result::is_ok)),
            Err(StoreError::Full(_)) => return n * 20,
            other => panic!("{other:?}"),
        }
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_volume_nothing_is_stored_the_rest_goes_on_and_all_is_well_once_there_is_room() {
    let Some(volume) = Volume::mount("size=64m") else { return };
    let folder = volume.0.path().join("store");
    let clock = MovedClock::default();
    let options = || Options { clock: clock.reader(), retention: retention(), ..Options::default() };
    fn retention() -> fanfare::domain::store::Retention {
        fanfare::domain::store::Retention { messages: 1_000_000, bytes: 1 << 30, ..Default::default() }
    }
    let Opened { store, embedded_dead, .. } = open_folder(&folder, Options { total_bytes: 1 << 30, ..options() }).await;
    let dead = embedded_dead.unwrap();
    let news = topic("news");
    let count = fill(&*store, 0).await;
    assert!(count > 1_000, "{count} messages of 10 kB on 64 MiB");
    assert!(store.status().trouble.is_some_and(|told| told.contains("free")), "{:?}", store.status());

    // Somebody else takes the rest of it.
    let filler = volume.0.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    let block = vec![1u8; 1 << 16];
    while std::io::Write::write_all(&mut file, &block).is_ok() {}
    drop(file);
    assert!(matches!(store.append(vec![item(&news, "x")]).await[0], Err(StoreError::Full(_))));
    let page = store.read(&news, ReadFrom::Last(10), ALL).await.unwrap();
    assert_eq!((page.head.offset, page.messages.len()), (count, 10), "reads go on");
    assert_eq!(dead.list(None, 10).await, Ok(vec![]));

    // Deleting goes on without a byte free: all messages have their time.
    clock.advance(Duration::from_secs(25 * 3600));
    let begun = std::time::Instant::now();
    let has_room = || async { !matches!(store.append(vec![item(&news, "again")]).await[0], Err(StoreError::Full(_))) };
    while !has_room().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "what was deleted makes room: {:?}", store.status());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(store.status().trouble, None);
    std::fs::remove_file(&filler).unwrap();
    let after = fill(&*store, 0).await;
    assert!(after > 500, "{after} fit again");
    let head = store.read(&news, ReadFrom::Last(0), ALL).await.unwrap().head;
    store.close().await;
    drop((store, dead));

    // What is on the volume is whole, and is opened although there is no room.
    let Opened { store, .. } = open_folder(&folder, Options { total_bytes: 1 << 30, ..options() }).await;
    let page = store.read(&news, ReadFrom::Last(1), ALL).await.unwrap();
    assert_eq!(page.head, head);
    let old = store.read(&news, ReadFrom::After(head.before()), ALL).await.unwrap();
    assert!(!matches!(old.missing.map(|m| m.why), Some(GapCause::Failover | GapCause::Epoch)), "{:?}", old.missing);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_volume_no_job_is_put_and_work_on_those_that_are_there_goes_on() {
    let Some(volume) = Volume::mount("size=48m") else { return };
    let folder = volume.0.path().join("store");
    let options = || Options { queue_bytes: 1 << 30, ..Options::default() };
    let Opened { store, queues, .. } = open_folder(&folder, options()).await;
    let keeper = queues.unwrap();
    let jobs = Queue::parse("jobs").unwrap();
    let job = || Put::new(jobs.clone(), Body::from_canonical(vec![b'x'; 10_000].into()));
    let mut count = 0;
    loop {
        let answers = keeper.queues.put(vec![job(); 20]).await;
        match &answers[0] {
            Ok(_) => count += answers.iter().filter(|answer| answer.is_ok()).count(),
            Err(StoreError::Full(_)) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(count > 500, "{count} jobs of 10 kB on 48 MiB");
    // Somebody else takes the rest of it.
    let filler = volume.0.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[1u8; 1 << 16]).is_ok() {}
    drop(file);
    assert!(matches!(keeper.queues.put(vec![job()]).await[0], Err(StoreError::Full(_))));
    let take = |token| Take { worker: "w".into(), count: 10, bytes: 1 << 20, lease: None, token };
    let mut acked = 0;
    for token in 0..20 {
        let taken = keeper.queues.take(&jobs, take(token)).await.expect("jobs are given out").jobs;
        assert_eq!(taken.len(), 10);
        let acks = taken.iter().map(|job| Settle { job: job.id, token, how: How::Ack }).collect();
        let settled = keeper.queues.settle(&jobs, acks).await;
        assert!(settled.iter().all(|settled| *settled == Ok(Settled::Done)), "{settled:?}");
        acked += taken.len();
    }
    std::fs::remove_file(&filler).unwrap();
    let begun = std::time::Instant::now();
    while keeper.queues.put(vec![job()]).await[0].is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "there is room again: {:?}", store.status());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    store.close().await;
    drop((store, keeper));

    let Opened { store, queues, .. } = open_folder(&folder, options()).await;
    let stats = queues.unwrap().admin.stats(&jobs).await.unwrap().unwrap();
    assert_eq!(stats.waiting.iter().sum::<u64>() as usize, count - acked + 1, "none is lost, none comes again");
    store.close().await;
}

#[tokio::test]
async fn a_topic_that_is_opened_in_another_mode_goes_on_and_tells_what_is_no_longer_kept() {
    let folder = tempfile::tempdir().unwrap();
    let t = topic("t");
    let options = |mode| {
        let rule = Rule { mode: Some(mode), ..Rule::new("t".parse().unwrap()) };
        Options { rules: vec![rule], ..Options::default() }
    };
    let (retention, live) = (Some(GapCause::Retention), Some(GapCause::Live));
    let mut head = 0;
    // What is stored, in which mode, and what follows an offset then.
    for (mode, keys, from, kept, start, missing) in [
        (Mode::Log, "ab-ab", 0, vec![1, 2, 3, 4, 5], 0, None),
        (Mode::Latest, "b", 0, vec![3, 4, 6], 0, None),
        (Mode::Latest, "", 0, vec![3, 4, 6], 0, None),
        (Mode::Log, "", 0, vec![6], 5, retention),
        (Mode::Log, "ab", 5, vec![6, 7, 8], 5, None),
        (Mode::Live, "", 5, vec![], 8, live),
        (Mode::Live, "a", 9, vec![], 9, None),
        (Mode::Latest, "aab", 9, vec![11, 12], 9, None),
        (Mode::Latest, "", 8, vec![11, 12], 9, retention),
    ] {
        let store = open_folder(folder.path(), options(mode)).await.store;
        let items: Vec<_> = keys
            .chars()
            .map(|key| {
                let mut item = item(&t, key.to_string());
                item.publication.key = Some(key).filter(|key| *key != '-').map(|key| key.to_string().into());
                item
            })
            .collect();
        head += items.len() as u64;
        assert!(store.append(items).await.iter().all(Result::is_ok));
        let epoch = store.read(&t, ReadFrom::Last(0), ALL).await.unwrap().head.epoch;
        let page = store.read(&t, ReadFrom::After(Position::new(epoch, from)), ALL).await.unwrap();
        let told = (offsets(&page.messages), page.start.offset, page.missing.map(|m| m.why), page.head.offset);
        assert_eq!(told, (kept, start, missing, head), "{mode:?} after {from}");
        store.close().await;
    }
}
