//! Random calls: the sets agree with the jobs, and what is written makes the same queue again.

use std::time::Duration;

use proptest::prelude::*;

use super::super::{Lent, PutDone, Spot};
use super::scene::*;
use crate::domain::queue::*;

#[derive(Debug, Clone)]
enum Step {
    Put { level: u8, group: Option<u8>, delay: Option<u64>, key: Option<u8>, ttl: Option<u64>, size: usize },
    Take { count: usize },
    Settle { which: usize, how: u8 },
    Pass(u64),
    Redrive,
    Remove(u64),
    Purge(u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let put = (0..10u8, prop::option::of(0..3u8), prop::option::of(0..50u64), prop::option::of(0..6u8))
        .prop_flat_map(|put| (Just(put), prop::option::weighted(0.3, 1..200u64), 0..40usize))
        .prop_map(|((level, group, delay, key), ttl, size)| Step::Put { level, group, delay, key, ttl, size });
    prop_oneof![
        8 => put,
        6 => (0..5usize).prop_map(|count| Step::Take { count }),
        8 => (0..8usize, 0..6u8).prop_map(|(which, how)| Step::Settle { which, how }),
        4 => (0..300u64).prop_map(Step::Pass),
        1 => Just(Step::Redrive),
        1 => (0..40u64).prop_map(Step::Remove),
        1 => (0..12u8).prop_map(Step::Purge),
        1 => Just(Step::Restart),
    ]
}

fn settings() -> impl Strategy<Value = QueueSettings> {
    let on_full = prop_oneof![Just(OnFull::Reject), Just(OnFull::DropOldest), Just(OnFull::DropLowestPriority)];
    let on_dead = prop_oneof![Just(OnDead::Continue), Just(OnDead::Halt)];
    let start = prop::option::of((1..6u64, prop::option::of(1..4u64)).prop_map(|(count, batch)| StartWhen {
        any: vec![Arm::Count(count), Arm::Oldest(Duration::from_millis(count * 30))],
        mode: Start::Gate,
        batch,
        webhook: None,
    }));
    (on_full, on_dead, start, 0..6u64, prop::option::of(2..4u32), 4..30u64).prop_map(
        |(on_full, on_dead, start_when, dead_messages, fair_every, max_messages)| QueueSettings {
            on_full,
            on_dead,
            start_when,
            dead_messages,
            fair_every,
            max_messages,
            lease: ms(100),
            dedupe_window: ms(150),
            backoff: vec![ms(0), ms(40)],
            ..plain()
        },
    )
}

fn run(scene: &mut Scene, held: &mut Vec<Lent>, step: Step) {
    let now = scene.now;
    match step {
        Step::Put { level, group, delay, key, ttl, size } => {
            let due = delay.filter(|_| group.is_none()).map_or(Due::Default, |delay| Due::After(ms(delay)));
            let put = Put {
                priority: Priority::new(level).unwrap(),
                group: group.map(|group| format!("g{group}").into()),
                dedupe: key.map(|key| Dedupe { key: format!("{key}").into(), window: None }),
                ttl: ttl.map(ms),
                due,
                ..job(&"x".repeat(size))
            };
            if let Ok(PutDone::Stored(job)) = scene.try_put(put) {
                assert_eq!(job.number(), scene.machine.header().last);
            }
        }
        Step::Take { count } => held.extend(scene.took(count).lent),
        Step::Settle { which, how } if !held.is_empty() => {
            let which = which % held.len();
            let how = match how {
                0 | 1 => How::Ack,
                2 => How::Nack { delay: None, error: None },
                3 => How::Release,
                4 => How::Term { error: None },
                _ => How::Extend { by: Some(ms(60)) },
            };
            let is_over = !matches!(how, How::Extend { .. });
            let lent = held[which].clone();
            scene.settle(&lent, how);
            if is_over {
                held.swap_remove(which);
            }
        }
        Step::Settle { .. } => {}
        Step::Pass(time) => scene.now += time,
        Step::Redrive => _ = scene.machine.redrive(None, None, 3, now),
        Step::Remove(number) => _ = scene.machine.remove(scene.id(number), now),
        Step::Purge(0) => _ = scene.machine.purge(None, now),
        Step::Purge(1) => _ = scene.machine.purge(Some(Place::InFlight), now),
        Step::Purge(2) => _ = scene.machine.purge(Some(Place::Ready), now),
        Step::Purge(_) => _ = scene.sweep(),
        Step::Restart => scene.restart(),
    }
    scene.write();
}

/// The sums and the orders are those of the jobs, the rows are what is written, each group has one head.
fn check(scene: &Scene) {
    let machine = &scene.machine;
    let all: Vec<_> = machine.index.iter().map(|(number, job)| (number, *job)).collect();
    let mut again = super::super::index::Index::default();
    all.iter().for_each(|(number, job)| again.insert(*number, *job));
    assert_eq!(machine.index, again, "counts and orders");
    let rows: Vec<_> = all.iter().map(|(number, _)| machine.row(*number).unwrap()).collect();
    for (row, written) in rows.iter().zip(scene.rows.values()) {
        // A delay that is over is written as the delay.
        let is_due = written.spot == Spot::Delayed && row.spot == Spot::Ready && row.until == written.until;
        assert!(row == written || is_due, "{row:?}\nis written as\n{written:?}");
    }
    assert_eq!(rows.len(), scene.rows.len());
    for (group, head) in machine.groups.heads() {
        let of_group = all.iter().filter(|(_, job)| job.group == Some(group));
        let heads: Vec<_> = of_group
            .clone()
            .filter(|(_, job)| !matches!(job.spot, Spot::Parked | Spot::Dead))
            .map(|(number, _)| *number)
            .collect();
        assert_eq!(heads, head.into_iter().collect::<Vec<_>>(), "one head");
        assert!(of_group.clone().count() > 0);
        let waits = of_group.clone().any(|(_, job)| job.spot == Spot::Parked);
        assert!(head.is_some() || !waits, "nobody is parked behind nobody");
    }
    let totals = machine.header().totals;
    assert!(totals.put >= totals.acked + machine.index.live_len(), "{totals:?}");
    assert_eq!(scene.header.as_ref().unwrap_or(machine.header()), machine.header(), "the header is written");
    assert_eq!(machine.index.in_flight_len(), machine.flights.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn the_orders_agree_and_what_is_written_makes_the_same_queue(
        settings in settings(),
        steps in prop::collection::vec(step(), 1..250),
    ) {
        let mut scene = Scene::new(settings);
        scene.write();
        let mut held = Vec::new();
        for step in steps {
            run(&mut scene, &mut held, step);
            check(&scene);
        }
    }
}
