//! The one thread that touches the database. It takes the appends that wait, commits them as one transaction (what
//! comes meanwhile makes the next one: no timer), answers, and feeds. Reads are answered here too, in their turn. A
//! transaction that fails is undone whole, and what is known in memory is learnt anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::watch;

use super::dead_table::DeadTable;
use super::feed::Outlet;
use super::inbox::{AppendCall, Call, Inbox, Job};
use super::log::{Bounds, Failure, Log, millis};
use super::tables::Tables;
use crate::domain::message::Message;
use crate::domain::name::Topic;
use crate::domain::store::{Append, Appended, FeedEvent, StoreError};
use crate::store::Clock;

/// How often a store at rest looks for what had its time.
const SWEEP_EVERY: Duration = Duration::from_millis(500);

pub struct Setup {
    pub connection: Connection,
    pub bounds: Bounds,
    pub dead_letters: usize,
    /// Told of every retry of a dead letter.
    pub retries: watch::Sender<u64>,
    pub clock: Clock,
}

/// Starts the thread and waits until it has read what is there.
pub fn start(setup: Setup, inbox: Arc<Inbox>) -> Result<(), StoreError> {
    let (ready, opened) = mpsc::channel();
    let thread = std::thread::Builder::new().name("fanfare-store".into());
    let ending = Ending(inbox.clone());
    let run = move || {
        let ending = ending;
        let Setup { connection, bounds, dead_letters, retries, clock } = setup;
        let parts = Tables::prepare(&connection)
            .and_then(|tables| Ok((Log::open(tables, bounds)?, DeadTable::open(&connection, dead_letters, retries)?)));
        match parts {
            Ok((log, dead)) => {
                drop(ready.send(Ok(())));
                Writer { log, dead, clock, inbox: inbox.clone(), feed: None, has_more_to_sweep: false }.run();
                ending.0.end("it is closed");
            }
            Err(error) => drop(ready.send(Err(error_of(&error)))),
        }
    };
    thread.spawn(run).map_err(|e| StoreError::Broken(format!("no thread for the store: {e}")))?;
    opened.recv().unwrap_or_else(|_| Err(StoreError::Broken("the store's thread died at its start".into())))
}

/// Tells the inbox that the thread is gone, however it went. The first word counts.
struct Ending(Arc<Inbox>);

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the store's thread has panicked; nothing can be stored or read until a restart");
        }
        self.0.end("its thread has ended by a fault; restart the hub");
    }
}

struct Writer<'c> {
    log: Log<'c>,
    dead: DeadTable<'c>,
    clock: Clock,
    inbox: Arc<Inbox>,
    feed: Option<Arc<Outlet>>,
    has_more_to_sweep: bool,
}

impl Writer<'_> {
    fn run(&mut self) {
        let mut swept = Instant::now();
        loop {
            let wait = if self.has_more_to_sweep { Duration::ZERO } else { SWEEP_EVERY };
            let feed = self.feed.clone();
            let turn = self.inbox.next(wait, || feed.as_ref().is_some_and(|f| f.is_full()));
            if turn.is_over {
                break;
            }
            if let Some(feed) = turn.feed {
                self.log.watched.clear();
                if let Some(before) = self.feed.replace(feed) {
                    before.end();
                }
            }
            self.watch(turn.watches);
            match turn.job {
                Some(Job::Appends(calls)) => self.append(calls),
                Some(Job::Other(call)) => self.answer(call),
                None => {}
            }
            if self.has_more_to_sweep || swept.elapsed() >= SWEEP_EVERY {
                self.sweep();
                swept = Instant::now();
            }
        }
    }

    fn watch(&mut self, wishes: Vec<(Topic, bool)>) {
        let mut events = Vec::new();
        for (topic, is_wanted) in wishes {
            if is_wanted {
                self.log.watched.insert(topic.clone());
                events.push(FeedEvent::Watching(topic));
            } else {
                self.log.watched.remove(&topic);
            }
        }
        if let Some(feed) = &self.feed
            && !events.is_empty()
        {
            feed.push(events);
        }
    }

    fn append(&mut self, calls: Vec<AppendCall>) {
        let answers = self.in_transaction(|log, clock| {
            let mut answers = Vec::with_capacity(calls.len());
            for call in &calls {
                let now = clock();
                let mut results = Vec::with_capacity(call.batch.len());
                let mut held = Held::default();
                for item in &call.batch {
                    results.push(match held.check(item).and_then(|()| log.append(item, now)) {
                        Ok(appended) => Ok(appended),
                        Err(Failure::Refused(error)) => {
                            held.note(item, &error);
                            Err(error)
                        }
                        Err(Failure::Sql(error)) => return Err(error),
                    });
                }
                answers.push(results);
            }
            Ok(answers)
        });
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                for call in calls {
                    Call::Append(call).refuse(error.clone());
                }
                return;
            }
        };
        let (mut events, mut replies) = (Vec::new(), Vec::with_capacity(answers.len()));
        for (AppendCall { batch, reply }, answers) in calls.into_iter().zip(answers) {
            if self.feed.is_some() && !self.log.watched.is_empty() {
                let stored = batch.into_iter().zip(&answers).filter_map(|(item, answer)| self.to_feed(item, answer));
                events.extend(stored);
            }
            replies.push((reply, answers));
        }
        // Fed before it is answered: whoever has an answer knows that the message is on its way.
        if let Some(feed) = &self.feed
            && !events.is_empty()
        {
            feed.push(events);
        }
        for (reply, answers) in replies {
            drop(reply.send(answers));
        }
    }

    fn to_feed(&self, item: Append, answer: &Result<Appended, StoreError>) -> Option<FeedEvent> {
        let Ok(Appended::Stored { at, time }) = *answer else { return None };
        let publication = item.publication;
        self.log.watched.contains(&publication.topic).then(|| {
            let expires = publication.ttl.map(|ttl| time.saturating_add(millis(ttl)));
            FeedEvent::Message(Message { topic: publication.topic, at, time, expires, body: publication.body })
        })
    }

    fn answer(&mut self, call: Call) {
        match call {
            Call::Append(call) => self.append(vec![call]),
            Call::Dead(call) => self.dead.answer(call),
            Call::Read { topic, from, limit, reply } => {
                let now = (self.clock)();
                let read = |log: &mut Log| match log.read(&topic, from, limit, now) {
                    Ok(page) => Ok(Ok(page)),
                    Err(Failure::Refused(error)) => Ok(Err(error)),
                    Err(Failure::Sql(error)) => Err(error),
                };
                // Only the beginning of a life writes something.
                let page = if self.log.knows(&topic, now) {
                    read(&mut self.log).map_err(|e| error_of(&e))
                } else {
                    self.in_transaction(|log, _| read(log))
                };
                drop(reply.send(page.and_then(|page| page)));
            }
        }
    }

    fn sweep(&mut self) {
        let more = self.in_transaction(|log, clock| log.sweep(clock()));
        self.has_more_to_sweep = more.unwrap_or(false);
    }

    fn in_transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Log, &Clock) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let done = self.log.tables.begin().and_then(|()| {
            let done = work(&mut self.log, &self.clock)?;
            self.log.tables.commit()?;
            Ok(done)
        });
        match done {
            Ok(done) => {
                if self.inbox.trouble().is_some() {
                    self.inbox.set_trouble(None);
                }
                Ok(done)
            }
            Err(error) => {
                let error = error_of(&error);
                tracing::error!(%error, "a transaction of the store failed and is undone");
                self.inbox.set_trouble(Some(error.to_string()));
                // Without this we would go on with what never happened.
                let undone = self.log.tables.roll_back().and_then(|()| self.log.rebuild());
                undone.unwrap_or_else(|e| panic!("the store cannot undo a failed transaction: {e}"));
                Err(error)
            }
        }
    }
}

/// The topics and sources of which a fenced item of a batch failed, and how: later ones of them must not be stored.
#[derive(Default)]
struct Held<'b>(HashMap<(&'b Topic, &'b str), StoreError>);

impl<'b> Held<'b> {
    fn check(&self, item: &Append) -> Result<(), Failure> {
        match &item.fence {
            Some(fence) if !self.0.is_empty() => match self.0.get(&(&item.publication.topic, &*fence.source)) {
                Some(error) => Err(error.clone().into()),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn note(&mut self, item: &'b Append, error: &StoreError) {
        let passes = !matches!(error, StoreError::Conflict { .. } | StoreError::Durability { .. });
        if let Some(fence) = item.fence.as_ref().filter(|_| passes) {
            self.0.insert((&item.publication.topic, &fence.source), error.clone());
        }
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if let Some(feed) = self.feed.take() {
            feed.end();
        }
    }
}

pub fn error_of(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull | ErrorCode::OutOfMemory) => StoreError::Full(error.to_string()),
        _ => StoreError::Broken(error.to_string()),
    }
}
