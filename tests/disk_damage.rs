//! Damage to the files of a store on disk: bits that flip, ends that are cut off or zeroed. Everything in them was synced,
//! so a store either opens with all of it or refuses with a reason; never with less, never with something else.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fanfare::domain::message::Body;
use fanfare::domain::queue::*;
use fanfare::domain::store::{Append, GapCause, ReadFrom, ReadLimit};
use fanfare::store::{OpenError, Opened, Options, open};
use support::*;

const ALL: ReadLimit = ReadLimit { messages: 1_000_000, bytes: 1 << 30 };
const FILES: [&str; 3] = ["store.db", "store.db-wal", "commits"];
const TOPICS: usize = 12;
const QUEUES: usize = 3;
const ROUNDS: usize = 200;

/// A store's files by their names.
type Image = BTreeMap<&'static str, Vec<u8>>;
/// What its topics hold: positions and bodies.
type Topics = BTreeMap<String, Vec<(String, Vec<u8>)>>;
/// What its queues hold: each job with its id, where it is, its tries, how often it failed, and its body.
type Jobs = BTreeMap<(String, u64), (JobId, Place, u32, usize, Body)>;

#[derive(Debug, PartialEq)]
struct Content {
    topics: Topics,
    jobs: Jobs,
}

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }
}

fn url(folder: &Path) -> String {
    format!("disk:{}", folder.display())
}

async fn open_folder(folder: &Path, accept_loss: bool) -> Result<Opened, OpenError> {
    let options = Options { accept_loss, ..Options::default() };
    open(&url(folder), options).await
}

fn queue(n: usize) -> Queue {
    Queue::parse(&format!("q{n}")).unwrap()
}

fn job(queue: Queue, text: impl Into<bytes::Bytes>) -> Put {
    Put::new(queue, Body::from_canonical(text.into()))
}

/// Jobs in all places, with all that is kept beside them.
async fn fill_queues(keeper: &QueueKeeper, from: usize, dice: &mut Dice) {
    for n in 0..QUEUES {
        let puts = (0..40).map(|i| {
            let put = job(queue(n), vec![b'a' + (i % 26) as u8; 20 + dice.below(300)]);
            match i % 5 {
                0 => Put { idempotency_key: Some(format!("k{}", from + i).into()), ..put },
                1 => Put { group: Some(format!("g{}", i % 3).into()), ..put },
                2 => Put { fence: Some(fence("in", "life", (from + i) as u64 + 1, 0)), ..put },
                3 => Put { due: Due::After(std::time::Duration::from_secs(5_000)), ..put },
                _ => put,
            }
        });
        assert!(keeper.queues.put(puts.collect()).await.iter().all(Result::is_ok));
        let take = Take { worker: "w".into(), count: 12, bytes: 1 << 20, lease: None, token: 1 };
        let taken = keeper.queues.take(&queue(n), take).await.unwrap().jobs;
        let settles = taken.iter().enumerate().map(|(i, job)| {
            let delay = Some(std::time::Duration::from_secs(5_000));
            let error: Option<Box<str>> = Some("went wrong".into());
            let how = match i % 4 {
                0 => How::Ack,
                1 => How::Nack { delay, error },
                2 => How::Term { error },
                _ => How::Release,
            };
            Settle { job: job.id, token: job.token, how }
        });
        assert!(keeper.queues.settle(&queue(n), settles.collect()).await.iter().all(Result::is_ok));
    }
}

async fn all_jobs(keeper: &QueueKeeper) -> Jobs {
    let mut jobs = Jobs::new();
    for n in 0..QUEUES {
        for place in [Place::Ready, Place::Parked, Place::Delayed, Place::InFlight, Place::Dead] {
            for seen in keeper.admin.look(&queue(n), place, 0, 1_000).await.expect("it is looked at") {
                let about = (seen.id, seen.place, seen.tries, seen.attempts.len(), seen.body);
                jobs.insert((format!("q{n}"), seen.id.number()), about);
            }
        }
    }
    jobs
}

async fn fill(opened: &Opened, from: usize, dice: &mut Dice) {
    let store = &opened.store;
    fill_queues(opened.queues.as_ref().unwrap(), from, dice).await;
    for batch in 0..25 {
        let one = |n: usize, dice: &mut Dice| {
            let topic = topic(&format!("t{}", dice.below(TOPICS)));
            let body = vec![b'a' + (n % 26) as u8; 20 + dice.below(400)];
            let number = from + batch * 20 + n;
            match n % 3 {
                0 => item_with_key(&topic, body, &format!("k{number}")),
                1 => fenced(&topic, body, fence("in", "life", number as u64 + 1, 0)),
                _ => item(&topic, body),
            }
        };
        let items: Vec<Append> = (0..20).map(|n| one(n, dice)).collect();
        for answer in store.append(items).await {
            stored(&answer);
        }
    }
}

async fn content(opened: &Opened) -> Content {
    let (store, mut content) = (&opened.store, Topics::new());
    for n in 0..TOPICS {
        let name = format!("t{n}");
        let page = store.read(&topic(&name), ReadFrom::Last(100_000), ALL).await.expect("it is read");
        let message = |m: &fanfare::domain::message::Message| (m.at.to_string(), m.body.as_bytes().to_vec());
        content.insert(name, page.messages.iter().map(message).collect());
    }
    Content { topics: content, jobs: all_jobs(opened.queues.as_ref().unwrap()).await }
}

fn take_image(folder: &Path) -> Image {
    let read = |name: &'static str| Some((name, fs::read(folder.join("data").join(name)).ok()?));
    FILES.into_iter().filter_map(read).collect()
}

fn put_image(folder: &Path, image: &Image) {
    let data = folder.join("data");
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(&data).unwrap();
    image.iter().for_each(|(name, bytes)| fs::write(data.join(name), bytes).unwrap());
}

/// Two pictures of the same store: killed, with a part of it in the log only, and closed.
async fn images() -> (Vec<Image>, Content) {
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Dice(7);
    let opened = open_folder(folder.path(), false).await.unwrap();
    fill(&opened, 0, &mut dice).await;
    opened.store.close().await;
    let opened = open_folder(folder.path(), false).await.unwrap();
    fill(&opened, 500, &mut dice).await;
    let expected = content(&opened).await;
    // Nothing is at work now, so this is what a kill would leave.
    let killed = take_image(folder.path());
    assert!(killed["store.db-wal"].len() > 100_000, "a part is in the log only");
    opened.store.close().await;
    (vec![killed, take_image(folder.path())], expected)
}

/// Damages one file; says what it did. Much of a file may be damaged without harm: pages that are free, and those that the
/// log holds anew.
fn damage(image: &mut Image, dice: &mut Dice) -> String {
    let names: Vec<_> = image.iter().filter(|(_, bytes)| !bytes.is_empty()).map(|(name, _)| *name).collect();
    // The large files more often, each of them often enough.
    let name = if dice.below(8) == 0 {
        names[dice.below(names.len())]
    } else {
        names[dice.below(names.len().min(3)).min(names.len() - 1)]
    };
    let bytes = image.get_mut(name).unwrap();
    let at = dice.below(bytes.len());
    match dice.below(6) {
        0 => {
            bytes.truncate(at);
            format!("{name} cut at {at}")
        }
        1 => {
            bytes[at..].fill(0);
            format!("{name} zeroed from {at}")
        }
        _ => {
            let bit = dice.below(8);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} of {name} flipped")
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_opens_whole_or_refuses_with_a_reason() {
    let (images, expected) = images().await;
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("store");
    let mut dice = Dice(11);
    let (mut whole, mut refused, mut saved) = (0, 0, 0);
    for round in 0..ROUNDS {
        let mut image = images[round % images.len()].clone();
        let done = damage(&mut image, &mut dice);
        put_image(&folder, &image);
        match open_folder(&folder, false).await {
            Ok(opened) => {
                assert!(content(&opened).await == expected, "round {round}: {done}");
                opened.store.close().await;
                whole += 1;
            }
            Err(OpenError::Disk(why)) => {
                assert!(why.len() > 40, "round {round}: {done}: {why}");
                refused += 1;
                // What is left of it can be had by saying so, and is never something else.
                if round % 4 == 0 {
                    put_image(&folder, &image);
                    saved += usize::from(accept(&folder, &expected, &format!("round {round}: {done}")).await);
                }
            }
            Err(other) => panic!("round {round}: {done}: {other}"),
        }
    }
    println!(
        "{ROUNDS} damaged copies: {whole} opened whole, {refused} refused; {saved} of those were opened with --accept-loss"
    );
    assert!(refused > ROUNDS / 3 && saved > 0, "{whole} opened, {refused} refused, {saved} saved");
}

/// Opens it with what is whole; `false` if there is too little even for that.
async fn accept(folder: &Path, expected: &Content, done: &str) -> bool {
    let Ok(Opened { store, queues, .. }) = open_folder(folder, true).await else { return false };
    accept_queues(&queues.expect("it keeps queues"), &expected.jobs, done).await;
    for (name, known) in &expected.topics {
        let name = topic(name);
        let all = store.read(&name, ReadFrom::Last(0), ALL).await.expect("it is read");
        let Some((last, _)) = known.last() else { continue };
        let last: fanfare::domain::position::Position = last.parse().unwrap();
        assert_ne!(all.head.epoch, last.epoch, "{done}: a new life");
        // Whoever comes back with the newest position is told.
        let page = store.read(&name, ReadFrom::After(last), ALL).await.expect("it is read");
        let why = page.missing.map(|missing| missing.why);
        assert!(matches!(why, Some(GapCause::Failover | GapCause::Epoch)), "{done}: {why:?}");
        // From the beginning of the old life: a stretch without a hole, and each message as it was.
        let first = fanfare::domain::position::Position::new(last.epoch, 0);
        let page = store.read(&name, ReadFrom::After(first), ALL).await.expect("it is read");
        for pair in page.messages.windows(2) {
            assert_eq!(pair[0].at.offset + 1, pair[1].at.offset, "{done}: a hole");
        }
        for message in &page.messages {
            let (at, body) = (message.at.to_string(), message.body.as_bytes().to_vec());
            assert!(known.contains(&(at.clone(), body)), "{done}: {at} was never stored");
        }
        let answer = store.append(vec![item(&name, "after")]).await;
        assert!(stored(&answer[0]).offset > page.end.offset, "{done}");
    }
    store.close().await;
    // And it is an ordinary store from then on.
    let again = open_folder(folder, false).await.unwrap_or_else(|error| panic!("{done}: {error}"));
    again.store.close().await;
    true
}

/// Each job that is left is one that was put, as it was put, and no id is given out a second time.
async fn accept_queues(keeper: &QueueKeeper, expected: &Jobs, done: &str) {
    for (key, (id, _, _, _, body)) in &all_jobs(keeper).await {
        // Acknowledged ones whose end was lost may be among them.
        if let Some((known, _, _, _, was)) = expected.get(key) {
            assert_eq!((id, body), (known, was), "{done}: {key:?}");
        }
    }
    for n in 0..QUEUES {
        let answer = keeper.queues.put(vec![job(queue(n), "after")]).await.pop().expect("an answer");
        let Ok(PutAnswer::Stored { job, .. }) = answer else { panic!("{done}: {answer:?}") };
        assert!(expected.values().all(|(known, ..)| *known != job), "{done}: {job} was given out before");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_loss_is_told_with_what_is_lost() {
    let (images, _) = images().await;
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("store");
    let without = |name: &'static str, image: &Image| {
        let mut image = image.clone();
        image.remove(name);
        image
    };
    let mut cut = images[0].clone();
    let log = cut.get_mut("store.db-wal").unwrap();
    log.truncate(log.len() / 2);
    let mut flipped = images[0].clone();
    flipped.get_mut("store.db-wal").unwrap()[50_000] ^= 1;
    let mut older = images[1].clone();
    older.insert("commits", images[0]["commits"].clone());
    for (image, told) in [
        (without("store.db-wal", &images[0]), "commits are gone"),
        (without("store.db", &images[1]), "store.db is gone"),
        (without("commits", &images[1]), "the counter of commits is gone"),
        (cut, "commits are gone"),
        (flipped, "the write-ahead log is damaged: the last"),
    ] {
        put_image(&folder, &image);
        let error = open_folder(&folder, false).await.err().expect(told).to_string();
        assert!(error.contains(told) && error.contains("--accept-loss"), "{error}");
    }
    // The counter of an earlier moment hides nothing here: what is there is whole.
    put_image(&folder, &older);
    open_folder(&folder, false).await.unwrap().store.close().await;
}
