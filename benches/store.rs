//! What the store on disk costs beside a bare log: messages synced in batches of 1, 100 and 1,000, through the store and by
//! a loop of `write` and `fdatasync` on the same volume, in turns within the same run. Then what retention, reading
//! and opening cost.
//!
//! `./dev bench store [--folder PATH] [--scale N]`: the folder must lie on a disk (not tmpfs, where a sync is nothing).

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanfare::domain::message::{Body, Publication};
use fanfare::domain::name::Topic;
use fanfare::domain::store::{Append, ReadFrom, ReadLimit, Retention, Store};
use fanfare::store::{Options, open};

const TOPICS: usize = 1_000;
const BODY: usize = 200;

fn main() {
    let mut folder = PathBuf::from("target");
    let mut scale = 1.0f64;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--folder" => folder = arguments.next().expect("--folder PATH").into(),
            "--scale" => scale = arguments.next().and_then(|n| n.parse().ok()).expect("--scale NUMBER"),
            "--bench" => {}
            other => panic!("unknown: {other}; --folder PATH, --scale NUMBER"),
        }
    }
    let scratch = tempfile::tempdir_in(&folder).expect("a folder to measure in");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    println!("messages of {BODY} random bytes over {TOPICS} topics; commits one after the other\n");
    println!(
        "| batch | bare log | + counter written | + counter synced | disk | of the bare log | p50 / p99 / most, ms | memory |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (batch, batches) in [(1, 2_000), (100, 1_500), (1_000, 300)] {
        let batches = ((batches as f64 * scale) as usize).max(10);
        let bare = log(scratch.path(), batch, batches, Count::None);
        let written = log(scratch.path(), batch, batches, Count::Written);
        let synced = log(scratch.path(), batch, batches, Count::Synced);
        let disk = runtime.block_on(store(Some(&scratch.path().join(format!("s{batch}"))), batch, batches, 1_000_000));
        let memory = runtime.block_on(store(None, batch, batches, 1_000_000));
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        println!(
            "| {batch} | {} | {} | {} | {} | {:.2} | {:.2} / {:.2} / {:.1} | {} |",
            rate(bare),
            rate(written),
            rate(synced),
            rate(disk.a_second),
            disk.a_second / bare,
            ms(disk.p50),
            ms(disk.p99),
            ms(disk.most),
            rate(memory.a_second),
        );
    }
    runtime.block_on(rest(scratch.path(), scale));
}

fn rate(a_second: f64) -> String {
    match a_second {
        n if n >= 10_000.0 => format!("{:.0}k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

/// What is done beside a log, as the store's guard does it.
#[derive(PartialEq)]
enum Count {
    None,
    Written,
    Synced,
}

fn log(folder: &Path, batch: usize, batches: usize, count: Count) -> f64 {
    let (path, beside) = (folder.join("log"), folder.join("count"));
    let (mut file, counter) = (File::create(&path).unwrap(), File::create(&beside).unwrap());
    counter.write_all_at(&[0; 1024], 0).unwrap();
    counter.sync_all().unwrap();
    let bytes = noise(batch * (BODY + 40), 1);
    let begun = Instant::now();
    for n in 0..batches {
        file.write_all(&bytes).unwrap();
        file.sync_data().unwrap();
        if count != Count::None {
            counter.write_all_at(&[n as u8; 28], n as u64 % 2 * 512).unwrap();
        }
        if count == Count::Synced {
            counter.sync_data().unwrap();
        }
    }
    let took = begun.elapsed();
    fs::remove_file(path).unwrap();
    (batch * batches) as f64 / took.as_secs_f64()
}

struct Measured {
    a_second: f64,
    p50: Duration,
    p99: Duration,
    most: Duration,
}

async fn open_at(folder: Option<&Path>, kept: u64) -> std::sync::Arc<dyn Store> {
    let url = folder.map_or("memory".into(), |folder| format!("disk:{}", folder.display()));
    let retention = Retention { messages: kept, bytes: 1 << 40, ..Retention::default() };
    let options = Options { retention, total_bytes: 1 << 40, ..Options::default() };
    open(&url, options).await.expect("it opens").store
}

async fn store(folder: Option<&Path>, batch: usize, batches: usize, kept: u64) -> Measured {
    let store = open_at(folder, kept).await;
    let measured = append(&*store, batch, batches).await;
    store.close().await;
    measured
}

async fn append(store: &dyn Store, batch: usize, batches: usize) -> Measured {
    let topics: Vec<Topic> = (0..TOPICS).map(|n| Topic::parse(&format!("t{n}")).unwrap()).collect();
    let mut dice = 7u64;
    let mut item = || {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let publication = Publication {
            topic: topics[(dice >> 33) as usize % TOPICS].clone(),
            body: Body::from_canonical(Bytes::from(noise(BODY, dice))),
            ttl: None,
            key: None,
            idempotency_key: None,
            durability: None,
        };
        Append { publication, fence: None }
    };
    let mut took = Vec::with_capacity(batches);
    let mut all = Duration::ZERO;
    for _ in 0..batches {
        let items: Vec<Append> = (0..batch).map(|_| item()).collect();
        let begun = Instant::now();
        let answers = store.append(items).await;
        let one = begun.elapsed();
        assert!(answers.iter().all(|answer| answer.is_ok()), "{:?}", answers[0]);
        took.push(one);
        all += one;
    }
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    Measured { a_second: (batch * batches) as f64 / all.as_secs_f64(), p50: at(0.5), p99: at(0.99), most: at(1.0) }
}

/// Retention, opening, reading, and the files.
async fn rest(scratch: &Path, scale: f64) {
    let folder = scratch.join("rest");
    let batches = ((300.0 * scale) as usize).max(10);
    let store = open_at(Some(&folder), 1_000_000).await;
    let grown = append(&*store, 1_000, batches).await;
    let page = Instant::now();
    let limit = ReadLimit { messages: 100, bytes: 1 << 20 };
    for n in 0..TOPICS {
        store.read(&Topic::parse(&format!("t{n}")).unwrap(), ReadFrom::Last(100), limit).await.unwrap();
    }
    let page = page.elapsed() / TOPICS as u32;
    store.close().await;
    drop(store);
    let full = size(&folder.join("data/store.db"));
    let begun = Instant::now();
    let store = open_at(Some(&folder), 100).await;
    println!(
        "\n{} messages appended at {} a second; the newest 100 of a topic are read in {page:.1?};",
        batches * 1_000,
        rate(grown.a_second)
    );
    println!("{} MB in the file, opened, checked and indexed in {:.0?}", full >> 20, begun.elapsed());
    // From here on each message takes the place of an older one of its topic.
    let steady = append(&*store, 1_000, batches).await;
    println!(
        "with 100 kept of each topic, each append deleting one: {} a second, p99 {:.1?}",
        rate(steady.a_second),
        steady.p99
    );
    let waited = Instant::now();
    let mut last = 0;
    while waited.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = size(&folder.join("data/store.db"));
        if now == last && waited.elapsed() > Duration::from_secs(4) {
            break;
        }
        last = now;
    }
    println!(
        "its file after {:.0?} at rest: {} MB; its log {} MB",
        waited.elapsed(),
        last >> 20,
        size(&folder.join("data/store.db-wal")) >> 20
    );
    store.close().await;
    println!("and closed: {} MB", size(&folder.join("data/store.db")) >> 20);
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}
