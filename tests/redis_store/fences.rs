//! Fenced batches, repeated from the first that failed as the bridge of the dispatcher repeats them, while Redis fails in
//! the middle of batches: nothing is lost, nothing comes twice, and the order stays.

use super::scripts::Vandal;
use super::*;

/// As many as the dispatcher reads at a time; a store sends them in several calls.
const BATCH: usize = 500;
const TOPICS: usize = 7;

/// Entries of an ingest queue and the topics they go to, by their place.
struct Entries {
    body: String,
    count: usize,
}

impl Entries {
    fn entry(&self, n: usize) -> Append {
        let mut append = message(&format!("t{}", n % TOPICS), &format!("{n}:{}", self.body));
        let id = EntryId { ms: n as u64 / 3 + 1, seq: n as u64 % 3 };
        append.fence = Some(Fence::new("fanfare:in", "life", id));
        append
    }

    /// Feeds all entries to a store; answers how many batches it had to repeat from somewhere.
    async fn feed(&self, store: &RedisStore) -> usize {
        let (mut cursor, mut stops, mut moved) = (0, 0, Instant::now());
        while cursor < self.count {
            let end = (cursor + BATCH).min(self.count);
            let answers = store.append((cursor..end).map(|n| self.entry(n)).collect()).await;
            let failed = answers.iter().position(Result::is_err);
            if let Some(Err(error)) = failed.map(|place| &answers[place]) {
                use StoreError::*;
                assert!(matches!(error, Unavailable(_) | Unconfirmed(_) | Full(_)), "{error:?}");
                stops += 1;
            }
            let done = failed.unwrap_or(answers.len());
            if done > 0 {
                (cursor, moved) = (cursor + done, Instant::now());
            }
            assert!(moved.elapsed() < SOON, "{:?} holds it up", answers[0]);
            tokio::task::yield_now().await;
        }
        stops
    }

    async fn check(&self, store: &RedisStore) {
        for t in 0..TOPICS {
            let expected: Vec<usize> = (0..self.count).filter(|n| n % TOPICS == t).collect();
            let stored = all(store, &format!("t{t}")).await;
            let stored: Vec<usize> = stored.iter().map(|(_, body)| number_of(body)).collect();
            let lost = expected.iter().filter(|n| stored.binary_search(n).is_err()).count();
            assert_eq!((stored.len(), lost), (expected.len(), 0), "stored and lost in t{t}");
            assert_eq!(stored, expected, "in order in t{t}");
        }
    }
}

fn number_of(body: &str) -> usize {
    let digits = body.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits.split(':').next().unwrap().parse().unwrap()
}

async fn roomy(server: &RedisServer) -> RedisStore {
    let retention = Retention { messages: 1_000_000, ..Retention::default() };
    open(&server.url(), RedisOptions { retention, ..options() }).await.unwrap()
}

/// Calls of another node, which load the scripts again between two calls of a batch that did not find them.
fn neighbour(store: RedisStore, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            store.append(vec![message("elsewhere", "x")]).await;
        }
    })
}

async fn feed_under_vandalism(cuts: bool) {
    let server = RedisServer::start_with(&["--enable-debug-command", "yes"]);
    let store = roomy(&server).await;
    let stop = Arc::new(AtomicBool::new(false));
    let neighbours = [(); 3].map(|()| self::store(&server));
    let neighbours = futures::future::join_all(neighbours).await;
    let neighbours: Vec<_> = neighbours.into_iter().map(|other| neighbour(other, stop.clone())).collect();
    let vandal = Vandal::begin(&server, cuts);
    let entries = Entries { body: "x".repeat(100), count: 60 * BATCH };
    let stops = entries.feed(&store).await;
    let rounds = vandal.end();
    stop.store(true, Ordering::Relaxed);
    futures::future::join_all(neighbours).await;
    entries.check(&store).await;
    eprintln!("{rounds} flushes, {stops} batches repeated");
    assert!(stops > 0, "nothing was in the way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_get_lost_in_the_middle_of_fenced_batches_lose_nothing() {
    feed_under_vandalism(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_cut_in_the_middle_of_fenced_batches_lose_nothing() {
    feed_under_vandalism(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_that_runs_out_and_comes_back_in_the_middle_of_fenced_batches_loses_nothing() {
    let server = RedisServer::start();
    let store = roomy(&server).await;
    let (stop, mut connection) = (Arc::new(AtomicBool::new(false)), server.connection());
    let stopped = stop.clone();
    let miser = std::thread::spawn(move || {
        let mut bounds = ["1mb", "0"].into_iter().cycle();
        loop {
            let bound = bounds.next().expect("it goes round");
            redis::cmd("CONFIG").arg(&["SET", "maxmemory", bound]).exec(&mut connection).unwrap();
            if bound == "0" && stopped.load(Ordering::Relaxed) {
                return;
            }
        }
    });
    let entries = Entries { body: "x".repeat(400), count: 40 * BATCH };
    let stops = entries.feed(&store).await;
    stop.store(true, Ordering::Relaxed);
    miser.join().unwrap();
    entries.check(&store).await;
    eprintln!("{stops} batches repeated");
    assert!(stops > 0, "memory never ran out");
}
