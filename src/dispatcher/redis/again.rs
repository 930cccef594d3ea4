//! Handing out once more what is kept of a partition: after the store went over to another life, which may have begun
//! without what was stored last.
//!
//! A topic that still has an entry skips it by its fence, so exactly what was lost is applied. That must come before
//! anything newer of the same topic, or the fence would be past it: no entry goes to a store under a life that this was
//! not done for, and the store itself refuses it in the very step that would store it (`Fence::under`).

use std::sync::Arc;

use redis::{FromRedisValue, Value};

use super::source::{RedisSource, parse_entry};
use crate::dispatcher::{Batch, Entry, SourceError, Target};

pub(super) struct Again {
    /// The life of the store that it is done for.
    under: Arc<str>,
    /// The last entry that was applied once more.
    pub after: String,
}

impl Again {
    pub fn new(under: Arc<str>) -> Again {
        Again { under, after: "0-0".into() }
    }
}

/// Whether a life of the source is one of this server: its own id, or with how often its stream began anew.
pub(super) fn is_of(life: &str, server: &str) -> bool {
    life.strip_prefix(server).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

impl RedisSource {
    /// The next entries to be applied once more; `None` if there are none.
    pub(super) async fn next_again(&mut self, most: usize, target: &Target) -> Result<Option<Batch>, SourceError> {
        let Some(again) = &self.again else { return Ok(None) };
        if target.life.as_ref() != Some(&again.under) {
            // Another one yet: from the beginning.
            self.again = None;
            return Ok(None);
        }
        let (shared, partition) = (&self.shared, &self.partition);
        let mut call = shared.scripts.again.key(&partition.stream);
        call.key(&partition.owner).key(&partition.cursor);
        call.arg(&shared.node).arg(&again.after).arg(most);
        call.arg(shared.options.batch_bytes).arg(shared.options.entry_bytes);
        let answer: Vec<Value> = shared.link.run(&partition.stream, &call).await?;
        if answer.len() == 1 {
            self.again = None;
            return Err(SourceError::Lost);
        }
        let wrong = || SourceError::Broken("the ingest script gave an answer that is not understood".to_owned());
        let batch = self.read_again(answer).ok_or_else(wrong)?;
        if !batch.entries.is_empty() {
            return Ok(Some(batch));
        }
        let mut call = shared.scripts.made_up.key(&partition.owner);
        call.key(&partition.cursor).arg(&shared.node).arg(&*again.under);
        let is_ours: u8 = shared.link.run(&partition.stream, &call).await?;
        let done = self.again.take().map(|again| again.under);
        if is_ours != 1 {
            return Err(SourceError::Lost);
        }
        self.made_up = done;
        Ok(None)
    }

    fn read_again(&self, answer: Vec<Value>) -> Option<Batch> {
        let [life, later, entries] = <[Value; 3]>::try_from(answer).ok()?;
        let Value::Array(entries) = entries else { return None };
        let (kind, most) = (self.partition.kind, self.shared.options.entry_bytes);
        let entries: Option<Vec<Entry>> = entries.into_iter().map(|entry| parse_entry(entry, kind, most)).collect();
        Some(Batch {
            life: Some(String::from_redis_value(life).ok()?.into()),
            later: Some(String::from_redis_value(later).ok()?.into()),
            entries: entries?,
        })
    }
}
