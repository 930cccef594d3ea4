//! The task that carries the store's calls to Redis: in order, several pipelines on their way at a time, over outages.
//!
//! Order: all calls go over one connection, and Redis carries them out in the order in which they were written. What
//! Redis did not carry out because it did not know the script is sent again, before anything newer, once all that is on
//! its way has been answered. Nothing else is ever sent twice.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesOrdered, StreamExt};
use redis::{Cmd, Value};
use slab::Slab;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::calls;
use super::flight::{Answered, Errand, Flight, Packer, launch};
use super::greeting::{Greeting, Host};
use super::levels::Levels;
use super::lives::Known;
use super::pages::Stretch;
use super::queue::{Batch, Job, State};
use super::scripts::Dice;
use super::topics::{Outcome, Place};
use super::witness::Unproven;
use crate::domain::message::Durability;
use crate::domain::store::StoreError;
use crate::endpoint::Link;

/// How much goes into one pipeline before it is sent.
const PIPELINE_MESSAGES: usize = 256;
const PIPELINE_BYTES: usize = 1024 * 1024;
/// How often scripts are loaded again for the same calls, if something keeps unloading them.
const RELOADS: u32 = 5;
/// How long calls are kept waiting when the connection breaks, before they fail.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    pub host: Arc<Host>,
    greeting: Greeting,
    state: Arc<State>,
    jobs: mpsc::Receiver<Job>,
    pub dice: Dice,
    pub batches: Slab<Batch>,
    unproven: Unproven,
    /// What every write has once it is answered.
    writes: Durability,
    /// Whether there were replicas once, which may come back.
    had_replicas: bool,
}

/// What append.lua says of entries that were meant for another life.
const OTHER_LIFE: &str = "HELD the store began another life";

enum End {
    Closed(oneshot::Sender<()>),
    Lost(String),
}

impl Writer {
    pub fn new(host: Arc<Host>, greeting: Greeting, state: Arc<State>, jobs: mpsc::Receiver<Job>) -> Writer {
        let mut writer = Writer {
            had_replicas: host.may_have_replicas(&greeting.facts),
            unproven: Unproven::new(host.clone()),
            writes: Durability::Memory,
            dice: Dice::default(),
            batches: Slab::new(),
            host,
            greeting,
            state,
            jobs,
        };
        writer.note_facts();
        writer
    }

    /// Works until the store is closed.
    pub async fn run(mut self, link: Link) {
        let mut link = link;
        loop {
            match self.serve(link).await {
                End::Closed(done) => {
                    self.state.condition().away = Some("the store is closed".into());
                    self.jobs.close();
                    let closed = StoreError::Unavailable("the store is closed".into());
                    while let Ok(job) = self.jobs.try_recv() {
                        job.refuse(&closed);
                    }
                    let _ = done.send(());
                    return;
                }
                End::Lost(why) => {
                    tracing::warn!(%why, "connection to Redis lost");
                    self.state.changed.notify_one();
                    match self.come_back(why).await {
                        Some(fresh) => link = fresh,
                        None => return,
                    }
                }
            }
        }
    }

    async fn serve(&mut self, mut link: Link) -> End {
        let mut flights: FuturesOrdered<BoxFuture<'static, Answered>> = FuturesOrdered::new();
        let mut unknown: Vec<(Errand, Cmd)> = Vec::new();
        let mut reloads = 0;
        let mut closing = None;
        let mut probe = interval(self.host.options.ping);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        probe.reset();
        let why = loop {
            if flights.is_empty() {
                if !unknown.is_empty() {
                    reloads += 1;
                    match self.reload(&mut unknown, reloads) {
                        Ok(flight) => flights.push_back(launch(&link, flight).await),
                        Err(why) => break why,
                    }
                } else if self.unproven.is_empty()
                    && let Some(done) = closing.take()
                {
                    link.cut().await;
                    return End::Closed(done);
                }
            }
            let may_send =
                unknown.is_empty() && closing.is_none() && flights.len() < self.host.options.pipelines.max(1);
            tokio::select! {
                biased;
                Some((flight, answers, sent)) = flights.next(), if !flights.is_empty() => match answers {
                    Ok(answers) => {
                        if let Err(why) = self.settle(flight, answers, &mut unknown) {
                            break why;
                        }
                        if unknown.is_empty() {
                            reloads = 0;
                        }
                    }
                    Err(error) => {
                        self.give_up(flight, &error.to_string(), sent);
                        break error.to_string();
                    }
                },
                why = link.ended() => break why,
                () = self.unproven.turn() => {}
                _ = probe.tick(), if may_send => flights.push_back(launch(&link, Flight::probe()).await),
                job = self.jobs.recv(), if may_send => {
                    // Without anyone who could call it, the store closes.
                    let job = job.unwrap_or_else(|| Job::Close(oneshot::channel().0));
                    let mut packer = Packer::default();
                    let lives = self.host.lives.known();
                    closing = self.pack(job, &mut packer, &lives);
                    let flight = packer.finish(&self.host, &lives, &mut self.dice);
                    if !flight.errands.is_empty() {
                        flights.push_back(launch(&link, flight).await);
                    }
                }
            }
        };
        // Before anything else is said, nothing must be able to reach Redis over this connection any more.
        link.cut().await;
        while let Some((flight, answers, sent)) = flights.next().await {
            match answers {
                Ok(answers) => drop(self.settle(flight, answers, &mut unknown)),
                Err(error) => self.give_up(flight, &error.to_string(), sent),
            }
        }
        for (errand, _) in unknown {
            self.refuse(errand, &StoreError::Unavailable(why.clone()));
        }
        self.unproven.give_up(&why);
        match closing {
            Some(done) => End::Closed(done),
            None => End::Lost(why),
        }
    }

    /// Packs a job and what waits behind it. Answers whom to tell that the store is closed.
    fn pack(&mut self, job: Job, packer: &mut Packer, lives: &Known) -> Option<oneshot::Sender<()>> {
        let mut next = Some(job);
        while let Some(job) = next {
            match job {
                Job::Append(mut batch) => {
                    let (items, asking) = (std::mem::take(&mut batch.items), batch.asking);
                    if let Some((_, append)) = items.last() {
                        batch.group = self.host.names.group_of(&append.publication.topic);
                    }
                    let number = self.batches.insert(batch);
                    for (item, append) in items {
                        let under = append.fence.as_ref().and_then(|fence| fence.under.as_ref());
                        if under.is_some_and(|under| *under != lives.print) {
                            let text = "HELD the store is in another life".to_string();
                            self.outcome(Place { batch: number, item }, Err(StoreError::Unavailable(text)));
                            continue;
                        }
                        let group = self.host.names.group_of(&append.publication.topic);
                        let lane = if self.greeting.facts.is_cluster { group } else { 0 };
                        packer.append(lane, asking, group, Place { batch: number, item }, append);
                    }
                }
                Job::Read(ask, answer, weight) => packer.read(ask, answer, weight),
                Job::Cursor(one) => {
                    let group = self.host.names.group_of(one.ask.topic());
                    packer.cursor(if self.greeting.facts.is_cluster { group } else { 0 }, one);
                }
                Job::Call(call) => packer.call(call),
                Job::Prove(doubt) => self.unproven.doubt(doubt),
                Job::Close(done) => return Some(done),
            }
            let full = packer.messages() >= PIPELINE_MESSAGES || packer.bytes() >= PIPELINE_BYTES;
            next = if full { None } else { self.jobs.try_recv().ok() };
        }
        None
    }

    /// Hands answers to whoever waits for them, and keeps what Redis did not carry out for want of the script.
    pub fn settle(
        &mut self,
        flight: Flight,
        answers: Vec<Value>,
        unknown: &mut Vec<(Errand, Cmd)>,
    ) -> Result<(), String> {
        let mut trouble = Ok(());
        for (errand, answer, again) in flight.answered(answers) {
            if let Some(command) = again {
                unknown.push((errand, command));
                continue;
            }
            if let Value::ServerError(error) = &answer
                && matches!(error.code(), "READONLY" | "MASTERDOWN")
            {
                // Another server is the master now; the address may lead there.
                trouble = Err(error.to_string());
            }
            self.overtake(&errand, unknown);
            match errand {
                Errand::Append { asked, .. } => {
                    for (place, outcome) in asked.decode(&answer, self.writes) {
                        // Another server is the master now, or who it is now is asked when a connection begins.
                        if let Err(StoreError::Unavailable(text)) = &outcome
                            && (text.starts_with(OTHER_LIFE) || text.starts_with("READONLY"))
                        {
                            trouble = Err(text.clone());
                        }
                        self.outcome(place, outcome);
                    }
                }
                Errand::Read { answer: to, .. } => drop(to.send(Stretch::decode(answer))),
                Errand::Cursors(call) => call.settle(answer, self.host.scripts.cursors.each),
                Errand::Call { answer: to, .. } => calls::settle(to, answer, &self.greeting.facts.life, self.writes),
                Errand::Probe => trouble = trouble.and(self.probed(&answer)),
                Errand::Load => {}
            }
        }
        trouble
    }

    /// Somebody else loaded the script between two of our calls, so the newer one was carried out and the older one was
    /// not. Sent again it would come after the newer one: it must fail instead.
    fn overtake(&mut self, done: &Errand, unknown: &mut Vec<(Errand, Cmd)>) {
        let Some(lane) = done.lane() else { return };
        let (late, rest) =
            std::mem::take(unknown).into_iter().partition::<Vec<_>, _>(|(errand, _)| errand.lane() == Some(lane));
        *unknown = rest;
        for (errand, _) in late {
            self.refuse(errand, &StoreError::Unavailable("Redis lost our script for a moment".into()));
        }
    }

    /// Loads the scripts again and makes a pipeline of the calls that wanted them.
    fn reload(&self, unknown: &mut Vec<(Errand, Cmd)>, times: u32) -> Result<Flight, String> {
        if times > RELOADS {
            return Err("something keeps unloading our scripts".into());
        }
        tracing::info!("Redis does not know our scripts (any more); loading them");
        let mut flight = Flight::default();
        // In the same pipeline, so that there is hardly a moment in which they could be unloaded again.
        let calls = unknown.iter().map(|(_, command)| command);
        self.host.scripts.load(calls).into_iter().for_each(|load| flight.add(Errand::Load, load));
        for (errand, command) in unknown.drain(..) {
            flight.add(errand, command);
        }
        Ok(flight)
    }

    /// No answers will come to this flight.
    fn give_up(&mut self, flight: Flight, why: &str, sent: bool) {
        let text = why.to_string();
        let error = if sent { StoreError::Unconfirmed(text) } else { StoreError::Unavailable(text) };
        for errand in flight.errands {
            self.refuse(errand, &error);
        }
    }

    fn refuse(&mut self, errand: Errand, error: &StoreError) {
        match errand {
            Errand::Append { asked, .. } => asked.places().for_each(|place| self.outcome(place, Err(error.clone()))),
            Errand::Read { answer, .. } => {
                // A read stores nothing, so nothing about it is unconfirmed.
                let text = match error {
                    StoreError::Unconfirmed(text) | StoreError::Unavailable(text) => text.clone(),
                    other => other.to_string(),
                };
                let _ = answer.send(Err(StoreError::Unavailable(text)));
            }
            Errand::Cursors(call) => call.refuse(error),
            Errand::Call { answer, .. } => drop(answer.send(Err(error.clone()))),
            Errand::Probe | Errand::Load => {}
        }
    }

    fn outcome(&mut self, place: Place, outcome: Outcome) {
        let Some(batch) = self.batches.get_mut(place.batch) else { return };
        batch.settle(place.item, outcome);
        if batch.left == 0 {
            let batch = self.batches.remove(place.batch);
            self.unproven.add(batch, &self.greeting.facts.life);
        }
    }

    fn probed(&mut self, answer: &Value) -> Result<(), String> {
        self.greeting.facts.update(answer);
        self.note_facts();
        if self.greeting.facts.is_master() { Ok(()) } else { Err("this Redis is no master any more".into()) }
    }

    /// Shows what is known of Redis to those who ask how the store is.
    fn note_facts(&mut self) {
        let facts = &self.greeting.facts;
        self.had_replicas |= facts.replicas > 0;
        let levels = Levels::new(facts, &self.host.options, self.had_replicas);
        self.writes = levels.writes;
        let mut condition = self.state.condition();
        condition.objection = facts.objection().or_else(|| levels.trouble());
        condition.levels = Arc::new(levels);
    }

    /// Connects again, for as long as it takes. What waits is kept during the first attempt only, so that a connection
    /// that breaks and comes back at once is not noticed; after that everything fails at once.
    async fn come_back(&mut self, why: String) -> Option<Link> {
        let mut wait = self.host.options.retry_min;
        let mut first = true;
        loop {
            let (host, last) = (self.host.clone(), self.greeting.clone());
            let longest = host.options.connect_timeout;
            let patience = if first { longest.min(FIRST_PATIENCE) } else { longest };
            let attempt = async move { host.greet(patience, Some(&last)).await };
            let result = if first { attempt.await } else { self.refusing(attempt.boxed()).await? };
            match result {
                Ok((link, greeting)) => {
                    tracing::info!("connected to Redis again");
                    self.greeting = greeting;
                    if !self.host.scripts.sharded {
                        self.host.lives.set(vec![self.greeting.facts.life.to_string()]);
                    }
                    self.note_facts();
                    self.state.arrived(&self.greeting.facts.life);
                    return Some(link);
                }
                Err(error) => {
                    if first {
                        tracing::warn!(%why, %error, "Redis is away; trying again until it is back");
                    }
                    self.state.left(error.to_string());
                    first = false;
                    let pause = wait.mul_f64(0.75 + 0.5 * self.dice.fraction());
                    self.refusing(tokio::time::sleep(pause).boxed()).await?;
                    wait = (wait * 2).min(self.host.options.retry_max);
                }
            }
        }
    }

    /// Awaits something while refusing every job. `None`: the store was closed meanwhile.
    async fn refusing<T>(&mut self, mut until: BoxFuture<'_, T>) -> Option<T> {
        let away = self.state.away().unwrap_or_else(|| StoreError::Unavailable("Redis is away".into()));
        loop {
            tokio::select! {
                done = &mut until => return Some(done),
                job = self.jobs.recv() => match job {
                    Some(Job::Close(done)) => {
                        self.state.condition().away = Some("the store is closed".into());
                        self.jobs.close();
                        let _ = done.send(());
                        return None;
                    }
                    Some(job) => job.refuse(&away),
                    None => return None,
                },
            }
        }
    }
}
