//! What goes wrong, in an order that a seed gives: the node that works on a partition is killed with -9 or stalled past
//! its lease, another one meets the other fate, and both come back while messages flow.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::streams::StreamRangeReply;

use crate::listener::Nodes;
use crate::node::Node;

/// The longest that a partition may be without an owner.
const TAKEN_OVER: Duration = Duration::from_secs(15);
/// The longest that the nodes may need for what piled up while they were killed and stalled.
const DRAINED: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(10);
const SOURCES: [&str; 2] = ["fanfare:in", "fanfare:list"];

pub struct Faults {
    pub hubs: Vec<Node>,
    pub nodes: Nodes,
    pub redis: MultiplexedConnection,
    pub dice: Dice,
    pub kills: u32,
    pub pauses: u32,
}

impl Faults {
    /// One round of trouble; at its end every node runs.
    pub async fn round(&mut self) {
        let source = SOURCES[self.dice.below(2)];
        let owner = self.owner(source, None).await;
        let kind = self.dice.below(4);
        eprintln!("round: {source} is {}'s; kind {kind}", self.hubs[owner].name());
        match kind {
            // The owner dies, and another is stalled at the same time.
            0 => {
                let other = self.another(owner);
                self.kill(owner);
                self.pause(other);
                let next = self.owner_beside(source, &[owner, other]).await;
                self.dwell(800).await;
                self.restart(owner);
                self.resume(other);
                assert_ne!(next, owner);
            }
            // The owner is stalled, its successor dies, the stalled one wakes up and believes that it still owns.
            1 => {
                self.pause(owner);
                let next = self.owner_beside(source, &[owner]).await;
                self.dwell(300).await;
                self.kill(next);
                self.resume(owner);
                self.dwell(500).await;
                self.restart(next);
            }
            // The owner is stalled past its lease and wakes up beside its successor.
            2 => {
                self.pause(owner);
                self.owner_beside(source, &[owner]).await;
                self.dwell(800).await;
                self.resume(owner);
            }
            // The owner dies and is back before its lease is over.
            _ => {
                self.kill(owner);
                self.dwell(300).await;
                self.restart(owner);
                self.owner(source, None).await;
            }
        }
    }

    fn kill(&mut self, node: usize) {
        self.nodes.set(node, None);
        self.hubs[node].kill();
        self.kills += 1;
    }

    fn restart(&mut self, node: usize) {
        tokio::task::block_in_place(|| self.hubs[node].restart());
        self.nodes.set(node, Some(self.hubs[node].http));
    }

    fn pause(&mut self, node: usize) {
        self.nodes.set(node, None);
        self.hubs[node].pause();
        self.pauses += 1;
    }

    fn resume(&mut self, node: usize) {
        self.hubs[node].resume();
        self.nodes.set(node, Some(self.hubs[node].http));
    }

    fn another(&mut self, node: usize) -> usize {
        (node + 1 + self.dice.below(self.hubs.len() - 1)) % self.hubs.len()
    }

    /// Which node works on a partition, as the lease in Redis says; waits for one.
    pub async fn owner(&mut self, source: &str, not: Option<usize>) -> usize {
        self.owner_beside(source, not.as_slice()).await
    }

    async fn owner_beside(&mut self, source: &str, not: &[usize]) -> usize {
        let looking = async {
            loop {
                let key = format!("{{{source}}}:owner");
                let lease: Option<String> =
                    redis::cmd("GET").arg(key).query_async(&mut self.redis).await.expect("Redis runs");
                // A lease begins with the number of the process that has it.
                let pid = lease.and_then(|lease| lease.split_once('-')?.0.parse::<u32>().ok());
                let owner = self.hubs.iter().position(|hub| pid.is_some() && hub.pid() == pid);
                match owner.filter(|owner| !not.contains(owner)) {
                    Some(owner) => return owner,
                    None => tokio::time::sleep(LOOK).await,
                }
            }
        };
        tokio::time::timeout(TAKEN_OVER, looking).await.unwrap_or_else(|_| panic!("nobody takes {source} over"))
    }

    /// Waits until everything that was published is bridged.
    pub async fn until_drained(&mut self) {
        let looking = async {
            for source in SOURCES {
                while !self.is_drained(source).await {
                    tokio::time::sleep(LOOK).await;
                }
            }
        };
        tokio::time::timeout(DRAINED, looking).await.expect("what was published is bridged in time");
    }

    /// Whether the cursor of a partition stands at its last entry, with nothing waiting to be moved over.
    async fn is_drained(&mut self, source: &str) -> bool {
        let is_list = source == "fanfare:list";
        let stream = if is_list { "{fanfare:list}:in" } else { source };
        let (cursor, waiting, moving, last): (Option<String>, u64, u64, StreamRangeReply) = redis::pipe()
            .cmd("HGET")
            .arg(format!("{{{source}}}:cursor"))
            .arg("at")
            .cmd("LLEN")
            .arg("fanfare:list")
            .cmd("LLEN")
            .arg("{fanfare:list}:wake")
            .cmd("XREVRANGE")
            .arg(stream)
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1)
            .query_async(&mut self.redis)
            .await
            .expect("Redis runs");
        let at_end = last.ids.first().is_some_and(|last| cursor.as_ref() == Some(&last.id));
        at_end && (!is_list || waiting + moving == 0)
    }

    /// Lets the trouble last for a while, up to so many milliseconds.
    async fn dwell(&mut self, most: usize) {
        tokio::time::sleep(Duration::from_millis(self.dice.below(most) as u64)).await;
    }
}

/// Numbers that look random and follow from a seed (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}
