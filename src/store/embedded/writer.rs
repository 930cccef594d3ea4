//! The one thread that touches the database. It takes the appends that wait, commits them as one transaction (what
//! comes meanwhile makes the next one: no timer), answers, and feeds. Reads are answered here too, in their turn. A
//! transaction that fails is undone whole, and what is known in memory is learnt anew.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::watch;

use super::cursor_table::CursorTable;
use super::dead_table::DeadTable;
use super::disk::{self, Guard, Keep};
use super::feed::Outlet;
use super::inbox::{Call, Inbox};
use super::log::{Bounds, Log, millis};
use super::parts::{Outcome, Parts};
use super::queues::{self, Board, Book};
use super::sweep::SWEEP_ROWS;
use super::tables::{CommitError, Tables};
use crate::domain::cursor::CursorBounds;
use crate::domain::message::{Message, Publication};
use crate::domain::name::Topic;
use crate::domain::store::{Appended, FeedEvent, StoreError};
use crate::store::Clock;

/// How often a store at rest looks for what had its time.
const SWEEP_EVERY: Duration = Duration::from_millis(500);

pub struct Setup {
    pub connection: Connection,
    /// What a store in a file needs beside it.
    pub disk: Option<(Guard, Keep)>,
    pub bounds: Bounds,
    pub cursors: CursorBounds,
    pub queues: queues::Bounds,
    /// Told what takers should look at.
    pub board: Arc<Board>,
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
        let Setup { connection, disk, bounds, cursors, queues, board, dead_letters, retries, clock } = setup;
        let ending = (ending, Silence(board.clone()));
        let (guard, keep) = disk.unzip();
        let is_guarded = guard.is_some();
        let parts = Tables::prepare(&connection, guard).and_then(|tables| {
            let book = Book::open(&connection, is_guarded, queues, clock.steady())?;
            let log = Log::open(tables, CursorTable::prepare(&connection, cursors)?, bounds)?;
            Ok((log, DeadTable::open(&connection, dead_letters, retries)?, book))
        });
        match parts {
            Ok((log, dead, book)) => {
                drop(ready.send(Ok(())));
                let parts = Parts { log, dead, book, board, clock };
                let inbox = inbox.clone();
                let mut writer =
                    Writer { parts, inbox, feed: None, has_more_to_sweep: false, has_failed: false, keep, low: None };
                writer.run();
                writer.close();
                match writer.has_failed {
                    true => ending.0.0.end("a commit failed; restart the hub, which looks at what is stored"),
                    false => ending.0.0.end("it is closed"),
                }
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

/// Tells the board that nothing more will come.
struct Silence(Arc<Board>);

impl Drop for Silence {
    fn drop(&mut self) {
        self.0.end();
    }
}

struct Writer<'c> {
    parts: Parts<'c>,
    inbox: Arc<Inbox>,
    feed: Option<Arc<Outlet>>,
    has_more_to_sweep: bool,
    /// A commit failed in such a way that nobody knows what is stored: nothing more is done.
    has_failed: bool,
    /// What a store in a file needs beside it.
    keep: Option<Keep>,
    /// Why nothing may be stored now.
    low: Option<String>,
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
                self.parts.log.watched.clear();
                if let Some(before) = self.feed.replace(feed) {
                    before.end();
                }
            }
            self.watch(turn.watches);
            if !turn.calls.is_empty() {
                self.work(turn.calls);
            }
            if self.has_failed {
                break;
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
                self.parts.log.watched.insert(topic.clone());
                events.push(FeedEvent::Watching(topic));
            } else {
                self.parts.log.watched.remove(&topic);
            }
        }
        if let Some(feed) = &self.feed
            && !events.is_empty()
        {
            feed.push(events);
        }
    }

    /// Does what was asked in one transaction, feeds what it has stored, and answers.
    fn work(&mut self, mut calls: Vec<Call>) {
        self.look_for_room();
        if let Some(low) = &self.low {
            for call in calls.extract_if(.., |call| call.stores()) {
                call.refuse(StoreError::Full(low.clone()));
            }
        }
        let all = |parts: &mut Parts| calls.iter().map(|call| parts.apply(call)).collect::<rusqlite::Result<Vec<_>>>();
        match self.in_transaction(all) {
            Ok(outcomes) => self.deliver(calls.into_iter().zip(outcomes).collect()),
            Err(error) => {
                for call in calls {
                    self.work_alone(call, &error);
                }
            }
        }
    }

    /// The transaction that this call was part of has failed. What stores messages fails with it; a read or an
    /// acknowledgement may have been well by itself.
    fn work_alone(&mut self, call: Call, error: &StoreError) {
        if self.has_failed || call.stores() {
            return call.refuse(error.clone());
        }
        match self.in_transaction(|parts| parts.apply(&call)) {
            Ok(outcome) => self.deliver(vec![(call, outcome)]),
            Err(error) => call.refuse(error),
        }
    }

    fn deliver(&mut self, done: Vec<(Call, Outcome)>) {
        // Fed before it is answered: whoever has an answer knows that the message is on its way.
        if let Some(feed) = &self.feed
            && !self.parts.log.watched.is_empty()
        {
            let events: Vec<FeedEvent> = done.iter().flat_map(|(call, outcome)| self.to_feed(call, outcome)).collect();
            if !events.is_empty() {
                feed.push(events);
            }
        }
        for (call, outcome) in done {
            // Nobody waits any more where a reply cannot be sent.
            match (call, outcome) {
                (Call::Append(call), Outcome::Appended(answers)) => drop(call.reply.send(answers)),
                (Call::Read { reply, .. }, Outcome::Read(page)) => drop(reply.send(page)),
                (Call::Cursor(call), Outcome::Cursor(answer)) => drop(call.reply.send(answer)),
                (Call::Dead(call), Outcome::Dead(answer)) => call.deliver(answer),
                (Call::Queue(call), Outcome::Queue(answer)) => drop(call.reply.send(answer)),
                _ => unreachable!("each call has its own outcome"),
            }
        }
    }

    fn to_feed<'a>(&'a self, call: &'a Call, outcome: &'a Outcome) -> impl Iterator<Item = FeedEvent> + 'a {
        let both = match (call, outcome) {
            (Call::Append(call), Outcome::Appended(answers)) => Some(call.batch.iter().zip(answers)),
            _ => None,
        };
        both.into_iter().flatten().filter_map(|(item, answer)| {
            let Ok(Appended::Stored { at, time, .. }) = *answer else { return None };
            let Publication { topic, body, ttl, .. } = &item.publication;
            let expires = ttl.map(|ttl| time.saturating_add(millis(ttl)));
            let message = || Message { topic: topic.clone(), at, time, expires, body: body.clone() };
            self.parts.log.watched.contains(topic).then(|| FeedEvent::Message(message()))
        })
    }

    fn sweep(&mut self) {
        let more = self.in_transaction(|parts| {
            let more = parts.log.sweep(parts.clock.now())?;
            Ok(parts.book.sweep(parts.clock.steady())? || more)
        });
        self.has_more_to_sweep = more.unwrap_or(false);
        self.tend();
    }

    /// Looks whether anything may be stored; what was told of it in the status is brought up to date.
    fn look_for_room(&mut self) {
        let Some(keep) = &mut self.keep else { return };
        if self.low.is_none()
            && keep.room.is_tight()
            && let Err(error) = disk::empty_soon(self.parts.log.tables.connection)
        {
            tracing::warn!(%error, "the store's log cannot be emptied");
        }
        let low = keep.room.refusal();
        if low.is_some() != self.low.is_some() {
            match &low {
                Some(low) => tracing::warn!(low, "nothing more is stored"),
                None => tracing::info!("there is room again"),
            }
            self.inbox.set_trouble(low.clone());
        }
        self.low = low;
    }

    /// What a file needs now and then.
    fn tend(&mut self) {
        self.look_for_room();
        let Some(keep) = &mut self.keep else { return };
        keep.room.rest();
        let log = &mut self.parts.log;
        // Where there is hardly any room, what makes room goes in small steps: each of them needs some.
        log.sweep_rows = if self.low.is_some() { SWEEP_ROWS / 20 } else { SWEEP_ROWS };
        if self.low.is_some()
            && let Err(error) = disk::empty(log.tables.connection)
        {
            tracing::debug!(%error, "the log of a full store cannot be emptied now");
        }
        if let Err(error) = disk::give_back(log.tables.connection, self.low.is_some()) {
            tracing::debug!(%error, "no pages are given back now");
        }
        if let Some(guard) = &mut log.tables.guard {
            guard.rest();
        }
    }

    /// Leaves the file with an empty log, and the folder to others.
    fn close(&mut self) {
        let Some(Keep { checkpoints, lock, .. }) = self.keep.take() else { return };
        drop(checkpoints);
        if !self.has_failed
            && let Err(error) = disk::empty(self.parts.log.tables.connection)
        {
            tracing::warn!(%error, "the log stays beside the file; the next start carries it over");
        }
        drop(self.parts.log.tables.guard.take());
        drop(lock);
    }

    fn in_transaction<T>(&mut self, work: impl FnOnce(&mut Parts) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let parts = &mut self.parts;
        let done = parts.log.tables.begin().and_then(|()| work(parts));
        let done = done.and_then(|done| parts.book.seal().map(|()| done)).map_err(CommitError::Undone);
        let done = done.and_then(|done| parts.log.tables.commit().map(|()| done));
        let error = match done {
            Ok(done) => {
                parts.dead.committed();
                parts.book.committed(&parts.board);
                if self.inbox.trouble() != self.low {
                    self.inbox.set_trouble(self.low.clone());
                }
                if let Some(keep) = &mut self.keep {
                    keep.checkpoints.note();
                    if keep.room.log_is_long()
                        && let Err(error) = disk::empty(parts.log.tables.connection)
                    {
                        tracing::warn!(%error, "the store's log is too long and cannot be emptied");
                    }
                }
                return Ok(done);
            }
            Err(error) => error,
        };
        if let CommitError::Unknown(error) = error {
            // What the disk has of it shows at the next opening. Going on would be building on it.
            tracing::error!(%error, "a commit failed and may be stored or not: the store ends; restart the hub");
            self.has_failed = true;
            return Err(StoreError::Unconfirmed(error.to_string()));
        }
        let error = error_of(&error.into());
        if let (Some(keep), StoreError::Full(_)) = (&mut self.keep, &error) {
            keep.room.note_full();
        }
        tracing::error!(%error, "a transaction of the store failed and is undone");
        self.inbox.set_trouble(Some(error.to_string()));
        // Without this we would go on with what never happened.
        let undone = parts.log.tables.roll_back().and_then(|()| parts.log.rebuild()).and_then(|()| parts.dead.undone());
        let undone = undone.and_then(|()| parts.book.undone(parts.clock.steady()));
        undone.unwrap_or_else(|e| panic!("the store cannot undo a failed transaction: {e}"));
        // The room that the ballast was is for the log first: it is in the way of everything else.
        if matches!(error, StoreError::Full(_))
            && self.keep.is_some()
            && let Err(error) = disk::empty_soon(self.parts.log.tables.connection)
        {
            tracing::debug!(%error, "the log of a full store cannot be emptied now");
        }
        Err(error)
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
        Some(ErrorCode::DiskFull) => StoreError::Full(error.to_string()),
        _ => StoreError::Broken(error.to_string()),
    }
}
