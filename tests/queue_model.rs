//! Random work on queues, watched (`support/queue_model.rs`): on a store in memory and on disk, which is closed and opened again
//! now and then. The same seeds in every run; `FAULTS=long` runs 200 of them, of 3,000 steps each.

#[path = "support/queue_model.rs"]
mod queue_model;
mod support;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanfare::domain::queue::*;
use fanfare::domain::store::{Store, StoreError};
use fanfare::store::{Options, open};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use queue_model::{Ground, Report, form, run, watch_seeds};
use support::MovedClock;

struct Embedded {
    folder: Option<PathBuf>,
    clock: MovedClock,
    store: Arc<dyn Store>,
    keeper: QueueKeeper,
}

impl Embedded {
    async fn open(folder: Option<PathBuf>, clock: MovedClock) -> Embedded {
        let url = folder.as_ref().map_or("memory".into(), |folder| format!("disk:{}", folder.display()));
        let options = Options { clock: clock.reader(), ..Options::default() };
        let opened = open(&url, options).await.expect("the store opens");
        Embedded { folder, clock, store: opened.store, keeper: opened.queues.expect("it keeps queues") }
    }
}

impl Ground for Embedded {
    fn keeper(&self) -> QueueKeeper {
        self.keeper.clone()
    }

    fn now(&self) -> Option<u64> {
        Some(self.clock.now())
    }

    fn pass(&mut self, time: Duration) -> BoxFuture<'_, ()> {
        self.clock.advance(time);
        Box::pin(async {})
    }

    fn restart(&mut self) -> BoxFuture<'_, bool> {
        Box::pin(async {
            let Some(folder) = self.folder.clone() else { return false };
            self.store.close().await;
            *self = Embedded::open(Some(folder), self.clock.clone()).await;
            true
        })
    }
}

async fn watch_one(seed: u64, steps: usize, is_on_disk: bool) -> Result<Report, String> {
    let folder = is_on_disk.then(|| tempfile::tempdir().unwrap());
    let path = folder.as_ref().map(|folder| folder.path().to_owned());
    let mut ground = Embedded::open(path, MovedClock::default()).await;
    let report = run(&mut ground, "model", seed, steps).await;
    ground.store.close().await;
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_work_on_queues_in_memory_is_as_it_must_be() {
    watch_seeds("memory", form(20, 3_000), 2, |seed, steps| watch_one(seed, steps, false)).await;
}

/// Each seed has a store of its own, since it opens it again now and then; their syncs go to the disk together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_work_on_queues_on_disk_is_as_it_must_be() {
    let all = watch_seeds("disk", form(20, 3_000), 20, |seed, steps| watch_one(seed, steps, true)).await;
    assert!(all.restarts > 0, "{all:?}");
}

/// What a keeper may get wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// An acknowledgement is answered and forgotten.
    ForgetsAcks,
    /// A job is given out twice at once.
    GivesTwice,
    /// A job is taken away and not given.
    Swallows,
    /// A try is not counted.
    CountsWrong,
    /// A put is answered and not done.
    LosesPuts,
    /// Group or not, the last comes first.
    Reverses,
    /// A key is forgotten at once.
    ForgetsKeys,
    /// Leases end before their time.
    HurriesLeases,
    /// A firing is given to everybody.
    TellsTwice,
    /// One job more is counted than there is.
    Miscounts,
}

/// A keeper that lies, before one that does not.
struct Lying {
    inner: QueueKeeper,
    lie: Lie,
    fired: Mutex<Option<Firing>>,
}

impl Queues for Lying {
    fn put(&self, batch: Vec<Put>) -> BoxFuture<'static, Vec<Result<PutAnswer, StoreError>>> {
        let mut batch = batch;
        if self.lie == Lie::ForgetsKeys {
            batch.iter_mut().for_each(|put| put.dedupe = None);
        }
        let is_lost = self.lie == Lie::LosesPuts;
        let (answers, inner) = (self.inner.queues.put(batch.clone()), self.inner.clone());
        Box::pin(async move {
            let answers = answers.await;
            for (put, answer) in batch.iter().zip(&answers) {
                if let (true, Ok(PutAnswer::Stored { job, .. })) = (is_lost, answer) {
                    let _ = inner.admin.change(&put.queue, Change::Remove(*job)).await;
                }
            }
            answers
        })
    }

    fn take(&self, queue: &Queue, take: Take) -> BoxFuture<'static, Result<Taken, StoreError>> {
        let lie = self.lie;
        let take = match lie {
            Lie::HurriesLeases => Take { lease: Some(Duration::from_millis(1)), ..take },
            _ => take,
        };
        let taken = self.inner.queues.take(queue, take);
        Box::pin(async move {
            let mut taken = taken.await?;
            match (lie, taken.jobs.pop()) {
                (Lie::GivesTwice, Some(job)) => taken.jobs.extend([job.clone(), job]),
                (Lie::CountsWrong, Some(job)) => taken.jobs.push(Job { tries: job.tries + 1, ..job }),
                (Lie::Reverses, Some(job)) => taken.jobs.insert(0, job),
                (Lie::Swallows, _) => {}
                (_, job) => taken.jobs.extend(job),
            }
            Ok(taken)
        })
    }

    fn settle(&self, queue: &Queue, batch: Vec<Settle>) -> BoxFuture<'static, Vec<Result<Settled, StoreError>>> {
        let forgets = self.lie == Lie::ForgetsAcks && batch.iter().all(|settle| settle.how == How::Ack);
        let batch = match forgets {
            true => batch.into_iter().map(|settle| Settle { how: How::Release, ..settle }).collect(),
            false => batch,
        };
        self.inner.queues.settle(queue, batch)
    }

    fn sweep(&self, queue: &Queue) -> BoxFuture<'static, Result<Swept, StoreError>> {
        let swept = self.inner.queues.sweep(queue);
        let again = match self.lie {
            Lie::TellsTwice => self.fired.lock().unwrap().clone(),
            _ => None,
        };
        let swept = futures::executor::block_on(swept).map(|swept| Swept { fired: again.or(swept.fired), ..swept });
        if let Ok(Swept { fired: Some(fired), .. }) = &swept {
            *self.fired.lock().unwrap() = Some(fired.clone());
        }
        Box::pin(async { swept })
    }

    fn mark(&self, queue: &Queue, source: &str) -> BoxFuture<'static, Result<Option<Mark>, StoreError>> {
        self.inner.queues.mark(queue, source)
    }

    fn settings(&self, queue: &Queue) -> BoxFuture<'static, Result<QueueSettings, StoreError>> {
        self.inner.queues.settings(queue)
    }

    fn wakes(&self) -> (Box<dyn WatchQueues>, BoxStream<'static, Wake>) {
        self.inner.queues.wakes()
    }
}

impl QueueAdmin for Lying {
    fn stats(&self, queue: &Queue) -> BoxFuture<'static, Result<Option<Stats>, StoreError>> {
        let (stats, lies) = (self.inner.admin.stats(queue), self.lie == Lie::Miscounts);
        Box::pin(async move {
            let mut stats = stats.await?;
            if let (true, Some(stats)) = (lies, &mut stats) {
                stats.delayed += 1;
            }
            Ok(stats)
        })
    }

    fn list(&self, after: Option<&Queue>, limit: usize) -> BoxFuture<'static, Result<Vec<Queue>, StoreError>> {
        self.inner.admin.list(after, limit)
    }

    fn look(
        &self,
        queue: &Queue,
        place: Place,
        skip: usize,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Seen>, StoreError>> {
        self.inner.admin.look(queue, place, skip, limit)
    }

    fn find(&self, queue: &Queue, job: JobId) -> BoxFuture<'static, Result<Option<Seen>, StoreError>> {
        self.inner.admin.find(queue, job)
    }

    fn change(&self, queue: &Queue, change: Change) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.inner.admin.change(queue, change)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keeper_that_lies_is_found_out() {
    for (lie, told) in [
        (Lie::ForgetsAcks, "Q"),
        (Lie::GivesTwice, "Q"),
        (Lie::Swallows, ""),
        (Lie::CountsWrong, "Q5"),
        (Lie::LosesPuts, "Q1"),
        (Lie::Reverses, ""),
        (Lie::ForgetsKeys, "Q7"),
        (Lie::HurriesLeases, ""),
        (Lie::TellsTwice, "Q8"),
        (Lie::Miscounts, "Q9"),
    ] {
        let mut found = None;
        for seed in 1..=12 {
            let mut ground = Embedded::open(None, MovedClock::default()).await;
            let lying = Arc::new(Lying { inner: ground.keeper.clone(), lie, fired: Mutex::default() });
            ground.keeper = QueueKeeper { queues: lying.clone(), admin: lying };
            found = run(&mut ground, "model", seed, 600).await.err();
            if found.is_some() {
                break;
            }
        }
        let found = found.unwrap_or_else(|| panic!("{lie:?} is not found out"));
        assert!(found.contains(told), "{lie:?} is found out as {found}");
        println!("{lie:?}: {found}");
    }
}
