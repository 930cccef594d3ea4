//! What the judge says: the faults with their rules, the figures of the run, and what a run may allow.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use super::history::p99;

/// The rules of `mod.rs` and `work.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    Q1,
    Q2,
    Q3,
    Q4,
    Q5,
    Q6,
    Q7,
    Q8,
    Q9,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// Acknowledged, and not in the log.
    Lost,
    /// In the log, and not heard by a subscriber of the topic.
    Missed,
    /// The log's offsets do not follow each other.
    Hole,
    /// In the log after a later one of the same publisher.
    Reordered,
    /// A subscriber's stream went back on one connection.
    Backwards,
    /// Heard or stored, though never published in this form, or refused.
    Phantom,
    /// One position, two messages.
    Reused,
    /// One message, two positions.
    Repeated,
    /// Acknowledged with another position than it has.
    Misplaced,
    /// A subscriber's stream jumped without a gap that was told before and covers it.
    Silent,
    /// A subscription was said to be resumed, and begins elsewhere.
    FalselyResumed,
    /// `after` was not resumed from, for a reason that this run does not allow.
    NotResumed,
    /// A gap of a cause that this run does not allow.
    Gap,
    /// Acknowledged and lost, as the run allows, but a subscriber that it concerns was not told.
    Untold,
    /// Heard by a subscriber, and in nobody's log.
    Vanished,
    /// Subscribers of one topic end differently.
    Diverged,
    /// A probe does not reach a subscriber in time.
    Stuck,
    /// A job that was put is neither done nor left.
    LostJob,
    /// A job that nobody put.
    PhantomJob,
    /// Given out, or left, after its acknowledgement.
    Undone,
    AckedTwice,
    /// Acknowledged by a delivery that another one had followed.
    LateAck,
    /// Given out for the first time after a later one of its group.
    GroupOrder,
    /// Given out while another one of its group was.
    GroupShared,
    /// Numbered before what its producer had put before.
    PutOrder,
    /// Given out more often than its queue allows.
    TooOften,
    DeadTwice,
    DeadAndDone,
    TwoForOneKey,
    /// Put once, or under a key, and two jobs.
    PutTwice,
    ToldTwice,
    /// A firing that nobody told.
    Untelling,
    Miscounted,
}

impl Fault {
    pub fn rule(self) -> Rule {
        use Fault::*;
        match self {
            Lost | Missed | Hole => Rule::R1,
            Reordered | Backwards => Rule::R2,
            Phantom => Rule::R3,
            Reused | Repeated | Misplaced => Rule::R4,
            Silent | FalselyResumed | NotResumed | Gap | Untold => Rule::R5,
            Vanished | Diverged => Rule::R6,
            Stuck => Rule::R7,
            LostJob | PhantomJob => Rule::Q1,
            Undone => Rule::Q2,
            AckedTwice | LateAck => Rule::Q3,
            GroupOrder | GroupShared | PutOrder => Rule::Q4,
            TooOften => Rule::Q5,
            DeadTwice | DeadAndDone => Rule::Q6,
            TwoForOneKey | PutTwice => Rule::Q7,
            ToldTwice | Untelling => Rule::Q8,
            Miscounted => Rule::Q9,
        }
    }
}

/// Whether acknowledged messages may be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Loss {
    #[default]
    Nothing,
    /// Those that were asked for before this time, if everybody whom it concerns was told.
    Before(Duration),
}

/// What this run allows.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    pub loss: Loss,
    /// Publishers of which nothing may be lost all the same.
    pub safe: &'static [&'static str],
    /// Causes of gaps that subscribers may be told.
    pub gaps: &'static [&'static str],
    /// Causes for which `after` may not be resumed from.
    pub anew: &'static [&'static str],
    /// The log does not reach back to the beginning.
    pub trimmed: bool,
    /// So soon must a probe be heard.
    pub alive: Duration,
}

impl Default for Allowed {
    fn default() -> Allowed {
        Allowed { loss: Loss::Nothing, safe: &[], gaps: &[], anew: &[], trimmed: false, alive: Duration::from_secs(5) }
    }
}

/// What the run was made of.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub acknowledged: usize,
    pub refused: usize,
    pub unknown: usize,
    pub stored: usize,
    /// Acknowledged and gone, allowed or not.
    pub lost: usize,
    /// Messages that were asked for again under their key, and acknowledged in the end.
    pub repetitions: usize,
    /// Messages heard, and those of them that a subscriber had heard before on an earlier connection.
    pub heard: usize,
    pub again: usize,
    pub gaps: usize,
    /// Subscriptions that came back with proof, and without.
    pub resumed: usize,
    pub anew: usize,
    /// From the end of a connection to the answer on the next one, each time.
    pub away: Vec<Duration>,
    /// The longest that a probe took to somebody.
    pub alive: Duration,
}

impl Figures {
    /// The time within which 99 of 100 subscriptions were back.
    pub fn away_p99(&self) -> Duration {
        p99(self.away.clone())
    }
}

#[derive(Debug, Default)]
pub struct Verdict {
    pub faults: Vec<(Fault, String)>,
    pub figures: Figures,
}

impl Verdict {
    /// How often each fault was found.
    pub fn counts(&self) -> BTreeMap<Fault, usize> {
        self.faults.iter().fold(BTreeMap::new(), |mut counts, (fault, _)| {
            *counts.entry(*fault).or_default() += 1;
            counts
        })
    }

    pub fn count(&self, fault: Fault) -> usize {
        self.counts().get(&fault).copied().unwrap_or_default()
    }

    /// Fails with the first faults of each kind.
    pub fn assert_clean(&self) {
        let mut shown: HashMap<Fault, usize> = HashMap::new();
        for (fault, text) in &self.faults {
            let count = shown.entry(*fault).or_default();
            *count += 1;
            if *count <= 10 {
                eprintln!("{:?} {fault:?}: {text}", fault.rule());
            }
        }
        assert!(self.faults.is_empty(), "{:?}", self.counts());
    }

    pub(super) fn blame(&mut self, fault: Fault, text: impl fmt::Display) {
        self.faults.push((fault, text.to_string()));
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = &self.figures;
        let Figures { acknowledged, refused, unknown, stored, lost, heard, again, gaps, resumed, anew, .. } = figures;
        let repetitions = figures.repetitions;
        let repeated = self.count(Fault::Repeated);
        let breaks = self.count(Fault::Reordered) + self.count(Fault::Backwards);
        writeln!(
            f,
            "{acknowledged} acknowledged ({repetitions} when repeated), {refused} refused, {unknown} unknown, {stored} in the log at the end"
        )?;
        writeln!(
            f,
            "lost {lost}, repeated {repeated}, order breaks {breaks}, phantom {}, reused {}",
            self.count(Fault::Phantom),
            self.count(Fault::Reused)
        )?;
        writeln!(f, "{heard} heard ({again} again), {gaps} gaps told, resumed {resumed}, begun anew {anew}")?;
        write!(
            f,
            "back after {:.0?} (p99), probes heard after {:.0?}; faults {:?}",
            figures.away_p99(),
            figures.alive,
            self.counts()
        )
    }
}
