//! The checker is checked: good histories pass, and histories with one thing wrong are flagged by the rule that it breaks.

#[path = "support/checker/mod.rs"]
mod checker;
#[path = "checker/work.rs"]
mod work;

use std::time::Duration;

use checker::{Allowed, Answer, Fault, Heard, History, Loss, Mark, Publish, Read, Rule, Stream, judge};
use fanfare::domain::position::{Epoch, Position};

fn at(offset: u64) -> Position {
    Position::new(Epoch::from_random(1), offset)
}

/// A place in the life after that.
fn later(offset: u64) -> Position {
    Position::new(Epoch::from_random(2), offset)
}

fn mark(n: u64) -> Mark {
    Mark::new("ann", n)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn message(n: u64) -> Heard {
    Heard::Message { at: at(n), mark: mark(n) }
}

fn joined(offset: u64) -> Heard {
    Heard::Joined { asked: None, at: at(offset), resumed: None, why: None }
}

fn resumed(offset: u64) -> Heard {
    Heard::Joined { asked: Some(at(offset)), at: at(offset), resumed: Some(true), why: None }
}

fn anew(asked: u64, head: Position, why: &str) -> Heard {
    Heard::Joined { asked: Some(at(asked)), at: head, resumed: Some(false), why: Some(why.into()) }
}

fn gap(after: u64, to: Option<u64>, why: &str) -> Heard {
    Heard::Gap { after: at(after), to: to.map(at), why: why.into() }
}

fn publish(n: u64, answer: Answer) -> Publish {
    Publish { topic: "news".into(), mark: mark(n), asked: ms(100 * n), answered: ms(100 * n + 20), answer }
}

/// A stream in which something is heard every tenth of a second.
fn stream(listener: &str, heard: &[Heard]) -> Stream {
    let heard = heard.iter().cloned().enumerate().map(|(i, heard)| (ms(100 * i as u64 + 50), heard)).collect();
    Stream { listener: listener.into(), topic: "news".into(), heard }
}

const PROBE: &str = "probe";

/// Six messages and, after healing, a probe. One subscriber heard them on two connections, one joined after the second,
/// one read history.
fn good() -> History {
    let probe = Mark::new(PROBE, 0);
    let last = Heard::Message { at: at(7), mark: probe.clone() };
    let first =
        [joined(0), message(1), message(2), message(3), Heard::Cut, resumed(3), message(4), message(5), message(6)];
    let second = [joined(2), message(3), message(4), message(5), message(6)];
    let with_probe = |listener: &str, heard: &[Heard]| {
        let mut stream = stream(listener, heard);
        stream.heard.push((ms(1_100), last.clone()));
        stream
    };
    let mut published: Vec<Publish> = (1..=6).map(|n| publish(n, Answer::Yes(Some(at(n))))).collect();
    let answer = Answer::Yes(Some(at(7)));
    published.push(Publish {
        topic: "news".into(),
        mark: probe.clone(),
        asked: ms(1_000),
        answered: ms(1_010),
        answer,
    });
    let mut log: Vec<_> = (1..=6).map(|n| (at(n), mark(n))).collect();
    log.push((at(7), probe));
    History {
        published,
        streams: vec![with_probe("bob", &first), with_probe("cid", &second)],
        reads: vec![Read { by: "dora".into(), topic: "news".into(), items: log[1..4].to_vec() }],
        logs: [("news".to_string(), log)].into(),
        healed: ms(950),
        probes: [PROBE.to_string()].into(),
    }
}

fn strict() -> Allowed {
    Allowed::default()
}

/// A store may have lost what was published before all was healed.
fn lossy() -> Allowed {
    Allowed { loss: Loss::Before(ms(900)), gaps: &["failover"], anew: &["epoch"], ..Allowed::default() }
}

fn with_gaps(gaps: &'static [&'static str]) -> Allowed {
    Allowed { gaps, ..Allowed::default() }
}

#[track_caller]
fn flags(rule: Rule, fault: Fault, allowed: Allowed, forge: impl FnOnce(&mut History)) {
    let mut history = good();
    forge(&mut history);
    let verdict = judge(&history, allowed);
    assert_eq!(fault.rule(), rule);
    assert!(verdict.counts().contains_key(&fault), "{fault:?} is not among {:?}", verdict.faults);
}

#[track_caller]
fn passes(allowed: Allowed, forge: impl FnOnce(&mut History)) -> checker::Figures {
    let mut history = good();
    forge(&mut history);
    let verdict = judge(&history, allowed);
    verdict.assert_clean();
    verdict.figures
}

fn log(history: &mut History) -> &mut Vec<(Position, Mark)> {
    history.logs.get_mut("news").unwrap()
}

/// What a subscriber heard; 0 is the one with two connections.
fn heard(history: &mut History, who: usize) -> &mut Vec<(Duration, Heard)> {
    &mut history.streams[who].heard
}

/// Puts this in place of what a subscriber heard.
fn splice(history: &mut History, who: usize, range: std::ops::Range<usize>, with: &[Heard]) {
    let t = heard(history, who)[range.start].0;
    heard(history, who).splice(range, with.iter().map(|heard| (t, heard.clone())));
}

/// The store lost the last three messages in a failover: its next life goes on where it stood.
fn failed_over(h: &mut History) {
    let probe = Mark::new(PROBE, 0);
    log(h).truncate(3);
    log(h).push((later(4), probe.clone()));
    h.published[6].answer = Answer::Yes(Some(later(4)));
    for who in 0..2 {
        let end = heard(h, who).len() - 1;
        splice(h, who, end..end + 1, &[gap(6, None, "failover"), Heard::Message { at: later(4), mark: probe.clone() }]);
    }
}

// ---- good ones

#[test]
fn a_good_history_passes_and_is_counted() {
    let figures = passes(strict(), |_| {});
    assert_eq!((figures.acknowledged, figures.stored, figures.heard, figures.again), (7, 7, 12, 0));
    assert_eq!((figures.resumed, figures.anew, figures.gaps, figures.lost), (1, 0, 0, 0));
    assert_eq!((figures.alive, figures.away_p99()), (ms(100), ms(100)));
}

#[test]
fn an_unknown_answer_allows_both() {
    let unknown = |h: &mut History| h.published[5].answer = Answer::Unknown;
    passes(strict(), unknown);
    passes(strict(), |h| {
        unknown(h);
        log(h).remove(5);
        log(h)[5].0 = at(6);
        h.published[6].answer = Answer::Yes(Some(at(6)));
        for who in 0..2 {
            let end = heard(h, who).len() - 1;
            let probe = Heard::Message { at: at(6), mark: Mark::new(PROBE, 0) };
            splice(h, who, end - 1..end + 1, &[probe]);
        }
    });
    // It may even arrive behind the next one.
    passes(strict(), |h| {
        h.published[2].answer = Answer::Unknown;
        h.published[3].answer = Answer::Yes(Some(at(3)));
        (log(h)[2].1, log(h)[3].1) = (mark(4), mark(3));
        h.reads.clear();
        let three = |n| Heard::Message { at: at(3), mark: mark(n) };
        let four = |n| Heard::Message { at: at(4), mark: mark(n) };
        splice(h, 0, 3..4, &[three(4)]);
        splice(h, 0, 6..7, &[four(3)]);
        splice(h, 1, 1..3, &[three(4), four(3)]);
    });
}

#[test]
fn a_repetition_under_one_key_passes_if_it_is_answered_with_the_first_place() {
    passes(strict(), |h| h.published.insert(3, publish(3, Answer::Yes(Some(at(3))))));
    passes(strict(), |h| {
        h.published[2].answer = Answer::Unknown;
        h.published.insert(3, publish(3, Answer::Yes(Some(at(3)))));
    });
    flags(Rule::R4, Fault::Repeated, strict(), |h| h.published.insert(3, publish(3, Answer::Yes(Some(at(4))))));
}

#[test]
fn a_loss_that_everybody_was_told_of_passes_where_the_run_allows_it() {
    let figures = passes(lossy(), failed_over);
    assert_eq!((figures.lost, figures.gaps), (3, 2));
    // Everything is gone, and whoever comes back begins anew.
    passes(lossy(), |h| {
        failed_over(h);
        log(h).drain(..3);
        let end = heard(h, 0).len();
        splice(h, 0, end - 2..end - 1, &[Heard::Cut, anew(6, later(3), "epoch")]);
    });
}

#[test]
fn who_reads_too_slowly_or_comes_back_too_late_may_be_told_so() {
    passes(with_gaps(&["slow"]), |h| splice(h, 1, 2..4, &[gap(3, Some(5), "slow")]));
    let late = Allowed { anew: &["retention"], trimmed: true, ..Allowed::default() };
    passes(late, |h| {
        log(h).drain(..5);
        splice(h, 0, 5..8, &[anew(3, at(5), "retention")]);
    });
}

// ---- R1

#[test]
fn an_acknowledged_message_that_is_dropped_is_lost() {
    flags(Rule::R1, Fault::Lost, strict(), |h| drop(log(h).pop()));
    flags(Rule::R1, Fault::Lost, strict(), |h| {
        // In a queue whose answer tells no position, too.
        h.published[5].answer = Answer::Yes(None);
        log(h).remove(5);
    });
    // Where loss is allowed, it is not for those who were promised more, nor for what was published after it.
    flags(Rule::R1, Fault::Lost, Allowed { safe: &["ann"], ..lossy() }, failed_over);
    flags(Rule::R1, Fault::Lost, lossy(), |h| drop(log(h).pop()));
    // A log that was trimmed at its beginning is no excuse for what nobody has heard and nobody can place.
    flags(Rule::R1, Fault::Lost, Allowed { trimmed: true, ..strict() }, |h| {
        h.published.push(publish(8, Answer::Yes(None)));
    });
}

#[test]
fn a_message_that_a_subscriber_does_not_hear_is_missed() {
    flags(Rule::R1, Fault::Missed, strict(), |h| drop(heard(h, 0).pop()));
    flags(Rule::R1, Fault::Missed, strict(), |h| drop(heard(h, 0).remove(2)));
    flags(Rule::R1, Fault::Missed, strict(), |h| heard(h, 0).clear());
    // A failover that was told does not excuse what the log still has.
    flags(Rule::R1, Fault::Missed, with_gaps(&["failover"]), |h| splice(h, 0, 2..4, &[gap(1, Some(3), "failover")]));
}

#[test]
fn a_hole_in_the_log_is_flagged() {
    flags(Rule::R1, Fault::Hole, strict(), |h| drop(log(h).remove(2)));
}

// ---- R2

#[test]
fn two_messages_of_one_publisher_that_are_swapped_are_flagged() {
    flags(Rule::R2, Fault::Reordered, strict(), |h| {
        let log = log(h);
        (log[2].1, log[3].1) = (mark(4), mark(3));
    });
    flags(Rule::R2, Fault::Reordered, strict(), |h| {
        h.published[2].answer = Answer::Yes(Some(at(4)));
        h.published[3].answer = Answer::Yes(Some(at(3)));
    });
}

#[test]
fn a_stream_that_goes_back_on_one_connection_is_flagged() {
    flags(Rule::R2, Fault::Backwards, strict(), |h| splice(h, 0, 3..3, &[message(2)]));
    flags(Rule::R2, Fault::Backwards, strict(), |h| splice(h, 0, 3..3, &[message(1)]));
    flags(Rule::R2, Fault::Backwards, with_gaps(&["failover"]), |h| {
        splice(h, 0, 3..3, &[gap(2, None, "failover"), message(1)]);
    });
    flags(Rule::R2, Fault::Backwards, strict(), |h| h.reads[0].items.swap(0, 1));
}

// ---- R3

#[test]
fn what_nobody_published_is_a_phantom() {
    flags(Rule::R3, Fault::Phantom, strict(), |h| log(h).push((at(8), mark(8))));
    flags(Rule::R3, Fault::Phantom, strict(), |h| heard(h, 0).push((ms(1_200), message(8))));
    flags(Rule::R3, Fault::Phantom, strict(), |h| h.reads[0].items.push((at(8), mark(8))));
    // A message of another topic, or an altered one.
    let altered = [mark(3).payload("weather"), mark(3).payload("news").replace("ann:3", "ann:4"), "ann:3".into()];
    for payload in altered {
        flags(Rule::R3, Fault::Phantom, strict(), |h| {
            splice(h, 0, 3..4, &[Heard::Message { at: at(3), mark: Mark::parse("news", &payload) }]);
        });
    }
    assert_eq!(Mark::parse("news", &mark(3).payload("news")), mark(3));
}

#[test]
fn a_publish_that_failed_and_is_delivered_is_a_phantom() {
    flags(Rule::R3, Fault::Phantom, strict(), |h| h.published[3].answer = Answer::No);
}

// ---- R4

#[test]
fn a_place_that_means_two_messages_is_flagged() {
    flags(Rule::R4, Fault::Reused, strict(), |h| splice(h, 0, 2..3, &[Heard::Message { at: at(2), mark: mark(1) }]));
    flags(Rule::R4, Fault::Reused, strict(), |h| log(h).insert(3, (at(3), mark(3))));
    flags(Rule::R4, Fault::Reused, strict(), |h| h.reads[0].items[0].1 = mark(5));
    // A store that came back without its end gave a place away that was acknowledged before.
    flags(Rule::R4, Fault::Reused, lossy(), |h| {
        h.published.push(publish(7, Answer::Yes(Some(at(7)))));
    });
}

#[test]
fn a_message_that_is_stored_at_two_places_is_flagged() {
    flags(Rule::R4, Fault::Repeated, strict(), |h| log(h).push((at(8), mark(6))));
    flags(Rule::R4, Fault::Repeated, strict(), |h| log(h).push((at(8), mark(1))));
    flags(Rule::R4, Fault::Misplaced, strict(), |h| h.published[1].answer = Answer::Yes(Some(at(3))));
}

// ---- R5

#[test]
fn a_jump_without_a_gap_is_silent() {
    flags(Rule::R5, Fault::Silent, strict(), |h| drop(heard(h, 0).remove(2)));
    flags(Rule::R5, Fault::Silent, strict(), |h| splice(h, 1, 0..1, &[joined(1)]));
    // Another life begins unsaid.
    flags(Rule::R5, Fault::Silent, lossy(), |h| {
        failed_over(h);
        let end = heard(h, 1).len() - 2;
        heard(h, 1).remove(end);
    });
}

#[test]
fn a_gap_that_is_too_small_or_begins_elsewhere_is_silent() {
    flags(Rule::R5, Fault::Silent, with_gaps(&["slow"]), |h| splice(h, 1, 2..4, &[gap(3, Some(4), "slow")]));
    flags(Rule::R5, Fault::Silent, with_gaps(&["slow"]), |h| splice(h, 1, 2..4, &[gap(4, Some(5), "slow")]));
    // It ends where it should, and what lies after it is not all that is missing.
    flags(Rule::R1, Fault::Missed, with_gaps(&["slow"]), |h| splice(h, 1, 2..4, &[gap(3, Some(4), "slow")]));
}

#[test]
fn a_gap_that_comes_after_the_message_is_silent() {
    flags(Rule::R5, Fault::Silent, with_gaps(&["slow"]), |h| {
        splice(h, 1, 2..5, &[message(6), gap(3, Some(5), "slow")])
    });
    flags(Rule::R5, Fault::Silent, lossy(), |h| {
        failed_over(h);
        let end = heard(h, 0).len();
        heard(h, 0).swap(end - 2, end - 1);
    });
}

#[test]
fn a_resume_that_is_claimed_and_not_done_is_flagged() {
    flags(Rule::R5, Fault::FalselyResumed, strict(), |h| {
        let elsewhere = Heard::Joined { asked: Some(at(3)), at: at(4), resumed: Some(true), why: None };
        splice(h, 0, 5..7, &[elsewhere]);
    });
    // The answer is right, and what follows is not.
    flags(Rule::R5, Fault::Silent, strict(), |h| drop(heard(h, 0).remove(6)));
}

#[test]
fn a_resume_that_is_not_granted_is_flagged() {
    flags(Rule::R5, Fault::NotResumed, strict(), |h| splice(h, 0, 5..6, &[anew(3, at(3), "retention")]));
    flags(Rule::R5, Fault::NotResumed, lossy(), |h| splice(h, 0, 5..6, &[anew(3, at(3), "retention")]));
    flags(Rule::R5, Fault::NotResumed, strict(), |h| {
        let unanswered = Heard::Joined { asked: Some(at(3)), at: at(3), resumed: None, why: None };
        splice(h, 0, 5..6, &[unanswered]);
    });
}

#[test]
fn a_gap_of_a_cause_that_is_not_allowed_is_flagged() {
    flags(Rule::R5, Fault::Gap, strict(), |h| splice(h, 0, 3..3, &[gap(2, Some(2), "retention")]));
}

#[test]
fn a_loss_that_one_subscriber_was_not_told_of_is_flagged() {
    let never_heard = |h: &mut History| {
        failed_over(h);
        // It stood at the third when the rest was lost, and is told that nothing is missing.
        let end = heard(h, 1).len();
        splice(h, 1, 2..end - 1, &[]);
    };
    flags(Rule::R5, Fault::Untold, lossy(), never_heard);
    flags(Rule::R5, Fault::Untold, lossy(), |h| {
        never_heard(h);
        h.published[4].answer = Answer::Yes(None);
    });
    // Told, but the range ends before the last that is lost.
    flags(Rule::R5, Fault::Untold, lossy(), |h| {
        never_heard(h);
        splice(h, 1, 2..2, &[gap(3, Some(5), "failover")]);
    });
    passes(lossy(), |h| {
        never_heard(h);
        splice(h, 1, 2..2, &[gap(3, Some(6), "failover")]);
    });
}

// ---- R6

#[test]
fn what_a_subscriber_heard_and_nobody_has_is_flagged() {
    flags(Rule::R6, Fault::Vanished, strict(), |h| drop(log(h).pop()));
    flags(Rule::R6, Fault::Vanished, Allowed { trimmed: true, ..strict() }, |h| drop(log(h).pop()));
}

#[test]
fn subscribers_that_end_differently_are_flagged() {
    // Also where nobody can read the log.
    flags(Rule::R6, Fault::Diverged, strict(), |h| {
        h.logs.clear();
        heard(h, 1).pop();
    });
    flags(Rule::R6, Fault::Diverged, strict(), |h| drop(heard(h, 1).remove(2)));
    // A life of its own for one of them.
    flags(Rule::R6, Fault::Diverged, lossy(), |h| {
        failed_over(h);
        let end = heard(h, 1).len() - 1;
        let elsewhere = Heard::Message { at: Position::new(Epoch::from_random(3), 4), mark: Mark::new(PROBE, 0) };
        splice(h, 1, end..end + 1, &[elsewhere]);
    });
}

// ---- R7

#[test]
fn a_client_that_is_stuck_is_flagged() {
    flags(Rule::R7, Fault::Stuck, strict(), |h| drop(heard(h, 1).pop()));
    flags(Rule::R7, Fault::Stuck, strict(), |h| heard(h, 1).last_mut().unwrap().0 = ms(6_001));
    flags(Rule::R7, Fault::Stuck, strict(), |h| h.published[6].answer = Answer::Unknown);
}
