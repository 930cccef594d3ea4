//! The rules for queues: good work passes, and work with one thing wrong is flagged by the rule that it breaks.

use std::time::Duration;

use crate::checker::{Answer, Delivery, Ended, Fault, JobPut, Left, Rule, Terms, Told, Work, WorkFigures, judge_work};
use crate::{at, later, mark, ms};

const TERMS: Terms = Terms { undone: Vec::new(), safe: &[], max_deliveries: 3, window: Duration::from_secs(10) };

fn put(n: u64, group: Option<&str>) -> JobPut {
    let (asked, answered) = (ms(100 * n), ms(100 * n + 20));
    let (group, answer) = (group.map(str::to_owned), Answer::Yes(Some(at(n))));
    JobPut { queue: "jobs".into(), mark: mark(n), group, key: Some(format!("k{n}")), asked, answered, answer }
}

fn given(n: u64, group: Option<&str>, tries: u32, got: u64) -> Delivery {
    Delivery { queue: "jobs".into(), job: at(n), mark: mark(n), group: group.map(str::to_owned), tries, got: ms(got) }
}

fn ended(n: u64, tries: u32, is_ack: bool, asked: u64) -> Ended {
    let (asked, answered) = (ms(asked), ms(asked + 5));
    Ended { queue: "jobs".into(), job: at(n), tries, is_ack, asked, answered, answer: Answer::Yes(None) }
}

fn left(n: u64, is_dead: bool) -> Left {
    Left { queue: "jobs".into(), job: at(n), mark: mark(n), is_dead }
}

/// Two of a group, one that comes on its second try, one that dies, one that waits, and a put that nobody answered.
fn good() -> Work {
    let group = Some("g");
    let told = |number| Told { queue: "jobs".into(), number, by: "ann".into() };
    let mut puts = vec![put(1, group), put(2, group), put(3, None), put(4, None), put(5, None), put(6, None)];
    puts[5].answer = Answer::Unknown;
    Work {
        puts,
        deliveries: vec![
            given(1, group, 1, 1_000),
            given(3, None, 1, 1_010),
            given(4, None, 1, 1_020),
            given(2, group, 1, 1_200),
            given(3, None, 2, 1_500),
        ],
        ends: vec![
            ended(1, 1, true, 1_100),
            ended(4, 1, false, 1_150),
            ended(2, 1, true, 1_300),
            ended(3, 2, true, 1_600),
            Ended { answer: Answer::No, ..ended(3, 1, true, 1_700) },
        ],
        told: vec![told(1), told(2)],
        left: vec![left(4, true), left(5, false)],
        counters: [("jobs".to_string(), (1, 1))].into(),
    }
}

#[track_caller]
fn flags(rule: Rule, fault: Fault, forge: impl FnOnce(&mut Work)) {
    let mut work = good();
    forge(&mut work);
    let (verdict, _) = judge_work(&work, &TERMS);
    assert_eq!(fault.rule(), rule);
    assert!(verdict.counts().contains_key(&fault), "{fault:?} is not among {:?}", verdict.faults);
}

#[track_caller]
fn passes(terms: Terms, forge: impl FnOnce(&mut Work)) -> WorkFigures {
    let mut work = good();
    forge(&mut work);
    let (verdict, figures) = judge_work(&work, &terms);
    verdict.assert_clean();
    figures
}

#[test]
fn good_work_passes_and_is_counted() {
    let figures = passes(TERMS, |_| {});
    let WorkFigures { put, delivered, again, acked, refused, left, lost, .. } = figures;
    assert_eq!([put, delivered, again, acked, refused, left, lost], [5, 5, 1, 3, 1, 2, 0]);
}

#[test]
fn a_lost_job_is_flagged() {
    flags(Rule::Q1, Fault::LostJob, |w| drop(w.left.pop()));
    flags(Rule::Q1, Fault::LostJob, |w| w.ends[0].answer = Answer::No);
    passes(TERMS, |w| w.ends[0].answer = Answer::Unknown);
    let lossy = Terms { undone: vec![(ms(400), ms(600))], ..TERMS };
    assert_eq!(
        passes(lossy, |w| {
            w.left.pop();
            w.counters.clear();
        })
        .lost,
        1
    );
}

#[test]
fn a_job_that_nobody_put_is_flagged() {
    flags(Rule::Q1, Fault::PhantomJob, |w| w.deliveries.push(given(9, None, 1, 2_000)));
    flags(Rule::Q1, Fault::PhantomJob, |w| w.left.push(left(9, false)));
    flags(Rule::Q1, Fault::PhantomJob, |w| w.puts[4].answer = Answer::No);
    // Nobody knows whether this one came in.
    passes(TERMS, |w| w.deliveries.push(given(6, None, 1, 2_000)));
}

#[test]
fn a_delivery_after_an_acknowledgement_is_flagged() {
    flags(Rule::Q2, Fault::Undone, |w| w.deliveries.push(given(3, None, 3, 1_900)));
    flags(Rule::Q2, Fault::Undone, |w| w.left.push(left(1, false)));
}

#[test]
fn two_acknowledgements_and_late_ones_are_flagged() {
    flags(Rule::Q3, Fault::AckedTwice, |w| w.ends.push(ended(1, 1, true, 1_800)));
    flags(Rule::Q3, Fault::AckedTwice, |w| w.ends[4].answer = Answer::Yes(None));
    flags(Rule::Q3, Fault::LateAck, |w| {
        w.ends.remove(3);
        w.ends[3].answer = Answer::Yes(None);
    });
}

#[test]
fn groups_out_of_order_and_shared_ones_are_flagged() {
    flags(Rule::Q4, Fault::GroupOrder, |w| {
        w.deliveries[0].got = ms(1_250);
        w.ends[0].asked = ms(1_290);
    });
    flags(Rule::Q4, Fault::GroupShared, |w| w.ends[0].asked = ms(1_201));
    // A first delivery that was on its way for longer than its lease.
    passes(TERMS, |w| {
        w.deliveries[0].tries = 2;
        w.ends[0].tries = 2;
        w.deliveries.push(given(1, Some("g"), 1, 1_250));
    });
    flags(Rule::Q4, Fault::GroupOrder, |w| w.deliveries.push(given(1, Some("g"), 1, 1_250)));
    // A first delivery that nobody heard of: the next one of it has a higher count.
    passes(TERMS, |w| {
        w.deliveries[0].tries = 2;
        w.ends[0].tries = 2;
    });
}

#[test]
fn too_many_deliveries_are_flagged() {
    flags(Rule::Q5, Fault::TooOften, |w| w.deliveries.push(given(5, None, 4, 2_000)));
}

#[test]
fn jobs_that_are_dead_twice_or_dead_and_done_are_flagged() {
    flags(Rule::Q6, Fault::DeadTwice, |w| w.left.push(left(4, true)));
    flags(Rule::Q6, Fault::DeadAndDone, |w| w.left.push(left(1, true)));
}

#[test]
fn two_jobs_for_one_key_are_flagged() {
    let same = |w: &mut Work| w.puts[4].key = w.puts[0].key.clone();
    flags(Rule::Q7, Fault::TwoForOneKey, same);
    passes(Terms { window: ms(300), ..TERMS }, same);
    passes(TERMS, |w| {
        let again = JobPut { asked: ms(900), answered: ms(910), ..w.puts[0].clone() };
        w.puts.push(again);
    });
    flags(Rule::Q7, Fault::TwoForOneKey, |w| {
        // The same number of another life is another job.
        let again = JobPut { answer: Answer::Yes(Some(later(1))), ..w.puts[0].clone() };
        w.puts.push(again);
    });
}

#[test]
fn firings_told_twice_or_by_nobody_are_flagged() {
    flags(Rule::Q8, Fault::ToldTwice, |w| w.told.push(Told { by: "ben".into(), ..w.told[1].clone() }));
    flags(Rule::Q8, Fault::Untelling, |w| drop(w.told.remove(0)));
}

#[test]
fn counters_that_tell_otherwise_are_flagged() {
    flags(Rule::Q9, Fault::Miscounted, |w| w.counters = [("jobs".to_string(), (2, 1))].into());
    flags(Rule::Q9, Fault::Miscounted, |w| w.counters = [("jobs".to_string(), (1, 0))].into());
}

/// Of a door that does not say where it put a job.
fn entry(n: u64) -> JobPut {
    JobPut { key: None, answer: Answer::Yes(None), ..put(n, None) }
}

#[test]
fn entries_are_known_by_their_marks() {
    let entries = |w: &mut Work| (2..5).for_each(|n| w.puts[n] = entry(n as u64 + 1));
    assert_eq!(passes(TERMS, entries).lost, 0);
    flags(Rule::Q1, Fault::LostJob, |w| {
        entries(w);
        w.left.pop();
    });
    flags(Rule::Q7, Fault::PutTwice, |w| {
        entries(w);
        w.left.push(Left { mark: mark(5), ..left(9, false) });
    });
    flags(Rule::Q4, Fault::PutOrder, |w| {
        entries(w);
        (w.left[0].mark, w.left[1].mark) = (mark(5), mark(4));
        w.deliveries[2].mark = mark(5);
    });
}

#[test]
fn what_is_put_under_a_key_and_met_as_two_jobs_is_flagged() {
    let twice = |w: &mut Work| w.left.push(Left { mark: mark(5), ..left(9, false) });
    flags(Rule::Q7, Fault::PutTwice, twice);
    let terms = Terms { undone: vec![(ms(505), ms(515))], ..TERMS };
    passes(terms, |w| {
        twice(w);
        w.counters.clear();
    });
}

#[test]
fn what_was_done_while_a_master_was_cut_off_may_be_undone_and_nothing_else() {
    let again = |w: &mut Work| w.deliveries.push(given(2, Some("g"), 1, 1_900));
    flags(Rule::Q2, Fault::Undone, again);
    let terms = |from, to| Terms { undone: vec![(ms(from), ms(to))], ..TERMS };
    assert_eq!(passes(terms(1_250, 1_400), again).undone, 1);
    let (verdict, _) = judge_work(
        &{
            let mut work = good();
            again(&mut work);
            work
        },
        &terms(1_310, 1_400),
    );
    assert_eq!(verdict.count(Fault::Undone), 1, "it was accepted before");
    // A producer whose puts wait for a replica loses none.
    let lost = |w: &mut Work| {
        w.left.pop();
        w.counters.clear();
    };
    assert_eq!(passes(terms(400, 600), lost).lost, 1);
    let mut work = good();
    lost(&mut work);
    let (verdict, _) = judge_work(&work, &Terms { safe: &["ann"], ..terms(400, 600) });
    assert_eq!(verdict.count(Fault::LostJob), 1);
}
