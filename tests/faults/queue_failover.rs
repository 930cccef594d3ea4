//! F5 and F6 on queues: another server becomes the master of a queue, and what its replica had not received is gone. Jobs that
//! were put at level `replica` are not lost; where that is the store's own level, neither is anything else that was answered.
//! At level `memory` what was done since the line to the replica was cut may be undone, and nothing before it or after.

use std::time::{Duration, Instant};

use tokio::task::block_in_place;

use crate::cluster::{Cluster, MASTERS};
use crate::fleet::Fleet;
use crate::form::{Running, begin, is_long, pick};
use crate::node::client;
use crate::scene::SOON;
use crate::sentinel::{DOWN_AFTER, Replicated};
use crate::workshop::{Crew, Done, QUEUES, Workshop};

/// So soon is the service back after the sentinels have to notice.
const BACK: Duration = DOWN_AFTER.saturating_add(Duration::from_secs(10));
/// Longer than anything is on its way to a replica.
const ON_ITS_WAY: Duration = Duration::from_millis(500);
/// After how much silence of a master its replica takes over.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);
const PARTIAL: &[&str] = &["--cluster-require-full-coverage", "no"];
/// How long a slot is half moved.
const HALF_WAY: Duration = Duration::from_millis(100);
const LASTING: &[&str] = &["--durability", "replica"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_behind_a_cut_line_undoes_of_queues_only_what_was_promised_no_better() {
    let running = begin("F5 queues: failover, level memory").await;
    let done = fail_over(&running, &[]).await;
    assert!(done.figures.lost > 0, "the failover lost nothing: {:?}", done.figures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_behind_a_cut_line_undoes_nothing_of_queues_whose_level_is_replica() {
    // The short form has this with a Cluster.
    if !is_long() {
        return;
    }
    let running = begin("F5 queues: failover, level replica").await;
    let done = fail_over(&running, LASTING).await;
    assert_eq!((done.figures.lost, done.figures.undone), (0, 0));
}

/// Cuts the master off from its replica and the sentinels while hubs still reach it, again and again.
async fn fail_over(running: &Running, settings: &[&str]) -> Done {
    let is_lasting = !settings.is_empty();
    let set = block_in_place(|| Replicated::start(1, &["--appendonly", "yes"]));
    let fleet = Fleet::start(2, &set.url(), settings);
    let mut workshop = Workshop::open(fleet.addresses.clone(), Crew { careful: true, ..Crew::default() }).await;
    for turn in 0..pick(1, 4) {
        let master = block_in_place(|| set.master());
        let from = workshop.clock.now().saturating_sub(ON_ITS_WAY);
        set.servers[master].isolate();
        let cut = Instant::now();
        block_in_place(|| set.until_not(master));
        let promoted = cut.elapsed();
        // The new master has no replica that could confirm anything until the old one is reached again.
        if !is_lasting {
            for producer in workshop.producers.iter_mut().filter(|producer| !producer.name.starts_with("careful")) {
                producer.until_more(10, SOON).await;
            }
            let back = cut.elapsed();
            running.tell(format_args!("failover {turn}: promoted after {promoted:.1?}, all put on after {back:.1?}"));
            assert!(back < BACK, "{back:?}");
            workshop.undone.push((from, workshop.clock.now()));
        }
        set.servers[master].heal();
        block_in_place(|| set.until_replica(master));
        workshop.flow(10).await;
        running.tell(format_args!("failover {turn}: all go on {:.1?} after the cut", cut.elapsed()));
    }
    workshop.close(running).await
}

struct Stage {
    cluster: Cluster,
    fleet: Fleet,
    workshop: Workshop,
}

impl Stage {
    async fn open(settings: &[&str]) -> Stage {
        let cluster = block_in_place(|| Cluster::start_with(NODE_TIMEOUT, PARTIAL));
        let fleet = Fleet::start(3, &cluster.url(), settings);
        let workshop = Workshop::open(fleet.addresses.clone(), Crew { careful: true, ..Crew::default() }).await;
        Stage { cluster, fleet, workshop }
    }

    fn slot_of(&self, queue: &str) -> u16 {
        self.cluster.slot_of(&format!("fanfare:{{q:{queue}}}:ready"))
    }

    /// Moves slots with queues in them from master to master, one after the other.
    async fn move_slots(&mut self, rounds: usize) {
        for round in 0..rounds {
            let slot = self.slot_of(QUEUES[round % QUEUES.len()].0);
            let to = (self.cluster.owner(slot) + 1 + round % 2) % MASTERS;
            block_in_place(|| self.cluster.move_slot(slot, to, || std::thread::sleep(HALF_WAY)));
            self.workshop.flow(3).await;
        }
        assert!(self.cluster.errors("MOVED") > 0, "nobody met a slot that had moved");
    }

    /// Kills the master of a queue whose replica is cut off, and starts it again as a replica once that one has taken over.
    async fn kill(&mut self, queue: &str, cut_for: Duration) {
        let slot = self.slot_of(queue);
        let master = self.cluster.owner(slot);
        let from = self.workshop.clock.now().saturating_sub(ON_ITS_WAY);
        block_in_place(|| self.cluster.cut_replicas_off(master));
        // How long the replica lacks what is written is the fault itself.
        tokio::time::sleep(cut_for).await;
        block_in_place(|| self.cluster.servers[master].kill());
        self.workshop.undone.push((from, self.workshop.clock.now()));
        block_in_place(|| {
            assert_ne!(self.cluster.until_taken_over(master, slot), master);
            self.cluster.servers[master].restart_like_others();
            self.cluster.until_whole();
        });
        self.workshop.flow(10).await;
        for node in &self.fleet.running {
            let ready = async {
                while crate::node::ready(&client(), node.http).await.0 != 200 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(SOON, ready).await.expect("a node is ready again");
        }
    }

    async fn close(self, running: &Running) -> Done {
        let (crossing, moved) = (self.cluster.cross_slot_errors(), self.cluster.errors("MOVED"));
        running.tell(format_args!("{crossing} CROSSSLOT, {moved} MOVED, {} ASK", self.cluster.errors("ASK")));
        assert_eq!(crossing, 0);
        self.workshop.close(running).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_and_a_killed_master_undo_of_queues_only_what_was_promised_no_better() {
    // The short form has this with sentinels.
    if !is_long() {
        return;
    }
    let running = begin("F6 queues: slots move, a master killed, level memory").await;
    let mut stage = Stage::open(&[]).await;
    stage.move_slots(10).await;
    for _ in 0..4 {
        stage.kill("jobs", Duration::from_secs(2)).await;
    }
    let done = stage.close(&running).await;
    assert!(done.figures.lost + done.figures.undone > 0, "the cut must have cost something: {:?}", done.figures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_and_a_killed_master_undo_nothing_of_queues_whose_level_is_replica() {
    let running = begin("F6 queues: slots move, a master killed, level replica").await;
    let mut stage = Stage::open(LASTING).await;
    stage.move_slots(pick(2, 40)).await;
    for _ in 0..pick(1, 4) {
        stage.kill("jobs", pick(Duration::from_secs(1), Duration::from_secs(10))).await;
    }
    // Nothing of it was answered.
    stage.workshop.undone.clear();
    let done = stage.close(&running).await;
    assert_eq!((done.figures.lost, done.figures.undone), (0, 0));
}
