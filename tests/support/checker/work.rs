//! The rules for queues: what those who put jobs and those who worked on them were told, and what is left at the end.
//!
//! - Q1 every job whose put was answered was acknowledged, or is left; nobody works on what nobody put. An entry of an
//!   ingest queue is known by its mark alone.
//! - Q2 no delivery follows an acknowledgement that was answered.
//! - Q3 one acknowledgement of a job, and none of a delivery that another one has followed.
//! - Q4 one job of a group at a time, first deliveries in the order in which they were put; jobs of one producer, who
//!   puts one after the other, are numbered in that order.
//! - Q5 no job is delivered more often than its queue allows.
//! - Q6 a job is dead once, and not when it was acknowledged.
//! - Q7 one key within its window is one job, and so is one entry, and whatever was put under a key.
//! - Q8 firings count by one, and each is told by one.
//! - Q9 the counters at the end are those of what is left.
//!
//! Where a run may undo what was done in some spans of it, because a replica became the master that had not heard of it, a
//! rule is not held against what was done in these.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use fanfare::domain::position::Position;

use super::history::{Answer, Mark};
use super::verdict::{Fault, Verdict};

/// One attempt to put a job; `Answer::Yes` holds its id.
#[derive(Debug, Clone)]
pub struct JobPut {
    pub queue: String,
    pub mark: Mark,
    pub group: Option<String>,
    /// A de-duplication or idempotency key, with its kind.
    pub key: Option<String>,
    pub asked: Duration,
    pub answered: Duration,
    pub answer: Answer,
}

/// A job that a worker was given.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub queue: String,
    pub job: Position,
    pub mark: Mark,
    pub group: Option<String>,
    pub tries: u32,
    pub got: Duration,
}

/// The end of a delivery that a worker asked for; `Answer::No`: it had no lease any more.
#[derive(Debug, Clone)]
pub struct Ended {
    pub queue: String,
    pub job: Position,
    pub tries: u32,
    pub is_ack: bool,
    pub asked: Duration,
    pub answered: Duration,
    pub answer: Answer,
}

#[derive(Debug, Clone)]
pub struct Told {
    pub queue: String,
    pub number: u64,
    pub by: String,
}

/// A job that is there at the end.
#[derive(Debug, Clone)]
pub struct Left {
    pub queue: String,
    pub job: Position,
    pub mark: Mark,
    pub is_dead: bool,
}

/// All that was heard of queues in a run.
#[derive(Debug, Clone, Default)]
pub struct Work {
    pub puts: Vec<JobPut>,
    pub deliveries: Vec<Delivery>,
    pub ends: Vec<Ended>,
    pub told: Vec<Told>,
    pub left: Vec<Left>,
    /// Of each queue at the end: jobs that are not dead, and dead ones, as its counters tell.
    pub counters: BTreeMap<String, (u64, u64)>,
}

/// How the queues of a run are kept.
#[derive(Debug, Clone)]
pub struct Terms {
    /// What was done between these times may be undone.
    pub undone: Vec<(Duration, Duration)>,
    /// Producers whose puts are not lost all the same.
    pub safe: &'static [&'static str],
    pub max_deliveries: u32,
    pub window: Duration,
}

impl Terms {
    fn may_undo(&self, from: Duration, to: Duration) -> bool {
        self.undone.iter().any(|(begin, end)| from <= *end && to >= *begin)
    }

    fn may_lose(&self, put: &JobPut) -> bool {
        !self.safe.contains(&&*put.mark.by) && self.may_undo(put.asked, put.answered)
    }

    fn may_undo_end(&self, end: &Ended) -> bool {
        self.may_undo(end.asked, end.answered)
    }
}

#[derive(Debug, Clone, Default)]
pub struct WorkFigures {
    pub put: usize,
    pub delivered: usize,
    /// Deliveries beyond the first of a job.
    pub again: usize,
    pub acked: usize,
    pub refused: usize,
    pub left: usize,
    pub lost: usize,
    /// Acknowledgements that were accepted, and undone, as the run allows.
    pub undone: usize,
}

type Job<'w> = (&'w str, Position);
/// The count of a producer, and the job that it became.
type Placed<'w> = (u64, Position, &'w JobPut);

pub fn judge_work(work: &Work, terms: &Terms) -> (Verdict, WorkFigures) {
    let mut verdict = Verdict::default();
    let mut figures = judge_jobs(work, terms, &mut verdict);
    figures.undone = judge_deliveries(work, terms, &mut verdict);
    judge_groups(work, terms, &mut verdict);
    judge_producers(work, terms, &mut verdict);
    judge_keys(work, terms, &mut verdict);
    judge_firings(work, &mut verdict);
    judge_counters(work, &mut verdict);
    (verdict, figures)
}

fn acks(work: &Work) -> impl Iterator<Item = &Ended> {
    work.ends.iter().filter(|end| end.is_ack)
}

fn is_yes(answer: Answer) -> bool {
    matches!(answer, Answer::Yes(_))
}

/// Q1 and Q6.
fn judge_jobs(work: &Work, terms: &Terms, verdict: &mut Verdict) -> WorkFigures {
    let may_be_done: HashSet<(&str, Position)> =
        acks(work).filter(|end| end.answer != Answer::No).map(|end| (&*end.queue, end.job)).collect();
    let done: HashMap<Job, &Ended> =
        acks(work).filter(|end| is_yes(end.answer)).map(|end| ((&*end.queue, end.job), end)).collect();
    let mut left: HashMap<Job, &Left> = HashMap::new();
    for job in &work.left {
        if left.insert((&job.queue, job.job), job).is_some() {
            verdict.blame(Fault::DeadTwice, format!("{} {} is left twice", job.queue, job.job));
        }
        if done.get(&(&*job.queue, job.job)).is_some_and(|end| !terms.may_undo_end(end)) {
            let fault = if job.is_dead { Fault::DeadAndDone } else { Fault::Undone };
            verdict.blame(fault, format!("{} {} was acknowledged, and is left", job.queue, job.job));
        }
    }
    let mut figures = WorkFigures { delivered: work.deliveries.len(), left: work.left.len(), ..WorkFigures::default() };
    let jobs = jobs_by_mark(work);
    for put in &work.puts {
        let Answer::Yes(job) = put.answer else { continue };
        figures.put += 1;
        let is_there =
            |job: Position| left.contains_key(&(&*put.queue, job)) || may_be_done.contains(&(&*put.queue, job));
        let is_kept = match job {
            Some(job) => is_there(job),
            None => jobs.get(&(&*put.queue, &put.mark)).is_some_and(|jobs| jobs.iter().any(|job| is_there(*job))),
        };
        if !is_kept {
            figures.lost += 1;
            if !terms.may_lose(put) {
                verdict.blame(Fault::LostJob, format!("{} {job:?} ({}) was put, and is lost", put.queue, put.mark));
            }
        }
    }
    // What was put under a key, or answered once without, may have come in.
    let may_be: BTreeSet<(&str, &Mark)> =
        work.puts.iter().filter(|put| put.answer != Answer::No).map(|put| (&*put.queue, &put.mark)).collect();
    let worked_on = work.deliveries.iter().map(|d| (&d.queue, d.job, &d.mark));
    for (queue, job, mark) in worked_on.chain(work.left.iter().map(|l| (&l.queue, l.job, &l.mark))) {
        if !may_be.contains(&(queue.as_str(), mark)) {
            verdict.blame(Fault::PhantomJob, format!("{queue} {job} is {mark}, which nobody put"));
        }
    }
    figures.acked = done.len();
    figures.refused = work.ends.iter().filter(|end| end.answer == Answer::No).count();
    let jobs: HashSet<_> = work.deliveries.iter().map(|d| (&d.queue, d.job)).collect();
    figures.again = figures.delivered - jobs.len();
    figures
}

/// The jobs that a mark was met as, by workers or at the end.
fn jobs_by_mark(work: &Work) -> HashMap<(&str, &Mark), HashSet<Position>> {
    let worked_on = work.deliveries.iter().map(|d| (&*d.queue, &d.mark, d.job));
    let mut jobs: HashMap<(&str, &Mark), HashSet<Position>> = HashMap::new();
    for (queue, mark, job) in worked_on.chain(work.left.iter().map(|l| (&*l.queue, &l.mark, l.job))) {
        jobs.entry((queue, mark)).or_default().insert(job);
    }
    jobs
}

/// Q2, Q3 and Q5; says how many acknowledgements were undone.
fn judge_deliveries(work: &Work, terms: &Terms, verdict: &mut Verdict) -> usize {
    let mut deliveries: HashMap<Job, Vec<&Delivery>> = HashMap::new();
    for delivery in &work.deliveries {
        deliveries.entry((&delivery.queue, delivery.job)).or_default().push(delivery);
        let Delivery { queue, job, tries, .. } = delivery;
        if *tries > terms.max_deliveries {
            verdict.blame(Fault::TooOften, format!("{queue} {job} is on try {tries}"));
        }
    }
    let mut done: HashMap<Job, &Ended> = HashMap::new();
    let mut undone = HashSet::new();
    for end in acks(work).filter(|end| is_yes(end.answer)) {
        let Ended { queue, job, tries, .. } = end;
        if let Some(before) = done.insert((queue, *job), end) {
            if !terms.may_undo_end(before) && !terms.may_undo_end(end) {
                verdict.blame(Fault::AckedTwice, format!("{queue} {job}"));
            }
            undone.insert((queue, *job));
        }
        let others = deliveries.get(&(queue.as_str(), *job)).into_iter().flatten();
        let follows =
            |d: &Delivery| d.tries > *tries || d.got > end.answered && (d.tries == *tries || terms.may_undo_end(end));
        for later in others.filter(|d| follows(d)) {
            let is_early = later.got < end.asked;
            if terms.may_undo_end(end) || is_early && terms.may_undo(later.got, later.got) {
                undone.extend((!is_early).then_some((queue, *job)));
                continue;
            }
            // One that was given before is what makes this acknowledgement a late one.
            let fault = if is_early { Fault::LateAck } else { Fault::Undone };
            verdict
                .blame(fault, format!("{queue} {job}: acknowledged on try {tries}, and given on try {}", later.tries));
        }
    }
    undone.len()
}

/// Q4.
fn judge_groups(work: &Work, terms: &Terms, verdict: &mut Verdict) {
    let mut groups: BTreeMap<(&str, &str), Vec<&Delivery>> = BTreeMap::new();
    for delivery in &work.deliveries {
        if let Some(group) = &delivery.group {
            groups.entry((&delivery.queue, group)).or_default().push(delivery);
        }
    }
    let ends: HashMap<(&str, Position, u32), &Ended> =
        work.ends.iter().filter(|end| is_yes(end.answer)).map(|end| ((&*end.queue, end.job, end.tries), end)).collect();
    for ((queue, group), mut deliveries) in groups {
        deliveries.retain(|delivery| !terms.may_undo(delivery.got, delivery.got));
        deliveries.sort_by_key(|delivery| delivery.got);
        let mut highest = 0;
        for (i, delivery) in deliveries.iter().enumerate() {
            let offset = delivery.job.offset;
            // One whose next try was heard of before was on its way for longer than its lease, as of a node that was
            // stopped: its worker can do nothing with it any more.
            if deliveries[..i].iter().any(|d| d.job == delivery.job && d.tries > delivery.tries) {
                continue;
            }
            if delivery.tries == 1 && offset < highest {
                let text = format!("{queue} {group}: {} is given first after number {highest}", delivery.job);
                verdict.blame(Fault::GroupOrder, text);
            }
            highest = highest.max(offset);
            // Whoever ended another one well after this was given had it at the same time.
            let others = deliveries[..i].iter().filter(|other| other.job != delivery.job);
            for other in others {
                let end = ends.get(&(queue, other.job, other.tries));
                if end.is_some_and(|end| end.asked > delivery.got && !terms.may_undo_end(end)) {
                    verdict
                        .blame(Fault::GroupShared, format!("{queue} {group}: {} beside {}", delivery.job, other.job));
                }
            }
        }
    }
}

/// Q4, of each producer.
fn judge_producers(work: &Work, terms: &Terms, verdict: &mut Verdict) {
    let jobs = jobs_by_mark(work);
    let mut by_producer: BTreeMap<(&str, &str), Vec<Placed>> = BTreeMap::new();
    for put in work.puts.iter().filter(|put| is_yes(put.answer)) {
        let job = match put.answer {
            Answer::Yes(Some(job)) => Some(job),
            _ => jobs.get(&(&*put.queue, &put.mark)).and_then(|jobs| jobs.iter().next().copied()),
        };
        let known = by_producer.entry((&put.queue, &put.mark.by)).or_default();
        known.extend(job.map(|job| (put.mark.n, job, put)));
    }
    for ((queue, by), mut puts) in by_producer {
        puts.sort_by_key(|(n, ..)| *n);
        puts.dedup_by_key(|(n, ..)| *n);
        for pair in puts.windows(2) {
            let [(_, before, _), (n, after, put)] = pair else { continue };
            if before.epoch == after.epoch && before.offset >= after.offset && !terms.may_undo(put.asked, put.answered)
            {
                verdict.blame(Fault::PutOrder, format!("{queue} {by}:{n} is {after}, what it put before is {before}"));
            }
        }
    }
}

/// Q7.
fn judge_keys(work: &Work, terms: &Terms, verdict: &mut Verdict) {
    let mut attempts: HashMap<(&str, &Mark), Vec<&JobPut>> = HashMap::new();
    work.puts.iter().for_each(|put| attempts.entry((&put.queue, &put.mark)).or_default().push(put));
    for ((queue, mark), jobs) in jobs_by_mark(work).into_iter().filter(|(_, jobs)| jobs.len() > 1) {
        let attempts = attempts.get(&(queue, mark)).map(Vec::as_slice).unwrap_or_default();
        let span = attempts.iter().map(|put| put.answered).max().unwrap_or_default()
            - attempts.iter().map(|put| put.asked).min().unwrap_or_default();
        // One that was lost was put again by right.
        let may_differ = span > terms.window || attempts.iter().any(|put| terms.may_undo(put.asked, put.answered));
        if !may_differ {
            verdict.blame(Fault::PutTwice, format!("{queue} {mark} is {jobs:?}"));
        }
    }
    let mut firsts: HashMap<(&str, &str), Vec<(&JobPut, Position)>> = HashMap::new();
    for put in &work.puts {
        let (Some(key), Answer::Yes(Some(job))) = (&put.key, put.answer) else { continue };
        let known = firsts.entry((&put.queue, key)).or_default();
        for (other, was) in known.iter().filter(|(_, was)| *was != job) {
            let span = put.answered.max(other.answered).saturating_sub(put.asked.min(other.asked));
            let may_differ = [put, other].iter().any(|put| terms.may_lose(put));
            if span < terms.window && !may_differ {
                verdict.blame(Fault::TwoForOneKey, format!("{} {key}: {was} and {job}", put.queue));
            }
        }
        known.push((put, job));
    }
}

/// Q8.
fn judge_firings(work: &Work, verdict: &mut Verdict) {
    let mut told: BTreeMap<&str, BTreeMap<u64, &str>> = BTreeMap::new();
    for firing in &work.told {
        let Told { queue, number, by } = firing;
        if let Some(other) = told.entry(queue).or_default().insert(*number, by) {
            verdict.blame(Fault::ToldTwice, format!("{queue}: firing {number}, by {other} and {by}"));
        }
    }
    for (queue, numbers) in told {
        for (expected, number) in (1..).zip(numbers.keys()) {
            if expected != *number {
                verdict.blame(Fault::Untelling, format!("{queue}: firing {expected} was told by nobody"));
                break;
            }
        }
    }
}

/// Q9.
fn judge_counters(work: &Work, verdict: &mut Verdict) {
    for (queue, counted) in &work.counters {
        let of = |is_dead: bool| {
            work.left.iter().filter(|left| left.queue == *queue && left.is_dead == is_dead).count() as u64
        };
        let there = (of(false), of(true));
        if *counted != there {
            verdict.blame(Fault::Miscounted, format!("{queue}: counted {counted:?}, left are {there:?}"));
        }
    }
}
