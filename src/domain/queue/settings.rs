//! How a queue is kept: its settings, the presets that are named after what they behave like, and the rules that go by the
//! pattern of its name.

use std::time::Duration;

use super::{Priority, Queue};
use crate::domain::topic::Pattern;
use crate::domain::webhook;

/// Waits of a back-off list.
pub const MOST_BACKOFF: usize = 20;
/// Arms of a `start_when`.
pub const MOST_ARMS: usize = 8;

/// How one queue is kept. The bounds of each field are those of `QueueSettings::faults`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSettings {
    /// Jobs that are not dead, those in flight too.
    pub max_messages: u64,
    /// Bytes of their bodies.
    pub max_bytes: u64,
    pub on_full: OnFull,
    /// How long a delivery may take, if the taker says nothing, and how far it may be extended in all.
    pub lease: Duration,
    pub max_lease: Duration,
    /// Deliveries of one job; after the last it is a dead letter.
    pub max_deliveries: u32,
    /// How long a job waits after its first, second, … failed delivery; the last wait holds for all that follow. Empty: not
    /// at all. A lease that ended waits for nothing: the lease was the wait.
    pub backoff: Vec<Duration>,
    /// How long a job may wait at most, where it does not say.
    pub ttl: Option<Duration>,
    /// How long a job without a group waits before it can be taken, where it does not say.
    pub delay: Duration,
    /// How long a de-duplication key is remembered, where the put does not say.
    pub dedupe_window: Duration,
    /// A job without a key is de-duplicated by what it holds.
    pub dedupe_content: bool,
    /// Dead letters, and bytes of their bodies, that are kept; beyond either the oldest go, and are counted.
    pub dead_messages: u64,
    pub dead_bytes: u64,
    pub on_dead: OnDead,
    /// Workers that are given jobs at a time, the others standing by; none: all.
    pub max_workers: Option<u32>,
    /// Each so many-th job taken is the one with the lowest number, whatever its priority; none: never.
    pub fair_every: Option<u32>,
    pub start_when: Option<StartWhen>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnFull {
    #[default]
    Reject,
    /// Takeable jobs with the lowest numbers become dead letters.
    DropOldest,
    /// Takeable jobs of the lowest priority do, the lowest number first; not for a job of a lower one.
    DropLowestPriority,
}

/// What follows in the group of a job that died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnDead {
    #[default]
    Continue,
    /// The group waits until the dead letter is redriven or removed.
    Halt,
}

/// When a queue begins to give out, or to tell: any of the arms is true.
///
/// Armed at first. When an arm becomes true it fires: once, over all nodes. It is armed again when nothing waits any more,
/// or `batch` jobs have been taken since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartWhen {
    pub any: Vec<Arm>,
    pub mode: Start,
    pub batch: Option<u64>,
    /// Where a firing is posted to, signed.
    pub webhook: Option<Box<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Start {
    /// Nothing is given out until it fires, and again once it is armed again.
    #[default]
    Gate,
    /// Jobs are given out as ever; a firing is only told.
    Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arm {
    /// So many jobs wait.
    Count(u64),
    /// So many jobs of this priority or a higher one wait.
    Urgent { count: u64, min_priority: Priority },
    /// One of those that would be taken next of their priority has been takeable for so long.
    Oldest(Duration),
}

impl Default for QueueSettings {
    fn default() -> QueueSettings {
        let secs = Duration::from_secs;
        QueueSettings {
            max_messages: 1_000_000,
            max_bytes: 1024 * 1024 * 1024,
            on_full: OnFull::Reject,
            lease: secs(30),
            max_lease: secs(12 * 3600),
            max_deliveries: 5,
            backoff: vec![secs(1), secs(10), secs(60), secs(300)],
            ttl: None,
            delay: Duration::ZERO,
            dedupe_window: secs(300),
            dedupe_content: false,
            dead_messages: 10_000,
            dead_bytes: 256 * 1024 * 1024,
            on_dead: OnDead::Continue,
            max_workers: None,
            fair_every: None,
            start_when: None,
        }
    }
}

impl QueueSettings {
    /// What is out of bounds or does not go together, each with what would do.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut within = |name: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                faults.push(format!("{name} is {value}, it takes {least} to {most}"));
            }
        };
        within("max_messages", self.max_messages, 1, 100_000_000);
        within("max_bytes", self.max_bytes, 1024, 1 << 40);
        within("max_deliveries", self.max_deliveries.into(), 1, 1000);
        within("dead_messages", self.dead_messages, 0, 10_000_000);
        within("dead_bytes", self.dead_bytes, 0, 1 << 40);
        within("the number of waits in backoff", self.backoff.len() as u64, 0, MOST_BACKOFF as u64);
        within("max_workers", self.max_workers.unwrap_or(1).into(), 1, 1000);
        within("fair_every", self.fair_every.unwrap_or(2).into(), 2, 1_000_000);
        let mut lasts = |name: &str, value: Duration, least: Duration, most: Duration| {
            if !(least..=most).contains(&value) {
                faults.push(format!("{name} is {value:?}, it takes {least:?} to {most:?}"));
            }
        };
        let (ms, hours, days) = (
            Duration::from_millis,
            |n: u64| Duration::from_secs(n * 3600),
            |n: u64| Duration::from_secs(n * 24 * 3600),
        );
        lasts("lease", self.lease, ms(100), hours(12));
        lasts("max_lease", self.max_lease, self.lease, hours(12));
        lasts("ttl", self.ttl.unwrap_or(days(1)), ms(1), days(365));
        lasts("delay", self.delay, ms(0), days(365));
        lasts("dedupe_window", self.dedupe_window, ms(0), days(1));
        for wait in &self.backoff {
            lasts("a wait of backoff", *wait, ms(0), days(1));
        }
        if let Some(start) = &self.start_when {
            start.faults(&mut faults);
        }
        faults
    }

    /// The same, with what may be secret hidden.
    pub fn shown(&self) -> QueueSettings {
        let mut shown = self.clone();
        if let Some(url) = shown.start_when.as_mut().and_then(|start| start.webhook.as_mut()) {
            *url = webhook::shown(url).into();
        }
        shown
    }

    /// Where what is shown of a secret was written back, it stays what it was.
    pub fn keep_hidden(&mut self, base: &QueueSettings) {
        let before = base.start_when.as_ref().and_then(|start| start.webhook.as_ref());
        let now = self.start_when.as_mut().and_then(|start| start.webhook.as_mut());
        if let (Some(before), Some(now)) = (before, now)
            && **now == *webhook::shown(before)
        {
            now.clone_from(before);
        }
    }

    /// How long a job waits after the failure of this delivery, counted from 1.
    pub fn wait_after(&self, delivery: u32) -> Duration {
        let last = self.backoff.len().saturating_sub(1);
        self.backoff.get((delivery.max(1) as usize - 1).min(last)).copied().unwrap_or_default()
    }
}

impl StartWhen {
    fn faults(&self, faults: &mut Vec<String>) {
        if self.any.is_empty() || self.any.len() > MOST_ARMS {
            faults.push(format!("start_when takes 1 to {MOST_ARMS} conditions, here are {}", self.any.len()));
        }
        let is_possible = |arm: &Arm| match *arm {
            Arm::Count(count) | Arm::Urgent { count, .. } => count > 0,
            Arm::Oldest(age) => age > Duration::ZERO,
        };
        if !self.any.iter().all(is_possible) || self.batch == Some(0) {
            faults.push("in start_when a count, an age and batch are more than 0".into());
        }
        faults.extend(self.webhook.as_deref().and_then(|url| webhook::read(url).err()));
    }
}

/// Settings named after what they behave like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    SqsStandard,
    SqsFifo,
    Kinesis,
    KafkaGroup,
    JmsQueue,
    SimpleBroker,
}

impl Preset {
    pub const ALL: [Preset; 6] = [
        Preset::SqsStandard,
        Preset::SqsFifo,
        Preset::Kinesis,
        Preset::KafkaGroup,
        Preset::JmsQueue,
        Preset::SimpleBroker,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Preset::SqsStandard => "sqs-standard",
            Preset::SqsFifo => "sqs-fifo",
            Preset::Kinesis => "kinesis",
            Preset::KafkaGroup => "kafka-group",
            Preset::JmsQueue => "jms-queue",
            Preset::SimpleBroker => "simple-broker",
        }
    }

    pub fn parse(word: &str) -> Option<Preset> {
        Preset::ALL.into_iter().find(|preset| preset.as_str() == word)
    }

    pub fn settings(self) -> QueueSettings {
        let days = |n: u64| Some(Duration::from_secs(n * 24 * 3600));
        let plain = QueueSettings { backoff: Vec::new(), ..QueueSettings::default() };
        match self {
            // Kept four days; a job comes back when its visibility timeout ends, as often as it takes.
            Preset::SqsStandard => QueueSettings { max_deliveries: 1000, ttl: days(4), ..plain },
            Preset::SqsFifo => QueueSettings { dedupe_content: true, ..Preset::SqsStandard.settings() },
            // A record that fails blocks its shard (group) until it is done or has expired.
            Preset::Kinesis => QueueSettings { max_deliveries: 1000, ttl: days(1), on_dead: OnDead::Continue, ..plain },
            // Nothing behind a failed record of a partition (group) is read before somebody has dealt with it.
            Preset::KafkaGroup => QueueSettings { max_deliveries: 1000, ttl: days(7), on_dead: OnDead::Halt, ..plain },
            // The first delivery and six more, one second apart.
            Preset::JmsQueue => QueueSettings { max_deliveries: 7, backoff: vec![Duration::from_secs(1)], ..plain },
            // Delivered at most once, and what nobody takes is soon gone.
            Preset::SimpleBroker => QueueSettings {
                max_messages: 10_000,
                on_full: OnFull::DropOldest,
                max_deliveries: 1,
                ttl: Some(Duration::from_secs(10)),
                dead_messages: 0,
                ..plain
            },
        }
    }
}

/// The settings of every queue that has none of its own: those of the first rule whose pattern it meets, else the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueueRules {
    pub defaults: QueueSettings,
    pub rules: Vec<(Pattern, QueueSettings)>,
}

impl QueueRules {
    pub fn of(&self, queue: &Queue) -> &QueueSettings {
        let rule = self.rules.iter().find(|(pattern, _)| pattern.meets_name(queue.as_str()));
        rule.map_or(&self.defaults, |(_, settings)| settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_presets_are_within_the_bounds() {
        assert_eq!(QueueSettings::default().faults(), Vec::<String>::new());
        for preset in Preset::ALL {
            assert_eq!(preset.settings().faults(), Vec::<String>::new(), "{}", preset.as_str());
            assert_eq!(Preset::parse(preset.as_str()), Some(preset));
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_named_with_what_would_do() {
        let settings = QueueSettings { max_deliveries: 0, lease: Duration::ZERO, ..QueueSettings::default() };
        let faults = settings.faults();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("max_deliveries is 0, it takes 1 to 1000"), "{faults:?}");
    }

    #[test]
    fn the_last_wait_holds_for_all_that_follow() {
        let settings = QueueSettings::default();
        let waits = [1, 2, 4, 5, 900].map(|n| settings.wait_after(n).as_secs());
        assert_eq!(waits, [1, 10, 300, 300, 300]);
        assert_eq!(QueueSettings { backoff: vec![], ..settings }.wait_after(3), Duration::ZERO);
    }
}
