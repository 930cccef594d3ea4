//! Topics that keep nothing: a hole in their feed is told, since no read can fill it. What is fed while the store is
//! asked where it stands is held, and followed by positions.

use std::time::Duration;

use tokio::sync::mpsc;

use super::{Flow, Running, Stage, Want, give, send, told};
use crate::domain::message::Message;
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::domain::replay::Gap;
use crate::domain::store::GapCause;
use crate::hub::ToShard;

/// Messages of a topic held while the store is asked.
const HELD: usize = 1_024;
/// How long what the store has counted may be on its way.
const SECOND_LOOK: Duration = Duration::from_secs(1);

impl Running {
    /// The next message of a live topic does not follow the last one.
    pub(super) async fn on_hole_of_live(&mut self, message: Message, at: Position) {
        let Some(flow) = self.flows.get_mut(&message.topic) else { return };
        let resume = message.at.before();
        tracing::debug!(topic = %message.topic, %at, fed = %message.at, "a hole in the feed of a live topic");
        flow.at = Some(message.at);
        let wants = told(flow);
        give_live_gap(&self.shards, &wants, &message.topic, at, resume).await;
        give(&self.shards, &wants, resume, message).await;
    }

    /// Nothing is kept that a read could bring. What is held follows, and shows by its positions what was lost. What the
    /// store counts beyond that is on its way; if it has not come by the second look, it was lost as well.
    pub(super) async fn on_nothing_kept(&mut self, topic: Topic, head: Position) {
        let Some(flow) = self.flows.get_mut(&topic) else { return };
        flow.stage = Stage::Flowing;
        let held = std::mem::take(&mut flow.held);
        self.tell_joined(&topic).await;
        for message in held {
            self.on_message(message).await;
        }
        let Some(flow) = self.flows.get_mut(&topic) else { return };
        let (Some(at), false) = (flow.at, flow.reading) else { return };
        let counted = flow.counted.take();
        if flow.doubtful {
            return self.read(topic, Duration::ZERO);
        }
        match counted {
            None if head.is_past(at) => {
                flow.counted = Some(head);
                self.read(topic, SECOND_LOOK);
            }
            Some(counted) if counted.is_past(at) => {
                flow.at = Some(counted);
                let wants = told(flow);
                give_live_gap(&self.shards, &wants, &topic, at, counted).await;
            }
            _ => {}
        }
    }
}

impl Flow {
    /// The oldest go where there are too many: a hole, which is told.
    pub(super) fn hold(&mut self, message: Message) {
        if self.held.len() >= HELD {
            self.held.pop_front();
        }
        self.held.push_back(message);
    }
}

async fn give_live_gap(
    shards: &[mpsc::Sender<ToShard>],
    wants: &[Want],
    topic: &Topic,
    after: Position,
    resume: Position,
) {
    let gap = Gap { after, resume, to: Some(resume), why: GapCause::Live, kept: false };
    for want in wants {
        send(shards, want.shard, ToShard::Gap { topic: topic.clone(), gap }).await;
    }
}
