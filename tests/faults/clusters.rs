//! F6: three hub nodes on a Redis Cluster of three masters with a replica each. Slots with topics in them move from master
//! to master under load; a master is killed, in step with its replica or with the replica cut off. Subscribers are told.

use std::time::Duration;

use crate::checker::{Allowed, Loss, Verdict};
use crate::cluster::{Cluster, MASTERS};
use crate::fleet::Fleet;
use crate::form::{Running, begin, pick};
use crate::node::client;
use crate::publisher::Door;
use crate::scene::{Cast, SOON, Scene};

/// After how much silence of a master its replica takes over.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);
/// Other slots are served while those of one master are not.
const PARTIAL: &[&str] = &["--cluster-require-full-coverage", "no"];
const PACE: Duration = Duration::from_millis(20);
const ENOUGH: u64 = 20;
const TOPICS: usize = 24;
const SHARE: usize = 4;
/// Each move of a slot, and each failover, begins an epoch of its topics.
const TOLD: &[&str] = &["failover", "epoch"];
/// How long a slot is half moved.
const HALF_WAY: Duration = Duration::from_millis(100);

struct Stage {
    cluster: Cluster,
    fleet: Fleet,
    scene: Scene,
}

impl Stage {
    async fn open(settings: &[&str]) -> Stage {
        let cluster = tokio::task::block_in_place(|| Cluster::start_with(NODE_TIMEOUT, PARTIAL));
        let fleet = Fleet::start(3, &cluster.url(), &[&["--history-messages", "100000"], settings].concat());
        let cast = Cast { topics: TOPICS, listeners: 30, share: SHARE, watches: None };
        let mut scene = Scene::open(fleet.addresses.clone(), cast).await;
        for n in 0..3 {
            scene.publish(&format!("http-{n}"), Door::http_with_keys(&fleet.addresses, n, SOON), PACE);
            scene.publish(&format!("ws-{n}"), Door::websocket(&fleet.addresses, n, SOON), PACE);
        }
        scene.flow(ENOUGH).await;
        Stage { cluster, fleet, scene }
    }

    /// The slot of the group of a topic, by the name that `docs/decisions/keys.md` gives its log.
    fn slot_of(&self, topic: &str) -> u16 {
        let group = crc16(topic.as_bytes()) % 256;
        self.cluster.slot_of(&format!("fanfare:{{t{group}}}:log:{topic}"))
    }

    async fn close(self, running: &Running, loss: Loss) -> Verdict {
        let crossing = self.cluster.cross_slot_errors();
        let (moved, ask, again) =
            (self.cluster.errors("MOVED"), self.cluster.errors("ASK"), self.cluster.errors("TRYAGAIN"));
        running.tell(format_args!("{crossing} CROSSSLOT, {moved} MOVED, {ask} ASK, {again} TRYAGAIN"));
        assert_eq!(crossing, 0);
        let allowed = Allowed { loss, gaps: TOLD, anew: TOLD, ..Allowed::default() };
        let run = self.scene.close(running, None, allowed).await;
        drop(self.fleet);
        run.verdict
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_of_a_cluster_that_move_under_load_lose_nothing() {
    let running = begin("F6 slots move").await;
    let mut stage = Stage::open(&[]).await;
    for round in 0..pick(4, 40) {
        let slot = stage.slot_of(&stage.scene.topics[round % TOPICS]);
        let to = (stage.cluster.owner(slot) + 1 + round % 2) % MASTERS;
        tokio::task::block_in_place(|| stage.cluster.move_slot(slot, to, || std::thread::sleep(HALF_WAY)));
        stage.scene.flow(ENOUGH / 4).await;
    }
    assert!(stage.cluster.errors("MOVED") > 0, "nobody met a slot that had moved");
    stage.close(&running, Loss::Nothing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_of_a_cluster_that_is_killed_is_followed_and_what_went_with_it_is_told() {
    let running = begin("F6 master killed, level memory, replica in step").await;
    let stage = Stage::open(&[]).await;
    let master = stage.cluster.owner(stage.slot_of(&stage.scene.topics[0]));
    tokio::task::block_in_place(|| stage.cluster.until_in_step(master));
    let verdict = kill(&running, stage, master).await;
    running.tell(format_args!("{} lost on their way to the replica, and told", verdict.figures.lost));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_with_a_master_whose_replica_was_cut_off_is_told() {
    let running = begin("F6 master killed, level memory, replica cut off").await;
    let mut stage = Stage::open(&[]).await;
    let master = stage.cluster.owner(stage.slot_of(&stage.scene.topics[0]));
    tokio::task::block_in_place(|| stage.cluster.cut_replicas_off(master));
    stage.scene.flow(ENOUGH).await;
    let verdict = kill(&running, stage, master).await;
    assert!(verdict.figures.lost > 0, "the cut must have cost something");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_must_have_is_not_lost_with_a_master_whose_replica_was_cut_off() {
    let running = begin("F6 master killed, level replica, replica cut off").await;
    let stage = Stage::open(&["--durability", "replica"]).await;
    let master = stage.cluster.owner(stage.slot_of(&stage.scene.topics[0]));
    tokio::task::block_in_place(|| stage.cluster.cut_replicas_off(master));
    // How long the replica lacks what is written is the fault itself.
    tokio::time::sleep(pick(Duration::from_secs(2), Duration::from_secs(20))).await;
    let verdict = kill(&running, stage, master).await;
    assert_eq!(verdict.figures.lost, 0);
}

/// Kills a master, and starts it again as a replica once another one has taken over.
async fn kill(running: &Running, mut stage: Stage, master: usize) -> Verdict {
    let slot = stage.slot_of(&stage.scene.topics[0]);
    tokio::task::block_in_place(|| stage.cluster.servers[master].kill());
    let lost_before = stage.scene.clock.now();
    tokio::task::block_in_place(|| {
        assert_ne!(stage.cluster.until_taken_over(master, slot), master);
        stage.cluster.servers[master].restart();
        stage.cluster.until_whole();
    });
    stage.scene.flow(ENOUGH).await;
    for node in &stage.fleet.running {
        let ready = async {
            while crate::node::ready(&client(), node.http).await.0 != 200 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, ready).await.expect("a node is ready again");
    }
    // Messages that were heard and not acknowledged may be gone at any level.
    stage.close(running, Loss::Before(lost_before)).await
}

/// CRC16 (XMODEM), bit by bit.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0u16, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 },
        )
    })
}
