//! Cursors as a connection uses them: a subscription that begins where its cursor stands, and commits. The store keeps
//! the cursors; catching up from their positions is the same as from any other.

use std::rc::Rc;
use std::time::Instant;

use super::connection::Connection;
use super::counters;
use super::shard::Shard;
use super::subscriptions::{Asked, Stage};
use super::topics::TopicKey;
use crate::domain::command::{RequestId, UseCursor};
use crate::domain::cursor::{CursorKey, CursorName, First, Opened};
use crate::domain::error::Problem;
use crate::domain::event::{CursorUsed, Event};
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::domain::store::ReadFrom;
use crate::domain::topic::Mode;

/// A cursor that is to be moved.
pub(super) struct Commit {
    pub id: Option<RequestId>,
    pub topic: Topic,
    pub cursor: CursorName,
    pub at: Position,
    pub rewind: bool,
    pub ignored: Vec<String>,
}

impl Shard {
    /// Subscribes from where a cursor stands, or from the position that was asked for beside it. The subscription takes
    /// its place at once, so that whatever the client says next finds it; it begins when the store has told the cursor.
    pub(super) fn subscribe_from_cursor(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        topic: &Topic,
        asked: Asked,
        cursor: UseCursor,
        now: Instant,
    ) {
        let UseCursor { name, first } = cursor;
        let is_newest = first == First::Newest;
        let opened = self.hub.open_cursor(&key_of(connection, topic, &name), first);
        let (key, stay) = self.subscribe(connection, topic, Asked { awaits_cursor: true, ..asked }, now);
        let (shard, connection) = (self.clone(), connection.clone());
        tokio::task::spawn_local(async move {
            let opened = opened.await;
            shard.on_cursor(&connection, (key, stay), name, is_newest, opened);
        });
    }

    fn on_cursor(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        (key, stay): (TopicKey, u64),
        name: CursorName,
        is_newest: bool,
        opened: Result<Opened, Problem>,
    ) {
        let refused = {
            let mut subscriptions = connection.subscriptions.borrow_mut();
            // Another frame may have taken its place meanwhile, and it was answered then; its topic may be gone.
            let Some(subscription) = subscriptions.find(key).filter(|s| s.stay == stay) else { return };
            let Stage::Waiting { asked, .. } = &mut subscription.stage else { return };
            let mode = self.hub.mode(&self.topics.borrow().entry(key).topic);
            asked.awaits_cursor = false;
            match opened {
                Ok(Opened { placed, created }) => {
                    asked.begins_cursor = created && asked.from.is_none();
                    // A cursor that begins at the head says no more than whoever comes new without one.
                    let comes_new = asked.begins_cursor && is_newest && mode == Mode::Latest;
                    if !comes_new {
                        asked.from.get_or_insert(ReadFrom::After(placed.at));
                    }
                    asked.cursor = Some(CursorUsed { name, lag: placed.lag, created });
                    None
                }
                Err(problem) => Some((asked.id.take(), problem)),
            }
        };
        let now = self.now();
        match refused {
            None => {
                let at = self.topics.borrow().entry(key).at;
                if let Some(at) = at {
                    self.begin(connection, key, at, now);
                }
            }
            Some((id, problem)) => {
                counters::count_refused(connection.door(), problem.reason);
                let topic = self.topics.borrow().entry(key).topic.clone();
                connection.say(&Event::error(id, "sub", &topic, problem), &self.limits, now);
                self.remove(connection, key);
            }
        }
    }

    pub(super) fn commit(self: &Rc<Self>, connection: &Rc<Connection>, commit: Commit) {
        let Commit { id, topic, cursor, at, rewind, ignored } = commit;
        let placed = self.hub.commit(&key_of(connection, &topic, &cursor), at, rewind);
        self.answer_later(connection, async move {
            match placed.await {
                Ok(placed) => Event::Committed { id, topic, cursor, placed, ignored },
                Err(problem) => {
                    counters::count_refused(counters::WEBSOCKET, problem.reason);
                    Event::error(id, "commit", &topic, problem)
                }
            }
        });
    }
}

fn key_of(connection: &Connection, topic: &Topic, name: &CursorName) -> CursorKey {
    let owner = connection.protocol.borrow().session.owner();
    CursorKey { topic: topic.clone(), owner, name: name.clone() }
}
