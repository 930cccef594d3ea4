//! Which printed messages are still to be committed by `subscribe --commit`: a batch at a time, never one that was not
//! printed, and again after a line that was cut.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use crate::document::quote;

/// How long printed messages wait for others to be committed with them.
const BATCH: Duration = Duration::from_millis(200);
/// Topics that are committed at once: a hub takes so many commands a second.
const AT_ONCE: usize = 16;

#[derive(Debug, Default)]
pub struct Commits {
    /// The last printed position of each topic that is not known to be committed.
    printed: BTreeMap<String, String>,
    /// Topics whose commit is not answered yet.
    asked: HashSet<String>,
    due: Option<Instant>,
}

impl Commits {
    pub fn on_printed(&mut self, topic: &str, at: &str, now: Instant) {
        self.printed.insert(topic.into(), at.into());
        self.due.get_or_insert(now + BATCH);
    }

    /// A commit was answered; `at` is what it was for, if it was done.
    pub fn on_answer(&mut self, topic: &str, at: Option<&str>, now: Instant) {
        self.asked.remove(topic);
        if at.is_none() || self.printed.get(topic).map(String::as_str) == at {
            self.printed.remove(topic);
        }
        if !self.printed.is_empty() {
            self.due.get_or_insert(now + BATCH);
        }
    }

    /// The line was cut: nothing that was asked is answered any more.
    pub fn on_cut(&mut self, now: Instant) {
        self.asked.clear();
        self.due = (!self.printed.is_empty()).then_some(now + BATCH);
    }

    pub fn is_done(&self) -> bool {
        self.printed.is_empty()
    }

    /// How long nothing is to be sent; `None`: until something is printed.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(now))
    }

    /// The frames to be sent now.
    pub fn take(&mut self, cursor: &str, now: Instant) -> Vec<String> {
        let next: Vec<String> =
            self.printed.keys().filter(|topic| !self.asked.contains(*topic)).take(AT_ONCE).cloned().collect();
        let frames = next.iter().map(|topic| {
            let (name, cursor, at) = (quote(topic), quote(cursor), quote(&self.printed[topic]));
            format!("{{\"commit\":{name},\"cursor\":{cursor},\"at\":{at}}}")
        });
        let frames = frames.collect();
        self.asked.extend(next);
        let rest = self.printed.keys().any(|topic| !self.asked.contains(topic));
        self.due = rest.then_some(now + BATCH);
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_printed_is_committed_once_and_again_after_a_cut() {
        let (mut commits, now) = (Commits::default(), Instant::now());
        assert_eq!((commits.wait(now), commits.is_done()), (None, true));
        commits.on_printed("a", "k.1", now);
        commits.on_printed("a", "k.2", now);
        assert_eq!(commits.wait(now), Some(BATCH));
        assert_eq!(commits.take("c", now), [r#"{"commit":"a","cursor":"c","at":"k.2"}"#]);
        assert_eq!((commits.take("c", now), commits.wait(now)), (vec![], None));
        // What is printed meanwhile goes with the next one.
        commits.on_printed("a", "k.3", now);
        assert_eq!(commits.take("c", now), Vec::<String>::new());
        commits.on_answer("a", Some("k.2"), now);
        assert!(!commits.is_done());
        assert_eq!(commits.take("c", now).len(), 1);
        commits.on_cut(now);
        assert_eq!(commits.take("c", now), [r#"{"commit":"a","cursor":"c","at":"k.3"}"#]);
        commits.on_answer("a", Some("k.3"), now);
        assert_eq!((commits.is_done(), commits.wait(now)), (true, None));
    }

    #[test]
    fn many_topics_are_committed_some_at_a_time() {
        let (mut commits, now) = (Commits::default(), Instant::now());
        (0..40).for_each(|n| commits.on_printed(&format!("t{n}"), "k.1", now));
        let counts: Vec<usize> = (0..4).map(|_| commits.take("c", now).len()).collect();
        assert_eq!(counts, [16, 16, 8, 0]);
        // One that was refused is not tried for ever.
        commits.on_answer("t0", None, now);
        assert_eq!(commits.take("c", now).len(), 0);
    }
}
