//! How a topic is kept: its mode, how much of it and how long, by rules that go by the pattern of its name.
//!
//! Rules are settings of a hub, and the same on every node of one store: they are not written into the store, which
//! keeps each message by the rules of the node that appended or read last.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::name::{NameError, Topic};
use super::store::Retention;

/// Rules of one hub. Each costs a look at its first letters for every publish.
pub const MOST_RULES: usize = 256;

/// What a topic keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Its history, as far as the bounds reach.
    #[default]
    Log,
    /// Nothing: who is not there misses it, and is told so.
    Live,
    /// The newest message of each `key`, and of those without one. Newcomers get them at once; what newer ones have
    /// replaced is not missed by anybody.
    Latest,
}

impl Mode {
    pub const ALL: [Mode; 3] = [Mode::Log, Mode::Live, Mode::Latest];

    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Log => "log",
            Mode::Live => "live",
            Mode::Latest => "latest",
        }
    }

    pub fn parse(text: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|m| m.as_str() == text)
    }
}

/// What becomes of a subscriber that was in the live stream and does not keep up with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Slow {
    /// It is read on from the store as it takes what it is given, and misses nothing that history still has.
    #[default]
    Resume,
    /// It goes on with the newest message, and is told what lies before it.
    Conflate,
    /// It goes on with the newest `Slow::NEWEST` messages, and is told what lies before them.
    DropOldest,
    /// Its connection is closed, with the code for slow ones.
    Cut,
}

impl Slow {
    pub const ALL: [Slow; 4] = [Slow::Resume, Slow::Conflate, Slow::DropOldest, Slow::Cut];
    /// Messages that a slow subscriber goes on with where the oldest are dropped.
    pub const NEWEST: u32 = 100;

    pub fn as_str(self) -> &'static str {
        match self {
            Slow::Resume => "resume",
            Slow::Conflate => "conflate",
            Slow::DropOldest => "drop-oldest",
            Slow::Cut => "cut",
        }
    }

    pub fn parse(text: &str) -> Option<Slow> {
        Slow::ALL.into_iter().find(|slow| slow.as_str() == text)
    }

    /// How many of the newest messages a slow subscriber goes on with, if not with all.
    pub fn keeps(self) -> Option<u32> {
        match self {
            Slow::Conflate => Some(1),
            Slow::DropOldest => Some(Slow::NEWEST),
            Slow::Resume | Slow::Cut => None,
        }
    }
}

/// How one topic is kept, and given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TopicSettings {
    pub mode: Mode,
    /// Messages that are kept; in mode `latest` the keys of which one is.
    pub messages: u64,
    /// Bytes of bodies that are kept. The newest message is kept however large it is.
    pub bytes: u64,
    pub age: Duration,
    /// How long the record of the topic (its epochs and fences) outlives its messages.
    pub record: Duration,
    pub slow: Slow,
}

impl From<&Retention> for TopicSettings {
    fn from(retention: &Retention) -> TopicSettings {
        let Retention { messages, bytes, age, record, .. } = *retention;
        TopicSettings { mode: Mode::Log, messages, bytes, age, record, slow: Slow::Resume }
    }
}

/// What is said of topics of a pattern; the rest is as for every topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub pattern: Pattern,
    pub mode: Option<Mode>,
    pub messages: Option<u64>,
    pub bytes: Option<u64>,
    pub age: Option<Duration>,
    pub record: Option<Duration>,
    pub slow: Option<Slow>,
}

impl Rule {
    pub fn new(pattern: Pattern) -> Rule {
        Rule { pattern, mode: None, messages: None, bytes: None, age: None, record: None, slow: None }
    }

    fn over(&self, defaults: &TopicSettings) -> TopicSettings {
        TopicSettings {
            mode: self.mode.unwrap_or(defaults.mode),
            messages: self.messages.unwrap_or(defaults.messages),
            bytes: self.bytes.unwrap_or(defaults.bytes),
            age: self.age.unwrap_or(defaults.age),
            record: self.record.unwrap_or(defaults.record),
            slow: self.slow.unwrap_or(defaults.slow),
        }
    }
}

/// The settings of every topic: those of the first rule whose pattern it meets, else those that the hub gives topics of its
/// own, else the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    defaults: TopicSettings,
    rules: Vec<(Pattern, TopicSettings)>,
    notes: TopicSettings,
    figures: TopicSettings,
}

/// How long notes of the hub's own are kept: when a binding was opened, when a schedule ran last.
const NOTED: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How long figures are kept: who comes later is not shown old ones.
const SHOWN: Duration = Duration::from_secs(60);

impl Rules {
    pub fn new(defaults: TopicSettings, rules: &[Rule]) -> Rules {
        let rules = rules.iter().map(|rule| (rule.pattern.clone(), rule.over(&defaults))).collect();
        let latest = TopicSettings { mode: Mode::Latest, messages: 1, ..defaults };
        let notes = TopicSettings { age: NOTED, record: NOTED, ..latest };
        Rules { defaults, rules, notes, figures: TopicSettings { age: SHOWN, ..latest } }
    }

    pub fn of(&self, topic: &Topic) -> &TopicSettings {
        let rule = self.rules.iter().find(|(pattern, _)| pattern.meets(topic));
        rule.map_or_else(|| self.usual(topic.as_str()), |(_, settings)| settings)
    }

    /// Where no rule speaks of it.
    fn usual(&self, name: &str) -> &TopicSettings {
        match name.strip_prefix('$') {
            None => &self.defaults,
            Some(own) if own.starts_with("binding.") || own.starts_with("schedule.") => &self.notes,
            Some(own) if own.starts_with("queue.") && own.ends_with(".stats") => &self.figures,
            Some(_) => &self.defaults,
        }
    }

    /// All settings that a topic can have.
    pub fn all(&self) -> impl Iterator<Item = &TopicSettings> {
        [&self.defaults, &self.notes, &self.figures].into_iter().chain(self.rules.iter().map(|(_, settings)| settings))
    }
}

impl Default for Rules {
    fn default() -> Rules {
        Rules::new((&Retention::default()).into(), &[])
    }
}

/// Topics by the form of their names: `*` stands for one segment, `**` at the end for one or more. Names that begin
/// with `$` are met only by patterns that do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: Box<str>,
    /// What every name of it begins with: most names are turned away by it.
    prefix: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    #[error(transparent)]
    Name(NameError),
    #[error("`*` stands for a whole segment, as in a.*.b, not for a part of one as in {0:?}")]
    Part(Box<str>),
    #[error("`**` stands at the end only")]
    Inside,
}

impl Pattern {
    pub fn meets(&self, topic: &Topic) -> bool {
        self.meets_name(topic.as_str())
    }

    /// The same for a name of a queue: the grammar is one.
    pub fn meets_name(&self, name: &str) -> bool {
        if !name.starts_with(&self.text[..self.prefix]) || self.text.starts_with('$') != name.starts_with('$') {
            return false;
        }
        let (mut segments, mut rest) = (self.text.split('.'), name.split('.'));
        loop {
            match (segments.next(), rest.next()) {
                (Some("**"), Some(_)) => return true,
                (Some("*"), Some(_)) => {}
                // A lone `$*` asks for what follows the `$`.
                (Some("$*"), Some(segment)) if segment.len() > 1 => {}
                (Some("$**"), Some(segment)) if segment.len() > 1 => return true,
                (Some(segment), Some(other)) if segment == other => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Pattern, BadPattern> {
        let bare = text.strip_prefix('$').unwrap_or(text);
        let last = bare.split('.').count().saturating_sub(1);
        for (i, segment) in bare.split('.').enumerate() {
            match segment {
                "**" if i < last => return Err(BadPattern::Inside),
                "*" | "**" => {}
                part if part.contains('*') => return Err(BadPattern::Part(part.chars().take(40).collect())),
                _ => {}
            }
        }
        // The rest is the grammar of names: a wildcard may stand where a letter may.
        Topic::parse(&text.replace('*', "x")).map_err(BadPattern::Name)?;
        Ok(Pattern { text: text.into(), prefix: text.find('*').unwrap_or(text.len()) })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meets(pattern: &str, name: &str) -> bool {
        pattern.parse::<Pattern>().unwrap().meets(&Topic::parse(name).unwrap())
    }

    #[test]
    fn patterns_by_table() {
        for (pattern, met, not) in [
            ("news", &["news"][..], &["new", "newss", "news.a", "$news"][..]),
            ("chat.*", &["chat.a", "chat.b"], &["chat", "chat.a.b", "chats.a"]),
            ("chat.**", &["chat.a", "chat.a.b.c"], &["chat", "chats.a"]),
            ("*", &["a", "news"], &["a.b", "$a"]),
            ("**", &["a", "a.b.c"], &["$a", "$a.b"]),
            ("a.*.c", &["a.b.c", "a.x.c"], &["a.c", "a.b.d", "a.b.c.d"]),
            ("*.b", &["a.b"], &["b", "a.b.c", "$a.b"]),
            ("$**", &["$a", "$a.b"], &["a"]),
            ("$*", &["$a"], &["$a.b", "a"]),
            ("$a.*", &["$a.b"], &["a.b", "$a"]),
        ] {
            for name in met {
                assert!(meets(pattern, name), "{pattern} meets {name}");
            }
            for name in not {
                assert!(!meets(pattern, name), "{pattern} does not meet {name}");
            }
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_reason() {
        for (text, shows) in [
            ("", "empty"),
            ("a..b", "empty segment"),
            ("a.**.b", "at the end"),
            ("chat.ro*m", "whole segment"),
            ("***", "whole segment"),
            ("a b", "' '"),
            ("a/.*", "'/'"),
            ("*/a", "whole segment"),
            ("*.", "empty segment"),
        ] {
            let error = text.parse::<Pattern>().unwrap_err().to_string();
            assert!(error.contains(shows), "{text:?}: {error}");
        }
        assert!(format!("{}.*", "n".repeat(200)).parse::<Pattern>().is_err());
    }

    #[test]
    fn the_first_rule_that_a_topic_meets_counts_and_says_what_it_says() {
        let rule = |pattern: &str| Rule::new(pattern.parse().unwrap());
        let defaults = TopicSettings::from(&Retention::default());
        let rules = Rules::new(
            defaults,
            &[
                Rule { mode: Some(Mode::Live), ..rule("chat.typing.*") },
                Rule { messages: Some(50), age: Some(Duration::from_secs(60)), ..rule("chat.**") },
                Rule { mode: Some(Mode::Latest), ..rule("**") },
            ],
        );
        let of = |name: &str| *rules.of(&Topic::parse(name).unwrap());
        assert_eq!(of("chat.typing.a"), TopicSettings { mode: Mode::Live, ..defaults });
        assert_eq!(of("chat.a"), TopicSettings { messages: 50, age: Duration::from_secs(60), ..defaults });
        assert_eq!(of("price"), TopicSettings { mode: Mode::Latest, ..defaults });
        assert_eq!(of("$stats"), defaults);
    }

    #[test]
    fn topics_of_the_hub_have_settings_of_their_own_unless_a_rule_speaks_of_them() {
        let defaults = TopicSettings::from(&Retention::default());
        let of = |rules: &[Rule], name: &str| *Rules::new(defaults, rules).of(&Topic::parse(name).unwrap());
        for (name, mode, age) in [
            ("$queue.a.b.trigger", Mode::Log, defaults.age),
            ("$queue.a.b.stats", Mode::Latest, SHOWN),
            ("$binding.a", Mode::Latest, NOTED),
            ("$schedule.a", Mode::Latest, NOTED),
            ("queue.a.stats", Mode::Log, defaults.age),
        ] {
            assert_eq!((of(&[], name).mode, of(&[], name).age), (mode, age), "{name}");
        }
        let rule = Rule { messages: Some(7), ..Rule::new("$queue.**".parse().unwrap()) };
        assert_eq!(of(&[rule], "$queue.a.stats"), TopicSettings { messages: 7, ..defaults });
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic_and_what_it_takes_is_written_the_same(text in "[$a-c.*/]{0,12}") {
            if let Ok(pattern) = text.parse::<Pattern>() {
                prop_assert_eq!(pattern.to_string(), text);
            }
        }

        #[test]
        fn a_pattern_meets_what_its_wildcards_are_replaced_by(pattern in "(\\$?[ab]\\.)?(\\*\\.){0,2}([ab]|\\*|\\*\\*)", one in "[ab]{1,2}", many in "[ab](\\.[ab]){0,2}") {
            let name = pattern.replace("**", &many).replace('*', &one);
            prop_assert!(meets(&pattern, &name), "{} {}", pattern, name);
        }
    }
}
