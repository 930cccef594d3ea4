//! What subscribers heard: against the log, against what they were told, and against one another.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use fanfare::domain::position::Position;

use super::history::{Answer, Heard, History, Mark, Publish, Stream};
use super::log::Facts;
use super::verdict::{Allowed, Fault, Loss, Verdict};

/// One subscriber's way through one topic.
struct Way<'a> {
    stream: &'a Stream,
    who: String,
    /// Where it began, and when.
    base: Option<(Duration, Position)>,
    /// What it heard, with the connection on which it heard it last.
    seen: HashMap<Position, u32>,
    marks: HashMap<&'a Mark, Duration>,
    told: Vec<Told<'a>>,
    /// What it heard since it was last told of a gap, or began.
    tail: Vec<Position>,
}

/// What a subscriber was told that it does not get.
struct Told<'a> {
    after: Position,
    to: Option<Position>,
    why: &'a str,
    /// What it heard next.
    next: Option<Position>,
}

impl Told<'_> {
    fn covers(&self, facts: &Facts, topic: &str, at: Position) -> bool {
        let begins = facts.is_behind(topic, at, self.after) != Some(false);
        let end = self.to.or(self.next.map(Position::before));
        begins && end.is_none_or(|end| facts.is_behind(topic, at, end) != Some(true))
    }

    /// Whether it excuses that something is not heard which the log has. After a failover what is left still comes.
    fn excuses(&self) -> bool {
        self.why != "failover"
    }
}

pub fn judge(history: &History, facts: &Facts, allowed: Allowed, verdict: &mut Verdict) {
    let ways: Vec<Way> =
        history.streams.iter().map(|stream| follow(stream, history.healed, allowed, verdict)).collect();
    for way in &ways {
        judge_missed(way, history, facts, verdict);
    }
    judge_lost(&ways, history, facts, allowed, verdict);
    judge_ends(&ways, history, verdict);
    judge_probes(&ways, history, allowed, verdict);
}

/// Walks through what one subscriber heard, step by step.
fn follow<'a>(stream: &'a Stream, healed: Duration, allowed: Allowed, verdict: &mut Verdict) -> Way<'a> {
    let who = format!("{}: {}", stream.topic, stream.listener);
    let mut way = Way {
        stream,
        who,
        base: None,
        seen: HashMap::new(),
        marks: HashMap::new(),
        told: Vec::new(),
        tail: Vec::new(),
    };
    let (mut connection, mut cut) = (0, None);
    // Where it stands; and since then told: where the stream goes on, if that is known.
    let mut stands: Option<Position> = None;
    let mut bridge: Option<Option<Position>> = None;
    for (t, heard) in &stream.heard {
        match heard {
            Heard::Cut => cut = Some(*t),
            Heard::Joined { asked, at, resumed, why } => {
                connection += 1;
                // How long a return takes that was asked for says nothing about the fault.
                let cut = cut.take().filter(|cut| *cut < healed);
                verdict.figures.away.extend(cut.map(|cut| t.saturating_sub(cut)));
                way.base.get_or_insert((*t, *at));
                way.on_joined(*asked, *at, *resumed, why.as_deref(), stands, allowed, verdict);
                (stands, bridge) = (Some(*at), None);
            }
            Heard::Gap { after, to, why } => {
                verdict.figures.gaps += 1;
                if !allowed.gaps.contains(&why.as_str()) {
                    verdict.blame(Fault::Gap, format_args!("{}: {why}, {after} to {to:?}", way.who));
                }
                if bridge.is_none() && stands != Some(*after) {
                    let text = format!("{} stood at {stands:?}, a gap begins at {after}", way.who);
                    verdict.blame(Fault::Silent, text);
                }
                bridge = Some(*to);
                way.told.push(Told { after: *after, to: *to, why, next: None });
                way.tail.clear();
            }
            Heard::Message { at, mark } => {
                way.on_message(*t, *at, mark, connection, verdict);
                let follows = stands.is_some_and(|stands| stands.next() == *at);
                let bridged = bridge.is_some_and(|to| to.is_none_or(|to| to.epoch != at.epoch || to.next() == *at));
                let back = stands.is_some_and(|s| s.epoch == at.epoch && s.offset >= at.offset);
                if back {
                    let text = format!("{} stood at {stands:?}, heard {mark} at {at}", way.who);
                    verdict.blame(Fault::Backwards, text);
                } else if !follows && !bridged {
                    let text = format!("{} stood at {stands:?}, told {bridge:?}, heard {mark} at {at}", way.who);
                    verdict.blame(Fault::Silent, text);
                }
                (stands, bridge) = (Some(*at), None);
            }
        }
    }
    if way.base.is_none() {
        verdict.blame(Fault::Missed, format_args!("{} was never answered", way.who));
    }
    way
}

impl<'a> Way<'a> {
    #[allow(clippy::too_many_arguments, reason = "the fields of one frame")]
    fn on_joined(
        &mut self,
        asked: Option<Position>,
        at: Position,
        resumed: Option<bool>,
        why: Option<&'a str>,
        stands: Option<Position>,
        allowed: Allowed,
        verdict: &mut Verdict,
    ) {
        let who = &self.who;
        match (asked, resumed) {
            (None, _) => {
                if stands.is_some() {
                    verdict.blame(Fault::Silent, format_args!("{who} stood at {stands:?} and did not ask for it"));
                }
            }
            (Some(asked), Some(true)) => {
                verdict.figures.resumed += 1;
                if asked != at {
                    let text = format_args!("{who} asked after {asked}, is said to be resumed, begins at {at}");
                    verdict.blame(Fault::FalselyResumed, text);
                } else if stands.is_some_and(|stands| stands != asked) {
                    verdict.blame(Fault::Silent, format_args!("{who} stood at {stands:?}, asked after {asked}"));
                }
            }
            (Some(asked), _) => {
                verdict.figures.anew += 1;
                if !why.is_some_and(|why| allowed.anew.contains(&why)) {
                    verdict
                        .blame(Fault::NotResumed, format_args!("{who} asked after {asked}, begins at {at}: {why:?}"));
                }
                self.told.push(Told { after: asked, to: Some(at), why: why.unwrap_or("?"), next: None });
                self.tail.clear();
            }
        }
    }

    fn on_message(&mut self, t: Duration, at: Position, mark: &'a Mark, connection: u32, verdict: &mut Verdict) {
        verdict.figures.heard += 1;
        match self.seen.insert(at, connection) {
            Some(before) if before == connection => {
                verdict
                    .blame(Fault::Backwards, format_args!("{} heard {mark} at {at} twice on a connection", self.who));
            }
            Some(_) => verdict.figures.again += 1,
            None => {}
        }
        if let Some(told) = self.told.last_mut() {
            told.next.get_or_insert(at);
        }
        self.marks.entry(mark).or_insert(t);
        self.tail.push(at);
    }

    /// Whether what stands there, or stood, was to be heard by this subscriber.
    fn concerns(&self, facts: &Facts, at: Option<Position>, asked: Option<Duration>) -> bool {
        let Some((joined, base)) = self.base else { return false };
        let by_place = at.and_then(|at| facts.is_behind(&self.stream.topic, at, base));
        by_place.unwrap_or_else(|| asked.is_none_or(|asked| asked > joined))
    }

    fn is_told(&self, facts: &Facts, at: Position, judge: impl Fn(&Told) -> bool) -> bool {
        self.told.iter().any(|told| judge(told) && told.covers(facts, &self.stream.topic, at))
    }
}

/// R1: whatever the log has.
fn judge_missed(way: &Way, history: &History, facts: &Facts, verdict: &mut Verdict) {
    for (at, mark) in history.logs.get(&way.stream.topic).into_iter().flatten() {
        let is_missing = !way.seen.contains_key(at) && way.concerns(facts, Some(*at), None);
        if is_missing && !way.is_told(facts, *at, |told| told.excuses()) {
            verdict.blame(Fault::Missed, format_args!("{} did not hear {mark} at {at}", way.who));
        }
    }
}

/// R1 and R5: what was acknowledged and is not in the log.
fn judge_lost(ways: &[Way], history: &History, facts: &Facts, allowed: Allowed, verdict: &mut Verdict) {
    let mut judged = HashSet::new();
    for Publish { topic, mark, answer, asked, .. } in &history.published {
        let Answer::Yes(told) = answer else { continue };
        if facts.places.contains_key(&(topic.as_str(), mark)) || !judged.insert((topic, mark)) {
            continue;
        }
        let listening = || ways.iter().filter(|way| way.stream.topic == *topic);
        let is_heard = |way: &Way| way.marks.contains_key(mark);
        let is_safe = allowed.safe.contains(&mark.by.as_str());
        let may_be = allowed.trimmed && (told.is_some() || listening().any(is_heard))
            || !is_safe && matches!(allowed.loss, Loss::Before(end) if *asked < end);
        if !allowed.trimmed {
            verdict.figures.lost += 1;
        }
        if !may_be {
            verdict.blame(Fault::Lost, format_args!("{topic}: {mark} ({told:?})"));
        }
        for way in listening().filter(|way| !is_heard(way) && way.concerns(facts, *told, Some(*asked))) {
            let is_told = match told {
                Some(at) => way.is_told(facts, *at, |_| true),
                None => !way.told.is_empty(),
            };
            if !is_told {
                verdict.blame(Fault::Untold, format_args!("{} did not hear {mark} ({told:?})", way.who));
            }
        }
    }
}

/// R6: whatever was heard after the last gap is the end of the log, for all.
fn judge_ends(ways: &[Way], history: &History, verdict: &mut Verdict) {
    for way in ways {
        let topic = &way.stream.topic;
        let log = history.logs.get(topic).map_or(&[][..], Vec::as_slice);
        // Without a log, the longest that anybody heard.
        let reference: Vec<Position> = match log {
            [] => {
                let others = ways.iter().filter(|other| other.stream.topic == *topic);
                others.map(|other| &other.tail).max_by_key(|tail| tail.len()).cloned().unwrap_or_default()
            }
            log => log.iter().map(|(at, _)| *at).collect(),
        };
        let mut once = HashSet::new();
        let tail: Vec<Position> = way.tail.iter().rev().copied().filter(|at| once.insert(*at)).collect();
        let differs = tail.iter().zip(reference.iter().rev()).find(|(heard, stored)| heard != stored);
        if let Some((heard, stored)) = differs {
            verdict.blame(Fault::Diverged, format_args!("{} has {heard} where others have {stored}", way.who));
        }
    }
}

/// R7.
fn judge_probes(ways: &[Way], history: &History, allowed: Allowed, verdict: &mut Verdict) {
    for Publish { topic, mark, answer, asked, .. } in &history.published {
        if !history.probes.contains(&mark.by) {
            continue;
        }
        if !matches!(answer, Answer::Yes(_)) {
            verdict.blame(Fault::Stuck, format_args!("{topic}: the probe {mark} is answered with {answer:?}"));
        }
        for way in ways.iter().filter(|way| way.stream.topic == *topic) {
            match way.marks.get(mark).map(|t| t.saturating_sub(*asked)) {
                Some(took) => {
                    verdict.figures.alive = verdict.figures.alive.max(took);
                    if took > allowed.alive {
                        verdict.blame(Fault::Stuck, format_args!("{} hears the probe after {took:?}", way.who));
                    }
                }
                None => verdict.blame(Fault::Stuck, format_args!("{} never hears the probe {mark}", way.who)),
            }
        }
    }
}
