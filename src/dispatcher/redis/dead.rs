//! The dead letters of all partitions of one Redis. Each partition keeps its own, in its slot; here they are one list.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use redis::cmd;

use super::Shared;
use super::keys::{Kind, Partition};
use crate::dispatcher::{SourceError, parse_id, write_id};
use crate::domain::dead::{DeadLetter, DeadLetters, Notice};
use crate::domain::error::Reason;
use crate::domain::store::{EntryId, StoreError};

/// Fields of ours before the fields of the entry: source, entry, reason, text; names and values.
const HEAD: usize = 8;

/// A letter's id is `<id in its stream>@<source>`.
pub struct RedisDead {
    shared: Arc<Shared>,
}

/// Where a letter stands among all: by its id, then by its partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    id: EntryId,
    partition: usize,
}

impl RedisDead {
    pub(in crate::dispatcher) fn new(shared: Arc<Shared>) -> RedisDead {
        RedisDead { shared }
    }

    fn place(&self, letter: &str) -> Option<Place> {
        let (id, source) = letter.split_once('@')?;
        let partition = self.shared.partitions.iter().position(|p| p.name == source)?;
        Some(Place { id: parse_id(id)?, partition })
    }
}

impl DeadLetters for RedisDead {
    fn capacity(&self) -> usize {
        self.shared.options.dead_letters * self.shared.partitions.len()
    }

    fn notices(&self) -> BoxFuture<'static, Result<Vec<Notice>, StoreError>> {
        let shared = self.shared.clone();
        async move { super::foreign::notices(&shared).await }.boxed()
    }

    fn list(&self, after: Option<&str>, limit: usize) -> BoxFuture<'static, Result<Vec<DeadLetter>, StoreError>> {
        let shared = self.shared.clone();
        let place = match after.map(|letter| self.place(letter)) {
            None => None,
            Some(Some(place)) => Some(place),
            // Nothing comes after a letter that cannot be.
            Some(None) => return async { Ok(Vec::new()) }.boxed(),
        };
        async move {
            let mut found: Vec<(Place, DeadLetter)> = Vec::new();
            for (number, partition) in shared.partitions.iter().enumerate() {
                let from = match place {
                    None => "-".to_owned(),
                    Some(Place { id, partition }) if number > partition => write_id(id),
                    Some(Place { id, .. }) => format!("({}", write_id(id)),
                };
                let mut range = cmd("XRANGE");
                range.arg(&partition.dead).arg(from).arg("+").arg("COUNT").arg(limit);
                let letters: Vec<(String, Vec<Vec<u8>>)> = shared.ask(&partition.dead, &range).await?;
                found.extend(letters.into_iter().filter_map(|(id, fields)| {
                    let place = Place { id: parse_id(&id)?, partition: number };
                    Some((place, read_letter(place.id, partition, fields)?))
                }));
            }
            found.sort_by_key(|(place, _)| *place);
            found.truncate(limit);
            Ok(found.into_iter().map(|(_, letter)| letter).collect())
        }
        .boxed()
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        let shared = self.shared.clone();
        async move {
            let mut sum = 0;
            for partition in &shared.partitions {
                sum += shared.ask::<u64>(&partition.dead, cmd("XLEN").arg(&partition.dead)).await?;
            }
            Ok(sum)
        }
        .boxed()
    }

    fn retry(&self, id: &str) -> BoxFuture<'static, Result<bool, StoreError>> {
        let Some(place) = self.place(id) else { return async { Ok(false) }.boxed() };
        let shared = self.shared.clone();
        async move {
            let partition = &shared.partitions[place.partition];
            let mut call = shared.scripts.retry.key(&partition.dead);
            call.key(&partition.name).arg(write_id(place.id));
            call.arg(if partition.kind == Kind::List { "list" } else { "stream" });
            match shared.link.run::<i64>(&partition.dead, &call).await.map_err(store_error)? {
                0 => Ok(false),
                1 => Ok(true),
                _ => Err(StoreError::Broken("this letter kept no fields to be retried with; drop it".to_owned())),
            }
        }
        .boxed()
    }

    fn discard(&self, id: &str) -> BoxFuture<'static, Result<bool, StoreError>> {
        let Some(place) = self.place(id) else { return async { Ok(false) }.boxed() };
        let shared = self.shared.clone();
        async move {
            let mut delete = cmd("XDEL");
            let dead = &shared.partitions[place.partition].dead;
            delete.arg(dead).arg(write_id(place.id));
            Ok(shared.ask::<u64>(dead, &delete).await? == 1)
        }
        .boxed()
    }
}

impl Shared {
    /// Sends one command; `key` is one of its keys.
    pub(super) async fn ask<T: redis::FromRedisValue>(
        &self,
        key: impl AsRef<[u8]>,
        command: &redis::Cmd,
    ) -> Result<T, StoreError> {
        self.link.ask(key, command, std::time::Duration::ZERO).await.map_err(store_error)
    }
}

fn store_error(error: SourceError) -> StoreError {
    match error {
        SourceError::Unreachable(text) => StoreError::Unavailable(text),
        SourceError::Full => StoreError::Full(error.to_string()),
        other => StoreError::Broken(other.to_string()),
    }
}

fn read_letter(id: EntryId, partition: &Partition, fields: Vec<Vec<u8>>) -> Option<DeadLetter> {
    let text = |at: usize| fields.get(at).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Some(DeadLetter {
        id: format!("{}@{}", write_id(id), partition.name),
        source: text(1)?,
        entry: text(3)?,
        time: id.ms,
        reason: Reason::parse(&text(5)?).unwrap_or(Reason::Internal),
        text: text(7)?,
        fields: fields.get(HEAD..)?.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect(),
    })
}
