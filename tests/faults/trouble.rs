//! What goes wrong with nodes, in an order that a seed gives: they are killed with -9 or stalled, and come back while
//! messages flow. Which node works on a partition the lease in Redis tells.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;

use crate::fleet::Fleet;
use crate::form::Running;
use crate::scene::SOURCES;

/// The longest that a partition may be without an owner.
const TAKEN_OVER: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(10);

/// One round of trouble.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// The owner dies, and another is stalled at the same time.
    KillAndStall,
    /// The owner is stalled, its successor dies, the stalled one wakes up and believes that it still owns.
    StallAndKillNext,
    /// The owner is stalled past its lease and wakes up beside its successor.
    Stall,
    /// The owner dies and is back before its lease is over.
    KillShortly,
}

pub struct Faults {
    pub fleet: Fleet,
    redis: MultiplexedConnection,
    pub dice: Dice,
    /// What is still to come until it is shuffled again, so that each kind comes as often.
    deck: Vec<Trouble>,
    /// How long partitions were without an owner that is not the stalled or killed one.
    pub taken_over: Vec<Duration>,
}

impl Faults {
    pub fn new(fleet: Fleet, redis: MultiplexedConnection, dice: Dice) -> Faults {
        Faults { fleet, redis, dice, deck: Vec::new(), taken_over: Vec::new() }
    }

    /// One round of trouble; at its end every node runs.
    pub async fn round(&mut self) {
        let source = SOURCES[self.dice.below(2)];
        let owner = self.owner(source).await;
        let trouble = self.draw();
        eprintln!("{trouble:?}: {source} is {}'s", self.fleet.running[owner].name());
        match trouble {
            Trouble::KillAndStall => {
                let other = self.another(owner);
                self.fleet.kill(owner);
                self.fleet.pause(other);
                self.owner_beside(source, &[owner, other]).await;
                self.dwell(800).await;
                self.fleet.restart(owner);
                self.fleet.resume(other);
            }
            Trouble::StallAndKillNext => {
                self.fleet.pause(owner);
                let next = self.owner_beside(source, &[owner]).await;
                self.dwell(300).await;
                self.fleet.kill(next);
                self.fleet.resume(owner);
                self.dwell(500).await;
                self.fleet.restart(next);
            }
            Trouble::Stall => {
                self.fleet.pause(owner);
                self.owner_beside(source, &[owner]).await;
                self.dwell(800).await;
                self.fleet.resume(owner);
            }
            Trouble::KillShortly => {
                self.fleet.kill(owner);
                self.dwell(300).await;
                self.fleet.restart(owner);
                self.owner(source).await;
            }
        }
    }

    fn draw(&mut self) -> Trouble {
        if self.deck.is_empty() {
            self.deck = vec![Trouble::KillAndStall, Trouble::StallAndKillNext, Trouble::Stall, Trouble::KillShortly];
        }
        self.deck.swap_remove(self.dice.below(self.deck.len()))
    }

    pub fn another(&mut self, node: usize) -> usize {
        (node + 1 + self.dice.below(self.fleet.running.len() - 1)) % self.fleet.running.len()
    }

    /// Which node works on a partition, as the lease in Redis says; waits for one.
    pub async fn owner(&mut self, source: &str) -> usize {
        self.owner_beside(source, &[]).await
    }

    pub async fn owner_beside(&mut self, source: &str, not: &[usize]) -> usize {
        let begun = Instant::now();
        let owner = self.look_for_owner(source, not).await;
        if !not.is_empty() {
            eprintln!("{source} is taken over by {} after {:.1?}", self.fleet.running[owner].name(), begun.elapsed());
            self.taken_over.push(begun.elapsed());
        }
        owner
    }

    async fn look_for_owner(&mut self, source: &str, not: &[usize]) -> usize {
        let looking = async {
            loop {
                let key = format!("{{{source}}}:owner");
                let lease: Option<String> =
                    redis::cmd("GET").arg(key).query_async(&mut self.redis).await.expect("Redis runs");
                // A lease begins with the number of the process that has it.
                let pid = lease.and_then(|lease| lease.split_once('-')?.0.parse::<u32>().ok());
                let owner = self.fleet.running.iter().position(|node| pid.is_some() && node.pid() == pid);
                match owner.filter(|owner| !not.contains(owner)) {
                    Some(owner) => return owner,
                    None => tokio::time::sleep(LOOK).await,
                }
            }
        };
        tokio::time::timeout(TAKEN_OVER, looking).await.unwrap_or_else(|_| panic!("nobody takes {source} over"))
    }

    /// Lets the trouble last for a while, up to so many milliseconds.
    pub async fn dwell(&mut self, most: usize) {
        tokio::time::sleep(Duration::from_millis(self.dice.below(most) as u64)).await;
    }
}

/// Numbers that look random and follow from a seed (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    /// From `SEED`, or anew; told, so that a failure can be run again.
    pub fn roll(running: &Running) -> Dice {
        let anew = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
            now.as_nanos() as u64
        };
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(anew);
        running.tell(format_args!("the order of faults is SEED={seed}"));
        Dice(seed)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}
