//! Random work on one queue, watched by somebody who knows nothing of how it is kept: a list of all jobs, with what must be
//! true of each. Q1: every job is somewhere, or gone for a reason. Q2: nothing is delivered after its acknowledgement. Q3: one
//! delivery of a job at a time, and one acknowledgement. Q4: one job of a group at a time, first deliveries in their order.
//! Q5: no more deliveries than allowed. Q6: dead once. Q7: one job for a key in its window. Q8: firings count by one, each is
//! told once. Q9: counters are those of what is there.
//!
//! `Ground` is the store under test. Where its clock can be moved, times are held to the millisecond.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use fanfare::domain::message::Body;
use fanfare::domain::queue::*;
use fanfare::domain::store::{EntryId, Fence, StoreError};
use futures::future::BoxFuture;
use futures::{StreamExt, stream};

/// A store that keeps queues, with its clock.
pub trait Ground: Send + Sync {
    fn keeper(&self) -> QueueKeeper;
    /// The store's clock, if it stands still but for `pass`.
    fn now(&self) -> Option<u64>;
    /// Lets time go by.
    fn pass(&mut self, time: Duration) -> BoxFuture<'_, ()>;
    /// Opens the store again; `false`: this one does not end.
    fn restart(&mut self) -> BoxFuture<'_, bool>;
}

/// Numbers that are the same in every run of a seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// What was done, and how often.
#[derive(Debug, Default, Clone)]
pub struct Report {
    pub steps: u64,
    pub puts: u64,
    pub deliveries: u64,
    pub acks: u64,
    pub deaths: u64,
    pub firings: u64,
    pub restarts: u64,
}

impl Report {
    fn add(&mut self, other: &Report) {
        self.steps += other.steps;
        self.puts += other.puts;
        self.deliveries += other.deliveries;
        self.acks += other.acks;
        self.deaths += other.deaths;
        self.firings += other.firings;
        self.restarts += other.restarts;
    }
}

/// Seeds and steps of each: as many as are asked for, or so many.
pub fn form(seeds: u64, steps: usize) -> (u64, usize) {
    if std::env::var("FAULTS").is_ok_and(|form| form == "long") { (200, 3_000) } else { (seeds, steps) }
}

/// Watches the first so many seeds, some of them at the same time, since most of what they do is waiting for their store.
pub async fn watch_seeds<F>(
    what: &str,
    (seeds, steps): (u64, usize),
    at_once: usize,
    watch: impl Fn(u64, usize) -> F,
) -> Report
where
    F: Future<Output = Result<Report, String>> + Send + 'static,
{
    let begun = std::time::Instant::now();
    let watched = stream::iter(1..=seeds).map(|seed| tokio::spawn(watch(seed, steps))).buffer_unordered(at_once);
    let mut all = Report::default();
    let mut watched = std::pin::pin!(watched);
    while let Some(report) = watched.next().await {
        match report.expect("a watcher ends by itself") {
            Ok(report) => all.add(&report),
            Err(wrong) => panic!("{what}: {wrong}"),
        }
    }
    println!("{what}: {seeds} seeds of {steps} steps in {:.1?}: {all:?}, 0 violations", begun.elapsed());
    assert!(all.steps == seeds * steps as u64 && all.deliveries > all.puts / 4, "{all:?}");
    assert!(all.acks > 0 && all.deaths > 0 && all.firings > 0, "{all:?}");
    all
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Ready, parked or delayed, or in flight under a lease that is nobody's any more.
    Waiting,
    Held,
    Acked,
    Dead,
    Removed,
    /// It was dead, and made room for newer ones.
    Forgotten,
}

#[derive(Debug, Clone)]
struct Known {
    state: State,
    body: Body,
    group: Option<Box<str>>,
    tries: u32,
    was_delivered: bool,
    was_termed: bool,
    /// When it can be taken at the earliest, and when it has expired.
    due: u64,
    expires: Option<u64>,
    token: u64,
    deadline: u64,
}

/// A delivery that somebody thinks to hold.
#[derive(Debug, Clone)]
struct Delivery {
    job: JobId,
    token: u64,
}

struct Watcher<'g> {
    ground: &'g mut dyn Ground,
    dice: Dice,
    queue: Queue,
    settings: QueueSettings,
    jobs: BTreeMap<u64, (JobId, Known)>,
    held: Vec<Delivery>,
    /// Each key with its job, the end of its window and the body.
    keys: HashMap<String, (JobId, u64, Body)>,
    seats: HashMap<&'static str, u64>,
    marked: u64,
    is_paused: bool,
    told: u64,
    fired: Option<(u64, u64)>,
    report: Report,
}

const SEAT_MS: u64 = SEAT.as_millis() as u64;
const WORKERS: [&str; 3] = ["anna", "ben", "cho"];
const IDEMPOTENCY: u64 = 300_000;

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Settings that a seed stands for; small bounds, so that they are met.
pub fn settings_of(seed: u64) -> QueueSettings {
    let mut dice = Dice(seed.wrapping_mul(77).wrapping_add(5));
    let start_when = dice.chance(40).then(|| StartWhen {
        any: vec![Arm::Count(2 + dice.below(5)), Arm::Oldest(ms(20_000))],
        mode: dice.pick(&[Start::Gate, Start::Gate, Start::Notify]),
        batch: dice.chance(40).then(|| 1 + dice.below(4)),
        webhook: None,
    });
    QueueSettings {
        max_messages: 8 + dice.below(40),
        on_full: dice.pick(&[OnFull::Reject, OnFull::DropOldest, OnFull::DropLowestPriority]),
        lease: ms(4_000),
        max_lease: ms(20_000),
        max_deliveries: 2 + dice.below(4) as u32,
        backoff: vec![ms(0), ms(3_000)],
        ttl: dice.chance(20).then(|| ms(60_000)),
        dedupe_window: ms(10_000),
        dead_messages: dice.pick(&[0, 5, 1_000]),
        on_dead: dice.pick(&[OnDead::Continue, OnDead::Continue, OnDead::Halt]),
        max_workers: dice.chance(20).then_some(2),
        fair_every: dice.chance(30).then_some(3),
        start_when,
        ..QueueSettings::default()
    }
}

/// Does so many random things to a queue, which must not be there yet; what is not as it must be comes back in words.
pub async fn run(ground: &mut dyn Ground, queue: &str, seed: u64, steps: usize) -> Result<Report, String> {
    let settings = settings_of(seed);
    let queue = Queue::parse(queue).expect("it is a name");
    let own = Change::Settings(Some(Box::new(settings.clone())));
    ground.keeper().admin.change(&queue, own).await.map_err(|e| e.to_string())?;
    let mut watcher = Watcher {
        ground,
        dice: Dice(seed),
        queue,
        settings,
        jobs: BTreeMap::new(),
        held: Vec::new(),
        keys: HashMap::new(),
        seats: HashMap::new(),
        marked: 0,
        is_paused: false,
        told: 0,
        fired: None,
        report: Report::default(),
    };
    for step in 0..steps {
        watcher.step().await.map_err(|wrong| format!("seed {seed}, step {step}: {wrong}"))?;
        watcher.report.steps += 1;
    }
    watcher.check().await.map_err(|wrong| format!("seed {seed}, at the end: {wrong}"))?;
    Ok(watcher.report)
}

type Checked = Result<(), String>;

fn hold(is_so: bool, otherwise: impl FnOnce() -> String) -> Checked {
    if is_so { Ok(()) } else { Err(otherwise()) }
}

impl Watcher<'_> {
    async fn step(&mut self) -> Checked {
        match self.dice.below(200) {
            0..60 => self.put().await,
            60..105 => self.take().await,
            105..165 => self.settle().await,
            165..178 => {
                let time = self.dice.pick(&[1, 500, 1_000, 3_000, 4_000, 11_000]);
                self.ground.pass(ms(time)).await;
                Ok(())
            }
            178..184 => self.sweep().await,
            184..187 => self.redrive().await,
            187..190 => self.remove().await,
            190..191 => self.purge().await,
            191..193 => self.pause().await,
            193..195 => self.restart().await,
            _ => self.check().await,
        }
    }

    /// The store's clock; 0 where it is not known.
    fn now(&self) -> u64 {
        self.ground.now().unwrap_or(0)
    }

    fn is_strict(&self) -> bool {
        self.ground.now().is_some()
    }

    async fn put(&mut self) -> Checked {
        let now = self.now();
        let n = self.report.puts;
        self.report.puts += 1;
        let group = self.dice.chance(40).then(|| format!("g{}", self.dice.below(3)).into_boxed_str());
        let delay = (group.is_none() && self.dice.chance(25)).then(|| 1 + self.dice.below(8_000));
        let dedupe = self.dice.chance(25).then(|| format!("{}", self.dice.below(5)));
        let key = self.dice.chance(15).then(|| format!("{}", self.dice.below(4)));
        let content = if key.is_some() { self.dice.below(2) } else { n };
        let ttl = self.dice.chance(15).then(|| 1 + self.dice.below(15_000));
        let fence = self.dice.chance(15).then(|| (self.marked + 1).saturating_sub(self.dice.below(3)).max(1));
        let put = Put {
            priority: Priority::new(self.dice.below(10) as u8).expect("it is a level"),
            due: delay.map_or(Due::Default, |delay| Due::After(ms(delay))),
            group: group.clone(),
            dedupe: dedupe.as_ref().map(|key| Dedupe { key: key.as_str().into(), window: None }),
            idempotency_key: key.as_deref().map(Into::into),
            ttl: ttl.map(ms),
            fence: fence.map(|id| Fence::new("source", "life", EntryId { ms: id, seq: 0 })),
            ..Put::new(self.queue.clone(), Body::from_canonical(Bytes::from(format!("\"data\":\"{content}\""))))
        };
        let body = put.body.clone();
        let answer = self.ground.keeper().queues.put(vec![put]).await.pop().ok_or("no answer")?;
        let names = [key.map(|key| (format!("i{key}"), IDEMPOTENCY)), dedupe.map(|key| (format!("d{key}"), 10_000))];
        let known = names.iter().flatten().find_map(|(name, _)| {
            self.keys.get(name).filter(|(_, end, _)| *end > now).map(|known| (name.clone(), known.clone()))
        });
        let strict = self.is_strict();
        match answer {
            Ok(PutAnswer::Skipped) => {
                return hold(fence.is_some_and(|id| id <= self.marked), || format!("skipped {fence:?}"));
            }
            Ok(PutAnswer::Stored { job, time, .. }) => {
                hold(fence.is_none_or(|id| id > self.marked), || format!("applied twice: {fence:?}"))?;
                hold(!strict || known.is_none(), || format!("Q7: {job} and {known:?} have one key"))?;
                hold(!strict || time == now, || format!("{job} was put at {time}, it is {now}"))?;
                let last = self.jobs.last_key_value().map_or(0, |(number, _)| *number);
                hold(job.number() == last + 1, || format!("{job} follows {last}"))?;
                for (name, window) in names.into_iter().flatten() {
                    // A window that has not ended is that of the first put.
                    self.keys.insert(name, (job, now + window, body.clone()));
                }
                let expires = ttl.or(self.settings.ttl.map(|ttl| ttl.as_millis() as u64)).map(|ttl| now + ttl);
                let known = Known {
                    state: State::Waiting,
                    body,
                    group,
                    tries: 0,
                    was_delivered: false,
                    was_termed: false,
                    due: now + delay.unwrap_or(0),
                    expires,
                    token: 0,
                    deadline: 0,
                };
                self.jobs.insert(job.number(), (job, known));
            }
            Ok(PutAnswer::Repeated { job, .. }) => {
                hold(fence.is_none_or(|id| id > self.marked), || format!("applied twice: {fence:?}"))?;
                let right = known.as_ref().is_some_and(|(_, (known, ..))| *known == job);
                hold(!strict || right, || format!("Q7: repeated {job}, known is {known:?}"))?;
                if let Some((name, window)) = names.into_iter().flatten().find(|(name, _)| name.starts_with('i')) {
                    let is_known = self.keys.get(&name).is_some_and(|(_, end, _)| *end > now);
                    if !is_known {
                        self.keys.insert(name, (job, now + window, body));
                    }
                }
            }
            Err(StoreError::Conflict { at }) if !strict => {
                // Which windows have ended is not known; one of a key that was given before has not.
                let is_known = self.jobs.get(&at.offset).is_some_and(|(job, _)| job.0 == at);
                return hold(is_known && names[0].is_some(), || format!("a conflict with {at}"));
            }
            Err(StoreError::Conflict { at }) => {
                let (name, (job, _, first)) = known.ok_or_else(|| format!("a conflict with {at}, of no known key"))?;
                hold(job.0 == at && first != body && name.starts_with('i'), || format!("a conflict with {at}"))?;
                return Ok(());
            }
            Err(StoreError::Full(_)) => {
                let stats = self.stats().await?;
                let live = stats.waiting.iter().sum::<u64>() + stats.delayed + stats.in_flight;
                // Some may have expired since, where time goes on.
                return hold(!strict || live >= self.settings.max_messages, || format!("full with {live} jobs"));
            }
            Err(other) => return Err(other.to_string()),
        }
        self.marked = self.marked.max(fence.unwrap_or(0));
        Ok(())
    }

    async fn take(&mut self) -> Checked {
        let (now, strict) = (self.now(), self.is_strict());
        let worker = self.dice.pick(&WORKERS);
        let (count, token) = (self.dice.below(5) as usize, self.dice.below(1 << 30));
        let take = Take { worker: worker.into(), count, bytes: 1 << 20, lease: None, token };
        let taken = self.ground.keeper().queues.take(&self.queue, take).await.map_err(|e| e.to_string())?;
        let mut may_take = true;
        if let Some(most) = self.settings.max_workers {
            self.seats.retain(|_, until| *until > now);
            may_take = self.seats.contains_key(worker) || self.seats.len() < most as usize;
            if may_take {
                self.seats.insert(worker, now + SEAT_MS);
            }
        }
        hold(taken.jobs.len() <= count, || format!("{} jobs for {count}", taken.jobs.len()))?;
        hold(taken.jobs.is_empty() || !self.is_paused, || "a paused queue gives out jobs".into())?;
        hold(self.is_paused == (taken.held == Some(Held::Paused)), || format!("held by {:?}", taken.held))?;
        if strict {
            hold(may_take || taken.jobs.is_empty(), || format!("{worker} has no seat"))?;
            let is_seatless = taken.held == Some(Held::Seats);
            hold(!is_seatless || !may_take, || format!("{worker} has a seat"))?;
        }
        for job in &taken.jobs {
            self.deliver(job, now)?;
        }
        if self.settings.fair_every.is_none() {
            let ranks: Vec<_> = taken
                .jobs
                .iter()
                .filter(|job| job.group.is_none())
                .map(|job| (9 - job.priority.level(), job.id.number()))
                .collect();
            hold(ranks.is_sorted(), || format!("taken in the order {ranks:?}"))?;
        }
        if strict && taken.held.is_none() && taken.jobs.len() < count && !taken.more {
            let ready = self.look(Place::Ready).await?;
            hold(ready.is_empty(), || format!("{} given of {count}, {} left", taken.jobs.len(), ready.len()))?;
        }
        Ok(())
    }

    fn deliver(&mut self, job: &Job, now: u64) -> Checked {
        let strict = self.is_strict();
        let (number, max) = (job.id.number(), self.settings.max_deliveries);
        let (id, known) = self.jobs.get(&number).ok_or_else(|| format!("Q1: {} was never put", job.id))?;
        hold(*id == job.id, || format!("{} is of another life than {id}", job.id))?;
        hold(matches!(known.state, State::Waiting | State::Held), || format!("Q2: {id} is {:?}", known.state))?;
        hold(known.body == job.body && known.group == job.group, || format!("{id} is not what was put"))?;
        hold(job.tries == known.tries + 1 && job.tries <= max, || {
            format!("Q5: {id} on try {} after {}", job.tries, known.tries)
        })?;
        if strict {
            let is_out = known.state == State::Held && known.deadline > now;
            hold(!is_out, || format!("Q3: {id} is held until {}, it is {now}", known.deadline))?;
            hold(known.due <= now, || format!("{id} is due at {}, it is {now}", known.due))?;
            hold(known.expires.is_none_or(|end| end > now), || format!("{id} has expired, it is {now}"))?;
        }
        if let Some(group) = &job.group {
            for (other, (_, known)) in self.jobs.iter().filter(|(_, (_, known))| known.group.as_ref() == Some(group)) {
                let is_out = known.state == State::Held && known.deadline > now;
                hold(!strict || *other == number || !is_out, || {
                    format!("Q4: {other} and {number} of {group} are out")
                })?;
                let has_expired = known.expires.is_some_and(|end| end <= now);
                let is_passed =
                    *other < number && known.state == State::Waiting && !known.was_delivered && !has_expired;
                // What made room for others, or was redriven, is out of the row.
                let may_pass = self.settings.on_full != OnFull::Reject || !strict || known.was_termed;
                hold(!is_passed || may_pass, || format!("Q4: {number} of {group} before {other}"))?;
            }
        }
        let deadline = now + self.settings.lease.as_millis() as u64;
        if let Some((_, known)) = self.jobs.get_mut(&number) {
            (known.state, known.token, known.deadline) = (State::Held, job.token, deadline);
            (known.tries, known.was_delivered) = (job.tries, true);
        }
        self.held.push(Delivery { job: job.id, token: job.token });
        self.report.deliveries += 1;
        Ok(())
    }

    async fn settle(&mut self) -> Checked {
        if self.held.is_empty() {
            return Ok(());
        }
        let (now, strict) = (self.now(), self.is_strict());
        let place = self.dice.below(self.held.len() as u64) as usize;
        // Some are settled twice, or late.
        let delivery = if self.dice.chance(90) { self.held.swap_remove(place) } else { self.held[place].clone() };
        let delay = self.dice.chance(50).then(|| self.dice.below(6_000));
        let by = 1 + self.dice.below(9_000);
        let how = match self.dice.below(20) {
            0..11 => How::Ack,
            11..15 => How::Nack { delay: delay.map(ms), error: Some("no".into()) },
            15..17 => How::Release,
            17 => How::Term { error: None },
            _ => How::Extend { by: Some(ms(by)) },
        };
        let settle = Settle { job: delivery.job, token: delivery.token, how: how.clone() };
        let settled = self.ground.keeper().queues.settle(&self.queue, vec![settle]).await.pop().ok_or("no answer")?;
        let settled = settled.map_err(|e| e.to_string())?;
        let wait = |settings: &QueueSettings, tries| delay.unwrap_or(settings.wait_after(tries).as_millis() as u64);
        let settings = self.settings.clone();
        let (id, known) = self.jobs.get_mut(&delivery.job.number()).ok_or("it was put")?;
        let is_newest = known.state == State::Held && known.token == delivery.token;
        match settled {
            Settled::Gone => {
                let is_gone = matches!(known.state, State::Acked | State::Removed | State::Dead | State::Forgotten);
                let may_have_died = settings.dead_messages < 1_000;
                hold(is_gone || may_have_died, || format!("Q1: {id} is gone, it was {:?}", known.state))?;
                return Ok(());
            }
            Settled::NoLease => {
                let is_out = is_newest && known.deadline > now;
                hold(!strict || !is_out, || format!("{id} has no lease; it ends at {}, it is {now}", known.deadline))?;
                if is_newest {
                    known.state = State::Waiting;
                }
                return Ok(());
            }
            _ => {}
        }
        hold(is_newest, || format!("Q3: {settled:?} for an old delivery of {id}: {known:?}"))?;
        hold(!strict || known.deadline > now, || format!("Q3: {settled:?} for {id} after its lease"))?;
        let has_expired = known.expires.is_some_and(|end| end <= now);
        let is_last = known.tries >= settings.max_deliveries;
        match (&how, settled) {
            (How::Ack, Settled::Done) => {
                known.state = State::Acked;
                self.report.acks += 1;
            }
            (How::Nack { .. }, Settled::Done) => {
                hold(!is_last, || format!("Q5: {id} had its last try"))?;
                known.state = State::Waiting;
                known.due = now + wait(&settings, known.tries);
            }
            (How::Release, Settled::Done) => {
                known.state = State::Waiting;
                known.tries -= 1;
                known.due = now;
            }
            (How::Nack { .. } | How::Release, Settled::Dead) => {
                let is_due = has_expired || (is_last && how != How::Release);
                hold(!strict || is_due, || format!("{id} is dead by {how:?}: {known:?}"))?;
                if how == How::Release {
                    known.tries -= 1;
                }
                known.state = State::Dead;
                self.report.deaths += 1;
            }
            (How::Term { .. }, Settled::Dead) => {
                (known.state, known.was_termed) = (State::Dead, true);
                self.report.deaths += 1;
            }
            (How::Extend { .. }, Settled::Extended(left)) => {
                hold(left <= ms(by), || format!("{id} is extended by {left:?}"))?;
                known.deadline = now + left.as_millis() as u64;
                if !self.held.iter().any(|held| held.token == delivery.token && held.job == delivery.job) {
                    self.held.push(delivery);
                }
            }
            other => return Err(format!("{id} answers {other:?}")),
        }
        Ok(())
    }

    /// Sweeps, and tells of all firings, save that a teller fails now and then.
    async fn sweep(&mut self) -> Checked {
        while self.tell().await? {}
        Ok(())
    }

    async fn tell(&mut self) -> Result<bool, String> {
        let now = self.now();
        let swept = self.ground.keeper().queues.sweep(&self.queue).await.map_err(|e| e.to_string())?;
        let Some(fired) = swept.fired else { return Ok(false) };
        self.report.firings += 1;
        hold(fired.number == self.told + 1, || format!("Q8: firing {} after {} was told", fired.number, self.told))?;
        if let Some((number, until)) = self.fired.filter(|_| self.is_strict()) {
            let is_free = number != fired.number || until <= now;
            hold(is_free, || format!("Q8: {number} is given to two tellers"))?;
        }
        self.fired = Some((fired.number, now + CLAIM.as_millis() as u64));
        let is_told = self.dice.chance(90);
        if is_told {
            let told = self.ground.keeper().admin.change(&self.queue, Change::Told(fired.number)).await;
            hold(told == Ok(1), || format!("Q8: {} cannot be told: {told:?}", fired.number))?;
            (self.told, self.fired) = (fired.number, None);
        }
        Ok(is_told)
    }

    async fn redrive(&mut self) -> Checked {
        let dead = self.look(Place::Dead).await?;
        let limit = self.dice.below(4) as usize;
        let change = Change::Redrive { jobs: None, cause: None, limit };
        let count = self.change(change).await?;
        let now = self.now();
        let redriven: Vec<u64> = if self.is_strict() {
            hold(count as usize <= limit.min(dead.len()), || format!("{count} redriven"))?;
            dead[..count as usize].iter().map(|seen| seen.id.number()).collect()
        } else {
            // Others may have died since, and the oldest made room for them: what is alive again tells.
            hold(count as usize <= limit, || format!("{count} redriven of {limit}"))?;
            let all = if count > 0 { self.everywhere().await? } else { BTreeMap::new() };
            let is_redriven = |number: &u64, seen: &Seen| {
                let known = self.jobs.get(number).map(|(_, known)| (known.state, known.tries));
                let is_back = known.is_some_and(|(state, tries)| state == State::Dead || seen.tries < tries);
                is_back && seen.place != Place::Dead
            };
            all.iter().filter(|(number, seen)| is_redriven(number, seen)).map(|(number, _)| *number).collect()
        };
        for number in redriven {
            let (_, known) = self.jobs.get_mut(&number).ok_or_else(|| format!("Q1: {number}"))?;
            (known.state, known.tries, known.expires, known.due) = (State::Waiting, 0, None, now);
            // It comes behind the head of its group, whoever that is.
            (known.was_delivered, known.was_termed) = (true, false);
        }
        Ok(())
    }

    async fn remove(&mut self) -> Checked {
        let last = self.jobs.last_key_value().map_or(0, |(number, _)| *number);
        let number = 1 + self.dice.below(last);
        let Some((id, _)) = self.jobs.get(&number) else { return Ok(()) };
        let id = *id;
        let count = self.change(Change::Remove(id)).await?;
        let (now, strict) = (self.now(), self.is_strict());
        let (_, known) = self.jobs.get_mut(&number).ok_or("it is known")?;
        if count == 1 {
            let is_out = known.state == State::Held && known.deadline > now;
            hold(!strict || !is_out, || format!("{id} is removed while it is out"))?;
            hold(!matches!(known.state, State::Acked | State::Removed), || format!("Q1: {id} was {:?}", known.state))?;
            known.state = State::Removed;
        }
        Ok(())
    }

    async fn purge(&mut self) -> Checked {
        let places = [Place::Ready, Place::Parked, Place::Delayed, Place::InFlight, Place::Dead];
        let place = self.dice.chance(80).then(|| self.dice.pick(&places));
        let mut meant = BTreeSet::new();
        for each in places {
            let goes = match place {
                None => each != Place::Dead,
                Some(Place::Ready | Place::Parked) => matches!(each, Place::Ready | Place::Parked),
                Some(place) => place == each,
            };
            if goes {
                meant.extend(self.look(each).await?.iter().map(|seen| seen.id.number()));
            }
        }
        let count = self.change(Change::Purge(place)).await?;
        if self.is_strict() {
            hold(count as usize == meant.len(), || format!("{count} purged of {}", meant.len()))?;
            for number in meant {
                self.jobs.get_mut(&number).ok_or("it is known")?.1.state = State::Removed;
            }
            return Ok(());
        }
        // Some may have moved meanwhile.
        let left = self.everywhere().await?;
        for (number, (_, known)) in &mut self.jobs {
            let is_left = left.contains_key(number);
            if !is_left && !matches!(known.state, State::Acked | State::Forgotten) {
                known.state = State::Removed;
            }
        }
        Ok(())
    }

    async fn pause(&mut self) -> Checked {
        self.is_paused = !self.is_paused;
        let count = self.change(Change::Pause(self.is_paused)).await?;
        hold(count == 1, || "a pause changes something".into())
    }

    async fn restart(&mut self) -> Checked {
        if self.ground.restart().await {
            self.report.restarts += 1;
            self.seats.clear();
            self.fired = None;
            // Leases end with the process.
            for (_, known) in self.jobs.values_mut().filter(|(_, known)| known.state == State::Held) {
                known.state = State::Waiting;
            }
        }
        Ok(())
    }

    async fn change(&self, change: Change) -> Result<u64, String> {
        self.ground.keeper().admin.change(&self.queue, change).await.map_err(|e| e.to_string())
    }

    async fn look(&self, place: Place) -> Result<Vec<Seen>, String> {
        self.ground.keeper().admin.look(&self.queue, place, 0, 1_000).await.map_err(|e| e.to_string())
    }

    async fn stats(&self) -> Result<Stats, String> {
        let stats = self.ground.keeper().admin.stats(&self.queue).await.map_err(|e| e.to_string())?;
        stats.ok_or_else(|| "the queue is not there".into())
    }

    async fn everywhere(&self) -> Result<BTreeMap<u64, Seen>, String> {
        let mut all = BTreeMap::new();
        // Whatever moves by itself meanwhile moves from an earlier one of these to a later one, so that none is missed.
        for place in [Place::Delayed, Place::InFlight, Place::Parked, Place::Ready, Place::Dead] {
            for seen in self.look(place).await? {
                hold(seen.place == place, || format!("{} is {:?} and not {place:?}", seen.id, seen.place))?;
                let before = all.insert(seen.id.number(), seen);
                // Between two looks a job may move, where time does not stand still.
                hold(!self.is_strict() || before.is_none(), || format!("Q6: {before:?} is in two places"))?;
            }
        }
        Ok(all)
    }

    /// Looks at all that is there.
    async fn check(&mut self) -> Checked {
        let (now, strict) = (self.now(), self.is_strict());
        let all = self.everywhere().await?;
        let stats = self.stats().await?;
        for (number, seen) in &all {
            let (id, known) = self.jobs.get(number).ok_or_else(|| format!("Q1: {} was never put", seen.id))?;
            hold(*id == seen.id, || format!("{id} is {}", seen.id))?;
            hold(!matches!(known.state, State::Acked | State::Removed | State::Forgotten), || {
                format!("Q1: {id} was {:?} and is {:?}", known.state, seen.place)
            })?;
        }
        for (number, (id, known)) in &mut self.jobs {
            let seen = all.get(number);
            match (known.state, seen) {
                (State::Acked | State::Removed | State::Forgotten, _) => {}
                (_, None) => {
                    let can_be = self.settings.dead_messages < 1_000;
                    hold(can_be, || format!("Q1: {id} is lost, it was {:?}", known.state))?;
                    known.state = State::Forgotten;
                }
                (State::Dead, Some(seen)) => {
                    hold(seen.place == Place::Dead, || format!("Q6: {id} was dead and is {:?}", seen.place))?;
                }
                (State::Waiting | State::Held, Some(seen)) if seen.place == Place::Dead => {
                    let is_right = match seen.death {
                        Some(Death::Expired) => !strict || known.expires.is_some_and(|end| end <= now),
                        Some(Death::MaxDeliveries) => known.tries >= self.settings.max_deliveries,
                        Some(Death::Dropped) => self.settings.on_full != OnFull::Reject,
                        Some(Death::Term) => known.was_termed,
                        None => false,
                    };
                    hold(is_right, || format!("{id} is dead by {:?}: {known:?}", seen.death))?;
                    known.state = State::Dead;
                    self.report.deaths += 1;
                }
                (State::Held, Some(seen)) if seen.place != Place::InFlight => {
                    hold(!strict || known.deadline <= now, || format!("Q3: {id} is held and {:?}", seen.place))?;
                    known.state = State::Waiting;
                }
                (_, Some(seen)) => {
                    hold(seen.tries == known.tries, || {
                        format!("{id} counts {} tries, not {}", seen.tries, known.tries)
                    })?;
                }
            }
        }
        if !strict {
            return Ok(());
        }
        let count = |place| all.values().filter(|seen| seen.place == place).count() as u64;
        let mut waiting = [0; Priority::LEVELS];
        for seen in all.values().filter(|seen| matches!(seen.place, Place::Ready | Place::Parked)) {
            waiting[seen.priority.level() as usize] += 1;
        }
        let bytes = |is_dead: bool| -> u64 {
            let those = all.values().filter(|seen| (seen.place == Place::Dead) == is_dead);
            those.map(|seen| seen.body.as_bytes().len() as u64).sum()
        };
        let counted =
            (stats.waiting, stats.parked, stats.delayed, stats.in_flight, stats.dead, stats.bytes, stats.dead_bytes);
        let there = (
            waiting,
            count(Place::Parked),
            count(Place::Delayed),
            count(Place::InFlight),
            count(Place::Dead),
            bytes(false),
            bytes(true),
        );
        hold(counted == there, || format!("Q9: counted {counted:?}, there are {there:?}"))?;
        let totals = stats.totals;
        hold(totals.put == self.jobs.len() as u64 && totals.acked == self.report.acks, || {
            format!("Q9: {totals:?}, put {} and acked {}", self.jobs.len(), self.report.acks)
        })?;
        hold(totals.taken == self.report.deliveries, || format!("Q9: {totals:?}, {:?}", self.report))?;
        let forgotten = self.jobs.values().filter(|(_, known)| known.state == State::Forgotten).count() as u64;
        hold(totals.forgotten >= forgotten, || format!("Q1: {forgotten} are missing, {totals:?}"))?;
        self.check_start(&stats)
    }

    fn check_start(&self, stats: &Stats) -> Checked {
        let Some(start) = &self.settings.start_when else { return Ok(()) };
        let waiting: u64 = stats.waiting.iter().sum();
        let Some(is_open) = stats.gate_open else { return Ok(()) };
        hold(!is_open || waiting > 0, || "Q8: the gate is open and nothing waits".into())?;
        let is_true = start.any.iter().any(|arm| matches!(arm, Arm::Count(count) if waiting >= *count));
        hold(is_open || !is_true, || format!("Q8: the gate is closed and {waiting} wait"))
    }
}
