//! The way of calls in a Redis Cluster: each to the master that serves the slot of its group.
//!
//! One router takes the store's calls in order, splits them by group and gives the pieces to the writers, one for each
//! master. What a server did not carry out because the slot is elsewhere goes again, in order (see `lane`). Nothing else is
//! ever sent twice: what may have been carried out is `Unconfirmed`. A master that is away fails its own groups at once, and
//! the others go on.

mod condition;
pub(super) mod feed;
mod lane;
mod masters;
mod node;
mod others;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use slab::Slab;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::lane::{Elsewhere, Lane, Next, Piece, Work, text_of};
pub(super) use self::masters::greet;
use self::node::Node;
use super::calls::{ForeignCall, Told};
use super::cursors::Use;
use super::greeting::Host;
use super::pages::{Ask, Stretch};
use super::queue::{Batch, Job, State, Weight};
use super::topics::Outcome;
use crate::domain::cursor::CursorError;
use crate::domain::store::{Append, Appended, StoreError};
use crate::endpoint::{Chart, Place};
use crate::store::cursors;

/// How often lanes in trouble are looked at.
const LOOK: Duration = Duration::from_millis(5);
/// How often the chart is doubted while a master is away.
const DOUBT: Duration = Duration::from_millis(200);

pub(super) struct Router {
    host: Arc<Host>,
    chart: Chart,
    /// What the store shows; each node has a state of its own beside it.
    state: Arc<State>,
    jobs: mpsc::Receiver<Job>,
    nodes: HashMap<Place, Node>,
    /// One for each group, and then one for each slot that calls of others have had.
    lanes: Vec<Lane>,
    others: HashMap<u16, usize>,
    wholes: Slab<Batch>,
    flights: FuturesUnordered<BoxFuture<'static, Landed>>,
    pieces: u64,
    changed: Arc<Notify>,
}

/// A piece that was answered.
struct Landed {
    group: usize,
    piece: Piece,
    answer: Answer,
}

enum Answer {
    Append(Vec<Outcome>),
    Read(Result<Stretch, StoreError>),
    Cursor(Result<cursors::Answer, CursorError>),
    Call(Told),
}

impl Router {
    pub fn new(host: Arc<Host>, chart: Chart, state: Arc<State>, jobs: mpsc::Receiver<Job>) -> Router {
        let lanes = (0..host.names.count()).map(|group| Lane::of(host.names.slot_of(group))).collect();
        let mut router = Router {
            host,
            chart,
            state,
            jobs,
            nodes: HashMap::new(),
            lanes,
            others: HashMap::new(),
            wholes: Slab::new(),
            flights: FuturesUnordered::new(),
            pieces: 0,
            changed: Arc::default(),
        };
        router.follow_chart();
        router
    }

    /// Works until the store is closed.
    pub async fn run(mut self) {
        let mut look = interval(LOOK);
        let mut doubt = interval(DOUBT);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        doubt.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let changed = self.changed.clone();
        let mut closing: Option<oneshot::Sender<()>> = None;
        loop {
            let is_calm = self.lanes.iter().all(Lane::is_clear);
            if closing.is_some() && is_calm && self.flights.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                Some(landed) = self.flights.next(), if !self.flights.is_empty() => self.land(landed),
                () = changed.notified() => {
                    self.note();
                    self.hurry();
                }
                () = self.chart.looked() => self.follow_chart(),
                _ = look.tick(), if !is_calm => self.look_at_lanes(),
                _ = doubt.tick() => self.note(),
                job = self.jobs.recv(), if closing.is_none() => match job {
                    Some(Job::Close(done)) => closing = Some(done),
                    Some(job) => self.take(job),
                    None => closing = Some(oneshot::channel().0),
                },
            }
        }
        self.state.condition().away = Some("the store is closed".into());
        self.jobs.close();
        let closed = StoreError::Unavailable("the store is closed".into());
        while let Ok(job) = self.jobs.try_recv() {
            job.refuse(&closed);
        }
        if let Some(done) = closing {
            let _ = done.send(());
        }
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Append(mut batch) => {
                let mut groups: Vec<(u16, Vec<(usize, Append)>)> = Vec::new();
                for (item, append) in std::mem::take(&mut batch.items) {
                    let group = self.host.names.group_of(&append.publication.topic);
                    match groups.iter_mut().find(|(number, _)| *number == group) {
                        Some((_, items)) => items.push((item, append)),
                        None => groups.push((group, vec![(item, append)])),
                    }
                }
                let whole = self.wholes.insert(batch);
                for (group, items) in groups {
                    self.begin(group.into(), Work::Append { whole, items });
                }
            }
            Job::Read(ask, answer, weight) => {
                let group = self.host.names.group_of(&ask.topic);
                self.begin(group.into(), Work::Read { ask, answer, weight });
            }
            Job::Cursor(one) => {
                let group = self.host.names.group_of(one.ask.topic());
                self.begin(group.into(), Work::Cursor(one));
            }
            Job::Call(call) => {
                let lane = self.lane_of(call.slot);
                self.begin(lane, Work::Call(call));
            }
            Job::Prove(doubt) => self.prove(doubt),
            Job::Close(_) => {}
        }
    }

    fn begin(&mut self, group: usize, work: Work) {
        self.pieces += 1;
        let piece = Piece { number: self.pieces, work };
        let lane = &mut self.lanes[group];
        if lane.is_clear() {
            self.send(group, piece, None);
        } else {
            lane.hold(piece);
        }
    }

    /// Gives a piece to the server of its slot, or to the one that was named.
    fn send(&mut self, group: usize, piece: Piece, asking: Option<Place>) {
        let (patience, now) = (self.host.options.response_timeout, Instant::now());
        let lane = &mut self.lanes[group];
        let Some(place) = asking.clone().or_else(|| lane.home.clone()) else {
            self.chart.doubt();
            return lane.bounce(piece, "no server of the cluster has its slot", Elsewhere::Later, patience, now);
        };
        let node = self
            .nodes
            .entry(place)
            .or_insert_with_key(|place| Node::open(Arc::new(self.host.of(place)), self.changed.clone()));
        if node.is_new() {
            return lane.bounce(piece, "its server is not connected yet", Elsewhere::Later, patience, now);
        }
        lane.took_off();
        let Piece { number, work } = piece;
        let asking = asking.is_some();
        let landing = match work {
            Work::Append { whole, items } => {
                let (answer, answered) = oneshot::channel();
                let count = items.len();
                let needs = items.iter().map(|(item, _)| self.wholes.get(whole).and_then(|batch| batch.needs[*item]));
                let needs = needs.collect();
                let copies = items.iter().enumerate().map(|(place, (_, append))| (place, append.clone())).collect();
                let _weight = Weight::none(&self.state);
                node.put(Job::Append(Batch {
                    left: count,
                    items: copies,
                    outcomes: vec![None; count],
                    needs,
                    group: group as u16,
                    answer,
                    asking,
                    _weight,
                }));
                async move {
                    let lost = || vec![Err(StoreError::Unconfirmed("the connection was given up".into())); count];
                    let answer = Answer::Append(answered.await.unwrap_or_else(|_| lost()));
                    Landed { group, piece: Piece { number, work: Work::Append { whole, items } }, answer }
                }
                .boxed()
            }
            Work::Read { ask, answer, weight } => {
                let (sub, answered) = oneshot::channel();
                node.put(Job::Read(Ask { asking, ..ask.clone() }, sub, Weight::none(&self.state)));
                async move {
                    let lost = || Err(StoreError::Unavailable("the connection was given up".into()));
                    let told = Answer::Read(answered.await.unwrap_or_else(|_| lost()));
                    Landed { group, piece: Piece { number, work: Work::Read { ask, answer, weight } }, answer: told }
                }
                .boxed()
            }
            Work::Cursor(one) => {
                let (reply, answered) = oneshot::channel();
                let weight = Weight::none(&self.state);
                node.put(Job::Cursor(Use { ask: one.ask.clone(), reply, asking, _weight: weight }));
                async move {
                    let lost = || Err(StoreError::Unconfirmed("the connection was given up".into()).into());
                    let answer = Answer::Cursor(answered.await.unwrap_or_else(|_| lost()));
                    Landed { group, piece: Piece { number, work: Work::Cursor(one) }, answer }
                }
                .boxed()
            }
            Work::Call(call) => {
                let (answer, answered) = oneshot::channel();
                let (command, slot, weight) = (call.command.clone(), call.slot, Weight::none(&self.state));
                node.put(Job::Call(ForeignCall { command, slot, asking, answer, weight }));
                async move {
                    let lost = || Err(StoreError::Unconfirmed("the connection was given up".into()));
                    let answer = Answer::Call(answered.await.unwrap_or_else(|_| lost()));
                    Landed { group, piece: Piece { number, work: Work::Call(call) }, answer }
                }
                .boxed()
            }
        };
        self.flights.push(landing);
    }

    fn land(&mut self, landed: Landed) {
        let Landed { group, piece: Piece { number, work }, answer } = landed;
        let mut stored = None;
        let mut bounced: Option<(Work, String, Elsewhere)> = None;
        match (work, answer) {
            (Work::Append { whole, items }, Answer::Append(outcomes)) => {
                let (mut back, mut why) = (Vec::new(), None);
                for ((place, append), outcome) in items.into_iter().zip(outcomes) {
                    if let Some(elsewhere) = outcome.as_ref().err().and_then(Elsewhere::of) {
                        why = why.or_else(|| Some((text_of(outcome.as_ref().err()), elsewhere)));
                        back.push((place, append));
                        continue;
                    }
                    if let Ok(Appended::Stored { .. }) = outcome {
                        stored = Some(place);
                    }
                    self.settle(whole, place, outcome);
                }
                bounced = why.map(|(text, elsewhere)| (Work::Append { whole, items: back }, text, elsewhere));
            }
            (Work::Read { ask, answer, weight }, Answer::Read(told)) => {
                match told.as_ref().err().and_then(Elsewhere::of) {
                    Some(elsewhere) => {
                        let text = text_of(told.as_ref().err());
                        bounced = Some((Work::Read { ask, answer, weight }, text, elsewhere));
                    }
                    None => drop(answer.send(told)),
                }
            }
            (Work::Cursor(one), Answer::Cursor(answer)) => {
                let error = answer.as_ref().err().and_then(CursorError::of_store);
                match error.and_then(Elsewhere::of) {
                    Some(elsewhere) => bounced = Some((Work::Cursor(one), text_of(error), elsewhere)),
                    None => one.settle(answer),
                }
            }
            (Work::Call(call), Answer::Call(told)) => match told.as_ref().err().and_then(Elsewhere::of) {
                Some(elsewhere) => {
                    let text = text_of(told.as_ref().err());
                    bounced = Some((Work::Call(call), text, elsewhere));
                }
                None => {
                    stored = told.is_ok().then_some(usize::MAX);
                    let _ = call.answer.send(told);
                }
            },
            _ => unreachable!("a piece is answered in its own kind"),
        }
        if let Some((work, why, elsewhere)) = bounced {
            tracing::debug!(group, %why, "not carried out, trying again");
            if !matches!(elsewhere, Elsewhere::Ask(_)) {
                self.chart.doubt();
            }
            let (patience, now) = (self.host.options.response_timeout, Instant::now());
            self.lanes[group].bounce(Piece { number, work }, &why, elsewhere, patience, now);
        }
        self.lanes[group].landed(number, stored);
        self.look_at(group);
    }

    fn settle(&mut self, whole: usize, item: usize, outcome: Outcome) {
        let Some(batch) = self.wholes.get_mut(whole) else { return };
        batch.settle(item, outcome);
        if batch.left == 0 {
            self.wholes.remove(whole).finish_with(&StoreError::Broken("no outcome".into()));
        }
    }

    fn refuse(&mut self, piece: Piece, why: &str) {
        let error = StoreError::Unavailable(why.to_owned());
        match piece.work {
            Work::Append { whole, items } => {
                items.into_iter().for_each(|(item, _)| self.settle(whole, item, Err(error.clone())));
            }
            Work::Read { answer, .. } => drop(answer.send(Err(error))),
            Work::Cursor(one) => one.refuse(&error),
            Work::Call(call) => drop(call.answer.send(Err(error))),
        }
    }

    fn look_at_lanes(&mut self) {
        (0..self.lanes.len()).for_each(|group| self.look_at(group));
    }

    fn look_at(&mut self, group: usize) {
        if self.lanes[group].is_clear() {
            return;
        }
        let Next { send, mut asking, refuse } = self.lanes[group].next(Instant::now());
        for (piece, why) in refuse {
            self.refuse(piece, &why);
        }
        for piece in send {
            // One that comes back at once keeps those behind it in their order.
            if self.lanes[group].is_clear() || self.lanes[group].is_ahead() {
                self.send(group, piece, asking.take());
            } else {
                self.lanes[group].hold(piece);
            }
        }
    }

    /// Points each group to the server of its slot.
    fn follow_chart(&mut self) {
        let (slots, now) = (self.chart.slots(), Instant::now());
        for lane in &mut self.lanes {
            lane.home = slots.owner(lane.slot).cloned();
            lane.hurry(now);
            if let Some(place) = &lane.home
                && !self.nodes.contains_key(place)
            {
                let node = Node::open(Arc::new(self.host.of(place)), self.changed.clone());
                self.nodes.insert(place.clone(), node);
            }
        }
        let homes: std::collections::HashSet<&Place> =
            self.lanes.iter().filter_map(|lane| lane.home.as_ref()).collect();
        self.nodes.retain(|place, _| homes.contains(place));
        self.note();
    }

    fn hurry(&mut self) {
        let now = Instant::now();
        self.lanes.iter_mut().for_each(|lane| lane.hurry(now));
    }
}
