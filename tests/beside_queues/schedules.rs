//! Schedules: each run once over all nodes, by a clock that is moved by hand.

use std::sync::Arc;
use std::time::Duration;

use fanfare::domain::queue::*;
use fanfare::domain::schedule::{Cron, Schedule, Target};
use fanfare::hub::Hub;
use fanfare::scheduler::{self, Board, Clock};
use fanfare::store::Options;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Place, drained, history, queue, stats, topic, until};

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

/// A clock on the wall that stands until it is moved. What waits looks at it again at each move.
#[derive(Clone)]
struct Hand(watch::Sender<u64>);

impl Hand {
    fn at(ms: u64) -> Hand {
        Hand(watch::Sender::new(ms))
    }

    fn set(&self, ms: u64) {
        self.0.send_replace(ms);
    }
}

impl Clock for Hand {
    fn now(&self) -> u64 {
        *self.0.borrow()
    }

    fn wait(&self, _: Duration) -> BoxFuture<'static, ()> {
        let (mut moved, before) = (self.0.subscribe(), self.now());
        async move { _ = moved.wait_for(|now| *now != before).await }.boxed()
    }
}

struct Node {
    hub: Hub,
    board: Board,
    running: JoinHandle<()>,
}

impl Node {
    async fn start(place: &Place, schedules: &[Schedule], clock: &Hand) -> Node {
        let hub = place.node().await;
        let (board, run) = scheduler::start(&hub, schedules.to_vec(), Arc::new(clock.clone()));
        let node = Node { hub, board, running: tokio::spawn(run) };
        until("it has read what ran last", || async { node.board.all().iter().all(|seen| seen.next.is_some()) }).await;
        node
    }

    /// Waits until this node knows that a run is done.
    async fn has_run(&self, due: u64) {
        until("a run", || async { self.board.all()[0].last == Some(due) }).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn nightly(catch_up: bool) -> Schedule {
    Schedule {
        name: "nightly".into(),
        cron: Cron::parse("0 2 * * *", "Asia/Seoul").unwrap(),
        target: Target::Queue { queue: queue("jobs"), priority: Priority::new(7).unwrap() },
        data: "{\"report\":\"all\"}".into(),
        catch_up,
    }
}

/// The first time at or after today's beginning at which it is due, by the store's clock: the schedule begins now.
fn begin() -> u64 {
    let now = fanfare::document::now();
    nightly(true).cron.next_after(now).unwrap()
}

#[tokio::test]
async fn each_run_is_one_job_over_three_nodes_and_a_clock_that_goes_back_repeats_none() {
    for place in Place::each(Options::default()).await {
        let due = begin();
        let clock = Hand::at(due - HOUR);
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(Node::start(&place, &[nightly(true)], &clock).await);
        }
        assert_eq!(nodes[0].board.all()[0].next, Some(due));
        for day in 0..5 {
            clock.set(due + day * DAY);
            for node in &nodes {
                node.has_run(due + day * DAY).await;
            }
            clock.set(due + day * DAY - HOUR);
            clock.set(due + day * DAY + 1);
        }
        let seen = stats(&nodes[0].hub, "jobs").await;
        assert_eq!((seen.totals.put, seen.waiting[7]), (5, 5));
        assert_eq!(drained(&nodes[0].hub, "jobs").await, vec!["\"data\":{\"report\":\"all\"}"; 5]);
        let note = history(&nodes[1].hub, "$schedule.nightly").await;
        assert_eq!(note.len(), 1, "the newest note stands");
        assert_eq!(fanfare::document::read_run(&note[0].body), Some(due + 4 * DAY));
    }
}

#[tokio::test]
async fn runs_that_were_missed_while_no_node_was_there_are_made_up_for_by_one() {
    for place in Place::each(Options::default()).await {
        let due = begin();
        let clock = Hand::at(due - HOUR);
        drop(Node::start(&place, &[nightly(true)], &clock).await);
        // Nobody is there for three nights; the last of them is made up for, once, by two nodes that come.
        clock.set(due + 2 * DAY + 5 * HOUR);
        let nodes =
            [Node::start(&place, &[nightly(true)], &clock).await, Node::start(&place, &[nightly(true)], &clock).await];
        for node in &nodes {
            node.has_run(due + 2 * DAY).await;
            until("the next one is known", || async { node.board.all()[0].next == Some(due + 3 * DAY) }).await;
        }
        assert_eq!(stats(&nodes[0].hub, "jobs").await.totals.put, 1);
        drop(nodes);
        // One that does not make up for anything waits for the next.
        clock.set(due + 4 * DAY + 5 * HOUR);
        let node = Node::start(&place, &[nightly(false)], &clock).await;
        until("the next one is known", || async { node.board.all()[0].next == Some(due + 5 * DAY) }).await;
        assert_eq!(stats(&node.hub, "jobs").await.totals.put, 1);
        clock.set(due + 5 * DAY + 30_000);
        node.has_run(due + 5 * DAY).await;
        assert_eq!(stats(&node.hub, "jobs").await.totals.put, 2, "half a minute late is on time");
    }
}

#[tokio::test]
async fn a_schedule_begins_with_its_first_start_and_can_publish_too() {
    for place in Place::each(Options::default()).await {
        let due = begin();
        let clock = Hand::at(due - HOUR);
        let schedule = Schedule { target: Target::Topic(topic("night")), ..nightly(true) };
        let node = Node::start(&place, &[schedule], &clock).await;
        assert_eq!(history(&node.hub, "night").await.len(), 0, "nothing from before it was there is made up for");
        clock.set(due);
        node.has_run(due).await;
        let told = history(&node.hub, "night").await;
        assert_eq!(told.len(), 1);
        assert_eq!(&told[0].body.as_bytes()[..], b"\"data\":{\"report\":\"all\"}");
    }
}
