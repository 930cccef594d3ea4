//! Calls that somebody else has written: commands for keys of one slot, whose answers go back as they came.
//!
//! They wait in the same queue as appends, reads and cursors, and go over the same connections. Whoever made one decodes
//! its answer, and asks for the proof of a level by itself once it knows that something was stored.

use std::sync::Arc;

use redis::{Cmd, Value};
use tokio::sync::oneshot;

use super::queue::Weight;
use super::scripts::refusal;
use super::witness::{Proof, Question};
use crate::domain::message::Durability;
use crate::domain::store::StoreError;

/// Lanes of slots are numbered behind those of groups of topics.
const FIRST_LANE: u32 = 1 << 16;

pub(super) struct ForeignCall {
    pub command: Cmd,
    /// The slot of all its keys.
    pub slot: u16,
    /// Announced as asking: to a server of a cluster that has the keys already and the slot not yet.
    pub asking: bool,
    pub answer: oneshot::Sender<Told>,
    pub weight: Weight,
}

pub(super) type Told = Result<Answered, StoreError>;

/// What a server answered, which may be no error.
pub(super) struct Answered {
    pub value: Value,
    /// The life that the server was in, and what every write has there.
    pub life: Arc<str>,
    pub writes: Durability,
}

/// Asks whether something that was stored in a life has a level.
pub(super) struct Doubt {
    pub question: Question,
    /// Written before the question; it has the slot of what was stored.
    pub key: String,
    pub slot: u16,
    pub answer: oneshot::Sender<Proof>,
}

impl ForeignCall {
    /// The lane in which it must not be overtaken.
    pub fn lane(&self) -> u32 {
        lane_of(self.slot)
    }
}

pub(super) fn lane_of(slot: u16) -> u32 {
    FIRST_LANE + u32::from(slot)
}

/// Hands an answer of Redis on.
pub(super) fn settle(answer: oneshot::Sender<Told>, value: Value, life: &Arc<str>, writes: Durability) {
    let told = match value {
        Value::ServerError(error) => Err(refusal(&format!("{} {}", error.code(), error.details().unwrap_or_default()))),
        value => Ok(Answered { value, life: life.clone(), writes }),
    };
    // Whoever asked may have gone; it was carried out all the same.
    let _ = answer.send(told);
}
