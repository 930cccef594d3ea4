//! What one connection subscribes to, from its own side.

use bytes::Bytes;

use super::topics::TopicKey;
use crate::domain::command::RequestId;
use crate::domain::event::CursorUsed;
use crate::domain::replay::{Lag, Replay};
use crate::domain::store::ReadFrom;

/// Few for most connections, at most `Limits::subscriptions`: a list.
#[derive(Debug, Default)]
pub struct Subscriptions {
    list: Vec<Subscription>,
    /// Whether a read of history is under way, for one of them or for a command; the others wait for their turn.
    pub reading: bool,
    next_stay: u64,
    /// Where the search for the next read begins, so that all have their turn.
    turn: usize,
}

#[derive(Debug)]
pub struct Subscription {
    pub topic: TopicKey,
    /// Tells this subscription from an earlier one to the same topic, whose read may still be under way.
    pub stay: u64,
    pub stage: Stage,
}

#[derive(Debug)]
pub enum Stage {
    /// Waits for the stream to be located.
    Waiting { asked: Box<Asked>, since: std::time::Instant },
    /// Catches up from the store.
    Behind(Box<Behind>),
    /// In the topic's list of live subscribers, at this index.
    Live(usize),
}

/// What the client asked, kept until it is answered.
#[derive(Debug, Default)]
pub struct Asked {
    pub id: Option<RequestId>,
    pub from: Option<ReadFrom>,
    /// Set when the store has told it.
    pub cursor: Option<CursorUsed>,
    /// It begins only when the store has told its cursor.
    pub awaits_cursor: bool,
    /// Its cursor begins with it, so there is nothing that it resumes.
    pub begins_cursor: bool,
    pub ignored: Vec<String>,
}

#[derive(Debug)]
pub struct Behind {
    pub asked: Asked,
    pub answered: bool,
    /// Holds live frames, ready to be sent.
    pub replay: Replay<Bytes>,
    /// A read is wanted, and not yet issued.
    pub wanted: bool,
    /// Bytes of a frame that there was no room for: so many must be free first.
    pub needed: usize,
    /// Why it is behind, if it was live before.
    pub lag: Option<Lag>,
}

impl Stage {
    /// What was asked and is not answered yet.
    pub fn unanswered(self) -> Option<Asked> {
        match self {
            Stage::Waiting { asked, .. } => Some(*asked),
            Stage::Behind(behind) if !behind.answered => Some(behind.asked),
            Stage::Behind(_) | Stage::Live(_) => None,
        }
    }
}

impl Subscriptions {
    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn find(&mut self, topic: TopicKey) -> Option<&mut Subscription> {
        self.list.iter_mut().find(|s| s.topic == topic)
    }

    /// Answers the number of this stay.
    pub fn insert(&mut self, topic: TopicKey, stage: Stage) -> u64 {
        debug_assert!(self.list.iter().all(|s| s.topic != topic));
        self.next_stay += 1;
        self.list.push(Subscription { topic, stay: self.next_stay, stage });
        self.next_stay
    }

    pub fn remove(&mut self, topic: TopicKey) -> Option<Subscription> {
        let at = self.list.iter().position(|s| s.topic == topic)?;
        Some(self.list.swap_remove(at))
    }

    /// Another stage, for which a read that is under way is too old.
    pub fn renew(&mut self, topic: TopicKey, stage: Stage) {
        self.next_stay += 1;
        let stay = self.next_stay;
        if let Some(subscription) = self.find(topic) {
            (subscription.stay, subscription.stage) = (stay, stage);
        }
    }

    /// The next one that wants a read for which there is room, in turn.
    pub fn next_wanted(&mut self, has_room: impl Fn(usize) -> bool) -> Option<&mut Subscription> {
        let (count, turn) = (self.list.len(), self.turn);
        let wants = |s: &Subscription| matches!(&s.stage, Stage::Behind(b) if b.wanted && has_room(b.needed));
        let at = (0..count).map(|i| (turn + i) % count).find(|i| wants(&self.list[*i]))?;
        self.turn = at + 1;
        self.list.get_mut(at)
    }

    /// Whether any wants a read.
    pub fn want_reads(&self) -> bool {
        self.list.iter().any(|s| matches!(&s.stage, Stage::Behind(behind) if behind.wanted))
    }

    pub fn topics(&self) -> Vec<TopicKey> {
        self.list.iter().map(|s| s.topic).collect()
    }
}
