//! Random calls, made on Redis and on the pure queue in memory: both must say the same.
//!
//! Times of settings and calls are whole minutes; what differs by less, for a run takes some seconds, is the same.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use fanfare::domain::store::{EntryId, Fence};

use super::support::MovedClock;
use super::*;

const MINUTE: u64 = 60_000;
/// More than a run takes, and less than half a minute.
const SAME: i64 = 25_000;
const QUEUE: &str = "jobs";

struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.roll() % most
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn of<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize].clone()
    }

    fn minutes(&mut self) -> Duration {
        Duration::from_millis(self.of(&[1, 1, 2, 3, 5, 8]) * MINUTE)
    }
}

/// A job by its id on either side.
type Pair = (JobId, JobId);

struct Sides {
    server: RedisServer,
    hand: redis::Connection,
    redis: Keeper,
    memory: Keeper,
    clock: MovedClock,
    /// The clock of the memory.
    now: u64,
    pairs: Vec<Pair>,
    /// Deliveries, the newest last.
    lent: Vec<(Pair, u64)>,
    entries: u64,
    fired: u64,
    log: Vec<String>,
}

fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn variants() -> Vec<QueueSettings> {
    let minutes = |n: u64| Duration::from_millis(n * MINUTE);
    let plain = QueueSettings {
        lease: minutes(2),
        max_lease: minutes(5),
        max_deliveries: 3,
        backoff: vec![minutes(1), minutes(3)],
        dedupe_window: minutes(4),
        ..QueueSettings::default()
    };
    let start = |mode, batch, any: &[Arm]| Some(StartWhen { any: any.to_vec(), mode, batch, webhook: None });
    let urgent = Arm::Urgent { count: 2, min_priority: Priority::new(7).unwrap() };
    vec![
        plain.clone(),
        QueueSettings { backoff: vec![], ttl: Some(minutes(6)), dedupe_content: true, ..plain.clone() },
        QueueSettings { max_messages: 8, dead_messages: 4, on_dead: OnDead::Halt, ..plain.clone() },
        QueueSettings { max_messages: 6, on_full: OnFull::DropOldest, dead_bytes: 300, ..plain.clone() },
        QueueSettings { max_bytes: 1024, on_full: OnFull::DropLowestPriority, delay: minutes(1), ..plain.clone() },
        QueueSettings { max_workers: Some(2), fair_every: Some(3), max_deliveries: 1, ..plain.clone() },
        QueueSettings {
            start_when: start(Start::Gate, Some(3), &[urgent, Arm::Count(5), Arm::Oldest(minutes(4))]),
            ..plain.clone()
        },
        QueueSettings { start_when: start(Start::Gate, None, &[Arm::Count(4)]), fair_every: Some(2), ..plain.clone() },
        QueueSettings {
            start_when: start(Start::Notify, Some(2), &[Arm::Oldest(minutes(2)), Arm::Count(6)]),
            on_dead: OnDead::Halt,
            dead_messages: 0,
            ..plain
        },
    ]
}

impl Sides {
    async fn open(seed: u64) -> Sides {
        let rules = QueueRules { defaults: variants()[seed as usize % variants().len()].clone(), rules: vec![] };
        let server = RedisServer::start();
        let redis = keeper(&server.url(), Options { queues: rules.clone(), ..Options::default() }).await;
        let clock = MovedClock::default();
        let now = clock.now();
        let options = Options { queues: rules, clock: clock.reader(), ..Options::default() };
        let memory = keeper("memory", options).await;
        let hand = server.connection();
        let (pairs, lent, log) = (Vec::new(), Vec::new(), Vec::new());
        Sides { server, hand, redis, memory, clock, now, pairs, lent, entries: 0, fired: 0, log }
    }

    fn say(&mut self, what: String) {
        self.log.push(what);
    }

    fn advance(&mut self, time: u64) {
        self.clock.advance(Duration::from_millis(time));
        self.now += time;
    }

    /// Everything that happened before was at another moment, on either side.
    fn tick(&mut self) {
        self.advance(1);
        let moment = |hand: &mut redis::Connection| {
            let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(hand).unwrap();
            seconds * 1000 + micros / 1000
        };
        let before = moment(&mut self.hand);
        while moment(&mut self.hand) == before {}
    }

    async fn pass(&mut self, time: u64) {
        self.say(format!("{} minutes pass", time / MINUTE));
        self.advance(time);
        clock::pass(&mut self.hand, "fanfare", QUEUE, Duration::from_millis(time));
        self.sweep().await;
    }

    fn pair(&self, memory: JobId, redis: JobId) -> Pair {
        let known = self.pairs.iter().find(|(one, _)| *one == memory);
        assert_eq!(known, Some(&(memory, redis)), "the same job");
        (memory, redis)
    }

    fn same_time(&self, memory: u64, redis: u64) {
        let ages = (self.now as i64 - memory as i64, wall() as i64 - redis as i64);
        assert!((ages.0 - ages.1).abs() < SAME, "ages {ages:?}");
    }

    fn same_maybe(&self, memory: Option<u64>, redis: Option<u64>) {
        assert_eq!(memory.is_some(), redis.is_some(), "{memory:?} {redis:?}");
        if let (Some(memory), Some(redis)) = (memory, redis) {
            self.same_time(memory, redis);
        }
    }

    fn same_wait(&self, memory: Option<Duration>, redis: Option<Duration>) {
        assert_eq!(memory.is_some(), redis.is_some(), "{memory:?} {redis:?}");
        if let (Some(memory), Some(redis)) = (memory, redis) {
            assert!(memory.abs_diff(redis) < Duration::from_millis(SAME as u64), "{memory:?} {redis:?}");
        }
    }

    async fn put(&mut self, dice: &mut Dice) {
        let count = 1 + dice.below(4);
        let mut batch = Vec::new();
        for _ in 0..count {
            let mut put = job(QUEUE, &"x".repeat(1 + dice.of(&[0, 1, 2, 60, 200, 500])));
            put.priority = Priority::new(dice.of(&[4, 4, 4, 0, 7, 9])).unwrap();
            if dice.chance(30) {
                put.group = Some(dice.of(&["a", "b", "a b"]).into());
            } else if dice.chance(25) {
                put.due = Due::After(if dice.chance(30) { Duration::ZERO } else { dice.minutes() });
            }
            if dice.chance(25) {
                put.ttl = Some(dice.minutes());
            }
            if dice.chance(20) {
                let window = dice.of(&[None, Some(Duration::ZERO), Some(Duration::from_millis(2 * MINUTE))]);
                put.dedupe = Some(Dedupe { key: dice.of(&["k", "l", "m"]).into(), window });
            }
            if dice.chance(15) {
                put.idempotency_key = Some(dice.of(&["k", "l"]).into());
            }
            if dice.chance(20) {
                self.entries += dice.below(2);
                let id = EntryId { ms: self.entries, seq: 0 };
                put.fence = Some(Fence::new(dice.of(&["one", "two"]), "life", id));
            }
            batch.push(put);
        }
        self.say(format!("put {batch:?}"));
        let memory = self.memory.queues.queues.put(batch.clone()).await;
        let redis = self.redis.queues.queues.put(batch).await;
        for (memory, redis) in memory.into_iter().zip(redis) {
            match (memory, redis) {
                (Ok(PutAnswer::Stored { job: memory, .. }), Ok(PutAnswer::Stored { job: redis, time, .. })) => {
                    assert_eq!(memory.number(), redis.number());
                    self.same_time(self.now, time);
                    self.pairs.push((memory, redis));
                }
                (Ok(PutAnswer::Repeated { job: memory, .. }), Ok(PutAnswer::Repeated { job: redis, .. })) => {
                    self.pair(memory, redis);
                }
                (Err(StoreError::Conflict { at: memory }), Err(StoreError::Conflict { at: redis })) => {
                    self.pair(JobId(memory), JobId(redis));
                }
                (Ok(PutAnswer::Skipped), Ok(PutAnswer::Skipped)) => {}
                (Err(memory), Err(redis)) => {
                    let kind = std::mem::discriminant::<StoreError>;
                    assert_eq!(kind(&memory), kind(&redis), "{memory} {redis}");
                }
                (memory, redis) => panic!("{memory:?} in memory, {redis:?} on Redis"),
            }
        }
    }

    async fn take(&mut self, dice: &mut Dice) {
        let take = Take {
            worker: dice.of(&["ann", "ben", "eve"]).into(),
            count: dice.below(5) as usize,
            bytes: dice.of(&[100, 1 << 20]),
            lease: dice.of(&[
                None,
                None,
                Some(Duration::from_millis(MINUTE)),
                Some(Duration::from_millis(30 * MINUTE)),
            ]),
            token: dice.roll(),
        };
        self.say(format!("{take:?}"));
        let memory = self.memory.queues.queues.take(&queue(QUEUE), take.clone()).await.unwrap();
        let redis = self.redis.queues.queues.take(&queue(QUEUE), take.clone()).await.unwrap();
        self.say(format!("  {memory:?}"));
        let state = |taken: &Taken| (taken.jobs.len(), taken.held, taken.more, taken.has_fired);
        assert_eq!(state(&memory), state(&redis));
        self.same_wait(memory.next, redis.next);
        for (memory, redis) in memory.jobs.into_iter().zip(redis.jobs) {
            let pair = self.pair(memory.id, redis.id);
            self.same_time(memory.time, redis.time);
            assert_eq!(redis, Job { id: redis.id, time: redis.time, ..memory });
            self.lent.push((pair, take.token));
        }
    }

    async fn settle(&mut self, dice: &mut Dice) {
        let recent = self.lent.len().saturating_sub(12);
        let mut batches = (Vec::new(), Vec::new());
        for _ in 0..1 + dice.below(3) {
            let Some((pair, token)) = (!self.lent.is_empty()).then(|| dice.of(&self.lent[recent..])) else { return };
            let error = dice.of(&[None, Some("no".into())]);
            let how = match dice.below(10) {
                0..=3 => How::Ack,
                4..=5 => {
                    let delay = dice.of(&[None, Some(Duration::ZERO), Some(Duration::from_millis(MINUTE))]);
                    How::Nack { delay, error }
                }
                6 => How::Release,
                7 => How::Term { error },
                _ => How::Extend { by: dice.chance(50).then(|| dice.minutes()) },
            };
            let token = if dice.chance(5) { token ^ 1 } else { token };
            batches.0.push(Settle { job: pair.0, token, how: how.clone() });
            batches.1.push(Settle { job: pair.1, token, how });
        }
        self.say(format!("{:?}", batches.0));
        let memory = self.memory.queues.queues.settle(&queue(QUEUE), batches.0).await;
        let redis = self.redis.queues.queues.settle(&queue(QUEUE), batches.1).await;
        for (memory, redis) in memory.into_iter().zip(redis) {
            match (memory, redis) {
                (Ok(Settled::Extended(memory)), Ok(Settled::Extended(redis))) => {
                    self.same_wait(Some(memory), Some(redis));
                }
                (memory, redis) => assert_eq!(memory, redis),
            }
        }
    }

    async fn sweep(&mut self) {
        let memory = self.memory.queues.queues.sweep(&queue(QUEUE)).await.unwrap();
        let redis = self.redis.queues.queues.sweep(&queue(QUEUE)).await.unwrap();
        self.say(format!("{memory:?}"));
        assert_eq!((memory.more, memory.takeable), (redis.more, redis.takeable));
        self.same_wait(memory.next, redis.next);
        assert_eq!(memory.fired.is_some(), redis.fired.is_some());
        if let (Some(memory), Some(redis)) = (memory.fired, redis.fired) {
            assert_eq!((memory.number, memory.arm, memory.waiting), (redis.number, redis.arm, redis.waiting));
            self.same_time(memory.time, redis.time);
            self.same_wait(Some(memory.oldest), Some(redis.oldest));
            self.fired = memory.number;
        }
    }

    fn changes(&self, dice: &mut Dice) -> Option<(Change, Change)> {
        let twice = |change: Change| Some((change.clone(), change));
        let pair = (!self.pairs.is_empty()).then(|| dice.of(&self.pairs));
        let cause = dice.of(&[None, None, Some(Death::Term), Some(Death::Expired), Some(Death::MaxDeliveries)]);
        match dice.below(24) {
            0..=1 => twice(Change::Pause(dice.chance(30))),
            2..=5 => {
                let own = dice.of(&variants());
                twice(Change::Settings(dice.chance(80).then(|| Box::new(own))))
            }
            6..=9 => twice(Change::Redrive { jobs: None, cause, limit: dice.of(&[1, 2, 50]) }),
            10..=11 => {
                let pairs: Vec<Pair> = (0..3).filter_map(|_| pair.map(|_| dice.of(&self.pairs))).collect();
                let redrive = |jobs| Change::Redrive { jobs: Some(jobs), cause: None, limit: 0 };
                let (memory, redis) = pairs.into_iter().unzip();
                Some((redrive(memory), redrive(redis)))
            }
            12..=13 => {
                let body = body("y".repeat(dice.of(&[1, 50, 400])));
                let edit = |job| Change::Edit { job, body: body.clone() };
                pair.map(|(memory, redis)| (edit(memory), edit(redis)))
            }
            14..=16 => pair.map(|(memory, redis)| (Change::Remove(memory), Change::Remove(redis))),
            17 => twice(Change::Purge(dice.of(&[
                None,
                Some(Place::Ready),
                Some(Place::Delayed),
                Some(Place::InFlight),
                Some(Place::Dead),
            ]))),
            18..=19 => twice(Change::Leave { worker: dice.of(&["ann", "ben", "eve"]).into() }),
            20..=22 => twice(Change::Told(self.fired)),
            _ if dice.chance(20) => twice(Change::Delete),
            _ => None,
        }
    }

    async fn change(&mut self, dice: &mut Dice) {
        let Some((memory, redis)) = self.changes(dice) else { return };
        self.say(format!("{memory:?}"));
        let memory = self.memory.change(QUEUE, memory).await;
        let redis = self.redis.change(QUEUE, redis).await;
        match (&memory, &redis) {
            (Err(StoreError::Full(_)), Err(StoreError::Full(_))) => {}
            _ => assert_eq!(memory, redis),
        }
    }

    fn same_job(&self, memory: Seen, redis: Seen) {
        self.pair(memory.id, redis.id);
        self.same_time(memory.time, redis.time);
        self.same_maybe(memory.until, redis.until);
        self.same_maybe(memory.expires, redis.expires);
        assert_eq!(memory.attempts.len(), redis.attempts.len(), "{memory:?} {redis:?}");
        for (memory, redis) in memory.attempts.iter().zip(&redis.attempts) {
            self.same_time(memory.time, redis.time);
            assert_eq!((&memory.worker, memory.end, &memory.error), (&redis.worker, redis.end, &redis.error));
        }
        let Seen { id, time, until, expires, ref attempts, .. } = redis;
        let attempts = attempts.clone();
        assert_eq!(redis, Seen { id, time, until, expires, attempts, ..memory });
    }

    async fn look(&mut self) {
        let (admin, other) = (self.memory.queues.admin.clone(), self.redis.queues.admin.clone());
        let memory = admin.stats(&queue(QUEUE)).await.unwrap();
        let redis = other.stats(&queue(QUEUE)).await.unwrap();
        self.say(format!("{memory:?}"));
        self.same_wait(memory.as_ref().and_then(|s| s.oldest), redis.as_ref().and_then(|s| s.oldest));
        let plain = |stats: Option<Stats>| stats.map(|stats| Stats { oldest: None, ..stats });
        assert_eq!(plain(memory), plain(redis));
        for place in [Place::Ready, Place::Parked, Place::Delayed, Place::InFlight, Place::Dead] {
            let memory = admin.look(&queue(QUEUE), place, 0, 1000).await.unwrap();
            let redis = other.look(&queue(QUEUE), place, 0, 1000).await.unwrap();
            let numbers = |seen: &[Seen]| seen.iter().map(|seen| seen.id.number()).collect::<Vec<_>>();
            assert_eq!(numbers(&memory), numbers(&redis), "{place:?}");
            memory.into_iter().zip(redis).for_each(|(memory, redis)| self.same_job(memory, redis));
        }
        if let Some((memory, redis)) = self.pairs.last() {
            let memory = admin.find(&queue(QUEUE), *memory).await.unwrap();
            let redis = other.find(&queue(QUEUE), *redis).await.unwrap();
            assert_eq!(memory.is_some(), redis.is_some());
            memory.into_iter().zip(redis).for_each(|(memory, redis)| self.same_job(memory, redis));
        }
        for source in ["one", "two"] {
            let memory = self.memory.queues.queues.mark(&queue(QUEUE), source).await.unwrap();
            assert_eq!(memory, self.redis.queues.queues.mark(&queue(QUEUE), source).await.unwrap());
        }
        let memory = self.memory.queues.queues.settings(&queue(QUEUE)).await.unwrap();
        assert_eq!(memory, self.redis.queues.queues.settings(&queue(QUEUE)).await.unwrap());
        assert_eq!(admin.list(None, 9).await.unwrap(), other.list(None, 9).await.unwrap());
    }

    async fn step(&mut self, dice: &mut Dice) {
        match dice.below(100) {
            0..=29 => self.put(dice).await,
            30..=49 => self.take(dice).await,
            50..=71 => self.settle(dice).await,
            72..=75 => self.sweep().await,
            76..=85 => self.change(dice).await,
            86..=92 => {
                let time = dice.minutes().as_millis() as u64;
                self.pass(time).await;
            }
            _ => self.look().await,
        }
        self.tick();
    }
}

/// How far the run has come, told where it fails.
static SEED: AtomicU64 = AtomicU64::new(0);

async fn run(seed: u64, steps: usize) {
    SEED.store(seed, Ordering::Relaxed);
    let mut sides = Sides::open(seed).await;
    let mut dice = Dice(seed);
    for step in 0..steps {
        let told = sides.log.len();
        let failed = {
            use futures::FutureExt;
            std::panic::AssertUnwindSafe(sides.step(&mut dice)).catch_unwind().await
        };
        if failed.is_err() {
            let from = told.saturating_sub(12);
            panic!("seed {seed}, step {step}, after\n{}", sides.log[from..].join("\n"));
        }
    }
    sides.look().await;
    drop(sides.server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_calls_are_answered_as_the_pure_queue_answers_them() {
    let is_long = std::env::var("FAULTS").is_ok_and(|word| word == "long");
    let (seeds, steps) = if is_long { (200, 3_000) } else { (9, 150) };
    let first = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    for seed in first..first + seeds {
        run(seed, steps).await;
    }
}
