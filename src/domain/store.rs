//! The contract of a store: what every store promises, and what the conformance suite holds it to.
//!
//! A store keeps the log of each topic and feeds what was stored to the hub. It answers and feeds; it never calls
//! back. Its futures may be awaited on any runtime, and start their work when they are made, not when they are first
//! polled: two calls made one after the other are applied in that order.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;

use super::error::{Problem, Reason};
pub use super::lives::{Kept, Lives, Plan, Standing};
use super::message::{Durability, Message, Publication};
use super::name::Topic;
use super::position::Position;
use super::topic::{Mode, TopicSettings};

pub trait Store: Send + Sync + 'static {
    /// Stores messages, answering one result an item in the same order.
    ///
    /// Order: items of one topic get ascending offsets in the order of the batch, and batches in the order of the
    /// calls. Each item is atomic with its idempotency key and its fence; the batch as a whole is not. An answer
    /// `Ok` tells the level that was proven for that message: at least what was asked for, or else the one that `status`
    /// tells; so does the answer to a repetition. A failure says by its variant whether the message may be stored all
    /// the same; where the level cannot be proven, though it is stored, that is `Unconfirmed`. Stored messages of watched topics go to the feed, after they are stored.
    ///
    /// Fenced items: when one of them fails with a reason that passes (`Unavailable`, `Unconfirmed`, `Full`, `Broken`),
    /// no later item of the same topic and source in the batch is stored, and the fence does not move: they fail too,
    /// or are `Skipped` where the fence was past them before. Whoever feeds fenced entries reads again from the first
    /// that failed; had a later one of its topic been applied, the fence would skip the first for ever. A refusal that
    /// does not pass (`Conflict`, `Durability`, `TooLarge`) holds nothing up.
    fn append(&self, batch: Vec<Append>) -> BoxFuture<'static, Vec<Result<Appended, StoreError>>>;

    /// Reads a page of a topic. A topic that does not exist begins its first life here: its head, `epoch.0`, is a
    /// position that can be resumed from.
    ///
    /// What is kept goes by the topic's settings. Mode `live`: nothing is; positions count all the same, and keys and
    /// fences work. Mode `latest`: the newest message of each key, and the newest of those without one. Settings may be
    /// other ones when a store is opened again: what they do not keep is then missing, and told like what bounds took.
    /// A message is never given out after its time to live.
    fn read(&self, topic: &Topic, from: ReadFrom, limit: ReadLimit) -> BoxFuture<'static, Result<Page, StoreError>>;

    /// Opens the feed. Called once, by the hub; a second call takes the feed away from the first. A feed that is read
    /// too slowly holds a store up or drops messages and says `Interrupted`, as the store likes; it never grows.
    fn feed(&self) -> (Box<dyn Watch>, BoxStream<'static, FeedEvent>);

    /// The life that the store is in, if a life of it may end and take along what was acknowledged: what then may be lost
    /// can be stored again by whoever still has it. `None`: such a thing does not happen here.
    fn life(&self) -> Option<Arc<str>> {
        None
    }

    /// How a topic is kept, by the store's settings; no I/O.
    fn settings(&self, topic: &Topic) -> TopicSettings;

    /// How the store is, from what it knows at this moment; no I/O.
    fn status(&self) -> StoreStatus;

    /// Finishes what was accepted and closes. Calls that come after it fail with `Unavailable`.
    fn close(&self) -> BoxFuture<'static, ()>;
}

/// Chooses which topics the feed carries. Neither method waits.
pub trait Watch: Send + Sync {
    /// Asks for a topic. `FeedEvent::Watching` follows as soon as nothing stored from then on can be missed; while
    /// the store is away that may take as long as it is away.
    fn watch(&self, topic: &Topic);
    fn unwatch(&self, topic: &Topic);
}

/// What comes out of the feed. Messages of one topic come in the order of their offsets, but some may be missing and
/// some may come twice: whoever reads the feed goes by positions, and reads the hole from the store.
#[derive(Debug, Clone)]
pub enum FeedEvent {
    /// Everything of this topic that is stored from now on will be fed. Told again, it says that this topic, and perhaps
    /// no other, was out of the feed for a while: its position must be compared with the store's.
    Watching(Topic),
    Message(Message),
    /// Messages may have been missed, of any topic; what is fed later may follow a hole.
    Interrupted,
    /// The feed is whole again: every watched topic is fed from here on. Positions must be compared with the store's.
    Restored,
}

/// One message to store.
#[derive(Debug, Clone)]
pub struct Append {
    pub publication: Publication,
    /// What makes it safe to apply the same ingest entry twice.
    pub fence: Option<Fence>,
}

/// The mark of an ingest entry. A store applies an entry only if it is past the last one that it applied to this topic
/// from the same source in the same life of that source; it keeps the last one with the topic's record, atomically.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// If told: the life of the store for which everything before this entry was stored again, as far as that was needed.
    /// A store that is in another life refuses the entry with `Unavailable`, or the fence would skip what comes again.
    pub under: Option<Arc<str>>,
    /// Lives of the source that came after `life`, parted by spaces: a mark of one of them is past this one.
    pub later: Option<Arc<str>>,
    /// The source and its partition, like `fanfare:in`. A short name; a topic keeps one mark for each.
    pub source: Box<str>,
    /// The life of the server that the entry's id was drawn on. Marks of another life are not compared.
    pub life: Box<str>,
    pub id: EntryId,
}

impl Fence {
    pub fn new(source: impl Into<Box<str>>, life: impl Into<Box<str>>, id: EntryId) -> Fence {
        Fence { under: None, later: None, source: source.into(), life: life.into(), id }
    }
}

/// The id of an ingest entry, as Redis streams write it: `milliseconds-sequence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    pub ms: u64,
    pub seq: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    Stored {
        at: Position,
        time: u64,
        durability: Durability,
    },
    /// The same publish under the same idempotency key was stored before, here.
    Repeated {
        at: Position,
        durability: Durability,
    },
    /// The fence says that this ingest entry was applied before; it has the level that was asked for.
    Skipped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadFrom {
    /// What follows this position.
    After(Position),
    /// The newest so many messages; 0 asks for the head alone.
    Last(u32),
    /// What was stored at this time or later, by the store's clock: milliseconds since 1970.
    Since(u64),
}

/// How much a page may hold. A page holds at least one message if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReadLimit {
    pub messages: u32,
    pub bytes: usize,
}

impl Default for ReadLimit {
    fn default() -> ReadLimit {
        ReadLimit { messages: 500, bytes: 512 * 1024 }
    }
}

/// A stretch of a topic, all of it accounted for: what lies in (`start`, `end`] is either in `messages` or has
/// expired; in mode `latest` it may also have been replaced, by a message that follows. What lies between what was
/// asked for and `start` is `missing`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The mode of the topic.
    pub mode: Mode,
    /// The position before the first message of the page: the asked-for one unless something is missing.
    pub start: Position,
    /// Oldest first. Where offsets jump, the messages between had a time to live, and it ended; in mode `latest` they
    /// were replaced, save that nothing replaces the newest one: if the last page does not hold it, it has expired.
    pub messages: Vec<Message>,
    /// How far this page tells the topic. Never past the end of the epoch that `start` is in, so a page never
    /// holds messages of two epochs; the next page then begins with `missing`.
    pub end: Position,
    /// The topic's newest position when the page was read. The page is the last one if `end == head`.
    pub head: Position,
    pub missing: Option<Missing>,
}

impl Page {
    pub fn is_last(&self) -> bool {
        self.end == self.head
    }
}

/// What cannot be given of the stretch that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    pub why: GapCause,
    /// The last position that is missing, where it is known.
    pub to: Option<Position>,
}

/// Why messages are not given. The words of `gap` and of `resumed:false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapCause {
    /// The connection read too slowly.
    Slow,
    /// History no longer reaches back so far.
    Retention,
    /// Their time to live ended.
    Expired,
    /// Replaced by newer ones: in mode `latest` nobody misses them, so it is never told.
    Conflated,
    /// The store went over to another life (a restart, a failover); what was stored last before that may be gone.
    Failover,
    /// The position is of a life of the topic, or of a stretch of one, that the store knows nothing of.
    Epoch,
    /// The topic keeps no history.
    Live,
}

impl GapCause {
    pub fn as_str(self) -> &'static str {
        match self {
            GapCause::Slow => "slow",
            GapCause::Retention => "retention",
            GapCause::Expired => "expired",
            GapCause::Conflated => "conflated",
            GapCause::Failover => "failover",
            GapCause::Epoch => "epoch",
            GapCause::Live => "live",
        }
    }
}

/// How many messages of a topic are kept and how long: the settings of a store, the same for every store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    pub messages: u64,
    pub bytes: u64,
    pub age: Duration,
    /// How long an idempotency key is remembered.
    pub idempotency_window: Duration,
    /// How long the record of a topic (its epochs and fences) outlives its messages.
    pub record: Duration,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention {
            messages: 1_000,
            bytes: 16 * 1024 * 1024,
            age: Duration::from_secs(24 * 3600),
            idempotency_window: Duration::from_secs(300),
            record: Duration::from_secs(24 * 3600),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreStatus {
    /// `None` when it works; else what is wrong, for `/readyz` and the log.
    pub trouble: Option<String>,
    /// What an `Ok` of `append` means where nothing was asked for.
    pub durability: Durability,
    /// `memory`, `redis`: for hello lines, metrics and health.
    pub kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Not stored, and the store cannot be reached now.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// It may be stored or not: repeating it with the same idempotency key is safe.
    #[error("it may be stored or not ({0}); repeat it with the same idempotency_key")]
    Unconfirmed(String),
    /// Not stored: no room.
    #[error("the store is full: {0}")]
    Full(String),
    /// Not stored: the idempotency key was used for another message.
    #[error("this idempotency_key was used within the window for other content, stored at {at}")]
    Conflict { at: Position },
    /// Not stored: this store cannot give what was asked. Asking again does not help; asking for less does.
    #[error(
        "durability {:?} was asked for, this store gives {:?}; ask for that or leave durability out",
        asked.as_str(),
        gives.as_str()
    )]
    Durability { asked: Durability, gives: Durability },
    /// Not stored: it is larger than what is asked for can ever hold.
    #[error("{0}")]
    TooLarge(String),
    /// Something is wrong with the store or with us; not stored.
    #[error("{0}")]
    Broken(String),
}

impl StoreError {
    /// Whether the same may succeed later. A refusal that does not pass holds nothing up.
    pub fn passes(&self) -> bool {
        !matches!(self, StoreError::Conflict { .. } | StoreError::Durability { .. } | StoreError::TooLarge(_))
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        let text = error.to_string();
        let wait = Duration::from_secs(1);
        match error {
            StoreError::Unavailable(_) => Problem::new(Reason::Unavailable, text).retry_after(wait),
            StoreError::Unconfirmed(_) => Problem::new(Reason::Unconfirmed, text).retry_after(wait),
            StoreError::Full(_) => Problem::new(Reason::StorageFull, text).retry_after(wait * 5),
            StoreError::Conflict { .. } => Problem::new(Reason::Conflict, text),
            // A reason that does not pass: an ingest entry must not be tried for ever, nor a line be cut over it.
            StoreError::Durability { .. } => Problem::new(Reason::Forbidden, text),
            StoreError::TooLarge(_) => Problem::new(Reason::TooLarge, text),
            StoreError::Broken(_) => Problem::new(Reason::Internal, text),
        }
    }
}
