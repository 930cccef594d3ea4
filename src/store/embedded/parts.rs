//! What the writer's transactions work with, and what each call does in one. A failure that a call may answer is its
//! outcome; one of the database takes the whole transaction with it.

use std::sync::Arc;

use super::dead_table::{Answer, DeadTable};
use super::held::Held;
use super::inbox::Call;
use super::log::{Failure, Log};
use super::queues::{self, Board, Book};
use super::writer::error_of;
use crate::domain::cursor::CursorError;
use crate::domain::store::{Append, Appended, Page, StoreError};
use crate::store::{Clock, cursors};

/// What a transaction works with.
pub struct Parts<'c> {
    pub log: Log<'c>,
    pub dead: DeadTable<'c>,
    pub book: Book<'c>,
    pub board: Arc<Board>,
    pub clock: Clock,
}

/// What became of a call, to be told when it is committed.
pub enum Outcome {
    Appended(Vec<Result<Appended, StoreError>>),
    Read(Result<Page, StoreError>),
    Cursor(Result<cursors::Answer, CursorError>),
    Dead(Answer),
    Queue(Result<queues::Answer, StoreError>),
}

impl Parts<'_> {
    /// Does what a call asks, within a transaction. An error takes the whole transaction with it.
    pub fn apply(&mut self, call: &Call) -> rusqlite::Result<Outcome> {
        match call {
            Call::Append(call) => self.append(&call.batch).map(Outcome::Appended),
            Call::Cursor(call) => self.log.answer_cursor(&call.ask, self.clock.now()).map(Outcome::Cursor),
            Call::Dead(call) => self.dead.apply(call).map(Outcome::Dead),
            Call::Queue(call) => self.book.apply(&call.ask, &self.clock).map(Outcome::Queue),
            Call::Read { topic, from, limit, .. } => {
                let now = self.clock.now();
                // Only the beginning of a life writes something, which a failure must undo.
                let is_known = self.log.knows(topic, now);
                match self.log.read(topic, *from, *limit, now) {
                    Ok(page) => Ok(Outcome::Read(Ok(page))),
                    Err(Failure::Refused(error)) => Ok(Outcome::Read(Err(error))),
                    Err(Failure::Sql(error)) if is_known => Ok(Outcome::Read(Err(error_of(&error)))),
                    Err(Failure::Sql(error)) => Err(error),
                }
            }
        }
    }

    fn append(&mut self, batch: &[Append]) -> rusqlite::Result<Vec<Result<Appended, StoreError>>> {
        let now = self.clock.now();
        let mut results = Vec::with_capacity(batch.len());
        let mut held = Held::default();
        for item in batch {
            results.push(
                match held
                    .check(item.publication.topic.as_str(), item.fence.as_ref())
                    .and_then(|()| self.log.append(item, now))
                {
                    Ok(appended) => Ok(appended),
                    Err(Failure::Refused(error)) => {
                        held.note(item.publication.topic.as_str(), item.fence.as_ref(), &error);
                        Err(error)
                    }
                    Err(Failure::Sql(error)) => return Err(error),
                },
            );
        }
        Ok(results)
    }
}
