//! The loop of the dispatcher: read, decode, append with fences, commit. It leaves to the source where entries wait and
//! who may work on them, and to the hub everything that happens to a message.

use std::collections::HashSet;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::notice::Throttle;
use super::{
    Applied, Batch, Board, Entry, Outcome, Pause, Settled, Source, SourceError, Step, Target, decode, write_id,
};
use crate::document::Item;
use crate::domain::error::{Problem, Reason};
use crate::domain::limits::Limits;
use crate::domain::name::Topic;
use crate::domain::queue::{Put, Queue};
use crate::domain::store::{Append, EntryId, Fence, StoreError};
use crate::hub::Hub;
use crate::telemetry;

/// The waits between attempts, from the first to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// So often may the store refuse an entry as broken, while it takes others of the same batch, until the entry is put
/// aside: it is the entry then, not the store.
const MOST_ATTEMPTS: u32 = 5;

pub(super) struct Bridge<S> {
    pub source: S,
    pub hub: Hub,
    pub limits: Limits,
    pub batch: usize,
    pub pause: Pause,
    pub board: Arc<Board>,
    pub throttle: Arc<Throttle>,
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::Topic(topic) => write!(f, "the topic {topic}"),
            Goal::Queue(queue) => write!(f, "the queue {queue}"),
        }
    }
}

/// What became of a batch.
enum Progress {
    Done,
    /// Why the first entry that failed did, and whether some before it were settled.
    Stopped {
        problem: Problem,
        moved: bool,
    },
}

/// Where an entry goes; order is kept for each.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Goal {
    Topic(Topic),
    Queue(Queue),
}

/// The entry that holds the partition up.
#[derive(Default)]
struct Stuck {
    entry: EntryId,
    attempts: u32,
}

impl<S: Source> Bridge<S> {
    /// Works until it is stopped, or until the source ends. What was read is finished first.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut stuck = Stuck::default();
        let mut wait = FIRST_WAIT;
        loop {
            let target = Target { life: self.hub.store_life(), is_whole: self.hub.status().trouble.is_none() };
            let under = target.life.clone();
            let read = tokio::select! {
                biased;
                () = stop.cancelled(), if self.source.repeats() => break,
                read = self.source.read(self.batch, target) => read,
            };
            let trouble = match read {
                Ok(None) => break,
                Ok(Some(batch)) if batch.entries.is_empty() => Ok(()),
                Ok(Some(batch)) => {
                    self.pause.after(Step::Read).await;
                    match self.apply(batch, under, &mut stuck).await {
                        Ok(Progress::Done) => Ok(()),
                        Ok(Progress::Stopped { problem, moved }) => {
                            if moved {
                                wait = FIRST_WAIT;
                            }
                            Err(problem)
                        }
                        Err(error) => self.judge(error),
                    }
                }
                Err(error) => self.judge(error),
            };
            let trouble = match trouble {
                Ok(()) => {
                    wait = FIRST_WAIT;
                    None
                }
                Err(problem) => Some(problem),
            };
            self.board.write(|status| status.trouble = trouble.as_ref().map(|p| p.text.clone()));
            if let Some(problem) = trouble {
                self.throttle.warn(problem.reason, self.source.name(), || problem.text.clone());
                tokio::select! {
                    biased;
                    () = stop.cancelled(), if self.source.repeats() => break,
                    () = tokio::time::sleep(wait) => wait = (wait * 2).min(LONGEST_WAIT),
                }
            }
        }
        self.source.close().await;
        self.board.owner(false);
    }

    /// A lost partition is no trouble: it is somebody else's.
    fn judge(&self, error: SourceError) -> Result<(), Problem> {
        match error {
            SourceError::Lost => Ok(()),
            SourceError::Unreachable(text) => Err(Problem::new(Reason::Unavailable, text)),
            SourceError::Full => Err(Problem::new(Reason::StorageFull, error.to_string())),
            SourceError::Broken(text) => Err(Problem::new(Reason::Internal, text)),
        }
    }

    async fn apply(
        &mut self,
        batch: Batch,
        under: Option<Arc<str>>,
        stuck: &mut Stuck,
    ) -> Result<Progress, SourceError> {
        let Batch { life, later, entries } = batch;
        let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(entries.len());
        let (mut appends, mut messages) = (Vec::new(), Vec::new());
        let (mut puts, mut jobs) = (Vec::new(), Vec::new());
        let mut goals: Vec<Option<Goal>> = vec![None; entries.len()];
        for (place, entry) in entries.iter().enumerate() {
            let fence = life.as_ref().map(|life| Fence {
                under: under.clone(),
                later: later.clone(),
                ..Fence::new(self.source.name(), life.clone(), entry.id)
            });
            match self.decode(entry) {
                Ok(Item::Message(publication)) => {
                    goals[place] = Some(Goal::Topic(publication.topic.clone()));
                    appends.push(Append { publication, fence });
                    messages.push(place);
                    outcomes.push(None);
                }
                Ok(Item::Job(put)) => {
                    goals[place] = Some(Goal::Queue(put.queue.clone()));
                    puts.push(Put { fence, ..put });
                    jobs.push(place);
                    outcomes.push(None);
                }
                Err(problem) => outcomes.push(Some(Outcome::Dead(problem))),
            }
        }
        self.pause.after(Step::Decoded).await;
        // Topics and queues do not wait for one another: order is a matter of each.
        let storing =
            AssertUnwindSafe(async { if appends.is_empty() { Vec::new() } else { self.hub.append(appends).await } });
        let putting = AssertUnwindSafe(async { if puts.is_empty() { Vec::new() } else { self.hub.put(puts).await } });
        let (stored, put) = tokio::join!(storing.catch_unwind(), putting.catch_unwind());
        let stored = messages.into_iter().zip(stored.unwrap_or_default().into_iter().map(outcome_of));
        let put = jobs.into_iter().zip(put.unwrap_or_default().into_iter().map(outcome_of));
        for (place, outcome) in stored.chain(put) {
            outcomes[place] = Some(outcome);
        }
        self.pause.after(Step::Appended).await;
        let no_answer = || Outcome::Failed(StoreError::Broken("the store gave no answer".into()));
        let mut settled: Vec<Settled> = entries
            .into_iter()
            .zip(outcomes)
            .map(|(entry, outcome)| Settled { entry, outcome: outcome.unwrap_or_else(no_answer) })
            .collect();
        if self.source.repeats() {
            save_overtaken(&mut settled, &goals);
            self.give_up_if_stuck(&mut settled, stuck);
        }
        let failed = settled.iter().find_map(|s| match &s.outcome {
            Outcome::Failed(error) => Some(Problem::from(error.clone())),
            _ => None,
        });
        if let Some(problem) = &failed {
            let labels = [("source", self.source.name().to_owned()), ("reason", problem.reason.as_str().to_owned())];
            metrics::counter!(telemetry::INGEST_STOPS, &labels).increment(1);
            if self.source.repeats() {
                let whole = settled.iter().position(|s| matches!(s.outcome, Outcome::Failed(_))).unwrap_or(0);
                settled.truncate(whole);
            }
        }
        let moved = !settled.is_empty();
        if moved {
            let tally = Tally::of(&settled);
            self.source.commit(settled).await?;
            tally.tell(self.source.name(), &self.throttle);
        }
        Ok(failed.map_or(Progress::Done, |problem| Progress::Stopped { problem, moved }))
    }

    /// A panic while an entry is read is a fault of ours that this entry brings out; it must not stop the partition.
    fn decode(&self, entry: &Entry) -> Result<Item, Problem> {
        let decoded = std::panic::catch_unwind(AssertUnwindSafe(|| decode::document(&entry.content, &self.limits)));
        let document = decoded.unwrap_or_else(|_| {
            Err(Problem::new(Reason::Internal, "the hub failed to read this entry; that is a fault of the hub"))
        })?;
        if !document.ignored.is_empty() {
            let id = write_id(entry.id);
            self.throttle.warn(Reason::BadFrame, &format!("{} ignored", self.source.name()), || {
                format!("entry {id} has fields that are not known, and are left out: {}", document.ignored.join(", "))
            });
        }
        if matches!(document.item, Item::Job(_)) {
            self.hub.queues()?;
        }
        Ok(document.item)
    }

    fn give_up_if_stuck(&self, settled: &mut [Settled], stuck: &mut Stuck) {
        let Some(first) = settled.iter().position(|s| matches!(s.outcome, Outcome::Failed(_))) else { return };
        let store_works = settled[first + 1..].iter().any(|s| matches!(s.outcome, Outcome::Applied(_)));
        let Settled { entry, outcome } = &mut settled[first];
        let Outcome::Failed(StoreError::Broken(why)) = outcome else { return };
        if stuck.entry != entry.id {
            *stuck = Stuck { entry: entry.id, attempts: 0 };
        }
        stuck.attempts += u32::from(store_works);
        if stuck.attempts >= MOST_ATTEMPTS {
            let text = format!("the store refused it {MOST_ATTEMPTS} times while it took others: {why}");
            *outcome = Outcome::Dead(Problem::new(Reason::Internal, text));
        }
    }
}

/// An entry that failed while a later one of its topic or queue was stored would be skipped by its fence when it is tried again.
/// No store may do that; if one does, the entry is put aside, where it can be seen and retried, and does not vanish.
fn save_overtaken(settled: &mut [Settled], goals: &[Option<Goal>]) {
    if !settled.iter().any(|s| matches!(s.outcome, Outcome::Failed(_))) {
        return;
    }
    let mut stored = HashSet::new();
    for (Settled { entry, outcome }, goal) in settled.iter_mut().zip(goals).rev() {
        let Some(goal) = goal else { continue };
        match outcome {
            Outcome::Applied(Applied::Stored | Applied::Repeated) => {
                stored.insert(goal);
            }
            Outcome::Failed(error) if stored.contains(goal) => {
                tracing::error!(
                    ?goal,
                    id = write_id(entry.id),
                    "the store took a later entry that goes to the same place"
                );
                let text = format!(
                    "the store took a later entry of {goal} and not this one ({error}); retry it, its place is lost"
                );
                *outcome = Outcome::Dead(Problem::new(Reason::Internal, text));
            }
            _ => {}
        }
    }
}

fn outcome_of(answer: Result<impl Into<Applied>, StoreError>) -> Outcome {
    match answer {
        Ok(applied) => Outcome::Applied(applied.into()),
        Err(error) => {
            let problem = Problem::from(error.clone());
            if problem.reason.is_passing() { Outcome::Failed(error) } else { Outcome::Dead(problem) }
        }
    }
}

/// Counts a batch before it is committed, to be told when it is.
#[derive(Default)]
struct Tally {
    results: [u64; 5],
    dead: Vec<(EntryId, Problem)>,
}

const RESULTS: [&str; 5] = ["stored", "repeated", "skipped", "dead", "failed"];

impl Tally {
    fn of(settled: &[Settled]) -> Tally {
        let mut tally = Tally::default();
        for Settled { entry, outcome } in settled {
            let result = match outcome {
                Outcome::Applied(Applied::Stored) => 0,
                Outcome::Applied(Applied::Repeated) => 1,
                Outcome::Applied(Applied::Skipped) => 2,
                Outcome::Dead(problem) => {
                    tally.dead.push((entry.id, problem.clone()));
                    3
                }
                Outcome::Failed(_) => 4,
            };
            tally.results[result] += 1;
        }
        tally
    }

    fn tell(self, source: &str, throttle: &Throttle) {
        for (result, count) in RESULTS.into_iter().zip(self.results).filter(|(_, count)| *count > 0) {
            metrics::counter!(telemetry::INGEST_ENTRIES, "source" => source.to_owned(), "result" => result)
                .increment(count);
        }
        for (id, problem) in self.dead {
            metrics::counter!(telemetry::INGEST_DEAD, "source" => source.to_owned(), "reason" => problem.reason.as_str())
                .increment(1);
            throttle.warn(problem.reason, source, || {
                format!("entry {} cannot be used and is kept as a dead letter: {}", write_id(id), problem.text)
            });
        }
    }
}
