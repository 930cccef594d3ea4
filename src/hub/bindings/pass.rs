//! One pass: from what a queue has of a topic to what the topic has.

use metrics::counter;

use super::{Bindings, Lane};
use crate::domain::message::Message;
use crate::domain::name::Topic;
use crate::domain::position::{Epoch, Position};
use crate::domain::queue::{MOST_AT_ONCE, Mark, OF_TOPIC, Put, Queue};
use crate::domain::store::{EntryId, Fence, GapCause, Page, ReadFrom, ReadLimit, StoreError};
use crate::domain::topic::Mode;
use crate::telemetry;

impl Bindings {
    /// Binds everything that the topic holds. `done` says how far this node was, `first` the first position that somebody
    /// waits for; the answer says how far it is now, also where it failed.
    pub(super) async fn pass(
        &self,
        lane: &Lane,
        mut done: Option<Position>,
        first: Option<Position>,
    ) -> (Option<Position>, Result<(), StoreError>) {
        let covered = self.bind_all(lane, &mut done, first).await;
        (done, covered)
    }

    async fn bind_all(
        &self,
        lane: &Lane,
        done: &mut Option<Position>,
        first: Option<Position>,
    ) -> Result<(), StoreError> {
        // The store's life before anything is read: after a failover what was read here is not put any more.
        let under = self.store.life();
        let source: Box<str> = format!("{OF_TOPIC}{}", lane.topic).into();
        let mut from = self.begin(lane, &source, *done, first).await?;
        loop {
            let page = self.store.read(&lane.topic, from, ReadLimit::default()).await?;
            self.tell_missing(lane, from, &page, done.is_some());
            for messages in page.messages.chunks(MOST_AT_ONCE) {
                let fence = |message: &Message| {
                    let id = EntryId { ms: message.at.offset, seq: 0 };
                    Fence { under: under.clone(), ..Fence::new(source.clone(), message.at.epoch.to_string(), id) }
                };
                let puts: Vec<Put> = messages.iter().filter_map(|m| self.put_of(lane, m, fence(m))).collect();
                if !puts.is_empty() {
                    let answers = self.desk.put(puts).await;
                    answers.into_iter().try_for_each(|answer| judge(&lane.queue, &lane.topic, answer.err()))?;
                }
                *done = messages.last().map(|message| message.at).or(*done);
            }
            *done = Some(page.end);
            if page.is_last() {
                return Ok(());
            }
            from = ReadFrom::After(page.end);
        }
    }

    /// Where a pass begins.
    async fn begin(
        &self,
        lane: &Lane,
        source: &str,
        done: Option<Position>,
        first: Option<Position>,
    ) -> Result<ReadFrom, StoreError> {
        // Nobody else has published in between: the mark says nothing new.
        if let (Some(done), Some(first)) = (done, first)
            && done.next() == first
        {
            return Ok(ReadFrom::After(done));
        }
        let mark = self.desk.keeper().queues.mark(&lane.queue, source).await?.and_then(|mark| position(&mark));
        Ok(match (mark, done) {
            (Some(mark), Some(done)) if mark.epoch == done.epoch => {
                ReadFrom::After(if done.is_past(mark) { done } else { mark })
            }
            (Some(mark), _) => ReadFrom::After(mark),
            (None, Some(done)) => ReadFrom::After(done),
            (None, None) => {
                let opened = self.of_lane(&lane.queue, &lane.topic).map(|opened| opened.since);
                ReadFrom::Since(opened.min().unwrap_or(0))
            }
        })
    }

    fn put_of(&self, lane: &Lane, message: &Message, fence: Fence) -> Option<Put> {
        let binding = self.taker(&lane.queue, &lane.topic, &message.body, message.time)?;
        let body = (self.wording.bound)(&message.body, &lane.topic);
        let left = message.expires.map(|end| std::time::Duration::from_millis(end.saturating_sub(message.time).max(1)));
        let put = Put::new(lane.queue.clone(), body);
        Some(Put { priority: binding.priority, ttl: left, fence: Some(fence), ..put })
    }

    /// History that went before it was bound. A node that has just begun cannot tell what a filter turned away before.
    fn tell_missing(&self, lane: &Lane, from: ReadFrom, page: &Page, was_here: bool) {
        let (ReadFrom::After(after), Some(missing)) = (from, page.missing) else { return };
        let Lane { queue, topic } = lane;
        if missing.why != GapCause::Retention || page.mode == Mode::Latest {
            let why = missing.why.as_str();
            tracing::info!(%queue, %topic, why, "the topic is in another life; what it holds of it is bound");
            return;
        }
        let count = missing.to.map_or(1, |to| to.offset.saturating_sub(after.offset));
        if was_here || self.of_lane(queue, topic).any(|opened| opened.binding.filter.is_empty()) {
            counter!(telemetry::BINDING_MISSED).increment(count);
            tracing::error!(%queue, %topic, count, "history did not keep messages until they were bound; keep more of it");
        } else {
            tracing::info!(%queue, %topic, count, "messages that history no longer has may not have been bound");
        }
    }
}

/// What a put that failed means for its message: one that may be put later is not bound yet, and holds up all behind it; one
/// that can never be a job of this queue is told, and holds up nothing.
pub(super) fn judge(queue: &Queue, topic: &Topic, error: Option<StoreError>) -> Result<(), StoreError> {
    let Some(error) = error else { return Ok(()) };
    if error.passes() {
        return Err(error);
    }
    counter!(telemetry::BINDING_MISSED).increment(1);
    tracing::error!(%queue, %topic, %error, "a message of the topic cannot become a job of the queue");
    Ok(())
}

fn position(mark: &Mark) -> Option<Position> {
    mark.life.parse::<Epoch>().ok().map(|epoch| Position::new(epoch, mark.id.ms))
}
