//! What was stored: the logs against the publishers' answers, and what each position means to everybody.

use std::collections::{HashMap, HashSet};

use fanfare::domain::position::{Epoch, Position};

use super::history::{Answer, Heard, History, Mark, Publish};
use super::verdict::{Allowed, Fault, Loss, Verdict};

/// What can be looked up about a history.
pub struct Facts<'a> {
    /// All attempts at each message.
    pub published: HashMap<&'a str, HashMap<&'a Mark, Vec<&'a Publish>>>,
    pub places: HashMap<(&'a str, &'a Mark), Position>,
    /// Lives of topics in the order in which the log, or a subscriber, met them: (topic, earlier, later).
    lives: HashSet<(&'a str, Epoch, Epoch)>,
}

impl<'a> Facts<'a> {
    pub fn of(history: &'a History) -> Facts<'a> {
        let mut facts = Facts { published: HashMap::new(), places: HashMap::new(), lives: HashSet::new() };
        for publish in &history.published {
            let attempts = facts.published.entry(&publish.topic).or_default().entry(&publish.mark);
            attempts.or_default().push(publish);
        }
        for (topic, log) in &history.logs {
            facts.places.extend(log.iter().map(|(at, mark)| ((topic.as_str(), mark), *at)));
            facts.meet(topic, log.iter().map(|(at, _)| at.epoch));
        }
        for stream in &history.streams {
            let lives = stream.heard.iter().filter_map(|(_, heard)| match heard {
                Heard::Joined { at, .. } | Heard::Message { at, .. } => Some(at.epoch),
                Heard::Gap { .. } | Heard::Cut => None,
            });
            facts.meet(&stream.topic, lives);
        }
        facts
    }

    fn meet(&mut self, topic: &'a str, lives: impl Iterator<Item = Epoch>) {
        let mut met: Vec<Epoch> = Vec::new();
        for life in lives {
            if met.last() != Some(&life) {
                self.lives.extend(met.iter().filter(|before| **before != life).map(|before| (topic, *before, life)));
                met.push(life);
            }
        }
    }

    /// Whether one position lies behind another, as far as this history knows the order of lives.
    pub fn is_behind(&self, topic: &str, at: Position, other: Position) -> Option<bool> {
        if at.epoch == other.epoch {
            return Some(at.offset > other.offset);
        }
        match (
            self.lives.contains(&(topic, other.epoch, at.epoch)),
            self.lives.contains(&(topic, at.epoch, other.epoch)),
        ) {
            (true, false) => Some(true),
            (false, true) => Some(false),
            _ => None,
        }
    }

    /// Whether somebody was told that it is stored.
    pub fn is_acknowledged(&self, topic: &str, mark: &Mark) -> bool {
        self.attempts(topic, mark).iter().any(|p| matches!(p.answer, Answer::Yes(_)))
    }

    /// Whether it may be stored, after all that its publisher was told.
    fn may_be(&self, topic: &str, mark: &Mark) -> Result<(), &'static str> {
        match self.attempts(topic, mark) {
            [] => Err("was never published"),
            attempts if attempts.iter().all(|p| p.answer == Answer::No) => Err("was refused"),
            _ => Ok(()),
        }
    }

    fn attempts(&self, topic: &str, mark: &Mark) -> &[&'a Publish] {
        self.published.get(topic).and_then(|marks| marks.get(mark)).map_or(&[], Vec::as_slice)
    }
}

pub fn judge_logs(history: &History, facts: &Facts, verdict: &mut Verdict) {
    for (topic, log) in &history.logs {
        verdict.figures.stored += log.len();
        judge_log(topic, log, facts, verdict);
    }
    for read in &history.reads {
        let who = format!("{}: what {} read", read.topic, read.by);
        for pair in read.items.windows(2) {
            let [(before, _), (at, mark)] = pair else { continue };
            if facts.is_behind(&read.topic, *at, *before) != Some(true) {
                verdict.blame(Fault::Backwards, format_args!("{who}: {mark} at {at} follows {before}"));
            }
        }
    }
}

fn judge_log(topic: &str, log: &[(Position, Mark)], facts: &Facts, verdict: &mut Verdict) {
    let (mut places, mut marks) = (HashSet::new(), HashSet::new());
    let mut last: HashMap<&str, u64> = HashMap::new();
    let mut before: Option<Position> = None;
    for (at, mark) in log {
        if !places.insert(*at) {
            verdict.blame(Fault::Reused, format_args!("{topic}: {at} stands twice in the log"));
        }
        let last = last.entry(&mark.by).or_insert(mark.n);
        if !marks.insert(mark) {
            verdict.blame(Fault::Repeated, format_args!("{topic}: {mark}, the second time at {at}"));
        } else if *last > mark.n && facts.is_acknowledged(topic, mark) {
            // One without an answer may arrive while the next is on its way.
            verdict.blame(Fault::Reordered, format_args!("{topic}: {mark} at {at} comes after a later one"));
        }
        *last = mark.n.max(*last);
        if let Err(why) = facts.may_be(topic, mark) {
            verdict.blame(Fault::Phantom, format_args!("{topic}: {mark} at {at} {why}"));
        }
        // Offsets go on counting over lives.
        if let Some(before) = before.filter(|before| before.offset + 1 != at.offset) {
            verdict.blame(Fault::Hole, format_args!("{topic}: {at} follows {before}"));
        }
        before = Some(*at);
    }
}

/// What publishers were told, against one another and against the log.
pub fn judge_answers(history: &History, facts: &Facts, verdict: &mut Verdict) {
    let mut told: HashMap<(&str, &Mark), Position> = HashMap::new();
    let mut last: HashMap<(&str, &str), (Position, &Mark)> = HashMap::new();
    let again = facts.published.values().flat_map(HashMap::values).filter(|attempts| {
        let is = |wanted: fn(&Answer) -> bool| attempts.iter().any(|publish| wanted(&publish.answer));
        is(|answer| *answer == Answer::Unknown) && is(|answer| matches!(answer, Answer::Yes(_)))
    });
    verdict.figures.repetitions = again.count();
    for Publish { topic, mark, answer, .. } in &history.published {
        match answer {
            Answer::Yes(_) => verdict.figures.acknowledged += 1,
            Answer::No => verdict.figures.refused += 1,
            Answer::Unknown => verdict.figures.unknown += 1,
        }
        let Answer::Yes(Some(at)) = answer else { continue };
        let first = *told.entry((topic, mark)).or_insert(*at);
        if first != *at {
            verdict.blame(Fault::Repeated, format_args!("{topic}: {mark} is answered with {first}, then with {at}"));
            continue;
        }
        if let Some(place) = facts.places.get(&(topic.as_str(), mark)).filter(|place| *place != at) {
            verdict.blame(Fault::Misplaced, format_args!("{topic}: {mark} is at {place}, its publisher heard {at}"));
        }
        let (before, earlier) = last.insert((topic, &mark.by), (*at, mark)).unwrap_or((*at, mark));
        if earlier.n < mark.n && facts.is_behind(topic, *at, before) == Some(false) {
            verdict.blame(Fault::Reordered, format_args!("{topic}: {earlier} at {before}, and then {mark} at {at}"));
        }
    }
}

/// One position, one message: for the log, for publishers, for whoever heard or read it.
pub fn judge_meanings(history: &History, facts: &Facts, allowed: Allowed, verdict: &mut Verdict) {
    let mut meaning: HashMap<(&str, Position), &Mark> = HashMap::new();
    for (topic, log) in &history.logs {
        meaning.extend(log.iter().map(|(at, mark)| ((topic.as_str(), *at), mark)));
    }
    let mut say = |topic, at, mark, who: &str, is_heard: bool, verdict: &mut Verdict| {
        let known = *meaning.entry((topic, at)).or_insert_with(|| {
            if is_heard && !may_be_gone(history, facts, allowed, topic, at, mark) {
                verdict.blame(Fault::Vanished, format_args!("{topic}: {who} heard {mark} at {at}"));
            }
            mark
        });
        if known != mark {
            verdict.blame(Fault::Reused, format_args!("{topic}: {at} is {known}, {who} has {mark}"));
        }
        if let Err(why) = facts.may_be(topic, mark) {
            verdict.blame(Fault::Phantom, format_args!("{topic}: {who} has {mark} at {at}, which {why}"));
        }
    };
    for stream in &history.streams {
        for (_, heard) in &stream.heard {
            if let Heard::Message { at, mark } = heard {
                say(&stream.topic, *at, mark, &stream.listener, true, verdict);
            }
        }
    }
    for read in &history.reads {
        read.items.iter().for_each(|(at, mark)| say(&read.topic, *at, mark, &read.by, true, verdict));
    }
    for publish in &history.published {
        if let Answer::Yes(Some(at)) = publish.answer {
            say(&publish.topic, at, &publish.mark, "its publisher", false, verdict);
        }
    }
}

/// Whether what stood there may be gone from the log: what was asked for before the last loss, or what history let go.
fn may_be_gone(history: &History, facts: &Facts, allowed: Allowed, topic: &str, at: Position, mark: &Mark) -> bool {
    let first = history.logs.get(topic).and_then(|log| log.first());
    let is_before = first.is_none_or(|(first, _)| facts.is_behind(topic, *first, at) != Some(false));
    let is_lost = match allowed.loss {
        Loss::Nothing => false,
        Loss::Before(end) => facts.attempts(topic, mark).iter().any(|publish| publish.asked < end),
    };
    is_lost || allowed.trimmed && is_before
}
