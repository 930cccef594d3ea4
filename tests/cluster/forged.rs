//! The judge is judged: histories with one thing wrong, each of which it must name.

use std::time::{Duration, Instant};

use fanfare::domain::position::{Epoch, Position};

use crate::history::{Answer, Fault, Heard, History, Mark, Publish, Rules, Stream, judge};

fn at(offset: u64) -> Position {
    Position::new(Epoch::from_random(1), offset)
}

fn mark(n: u64) -> Mark {
    Mark::new("xadd", n)
}

fn message(n: u64) -> Heard {
    Heard::Message { at: at(n), mark: mark(n) }
}

fn joined(offset: u64) -> Heard {
    Heard::Joined { asked: None, at: at(offset), resumed: None }
}

fn resumed(offset: u64) -> Heard {
    Heard::Joined { asked: Some(at(offset)), at: at(offset), resumed: Some(true) }
}

fn gap(after: u64, to: Option<u64>) -> Heard {
    Heard::Gap { after: at(after), to: to.map(at), why: "failover".into() }
}

/// Six messages; one listener heard them on two connections, another joined after the second one.
fn good() -> History {
    let asked = Instant::now();
    let publish = |n| Publish { topic: "news".into(), mark: mark(n), answer: Answer::Yes(Some(at(n))), asked };
    let first = [joined(0), message(1), message(2), message(3), resumed(3), message(4), message(5), message(6)];
    let second = [joined(2), message(3), message(4), message(5), message(6)];
    let stream = |listener: &str, heard: &[Heard]| Stream {
        listener: listener.into(),
        topic: "news".into(),
        heard: heard.into(),
    };
    History {
        published: (1..=6).map(publish).collect(),
        logs: [("news".to_string(), (1..=6).map(|n| (at(n), mark(n))).collect())].into(),
        streams: vec![stream("ann", &first), stream("bob", &second)],
    }
}

const STRICT: Rules = Rules { gaps: &[], emptied: None };
const AFTER_OUTAGE: Rules = Rules { gaps: &["failover"], emptied: None };

#[track_caller]
fn named(rules: Rules, fault: Fault, forge: impl FnOnce(&mut History)) {
    let mut history = good();
    forge(&mut history);
    let verdict = judge(&history, rules);
    assert!(verdict.counts().contains_key(&fault), "{fault:?} is not among {:?}", verdict.faults);
}

fn log(history: &mut History) -> &mut Vec<(Position, Mark)> {
    history.logs.get_mut("news").unwrap()
}

/// What ann heard.
fn ann(history: &mut History) -> &mut Vec<Heard> {
    &mut history.streams[0].heard
}

#[test]
fn a_good_history_is_clean_and_what_comes_again_after_a_reconnect_is_counted() {
    let mut history = good();
    let verdict = judge(&history, STRICT);
    verdict.assert_clean();
    assert_eq!((verdict.heard, verdict.again, verdict.gaps), (10, 0, 0));
    // A client that lost its last positions may get a message a second time; it is no fault of the hub's.
    ann(&mut history).splice(3..5, [joined(2), message(3)]);
    ann(&mut history).insert(3, message(3));
    assert_eq!(judge(&history, STRICT).again, 1);
}

#[test]
fn an_acknowledged_message_that_is_not_in_the_log_is_lost() {
    named(STRICT, Fault::Lost, |h| drop(log(h).pop()));
    named(STRICT, Fault::Lost, |h| {
        // In a queue whose answer tells no position, too.
        h.published[5].answer = Answer::Yes(None);
        log(h).pop();
    });
    named(Rules { emptied: Some(Instant::now() - Duration::from_secs(60)), ..STRICT }, Fault::Lost, |h| {
        log(h).pop();
    });
}

#[test]
fn an_unknown_answer_allows_both() {
    let mut history = good();
    history.published[5].answer = Answer::Unknown;
    judge(&history, STRICT).assert_clean();
    log(&mut history).pop();
    history.streams.iter_mut().for_each(|s| drop(s.heard.pop()));
    judge(&history, STRICT).assert_clean();
}

#[test]
fn what_is_stored_twice_is_named_wherever_it_stands() {
    named(STRICT, Fault::Repeated, |h| log(h).push((at(7), mark(6))));
    named(STRICT, Fault::Repeated, |h| log(h).push((at(7), mark(1))));
}

#[test]
fn a_changed_order_in_the_log_is_named() {
    named(STRICT, Fault::Reordered, |h| {
        let log = log(h);
        (log[2].1, log[3].1) = (mark(4), mark(3));
    });
}

#[test]
fn what_nobody_published_or_what_was_refused_is_a_phantom() {
    named(STRICT, Fault::Phantom, |h| log(h).push((at(7), mark(7))));
    named(STRICT, Fault::Phantom, |h| h.published[3].answer = Answer::No);
    named(STRICT, Fault::Phantom, |h| ann(h).push(message(7)));
}

#[test]
fn a_position_that_means_two_messages_is_named() {
    named(STRICT, Fault::Reused, |h| ann(h)[2] = Heard::Message { at: at(2), mark: mark(1) });
    named(STRICT, Fault::Reused, |h| log(h).insert(3, (at(3), mark(3))));
}

#[test]
fn an_answer_with_a_wrong_position_and_a_hole_in_the_log_are_named() {
    named(STRICT, Fault::Misplaced, |h| h.published[1].answer = Answer::Yes(Some(at(3))));
    named(STRICT, Fault::Hole, |h| drop(log(h).remove(2)));
}

#[test]
fn what_a_subscriber_heard_must_be_in_the_log() {
    named(STRICT, Fault::Vanished, |h| drop(log(h).pop()));
}

#[test]
fn what_a_subscriber_did_not_hear_is_named_at_the_end_of_its_stream_too() {
    named(STRICT, Fault::Missed, |h| drop(ann(h).pop()));
    named(STRICT, Fault::Missed, |h| drop(ann(h).remove(2)));
    named(STRICT, Fault::Missed, |h| ann(h).clear());
    // A gap that was told does not excuse what is still in the log.
    named(AFTER_OUTAGE, Fault::Missed, |h| drop(ann(h).splice(2..4, [gap(1, Some(3))])));
}

#[test]
fn a_jump_without_a_gap_is_silent() {
    named(STRICT, Fault::Silent, |h| drop(ann(h).remove(2)));
    named(STRICT, Fault::Silent, |h| h.streams[1].heard[0] = joined(1));
    // Another life begins unsaid.
    named(STRICT, Fault::Silent, |h| {
        let other = Position::new(Epoch::from_random(2), 7);
        h.published.push(Publish { mark: mark(7), ..h.published[0].clone() });
        log(h).push((other, mark(7)));
        ann(h).push(Heard::Message { at: other, mark: mark(7) });
    });
    // A gap that begins or ends in another place than the stream.
    named(AFTER_OUTAGE, Fault::Silent, |h| drop(ann(h).splice(3..4, [gap(1, Some(3))])));
    named(AFTER_OUTAGE, Fault::Silent, |h| drop(ann(h).splice(2..3, [gap(1, Some(1))])));
    // Resumed, but from further on than was asked.
    named(STRICT, Fault::Silent, |h| {
        ann(h)[4] = Heard::Joined { asked: Some(at(3)), at: at(4), resumed: Some(true) };
        ann(h).remove(5);
    });
}

#[test]
fn a_stream_that_goes_back_on_one_connection_is_named() {
    named(STRICT, Fault::Backwards, |h| ann(h).insert(3, message(2)));
    named(STRICT, Fault::Backwards, |h| ann(h).insert(3, message(1)));
    named(AFTER_OUTAGE, Fault::Backwards, |h| drop(ann(h).splice(3..3, [gap(2, None), message(1)])));
}

#[test]
fn a_resume_that_was_not_granted_is_named() {
    named(STRICT, Fault::NotResumed, |h| {
        ann(h)[4] = Heard::Joined { asked: Some(at(3)), at: at(3), resumed: Some(false) };
    });
}

#[test]
fn a_gap_of_a_cause_that_is_not_allowed_is_named() {
    named(STRICT, Fault::Gap, |h| ann(h).insert(3, gap(2, Some(2))));
}

#[test]
fn an_emptied_store_excuses_what_was_published_before_if_it_was_told() {
    let mut history = good();
    log(&mut history).clear();
    let rules = Rules { gaps: &["failover"], emptied: Some(Instant::now()) };
    judge(&history, rules).assert_clean();
    // A new life begins, and its first message is heard behind a gap by one, without by the other.
    let first = Position::new(Epoch::from_random(2), 1);
    let late = Publish { mark: mark(7), answer: Answer::Yes(Some(first)), asked: Instant::now(), topic: "news".into() };
    history.published.push(late);
    log(&mut history).push((first, mark(7)));
    let heard = Heard::Message { at: first, mark: mark(7) };
    ann(&mut history).extend([gap(6, None), heard.clone()]);
    history.streams[1].heard.push(heard);
    assert_eq!(judge(&history, rules).counts(), [(Fault::Silent, 1)].into());
}
