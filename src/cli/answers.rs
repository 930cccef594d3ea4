//! What a worker says to the hub: which lines of a program are answers, and a pace at which they are sent, as a hub takes so
//! many commands a second.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::domain::queue::MOST_AT_ONCE;

/// Verbs with which a program answers for single jobs.
pub const ANSWERS: [&str; 5] = ["ack", "nack", "nak", "term", "extend"];
/// Frames a second, and how many at once: below what a hub takes of one connection if nobody has set that.
const RATE: f64 = 80.0;
const BURST: f64 = 50.0;

#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// A frame for the hub.
    Frame,
    /// Meant as one, but it cannot be sent.
    Wrong(&'static str),
    /// Something else that the program prints.
    None,
}

/// Judges a line of a program, and takes the tags that it answers from those that are open.
pub fn answer(line: &str, open: &mut Vec<String>, most: usize) -> Answer {
    if !line.starts_with('{') {
        return Answer::None;
    }
    let Ok(Value::Object(frame)) = serde_json::from_str::<Value>(line) else { return Answer::None };
    let mut verbs = ANSWERS.into_iter().filter(|verb| frame.contains_key(*verb));
    let (Some(verb), None) = (verbs.next(), verbs.next()) else { return Answer::None };
    let tags: Vec<&str> = match &frame[verb] {
        Value::String(tag) => vec![tag],
        Value::Array(tags) => tags.iter().filter_map(Value::as_str).collect(),
        _ => return Answer::Wrong("an answer names the tag of a job"),
    };
    if tags.is_empty() || tags.iter().any(|tag| !open.iter().any(|open| open == tag)) {
        return Answer::Wrong("an answer for a job that this run does not hold, or has answered");
    }
    if line.len() > most {
        return Answer::Wrong("an answer that is longer than a frame may be");
    }
    if verb != "extend" {
        open.retain(|open| !tags.contains(&open.as_str()));
    }
    Answer::Frame
}

/// Frames that settle these deliveries, as many as one may hold in each.
pub fn settle(verb: &str, tags: &[String], more: Value) -> Vec<String> {
    let frame = |tags: &[String]| {
        let mut frame = more.clone();
        frame[verb] = tags.into();
        frame.to_string()
    };
    tags.chunks(MOST_AT_ONCE).map(frame).collect()
}

/// What waits to be sent. Acknowledgements that wait go together.
#[derive(Debug)]
pub struct Said {
    done: Vec<String>,
    frames: VecDeque<String>,
    tokens: f64,
    at: Instant,
}

impl Said {
    pub fn new(now: Instant) -> Said {
        Said { done: Vec::new(), frames: VecDeque::new(), tokens: BURST, at: now }
    }

    pub fn done(&mut self, tags: Vec<String>) {
        self.done.extend(tags);
    }

    pub fn frames(&mut self, frames: impl IntoIterator<Item = String>) {
        self.frames.extend(frames);
    }

    pub fn is_empty(&self) -> bool {
        self.done.is_empty() && self.frames.is_empty()
    }

    pub fn clear(&mut self) {
        self.done.clear();
        self.frames.clear();
    }

    /// What is to be sent now.
    pub fn take(&mut self, now: Instant) -> Vec<String> {
        self.tokens = (self.tokens + (now - self.at).as_secs_f64() * RATE).min(BURST);
        self.at = now;
        let mut out = Vec::new();
        while self.tokens >= 1.0 && !self.is_empty() {
            let frame = match self.frames.pop_front() {
                Some(frame) => frame,
                None => {
                    let rest = self.done.split_off(self.done.len().min(MOST_AT_ONCE));
                    let some = std::mem::replace(&mut self.done, rest);
                    json!({ "ack": some }).to_string()
                }
            };
            self.tokens -= 1.0;
            out.push(frame);
        }
        out
    }

    /// When more can be sent; `None`: nothing waits.
    pub fn next(&self) -> Option<Instant> {
        let wait = Duration::from_secs_f64(((1.0 - self.tokens) / RATE).max(0.0));
        (!self.is_empty()).then(|| self.at + wait + Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_program_answers_for_its_own_jobs_once() {
        let mut open: Vec<String> = ["d1", "d2", "d3"].map(String::from).into();
        let mut judge = |line: &str| match answer(line, &mut open, 60) {
            Answer::Frame => "frame",
            Answer::Wrong(_) => "wrong",
            Answer::None => "none",
        };
        for (line, expected) in [
            ("working", "none"),
            ("{\"log\":\"d1\"}", "none"),
            ("{\"ack\":", "none"),
            (r#"{"extend":"d1","by":30}"#, "frame"),
            (r#"{"ack":"d1"}"#, "frame"),
            (r#"{"ack":"d1"}"#, "wrong"),
            (r#"{"nack":["d2","d9"]}"#, "wrong"),
            (r#"{"ack":7}"#, "wrong"),
            (r#"{"ack":"d2","nack":"d3"}"#, "none"),
            (r#"{"nack":"d2","text":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#, "wrong"),
            (r#"{"nack":["d2","d3"],"delay":5}"#, "frame"),
        ] {
            assert_eq!(judge(line), expected, "{line}");
        }
        assert!(open.is_empty());
    }

    #[test]
    fn many_deliveries_are_settled_some_at_a_time() {
        let tags: Vec<String> = (0..150).map(|n| format!("d{n}")).collect();
        assert_eq!(settle("extend", &tags, json!({})).len(), 2);
        assert_eq!(settle("nack", &tags[..1], json!({ "text": "x" })), [r#"{"nack":["d0"],"text":"x"}"#]);
        assert_eq!(settle("ack", &[], json!({})), Vec::<String>::new());
    }

    #[test]
    fn no_more_is_said_in_a_second_than_a_hub_takes_and_acknowledgements_go_together() {
        let begun = Instant::now();
        let mut said = Said::new(begun);
        said.frames((0..60).map(|n| n.to_string()));
        assert_eq!((said.take(begun).len(), said.take(begun).len()), (50, 0));
        said.done((0..250).map(|n| format!("d{n}")).collect());
        let (mut now, mut sent) = (begun, 0);
        while let Some(next) = said.next() {
            assert!(next > now);
            now = next;
            sent += said.take(now).len();
        }
        assert_eq!(sent, 13, "ten that were left, and three for all that is done");
        assert!(now - begun < Duration::from_millis(300), "{:?}", now - begun);
    }
}
