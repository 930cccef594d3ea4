//! Dead letters: ingest entries that could not be used, kept with their reason until someone decides.

use futures::future::BoxFuture;
use futures::stream::BoxStream;

use super::error::Reason;
use super::store::StoreError;

/// An entry that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names the letter in its store, opaque.
    pub id: String,
    /// The source and partition it came from, like `fanfare:in`.
    pub source: String,
    /// Its id there.
    pub entry: String,
    /// When it was put aside, milliseconds since 1970.
    pub time: u64,
    pub reason: Reason,
    /// What was wrong and what it should have been.
    pub text: String,
    /// The entry as it came: its fields in order, bytes untouched. An entry of the list has one field, `document`.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Something that is not an entry, but that whoever looks at dead letters must know: entries that went before they
/// were read, or a publisher that writes next to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub source: String,
    /// What was seen and what to change.
    pub text: String,
    /// When it was seen last, milliseconds since 1970.
    pub time: u64,
}

/// Where dead letters are kept. Bounded: the oldest go when more than `capacity` are kept, and that is counted.
pub trait DeadLetters: Send + Sync + 'static {
    fn capacity(&self) -> usize;

    /// Oldest first, starting after a letter's id.
    fn list(&self, after: Option<&str>, limit: usize) -> BoxFuture<'static, Result<Vec<DeadLetter>, StoreError>>;

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>>;

    /// What else is to be known of the sources. Where nothing can be, there is nothing.
    fn notices(&self) -> BoxFuture<'static, Result<Vec<Notice>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Puts a letter back at the end of its source, in one step, so that it is read again. `false`: there is no such letter.
    fn retry(&self, id: &str) -> BoxFuture<'static, Result<bool, StoreError>>;

    /// Removes a letter for good. `false`: there is no such letter.
    fn discard(&self, id: &str) -> BoxFuture<'static, Result<bool, StoreError>>;
}

/// What a source needs that keeps no entries of its own, like the hub's Redis-protocol door: a place for what it could
/// not use, and the way back. A retried letter stays in its store until the source says that it is settled, so a crash
/// between the two loses nothing: it comes again.
pub trait DeadLetterBox: DeadLetters {
    /// Keeps a letter and answers the id it got; the id that it carries is not looked at.
    fn bury(&self, letter: DeadLetter) -> BoxFuture<'static, Result<String, StoreError>>;

    /// The letters that `retry` sent back and that are not settled, in the order in which they were retried; then
    /// waits for more. Once retried, a letter is neither listed nor counted. A stream that is opened anew begins with
    /// what is not settled yet. Ends when the store closes.
    fn retried(&self) -> BoxStream<'static, DeadLetter>;

    /// Removes a retried letter: its source has applied it, or buried it anew. `false`: there is no such letter.
    fn settle(&self, id: &str) -> BoxFuture<'static, Result<bool, StoreError>>;
}
