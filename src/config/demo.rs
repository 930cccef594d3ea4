//! What the demo says of topics beside what its user says: the lab page shows a topic that keeps nothing, and one whose
//! history soon ends.

use crate::domain::topic::{MOST_RULES, Mode, Rule};

/// Records that the lab's stream keeps: few, so that the end of history is seen.
const LAB_RECORDS: u64 = 5;

/// Adds the lab's rules behind the user's own: the first one that a topic meets counts, so theirs win.
pub fn add_rules(rules: &mut Vec<Rule>) {
    let of = |pattern: &str| Rule::new(pattern.parse().expect("a pattern"));
    let lab = [
        Rule { mode: Some(Mode::Live), ..of("lab.*.live") },
        Rule { messages: Some(LAB_RECORDS), ..of("lab.*.kinesis") },
    ];
    let room = MOST_RULES.saturating_sub(rules.len());
    rules.extend(lab.into_iter().take(room));
}
