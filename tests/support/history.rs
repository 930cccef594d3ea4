//! What happened in a run, as publishers, subscribers and the log tell it, and the judge of it. Pure: it knows neither
//! processes nor sockets. What must hold: nothing acknowledged is lost, nothing stands twice, order is kept for each
//! publisher, a position means one message for ever, and a subscriber gets the log or is told what it does not get.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::time::Instant;

use fanfare::domain::position::{Epoch, Position};

/// What a message carries: who published it, and that publisher's count.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark {
    pub by: String,
    pub n: u64,
}

impl Mark {
    pub fn new(by: &str, n: u64) -> Mark {
        Mark { by: by.to_owned(), n }
    }

    pub fn parse(text: &str) -> Option<Mark> {
        let (by, n) = text.rsplit_once(':')?;
        Some(Mark::new(by, n.parse().ok()?))
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.by, self.n)
    }
}

/// What a publisher was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Stored; and where, if the door says so.
    Yes(Option<Position>),
    /// Not stored.
    No,
    /// It may be stored or not.
    Unknown,
}

#[derive(Debug, Clone)]
pub struct Publish {
    pub topic: String,
    pub mark: Mark,
    pub answer: Answer,
    pub asked: Instant,
}

/// What one subscriber heard of one topic.
#[derive(Debug, Clone)]
pub enum Heard {
    /// A connection's subscription was answered.
    Joined {
        asked: Option<Position>,
        at: Position,
        resumed: Option<bool>,
    },
    Message {
        at: Position,
        mark: Mark,
    },
    Gap {
        after: Position,
        to: Option<Position>,
        why: String,
    },
}

#[derive(Debug, Clone)]
pub struct Stream {
    pub listener: String,
    pub topic: String,
    pub heard: Vec<Heard>,
}

#[derive(Debug, Clone, Default)]
pub struct History {
    pub published: Vec<Publish>,
    /// The whole log of each topic, oldest first, as it was at the end.
    pub logs: BTreeMap<String, Vec<(Position, Mark)>>,
    pub streams: Vec<Stream>,
}

/// What this run allows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// Causes of gaps that subscribers may be told.
    pub gaps: &'static [&'static str],
    /// The store lost everything that was published before; what is published later must be there.
    pub emptied: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// Acknowledged, and not in the log.
    Lost,
    /// Acknowledged with another position than it has.
    Misplaced,
    /// In the log or heard, though never published, or refused.
    Phantom,
    /// Twice in a topic's log.
    Repeated,
    /// In the log after a later one of the same publisher.
    Reordered,
    /// One position, two messages.
    Reused,
    /// The log's offsets do not follow each other.
    Hole,
    /// Heard by a subscriber, and not in the log.
    Vanished,
    /// In the log, and not heard by a subscriber of the topic.
    Missed,
    /// A subscriber's stream jumped without a gap being told, or a gap was told that begins elsewhere.
    Silent,
    /// A subscriber's stream went back on one connection.
    Backwards,
    /// `after` was not resumed from.
    NotResumed,
    /// A gap of a cause that this run does not allow.
    Gap,
}

#[derive(Debug, Default)]
pub struct Verdict {
    pub faults: Vec<(Fault, String)>,
    /// Messages heard, and those of them that a subscriber had heard before on an earlier connection.
    pub heard: usize,
    pub again: usize,
    pub gaps: usize,
}

impl Verdict {
    /// How often each fault was found.
    pub fn counts(&self) -> BTreeMap<Fault, usize> {
        self.faults.iter().fold(BTreeMap::new(), |mut counts, (fault, _)| {
            *counts.entry(*fault).or_default() += 1;
            counts
        })
    }

    /// Fails with the first faults of each kind.
    pub fn assert_clean(&self) {
        let mut shown: HashMap<Fault, usize> = HashMap::new();
        for (fault, text) in &self.faults {
            let count = shown.entry(*fault).or_default();
            *count += 1;
            if *count <= 10 {
                eprintln!("{fault:?}: {text}");
            }
        }
        assert!(self.faults.is_empty(), "{:?}", self.counts());
    }

    fn blame(&mut self, fault: Fault, text: impl fmt::Display) {
        self.faults.push((fault, text.to_string()));
    }
}

pub fn judge(history: &History, rules: Rules) -> Verdict {
    let mut verdict = Verdict::default();
    let published: HashMap<(&str, &Mark), &Publish> =
        history.published.iter().map(|p| ((p.topic.as_str(), &p.mark), p)).collect();
    for (topic, log) in &history.logs {
        judge_log(topic, log, &published, &mut verdict);
    }
    judge_answers(history, rules, &mut verdict);
    // What each position means, by the log and then by whoever heard of it first.
    let mut meaning: HashMap<(&str, Position), &Mark> = history
        .logs
        .iter()
        .flat_map(|(topic, log)| log.iter().map(move |(at, m)| ((topic.as_str(), *at), m)))
        .collect();
    for stream in &history.streams {
        judge_meaning(stream, history, rules, &published, &mut meaning, &mut verdict);
        judge_stream(stream, history, rules, &mut verdict);
    }
    verdict
}

type Published<'a> = HashMap<(&'a str, &'a Mark), &'a Publish>;

fn judge_log(topic: &str, log: &[(Position, Mark)], published: &Published, verdict: &mut Verdict) {
    let (mut places, mut marks) = (HashSet::new(), HashSet::new());
    let mut last: HashMap<&str, u64> = HashMap::new();
    let mut before: Option<Position> = None;
    for (at, mark) in log {
        if !places.insert(*at) {
            verdict.blame(Fault::Reused, format_args!("{topic}: {at} stands twice in the log"));
        }
        if !marks.insert(mark) {
            verdict.blame(Fault::Repeated, format_args!("{topic}: {mark}, the second time at {at}"));
        } else if last.insert(&mark.by, mark.n).is_some_and(|last| last > mark.n) {
            verdict.blame(Fault::Reordered, format_args!("{topic}: {mark} at {at} comes after a later one"));
        }
        match published.get(&(topic, mark)) {
            Some(publish) if publish.answer != Answer::No => {}
            Some(_) => verdict.blame(Fault::Phantom, format_args!("{topic}: {mark} at {at} was refused")),
            None => verdict.blame(Fault::Phantom, format_args!("{topic}: {mark} at {at} was never published")),
        }
        // Offsets go on counting over lives.
        if let Some(before) = before.filter(|before| before.offset + 1 != at.offset) {
            verdict.blame(Fault::Hole, format_args!("{topic}: {at} follows {before}"));
        }
        before = Some(*at);
    }
}

fn judge_answers(history: &History, rules: Rules, verdict: &mut Verdict) {
    let mut stored: HashMap<(&str, &Mark), Position> = HashMap::new();
    for (topic, log) in &history.logs {
        stored.extend(log.iter().map(|(at, mark)| ((topic.as_str(), mark), *at)));
    }
    for Publish { topic, mark, answer, asked } in &history.published {
        let Answer::Yes(told) = answer else { continue };
        match (stored.get(&(topic.as_str(), mark)), told) {
            (None, _) if rules.emptied.is_some_and(|emptied| *asked < emptied) => {}
            (None, _) => verdict.blame(Fault::Lost, format_args!("{topic}: {mark} ({told:?})")),
            (Some(at), Some(told)) if at != told => {
                verdict.blame(Fault::Misplaced, format_args!("{topic}: {mark} is at {at}, its publisher heard {told}"));
            }
            _ => {}
        }
    }
}

fn epochs(history: &History, topic: &str) -> HashSet<Epoch> {
    history.logs.get(topic).into_iter().flatten().map(|(at, _)| at.epoch).collect()
}

fn judge_meaning<'a>(
    stream: &'a Stream,
    history: &History,
    rules: Rules,
    published: &Published,
    meaning: &mut HashMap<(&'a str, Position), &'a Mark>,
    verdict: &mut Verdict,
) {
    let Stream { listener, topic, heard } = stream;
    let kept = epochs(history, topic);
    for heard in heard {
        let Heard::Message { at, mark } = heard else { continue };
        let known = *meaning.entry((topic.as_str(), *at)).or_insert_with(|| {
            // Not in the log: fine if its life went with the store.
            if rules.emptied.is_none() || kept.contains(&at.epoch) {
                verdict.blame(Fault::Vanished, format_args!("{topic}: {listener} heard {mark} at {at}"));
            }
            if published.get(&(topic.as_str(), mark)).is_none_or(|p| p.answer == Answer::No) {
                verdict.blame(Fault::Phantom, format_args!("{topic}: {listener} heard {mark} at {at}"));
            }
            mark
        });
        if known != mark {
            verdict.blame(Fault::Reused, format_args!("{topic}: {at} is {known}, {listener} heard {mark}"));
        }
    }
}

fn judge_stream(stream: &Stream, history: &History, rules: Rules, verdict: &mut Verdict) {
    let Stream { listener, topic, heard } = stream;
    let who = format!("{topic}: {listener}");
    let mut seen: HashSet<Position> = HashSet::new();
    let mut seen_here: HashSet<Position> = HashSet::new();
    let (mut base, mut stands): (Option<Position>, Option<Position>) = (None, None);
    // A gap was told since: where the stream goes on, if that is known.
    let mut told: Option<Option<Position>> = None;
    for heard in heard {
        match heard {
            Heard::Joined { asked, at, resumed } => {
                if asked.is_some() && *resumed != Some(true) {
                    verdict.blame(Fault::NotResumed, format_args!("{who} asked after {asked:?}, begins at {at}"));
                } else if asked.unwrap_or(*at) != *at || stands.is_some() && *asked != stands {
                    let text = format!("{who} stood at {stands:?}, asked after {asked:?}, begins at {at}");
                    verdict.blame(Fault::Silent, text);
                }
                base.get_or_insert(*at);
                (stands, told) = (Some(*at), None);
                seen_here.clear();
            }
            Heard::Gap { after, to, why } => {
                verdict.gaps += 1;
                if !rules.gaps.contains(&why.as_str()) {
                    verdict.blame(Fault::Gap, format_args!("{who}: {why}, {after} to {to:?}"));
                }
                if told.is_none() && stands != Some(*after) {
                    verdict.blame(Fault::Silent, format_args!("{who} stood at {stands:?}, a gap begins at {after}"));
                }
                told = Some(*to);
            }
            Heard::Message { at, mark } => {
                verdict.heard += 1;
                if !seen_here.insert(*at) {
                    verdict.blame(Fault::Backwards, format_args!("{who} heard {mark} at {at} twice on a connection"));
                } else if !seen.insert(*at) {
                    verdict.again += 1;
                }
                let follows = stands.is_some_and(|stands| stands.next() == *at);
                let bridged = told.is_some_and(|to| to.is_none_or(|to| to.epoch != at.epoch || to.next() == *at));
                let back = stands.is_some_and(|s| s.epoch == at.epoch && s.offset >= at.offset);
                if back {
                    verdict.blame(Fault::Backwards, format_args!("{who} stood at {stands:?}, heard {mark} at {at}"));
                } else if !follows && !bridged {
                    verdict.blame(Fault::Silent, format_args!("{who} stood at {stands:?}, heard {mark} at {at}"));
                }
                (stands, told) = (Some(*at), None);
            }
        }
    }
    let Some(base) = base else {
        return verdict.blame(Fault::Missed, format_args!("{who} was never answered"));
    };
    for (at, mark) in history.logs.get(topic).into_iter().flatten() {
        let owed = at.offset > base.offset || rules.emptied.is_some() && at.epoch != base.epoch;
        if owed && !seen.contains(at) {
            verdict.blame(Fault::Missed, format_args!("{who} did not hear {mark} at {at}"));
        }
    }
}
