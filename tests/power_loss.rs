//! Loss of power, by a recorder: the hub runs with every write, cut, sync, rename and removal of its files recorded in their
//! order (`power_loss/recorder.c`), and each acknowledgement with the length of the record at that moment. Then the
//! record is replayed up to random points: what was synced by then is there; of what was not, some writes are there, some
//! not, some in part by sectors, and new names may be missing. Whatever was acknowledged before the point must be there.
//!
//! The same recorder makes syncs fail.

#[path = "power_loss/queues.rs"]
mod queues;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fanfare::domain::store::{ReadFrom, ReadLimit};
use fanfare::store::{Options, open};
use serde_json::Value;
use support::*;

const ALL: ReadLimit = ReadLimit { messages: 1_000_000, bytes: 1 << 30 };
const CUTS: usize = 50;
const WRITERS: u64 = 4;
const SECTOR: usize = 512;

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }
}

/// The hub with the recorder in it.
struct Recorded {
    child: Child,
    http: SocketAddr,
    folder: tempfile::TempDir,
}

impl Recorded {
    fn start() -> Recorded {
        let folder = tempfile::tempdir().unwrap();
        let library = build_recorder(folder.path());
        let store = folder.path().join("store");
        let mut child = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .args(["serve", "--insecure", "--listen=127.0.0.1:0", "--admin-listen=same", "--redis-listen=off"])
            .args(["--history-messages=100000", "--history-bytes=1GiB", "--store"])
            .arg(format!("disk:{}", store.display()))
            .current_dir(folder.path())
            .env("LD_PRELOAD", &library)
            .env("RECORD_UNDER", &store)
            .env("RECORD_TO", folder.path().join("record"))
            .env("FAIL_SYNC", folder.path().join("fail"))
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .expect("the binary was built");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let http = lines.find_map(|line| {
            line.trim().strip_prefix("http")?.trim().strip_prefix("http://")?.split('/').next()?.parse().ok()
        });
        let http = http.unwrap_or_else(|| panic!("{}", fs::read_to_string(folder.path().join("log")).unwrap()));
        std::thread::spawn(move || lines.for_each(drop));
        Recorded { child, http, folder }
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// How long the record is by now.
    fn length(&self) -> u64 {
        length(self.folder.path())
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Builds the recorder; answers where it is.
fn build_recorder(folder: &Path) -> PathBuf {
    let library = folder.join("recorder.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power_loss/recorder.c");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl").output();
    let built = built.expect("a C compiler is needed, as for SQLite");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}

fn length(folder: &Path) -> u64 {
    fs::metadata(folder.join("record")).unwrap().len()
}

/// Publishes one; the status and the position.
async fn publish(client: &reqwest::Client, http: SocketAddr, topic: &str, body: String) -> (u16, Option<String>) {
    let request =
        client.post(format!("http://{http}/v1/topics/{topic}/messages")).header("content-type", "application/json");
    let answer = request.body(body).send().await.expect("an answer");
    let status = answer.status().as_u16();
    let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    (status, answer["stored"].as_str().map(str::to_owned))
}

#[derive(Debug)]
enum Op {
    Write(u64, Vec<u8>),
    Cut(u64),
}

/// The disk as the record tells it.
#[derive(Default)]
struct Disk {
    /// What of each file is synced, and what was done to it since.
    files: BTreeMap<PathBuf, (Vec<u8>, Vec<Op>)>,
    /// Files whose names are not synced.
    unnamed: BTreeSet<PathBuf>,
}

impl Disk {
    fn apply(&mut self, entry: &Entry) {
        let path = PathBuf::from(&entry.path);
        match entry.op {
            b'W' | b'T' => {
                let op =
                    if entry.op == b'W' { Op::Write(entry.offset, entry.bytes.clone()) } else { Op::Cut(entry.offset) };
                if !self.files.contains_key(&path) {
                    self.unnamed.insert(path.clone());
                }
                self.files.entry(path).or_default().1.push(op);
            }
            b'S' => {
                if let Some((synced, since)) = self.files.get_mut(&path) {
                    since.drain(..).for_each(|op| perform(synced, &op));
                }
                // A folder: the names in it.
                self.unnamed.retain(|file| file.parent() != Some(&path));
            }
            b'R' => {
                let (from, to) = (path, PathBuf::from(&entry.second));
                let moved = |file: &PathBuf| {
                    file.strip_prefix(&from)
                        .ok()
                        .map(|rest| if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) })
                };
                let files = std::mem::take(&mut self.files);
                self.files = files.into_iter().map(|(file, content)| (moved(&file).unwrap_or(file), content)).collect();
                let unnamed = std::mem::take(&mut self.unnamed);
                self.unnamed = unnamed.into_iter().map(|file| moved(&file).unwrap_or(file)).collect();
            }
            b'U' => drop(self.files.remove(&path)),
            op => panic!("{op}"),
        }
    }

    /// What is found after the power is back: each file that has a name.
    fn after_loss(&self, dice: &mut Dice) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        for (path, (synced, since)) in &self.files {
            if self.unnamed.contains(path) && dice.below(2) == 0 {
                continue;
            }
            let mut bytes = synced.clone();
            for op in since {
                match op {
                    _ if dice.below(2) == 0 => {}
                    Op::Cut(_) => perform(&mut bytes, op),
                    Op::Write(offset, written) => {
                        let torn = dice.below(3) == 0;
                        for (n, sector) in written.chunks(SECTOR).enumerate() {
                            if !torn || dice.below(3) > 0 {
                                perform(&mut bytes, &Op::Write(offset + (n * SECTOR) as u64, sector.to_vec()));
                            }
                        }
                    }
                }
            }
            found.insert(path.clone(), bytes);
        }
        found
    }
}

fn perform(file: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Cut(length) => file.resize(*length as usize, 0),
        Op::Write(offset, bytes) => {
            let (start, end) = (*offset as usize, *offset as usize + bytes.len());
            if file.len() < end {
                file.resize(end, 0);
            }
            file[start..end].copy_from_slice(bytes);
        }
    }
}

struct Entry {
    op: u8,
    path: String,
    second: String,
    offset: u64,
    bytes: Vec<u8>,
    /// Where it ends in the record.
    end: u64,
}

fn read_record(bytes: &[u8]) -> Vec<Entry> {
    let (mut entries, mut at) = (Vec::new(), 0);
    while at + 25 <= bytes.len() {
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let long = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        let (op, path, second, offset) = (bytes[at], word(at + 1), word(at + 5), long(at + 9));
        let length = if op == b'W' { long(at + 17) as usize } else { 0 };
        let start = at + 25;
        let end = start + path + second + length;
        if end > bytes.len() {
            break;
        }
        let text = |from: usize, length: usize| String::from_utf8(bytes[from..from + length].to_vec()).unwrap();
        let data = bytes[start + path + second..end].to_vec();
        entries.push(Entry {
            op,
            path: text(start, path),
            second: text(start + path, second),
            offset,
            bytes: data,
            end: end as u64,
        });
        at = end;
    }
    entries
}

/// A message that was acknowledged, with the length of the record when the answer was there.
struct Acknowledged {
    topic: String,
    at: String,
    body: String,
    length: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_the_power_failed_is_there() {
    let mut hub = Recorded::start();
    let sent = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (http, folder, sent) = (hub.http, hub.folder.path().to_owned(), sent.clone());
            tokio::spawn(async move {
                let client = reqwest::Client::builder().no_proxy().build().unwrap();
                let mut done = Vec::new();
                // Together more than one checkpoint's worth.
                while sent.load(Ordering::Relaxed) < 7_000_000 {
                    let topic = format!("t{writer}");
                    let body = format!("\"{writer}-{}-{}\"", done.len(), "x".repeat(3_000 + done.len() % 7 * 500));
                    let (status, at) = publish(&client, http, &topic, body.clone()).await;
                    assert_eq!(status, 201);
                    sent.fetch_add(body.len() as u64, Ordering::Relaxed);
                    done.push(Acknowledged { topic, at: at.unwrap(), body, length: length(&folder) });
                }
                done
            })
        })
        .collect();
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    hub.kill();
    let record = read_record(&fs::read(hub.folder.path().join("record")).unwrap());
    let carried = record.iter().filter(|e| e.op == b'W' && e.path.ends_with("store.db")).count();
    assert!(carried > 1_000, "{carried} pages were carried over into the file, so checkpoints are among it");
    let first = acknowledged.iter().map(|a| a.length).min().unwrap();
    let begin = record.iter().position(|entry| entry.end > first).unwrap();

    let seed = 5;
    let mut dice = Dice(seed);
    let mut cuts: Vec<usize> = (0..CUTS).map(|_| begin + dice.below(record.len() - begin)).collect();
    cuts.sort_unstable();
    let (mut disk, mut applied, mut checked) = (Disk::default(), 0, 0);
    for cut in cuts {
        record[applied..cut].iter().for_each(|entry| disk.apply(entry));
        applied = cut;
        let length = record[cut - 1].end;
        let scratch = tempfile::tempdir().unwrap();
        for (path, bytes) in disk.after_loss(&mut dice) {
            let path = scratch.path().join(path.strip_prefix(hub.store()).unwrap());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let url = format!("disk:{}", scratch.path().display());
        let options = Options {
            retention: fanfare::domain::store::Retention { messages: 100_000, bytes: 1 << 30, ..Default::default() },
            ..Options::default()
        };
        let store = open(&url, options).await.unwrap_or_else(|e| panic!("cut at {cut} (seed {seed}): {e}")).store;
        let mut found = BTreeMap::new();
        for writer in 0..WRITERS {
            let page = store.read(&topic(&format!("t{writer}")), ReadFrom::Last(1_000_000), ALL).await.unwrap();
            for (n, message) in page.messages.iter().enumerate() {
                assert_eq!(message.at.offset, n as u64 + 1, "cut at {cut}: a hole");
                found.insert((format!("t{writer}"), message.at.to_string()), message.body.as_bytes().to_vec());
            }
        }
        let before: Vec<_> = acknowledged.iter().filter(|a| a.length <= length).collect();
        for Acknowledged { topic, at, body, .. } in &before {
            let stored = found.get(&(topic.clone(), at.clone()));
            let is_there = stored.is_some_and(|stored| String::from_utf8_lossy(stored).contains(body.as_str()));
            assert!(is_there, "cut at {cut} of {} (seed {seed}): {topic} {at} was acknowledged", record.len());
        }
        // And nothing that nobody published: at most one message a writer was on its way.
        assert!(
            found.len() <= before.len() + WRITERS as usize * 2,
            "{} found, {} acknowledged",
            found.len(),
            before.len()
        );
        checked += before.len();
        store.close().await;
    }
    println!("{CUTS} losses of power in {} operations: {checked} acknowledgements held, none broken", record.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_sync_that_failed_nothing_is_promised() {
    let mut hub = Recorded::start();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let (status, first) = publish(&client, hub.http, "news", "1".into()).await;
    assert_eq!(status, 201);
    fs::write(hub.folder.path().join("fail"), "").unwrap();
    let answer =
        client.post(format!("http://{}/v1/topics/news/messages", hub.http)).header("content-type", "application/json");
    let answer = answer.body("2").send().await.unwrap();
    let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
    assert!(status == 503 && text.contains("unconfirmed"), "{status} {text}");
    // The disk syncs again; what it forgot meanwhile nobody knows, so nothing is taken until a restart.
    fs::remove_file(hub.folder.path().join("fail")).unwrap();
    let (status, _) = publish(&client, hub.http, "news", "3".into()).await;
    assert_eq!(status, 503);
    let ready = client.get(format!("http://{}/readyz", hub.http)).send().await.unwrap();
    assert_eq!(ready.status().as_u16(), 503);
    hub.kill();
    assert!(hub.length() > 0);
    let store = open(&format!("disk:{}", hub.store().display()), Options::default()).await.unwrap().store;
    let page = store.read(&topic("news"), ReadFrom::Last(10), ALL).await.unwrap();
    assert_eq!(page.messages[0].at.to_string(), first.unwrap());
    assert!(page.messages.len() <= 2, "the unconfirmed one is there or not; the refused one is not");
    store.close().await;
}
