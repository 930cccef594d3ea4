//! Queues on a disk that loses its power, and in a process that is killed. The process is this test once more: it puts jobs
//! and works on them, and tells each step on its output, with the length of the record at that moment.

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use fanfare::domain::message::Body;
use fanfare::domain::queue::*;
use fanfare::store::Opened;

use super::*;

const GROUPS: u64 = 4;
const MOST_TRIES: u32 = 6;

fn options() -> Options {
    let defaults = QueueSettings {
        lease: Duration::from_secs(600),
        max_deliveries: MOST_TRIES,
        backoff: vec![],
        ..QueueSettings::default()
    };
    Options { queues: QueueRules { defaults, rules: vec![] }, ..Options::default() }
}

fn jobs() -> Queue {
    Queue::parse("jobs").unwrap()
}

/// What a line tells: `p` a put begins, `P` it is answered, `T` a job was taken, `a` its acknowledgement begins, `A` it is
/// answered.
#[derive(Debug, Clone)]
struct Line {
    what: char,
    /// The job's number, but for `p`.
    number: u64,
    tries: u32,
    text: String,
    length: u64,
}

impl Line {
    fn tell(what: char, number: u64, tries: u32, text: &str, record: Option<&Path>) {
        let length = record.map_or(0, |record| fs::metadata(record).unwrap().len());
        let line = format!("#{what} {number} {tries} {text} {length}\n");
        // Whole lines, past the capture of the test's output.
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    }

    fn parse(line: &str) -> Option<Line> {
        let words: Vec<&str> = line.trim().split(' ').collect();
        let [what, number, tries, text, length] = words[..] else { return None };
        Some(Line {
            what: what.strip_prefix('#')?.chars().next()?,
            number: number.parse().ok()?,
            tries: tries.parse().ok()?,
            text: text.into(),
            length: length.parse().ok()?,
        })
    }
}

/// Not a test by itself: the process that works on a queue until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_works_on_a_queue() {
    let Ok(folder) = std::env::var("WORK_ON_QUEUE_IN") else { return };
    let record: Option<Arc<Path>> = std::env::var_os("RECORD_TO").map(|path| Path::new(&path).into());
    let round = std::env::var("ROUND").unwrap();
    let Opened { queues, store, .. } = open(&format!("disk:{folder}"), options()).await.unwrap();
    let queues = queues.unwrap().queues;
    let mut tasks = tokio::task::JoinSet::new();
    for putter in 0..3u64 {
        let (queues, record, round) = (queues.clone(), record.clone(), round.clone());
        tasks.spawn(async move {
            for n in 0..u64::MAX {
                let text = format!("{round}-{putter}-{n}");
                let group = (n % 2 == 0).then(|| format!("g{}", n % GROUPS).into_boxed_str());
                let body = Body::from_canonical(Bytes::from(format!("{text}{}", " ".repeat(n as usize % 9 * 100))));
                Line::tell('p', 0, 0, &text, record.as_deref());
                let answer = queues.put(vec![Put { group, ..Put::new(jobs(), body) }]).await.pop().unwrap();
                let Ok(PutAnswer::Stored { job, .. }) = answer else { panic!("{answer:?}") };
                Line::tell('P', job.number(), 0, &text, record.as_deref());
            }
        });
    }
    for worker in 0..3u64 {
        let (queues, record) = (queues.clone(), record.clone());
        tasks.spawn(async move {
            for token in 0..u64::MAX {
                let take =
                    Take { worker: "w".into(), count: 3, bytes: 1 << 20, lease: None, token: token * 3 + worker };
                for job in queues.take(&jobs(), take).await.unwrap().jobs {
                    let (number, text) =
                        (job.id.number(), String::from_utf8_lossy(job.body.as_bytes()).trim().to_owned());
                    Line::tell('T', number, job.tries, &text, record.as_deref());
                    let how = match (number + u64::from(job.tries)) % 8 {
                        // It holds this one until it is killed.
                        0 if job.group.is_none() => continue,
                        1 => How::Nack { delay: None, error: Some("no".into()) },
                        _ => How::Ack,
                    };
                    let is_ack = how == How::Ack;
                    if is_ack {
                        Line::tell('a', number, job.tries, &text, record.as_deref());
                    }
                    let settle = Settle { job: job.id, token: job.token, how };
                    let settled = queues.settle(&jobs(), vec![settle]).await.pop().unwrap().unwrap();
                    if is_ack {
                        assert_eq!(settled, Settled::Done);
                        Line::tell('A', number, job.tries, &text, record.as_deref());
                    }
                }
                tokio::task::yield_now().await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    drop(store);
}

/// Runs the process until it has told so many acknowledgements, and kills it; answers all that it told.
fn work(folder: &Path, round: u64, acks: usize, recorder: &[(&str, &Path)]) -> Vec<Line> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "queues::a_process_works_on_a_queue", "--nocapture"]);
    command.env("WORK_ON_QUEUE_IN", folder).env("ROUND", round.to_string()).envs(recorder.iter().copied());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let (mut told, mut seen, mut is_killed) = (Vec::new(), 0, false);
    for line in lines.filter_map(|line| Line::parse(&line)) {
        seen += usize::from(line.what == 'A');
        told.push(line);
        if seen == acks && !is_killed {
            // What it has told by then is still to be read.
            child.kill().unwrap();
            is_killed = true;
        }
    }
    child.wait().unwrap();
    assert!(is_killed, "it ended by itself after {seen} acknowledgements");
    told
}

/// All jobs of the store of a folder, by their numbers.
async fn stored_jobs(folder: &Path) -> BTreeMap<u64, Seen> {
    let opened = open(&format!("disk:{}", folder.display()), options()).await.unwrap_or_else(|e| panic!("{e}"));
    let admin = opened.queues.unwrap().admin;
    let mut all = BTreeMap::new();
    for place in [Place::Ready, Place::Parked, Place::Delayed, Place::InFlight, Place::Dead] {
        for skip in (0..).step_by(1_000) {
            let page = admin.look(&jobs(), place, skip, 1_000).await.unwrap();
            let is_last = page.len() < 1_000;
            for seen in page {
                assert!(all.insert(seen.id.number(), seen).is_none(), "a job is in two places");
            }
            if is_last {
                break;
            }
        }
    }
    opened.store.close().await;
    all
}

/// Holds what is stored against what was told while the record was so long; answers how many jobs it looked at.
fn judge(told: &[Line], stored: &BTreeMap<u64, Seen>, length: u64, wrong: &str) -> usize {
    let is_before = |line: &&Line| line.length <= length;
    let of = |what: char| told.iter().filter(move |line| line.what == what);
    let (mut begun, mut acked): (BTreeSet<u64>, BTreeSet<u64>) = Default::default();
    begun.extend(of('a').filter(is_before).map(|line| line.number));
    acked.extend(of('A').filter(is_before).map(|line| line.number));
    let texts: BTreeSet<&str> = of('p').map(|line| line.text.as_str()).collect();
    let mut tries: HashMap<u64, u32> = HashMap::new();
    for line in of('T').filter(is_before) {
        tries.entry(line.number).and_modify(|tries| *tries = line.tries.max(*tries)).or_insert(line.tries);
    }
    let mut judged = 0;
    for line in of('P').filter(is_before) {
        judged += 1;
        let Line { number, text, .. } = line;
        match stored.get(number) {
            None => assert!(begun.contains(number), "{wrong}: {number} was put, and is lost"),
            Some(seen) => {
                assert!(!acked.contains(number), "{wrong}: {number} was acknowledged, and is {:?}", seen.place);
                let body = String::from_utf8_lossy(seen.body.as_bytes()).trim().to_owned();
                assert_eq!(body, *text, "{wrong}: {number}");
                let known = tries.get(number).copied().unwrap_or(0);
                assert!(
                    seen.tries >= known && seen.tries <= MOST_TRIES,
                    "{wrong}: {number} on {} of {known}",
                    seen.tries
                );
            }
        }
    }
    for seen in stored.values() {
        let body = String::from_utf8_lossy(seen.body.as_bytes()).trim().to_owned();
        assert!(texts.contains(body.as_str()), "{wrong}: nobody put {body:?}");
    }
    judged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_loses_no_job_and_delivers_none_after_its_acknowledgement() {
    const ROUNDS: u64 = 5;
    let folder = tempfile::tempdir().unwrap();
    let mut told = Vec::new();
    for round in 0..ROUNDS {
        let path = folder.path().to_owned();
        let acks = 60 + round as usize * 37;
        told.extend(tokio::task::spawn_blocking(move || work(&path, round, acks, &[])).await.unwrap());
    }
    let (mut acked, mut tries, mut groups) = (BTreeSet::new(), HashMap::new(), HashMap::new());
    let mut redelivered = 0;
    for Line { what, number, tries: this, text, .. } in &told {
        match what {
            'T' => {
                assert!(!acked.contains(number), "{number} was delivered after its acknowledgement");
                let before = tries.insert(*number, *this).unwrap_or(0);
                // A delivery that was counted and never told went with the process.
                assert!(*this > before && *this <= MOST_TRIES, "{number} on try {this} after {before}");
                redelivered += usize::from(before > 0);
                let n: u64 = text.rsplit('-').next().unwrap().parse().unwrap();
                if n.is_multiple_of(2) && before == 0 {
                    let last = groups.insert(n % GROUPS, *number).unwrap_or(0);
                    assert!(last < *number, "{number} of a group was delivered first after {last}");
                }
            }
            'A' => assert!(acked.insert(*number), "{number} was acknowledged twice"),
            _ => {}
        }
    }
    let stored = stored_jobs(folder.path()).await;
    let judged = judge(&told, &stored, u64::MAX, "after the last kill");
    assert!(redelivered > 0);
    println!(
        "{ROUNDS} kills: {judged} jobs put, {} acknowledged, {redelivered} delivered again, {} left",
        acked.len(),
        stored.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_queues_answered_before_the_power_failed_holds() {
    const CUTS: usize = 30;
    let folder = tempfile::tempdir().unwrap();
    let (library, store, record) =
        (build_recorder(folder.path()), folder.path().join("store"), folder.path().join("record"));
    let told = tokio::task::spawn_blocking({
        let (store, record) = (store.clone(), record.clone());
        move || {
            let recorder = [("LD_PRELOAD", &*library), ("RECORD_UNDER", &*store), ("RECORD_TO", &*record)];
            work(&store, 0, 400, &recorder)
        }
    });
    let told = told.await.unwrap();
    let record = read_record(&fs::read(record).unwrap());
    let first = told.iter().filter(|line| line.what == 'P').map(|line| line.length).min().unwrap();
    let begin = record.iter().position(|entry| entry.end > first).unwrap();
    let mut dice = Dice(9);
    let mut cuts: Vec<usize> = (0..CUTS).map(|_| begin + dice.below(record.len() - begin)).collect();
    cuts.sort_unstable();
    let (mut disk, mut applied, mut judged) = (Disk::default(), 0, 0);
    for cut in cuts {
        record[applied..cut].iter().for_each(|entry| disk.apply(entry));
        applied = cut;
        let scratch = tempfile::tempdir().unwrap();
        for (path, bytes) in disk.after_loss(&mut dice) {
            let path = scratch.path().join(path.strip_prefix(&store).unwrap());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let stored = stored_jobs(scratch.path()).await;
        judged += judge(&told, &stored, record[cut - 1].end, &format!("cut at {cut} of {}", record.len()));
    }
    println!("{CUTS} losses of power in {} operations: {judged} answers held, none broken", record.len());
    assert!(judged > CUTS);
}
