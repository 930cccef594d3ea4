//! Slots that calls of others have, beside those of groups of topics: each gets a lane with its first call.

use super::Router;
use super::lane::Lane;
use crate::store::redis::calls::Doubt;
use crate::store::redis::queue::Job;
use crate::store::redis::witness::Proof;

impl Router {
    /// There are as many lanes as slots at most.
    pub(super) fn lane_of(&mut self, slot: u16) -> usize {
        if let Some(lane) = self.others.get(&slot) {
            return *lane;
        }
        let mut lane = Lane::of(slot);
        lane.home = self.chart.slots().owner(slot).cloned();
        self.lanes.push(lane);
        self.others.insert(slot, self.lanes.len() - 1);
        self.lanes.len() - 1
    }

    /// Hands a question to the server that has the slot now. If that is not the one that stored, the life tells.
    pub(super) fn prove(&self, doubt: Doubt) {
        match self.chart.slots().owner(doubt.slot).and_then(|place| self.nodes.get(place)) {
            Some(node) => node.put(Job::Prove(doubt)),
            None => drop(doubt.answer.send(Proof::none("no server of the cluster has its slot"))),
        }
    }
}
