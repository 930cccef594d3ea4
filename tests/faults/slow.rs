//! F8: one subscriber of many reads 1 KiB a second of a stream that is a thousand times as fast. What waits for it is
//! bounded, nobody else notices, and when its line is good again it gets all that it missed.

use std::time::Duration;

use crate::checker::Allowed;
use crate::fleet::Fleet;
use crate::form::{begin, pick};
use crate::listener::{Listener, Nodes, Plan};
use crate::node::{client, metric};
use crate::proxy::{Proxy, To, Way};
use crate::publisher::{Door, Publisher};
use crate::scene::{Cast, PROBES, SOON, Scene};

const MIB: u64 = 1 << 20;
/// What the hub may use more while it is slow: the history of the big topic, which is kept in memory here, is most of it.
const GROWTH: u64 = 50 * MIB;
const BIG: usize = 20_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_reads_slowly_costs_the_others_nothing_and_catches_up() {
    let running = begin("F8 a slow subscriber among many").await;
    let crowd = pick(200, 1_000);
    let settings = ["--history-messages", "100000", "--history-bytes", "1GiB", "--outbox", "256KiB", "--ping", "60s"];
    let fleet = Fleet::start(1, "memory", &settings);
    let nodes = fleet.addresses.clone();
    let mut scene = Scene::open(nodes.clone(), Cast { topics: 1, listeners: crowd, share: 1, watches: None }).await;
    scene.publish("small", Door::http(&nodes, 0, SOON), Duration::from_millis(20));
    scene.flow(100).await;
    let calm = scene.clock.now();

    // Its line, and the topic that is too much for it; one beside it reads as fast as it can.
    let line = Proxy::start(fleet.running[0].http);
    scene.topics.push("big".into());
    let plan = || Plan { clock: scene.clock, topics: vec!["big".into()], counted: PROBES, watches: None };
    let slow = Listener::start("slow".into(), 0, Nodes::new([line.address()]), plan());
    let quick = Listener::start("quick".into(), 0, nodes.clone(), plan());
    scene.listeners.extend([quick, slow]);
    scene.until_joined("the slow one is there").await;
    let before = fleet.running[0].memory();
    line.set(To::Client, Way::Throttle(1024));
    for n in 0..4 {
        let door = Door::http(&nodes, 0, SOON).padded(BIG);
        let pace = Duration::from_millis(10);
        let publisher = Publisher::start(scene.clock, format!("big-{n}"), door, vec!["big".into()], pace);
        scene.publishers.push(publisher);
    }
    let begun = scene.clock.now();
    let (client, admin) = (client(), fleet.running[0].admin);
    let (mut most, mut noticed) = (before, None);
    // How long it is slow: the length of the fault.
    while scene.clock.now() < begun + pick(Duration::from_secs(8), Duration::from_secs(40)) || noticed.is_none() {
        assert!(scene.clock.now() < begun + 2 * SOON, "nobody notices that it is slow");
        tokio::time::sleep(Duration::from_millis(100)).await;
        most = most.max(fleet.running[0].memory());
        let behind = metric(&client, admin, "fanfare_fell_behind_total", "").await;
        let cut = metric(&client, admin, "fanfare_closed_total", "4002").await;
        if behind + cut > 0.0 {
            noticed.get_or_insert((scene.clock.now() - begun, cut > 0.0));
        }
    }
    let (noticed, is_cut) = noticed.expect("it was waited for");
    assert!(noticed <= Duration::from_secs(10), "noticed after {noticed:?}");
    let slow = scene.listeners[crowd + 1].progress.borrow().clone();
    let quick = scene.listeners[crowd].progress.borrow().clone();
    running.tell(format_args!(
        "after {noticed:.1?} the slow one {}; it heard {} of {} messages of {BIG} bytes",
        if is_cut { "is cut" } else { "is left behind, to be read on from the store" },
        slow.messages,
        quick.messages
    ));
    assert!(slow.messages * 10 < quick.messages, "it is not slow: {} of {}", slow.messages, quick.messages);
    let kept = quick.messages * BIG as u64;
    let growth = most.saturating_sub(before + kept);
    running.tell(format_args!(
        "memory {} MiB, at most {} MiB more beside {} MiB of history",
        before / MIB,
        growth / MIB,
        kept / MIB
    ));
    assert!(growth < GROWTH, "the node grew by {} MiB", growth / MIB);

    line.heal();
    let run = scene.close(&running, None, Allowed { gaps: &["slow"], ..Allowed::default() }).await;
    let of =
        |from: Duration, to: Duration| run.history.lag_p99(|p| p.mark.by == "small" && (from..to).contains(&p.asked));
    let (calm_p99, beside_p99) = (of(Duration::ZERO, calm), of(begun, Duration::MAX));
    running.tell(format_args!("the others' p99: {calm_p99:.1?} before, {beside_p99:.1?} beside the slow one"));
}
