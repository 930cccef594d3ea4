//! The checker: what every client of a run was told, written down as it happens, and the judge of it. Pure: it knows
//! neither processes nor sockets nor clocks. Drivers (`listener.rs`, `publisher.rs`) fill a `History` while faults are
//! injected; when all is healed and drained and every subscriber has come back once more, `judge` names what is wrong.
//!
//! The rules for topics:
//! - R1 no loss: what was acknowledged is stored, and every subscriber that it concerns hears it.
//! - R2 order: positions only rise for a subscriber; what a publisher sent after an answer stands behind it.
//! - R3 no phantom: only what was published, and not refused, is ever heard.
//! - R4 no reuse: a position means one message for ever, and a message has one position.
//! - R5 honest gap: what a subscriber does not get it is told of before its next message, and the range holds all of it.
//! - R6 convergence: in the end all subscribers of a topic have heard the same.
//! - R7 liveness: after healing, a probe reaches everybody in time.
//!
//! The rules for queues, Q1 to Q9, are in `work.rs`: they judge a history of their own.
#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]

mod history;
mod log;
mod streams;
mod verdict;
mod work;

pub use history::{Answer, Clock, Heard, History, Mark, Publish, Read, Stream};
pub use verdict::{Allowed, Fault, Figures, Loss, Rule, Verdict};
pub use work::{Delivery, Ended, JobPut, Left, Terms, Told, Work, WorkFigures, judge_work};

/// Judges a whole run.
pub fn judge(history: &History, allowed: Allowed) -> Verdict {
    let facts = log::Facts::of(history);
    let mut verdict = Verdict::default();
    log::judge_logs(history, &facts, &mut verdict);
    log::judge_answers(history, &facts, &mut verdict);
    log::judge_meanings(history, &facts, allowed, &mut verdict);
    streams::judge(history, &facts, allowed, &mut verdict);
    verdict
}
