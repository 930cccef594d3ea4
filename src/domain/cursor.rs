//! Cursors: places in topics that the store remembers for somebody. The words, the pure rules, and the contract of
//! whoever keeps them.
//!
//! A cursor is (topic, owner, name) → position. It says how far its owner has come with the topic, so a durable
//! subscription, a consumer's offset and "unread since" are all this one thing. It costs nothing while messages are
//! published: it is looked at when somebody uses it.

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;

use super::error::{Problem, Reason};
use super::lives::{Lives, Standing};
use super::name::{NameError, Topic, check};
use super::position::Position;
use super::store::StoreError;

pub const MAX_CURSOR_NAME: usize = 100;

/// The name of a cursor: the grammar of topics, at most 100 bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CursorName(Box<str>);

/// Whose cursors they are: a user's id, or nobody's in particular. Two owners never share a cursor.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Owner(Box<str>);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct CursorKey {
    pub topic: Topic,
    pub owner: Owner,
    pub name: CursorName,
}

/// Where a cursor begins that is not there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum First {
    /// At the head: what is stored from now on is unread.
    #[default]
    Newest,
    /// Before the oldest message that is kept.
    Oldest,
    /// At a position, if the topic knows it; else at the head.
    At(Position),
}

impl First {
    pub fn parse(word: &str) -> Option<First> {
        match word {
            "newest" => Some(First::Newest),
            "oldest" => Some(First::Oldest),
            _ => None,
        }
    }
}

/// Where a cursor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub at: Position,
    /// How many messages were stored after it: unread. Those that retention or their time to live took since are
    /// counted too. Where its life of the topic is no longer known, all that the topic is known to have stored.
    pub lag: u64,
    /// When it was last used, milliseconds since 1970; told with a grain of a sixteenth of what it may be unused.
    pub used: u64,
}

/// What a first use, or a later one, finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    pub placed: Placed,
    /// It was not there, or had been unused for too long: it begins with this use.
    pub created: bool,
}

/// The contract of whoever keeps cursors, a second one beside `Store` and kept by the same.
///
/// Its futures start their work when they are made, and calls about one cursor are applied in that order, also behind
/// appends and reads that were made before. Each call is atomic. What it answers with `Ok` is as durable as what the store
/// writes by itself; no higher level is waited for, since a commit that is lost only lets messages come again. A cursor outlives its messages: it stays until it has been unused for as long as the bounds
/// say, and while it is there the record of its topic (the epochs) stays as well, so that a topic in which nothing
/// happens for long is still resumed with proof.
pub trait Cursors: Send + Sync + 'static {
    /// Uses a cursor; one that is not there is made at this moment, so that nothing stored later can be missed by it.
    /// A topic that does not exist begins its first life.
    fn open(&self, key: &CursorKey, first: First) -> BoxFuture<'static, Result<Opened, CursorError>>;

    /// Moves a cursor forward, backwards only with `rewind`; one that is not there is made. Committing where it stands
    /// changes nothing and succeeds. Only positions that the topic knows are taken.
    fn commit(&self, key: &CursorKey, at: Position, rewind: bool) -> BoxFuture<'static, Result<Placed, CursorError>>;

    /// Looks at a cursor; that does not use it.
    fn find(&self, key: &CursorKey) -> BoxFuture<'static, Result<Option<Placed>, CursorError>>;

    /// Removes a cursor; `false`: it was not there.
    fn remove(&self, key: &CursorKey) -> BoxFuture<'static, Result<bool, CursorError>>;

    /// The cursors of one owner in a topic, in the order of their names' bytes, from the first one behind `after`.
    fn list(
        &self,
        topic: &Topic,
        owner: &Owner,
        after: Option<&CursorName>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<(CursorName, Placed)>, CursorError>>;
}

/// How many cursors are kept and how long: settings, the same for every store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CursorBounds {
    /// Of one owner in one topic.
    pub each: usize,
    /// All together (embedded; on Redis its memory is the bound).
    pub total: u64,
    /// A cursor that was unused for so long is removed, never sooner.
    pub unused: Duration,
}

impl Default for CursorBounds {
    fn default() -> CursorBounds {
        CursorBounds { each: 10_000, total: 1_000_000, unused: Duration::from_secs(30 * 24 * 3600) }
    }
}

impl CursorBounds {
    /// A use is written down only if the one written before is older than this, so that coming back costs no write.
    pub fn grain(&self) -> Duration {
        self.unused / 16
    }

    /// How long after the use that is written down a cursor is over.
    pub fn lifetime(&self) -> Duration {
        self.unused + self.grain()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    #[error("{at} is no position of this topic up to its newest, {head}; commit an `at` that you were given")]
    Unknown { at: Position, head: Position },
    #[error("the cursor stands at {stands}, which is further than {at}; to move it back send \"rewind\":true")]
    Behind { at: Position, stands: Position },
    #[error("one owner has at most {0} cursors in a topic (max_cursors); delete one, or use one that is there")]
    TooMany(usize),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CursorError {
    /// What the store has failed with, if it has.
    pub fn of_store(&self) -> Option<&StoreError> {
        match self {
            CursorError::Store(error) => Some(error),
            _ => None,
        }
    }
}

impl From<CursorError> for Problem {
    fn from(error: CursorError) -> Problem {
        let text = error.to_string();
        match error {
            CursorError::Unknown { .. } | CursorError::Behind { .. } => Problem::new(Reason::Conflict, text),
            CursorError::TooMany(_) => Problem::new(Reason::TooMany, text),
            CursorError::Store(StoreError::Unconfirmed(why)) => {
                let text = format!("the cursor may have moved or not ({why}); send it again, that is safe");
                Problem::new(Reason::Unconfirmed, text).retry_after(Duration::from_secs(1))
            }
            CursorError::Store(error) => error.into(),
        }
    }
}

/// What a topic is at one moment, as far as cursors are concerned.
#[derive(Debug, Clone, Copy)]
pub struct Extent<'a> {
    pub lives: &'a Lives,
    /// The first offset still kept; `head + 1` if none is.
    pub oldest: u64,
    pub head: u64,
}

impl Extent<'_> {
    pub fn head(&self) -> Position {
        Position::new(self.lives.newest(), self.head)
    }

    /// Where a new cursor stands.
    pub fn first(&self, first: First) -> Position {
        match first {
            First::At(at) if self.rank(at).is_some() => at,
            First::Newest | First::At(_) => self.head(),
            First::Oldest => Position::new(self.lives.epoch_of(self.oldest), self.oldest.saturating_sub(1)),
        }
    }

    /// Whether a cursor that stands at `stands` may be moved to `at`.
    pub fn judge(&self, stands: Option<Position>, at: Position, rewind: bool) -> Result<(), CursorError> {
        let rank = self.rank(at).ok_or(CursorError::Unknown { at, head: self.head() })?;
        match stands {
            // Where it stands in a life that is forgotten, any place in one that is known is further on.
            Some(stands) if !rewind && self.rank(stands).is_some_and(|r| r > rank) => {
                Err(CursorError::Behind { at, stands })
            }
            _ => Ok(()),
        }
    }

    pub fn lag(&self, at: Position) -> u64 {
        let known = self.lives.known();
        let from = match known.iter().position(|life| life.0 == at.epoch) {
            // What lay beyond the end of a life is lost; what came after it is not.
            Some(i) => at.offset.min(known.get(i + 1).map_or(self.head, |next| next.1)),
            None => known[0].1,
        };
        self.head.saturating_sub(from)
    }

    /// The order of known positions: the life, then the offset.
    fn rank(&self, at: Position) -> Option<(usize, u64)> {
        let life = self.lives.known().iter().position(|life| life.0 == at.epoch)?;
        (self.lives.standing(at, self.head) != Standing::Unknown).then_some((life, at.offset))
    }
}

impl CursorName {
    pub fn parse(name: &str) -> Result<CursorName, NameError> {
        check(name, MAX_CURSOR_NAME)?;
        Ok(CursorName(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CursorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CursorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl Owner {
    /// Whoever has shown no token.
    pub fn anonymous() -> Owner {
        Owner::default()
    }

    pub fn user(id: &str) -> Owner {
        Owner(id.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::position::Epoch;

    fn at(life: u64, offset: u64) -> Position {
        Position::new(Epoch::from_random(life), offset)
    }

    /// Life 1 holds offsets 1..=10, life 2 holds 11..=20; kept from `oldest` on.
    fn with<T>(oldest: u64, test: impl FnOnce(Extent<'_>) -> T) -> T {
        let lives = Lives::new(vec![(Epoch::from_random(1), 0), (Epoch::from_random(2), 10)]);
        test(Extent { lives: &lives, oldest, head: 20 })
    }

    #[test]
    fn cursors_move_forward_and_back_only_if_told() {
        let head = at(2, 20);
        let unknown = |at| Err(CursorError::Unknown { at, head });
        let behind = |stands, at| Err(CursorError::Behind { at, stands });
        for (stands, to, answer) in [
            (None, at(1, 3), Ok(())),
            (Some(at(1, 3)), at(1, 4), Ok(())),
            (Some(at(1, 3)), at(1, 3), Ok(())),
            (Some(at(1, 3)), at(1, 2), behind(at(1, 3), at(1, 2))),
            // The end of one life and the beginning of the next are two places, in this order.
            (Some(at(1, 10)), at(2, 10), Ok(())),
            (Some(at(2, 10)), at(1, 10), behind(at(2, 10), at(1, 10))),
            (Some(at(2, 11)), at(1, 10), behind(at(2, 11), at(1, 10))),
            (Some(at(9, 99)), at(1, 1), Ok(())),
            (Some(at(1, 12)), at(1, 1), Ok(())),
            (None, at(2, 20), Ok(())),
            (None, at(2, 21), unknown(at(2, 21))),
            (None, at(1, 11), unknown(at(1, 11))),
            (None, at(2, 9), unknown(at(2, 9))),
            (None, at(9, 3), unknown(at(9, 3))),
        ] {
            assert_eq!(with(5, |e| e.judge(stands, to, false)), answer, "{stands:?} {to}");
            let rewound = with(5, |e| e.judge(stands, to, true));
            assert_eq!(rewound.is_ok(), !matches!(answer, Err(CursorError::Unknown { .. })), "{stands:?} {to}");
        }
    }

    #[test]
    fn what_is_unread_is_counted_over_lives() {
        for (stands, lag) in [
            (at(2, 20), 0),
            (at(2, 17), 3),
            (at(2, 10), 10),
            (at(1, 10), 10),
            (at(1, 4), 16),
            // Beyond the end that its life had: lost, and all of the next life is unread.
            (at(1, 13), 10),
            // Of a life that nobody knows: all that is known.
            (at(9, 17), 20),
        ] {
            assert_eq!(with(5, |e| e.lag(stands)), lag, "{stands}");
        }
    }

    #[test]
    fn a_new_cursor_begins_where_it_was_told() {
        for (oldest, first, begins) in [
            (5, First::Newest, at(2, 20)),
            (5, First::Oldest, at(1, 4)),
            (11, First::Oldest, at(2, 10)),
            (15, First::Oldest, at(2, 14)),
            (21, First::Oldest, at(2, 20)),
            (5, First::At(at(1, 7)), at(1, 7)),
            (5, First::At(at(9, 7)), at(2, 20)),
            (5, First::At(at(2, 21)), at(2, 20)),
        ] {
            assert_eq!(with(oldest, |e| e.first(first)), begins, "{oldest} {first:?}");
        }
    }
}
