//! What was put before: de-duplication keys, idempotency keys, and contents that count as keys, each with the job that it
//! stands for and the end of its window. Only a digest of each is kept, so all are of one size.

use std::collections::{BTreeSet, HashMap};

use sha1::{Digest, Sha1};

/// Bytes of a digest that are kept.
pub const KEY: usize = 16;

pub type KeyId = [u8; KEY];

/// A key as a store writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRow {
    pub id: KeyId,
    /// The digest of the content that it was put with, where the content counts.
    pub content: Option<KeyId>,
    pub number: u64,
    pub expires: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    known: HashMap<KeyId, KeyRow>,
    by_time: BTreeSet<(u64, KeyId)>,
}

/// Which name space a key is of.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Idempotency,
    Dedupe,
    Content,
}

pub fn id_of(kind: Kind, key: &[u8]) -> KeyId {
    short(Sha1::new().chain_update([kind as u8]).chain_update(key))
}

pub fn content_of(body: &[u8]) -> KeyId {
    short(Sha1::new().chain_update(body))
}

fn short(digest: Sha1) -> KeyId {
    let whole = digest.finalize();
    let mut id = [0; KEY];
    id.copy_from_slice(&whole[..KEY]);
    id
}

impl Keys {
    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn get(&self, id: &KeyId) -> Option<&KeyRow> {
        self.known.get(id)
    }

    /// What a key stands for, while its window lasts.
    pub fn find(&self, id: &KeyId, now: u64) -> Option<&KeyRow> {
        self.known.get(id).filter(|known| known.expires > now)
    }

    pub fn insert(&mut self, row: KeyRow) {
        if let Some(before) = self.known.insert(row.id, row) {
            self.by_time.remove(&(before.expires, before.id));
        }
        self.by_time.insert((row.expires, row.id));
    }

    /// When the first window ends.
    pub fn first_end(&self) -> Option<u64> {
        self.by_time.first().map(|(expires, _)| *expires)
    }

    /// Forgets a key whose window has ended, if there is one.
    pub fn pop_over(&mut self, now: u64) -> Option<KeyId> {
        let &(expires, id) = self.by_time.first()?;
        if expires > now {
            return None;
        }
        self.by_time.pop_first();
        self.known.remove(&id);
        Some(id)
    }
}
