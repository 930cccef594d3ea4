//! The seam between history and live: how a subscriber that was away reads what it missed from the store and joins the
//! live stream without losing, repeating or reordering anything. Pure; the shard feeds it pages and live items.
//!
//! The argument, in short. A read is issued when the live stream stands at P0; from then on live items are held.
//! The feed comes after the store, so the last page of the read ends at P0, at a held item, or ahead of both. In the
//! first two cases the held rest follows without a hole. In the third the items still to come are known already, up to
//! the end of the page, and are passed over until the stream reaches it. Positions are only compared for equality: two
//! lives of a topic have no order that a connection could see.

use super::message::Message;
use super::position::Position;
use super::store::{GapCause, Missing, Page, ReadFrom};

/// A stretch that is not given to a subscriber, told before the next message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The last position before the gap.
    pub after: Position,
    /// The position before whatever follows; another life than `after`, if the topic began one.
    pub resume: Position,
    /// The last missing position, where it is known.
    pub to: Option<Position>,
    pub why: GapCause,
    /// Whether history still has what is missing.
    pub kept: bool,
}

/// One step through a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Message(Message),
    Gap(Gap),
}

/// Walks a page that continues at `at`, telling what is missing in it. Ends at `page.end`.
pub fn walk(mut at: Position, page: Page) -> Vec<Item> {
    let mut items = Vec::with_capacity(page.messages.len() + 1);
    if page.start != at || page.missing.is_some() {
        let Missing { why, to } = page.missing.unwrap_or(Missing { why: GapCause::Retention, to: Some(page.start) });
        // Whoever follows a topic live sees the store's change of life, however it came about.
        let why = if why == GapCause::Epoch { GapCause::Failover } else { why };
        items.push(Item::Gap(Gap { after: at, resume: page.start, to, why, kept: false }));
        at = page.start;
    }
    let expired = |after: Position, to: Position| {
        Item::Gap(Gap { after, resume: to, to: Some(to), why: GapCause::Expired, kept: false })
    };
    for message in page.messages {
        if message.at.before() != at {
            items.push(expired(at, message.at.before()));
        }
        at = message.at;
        items.push(Item::Message(message));
    }
    if page.end != at {
        items.push(expired(at, page.end));
    }
    items
}

/// What the subscriber is told first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The position before the first message that follows.
    pub at: Position,
    /// `None` if it did not ask to resume.
    pub resumed: Option<Result<(), Missing>>,
}

/// What the machine wants done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<T> {
    Answer(Answer),
    Give(Item),
    /// A live item that was held.
    Live(T),
    /// Read this from the store and come back with the page; live items go on coming in.
    Read(ReadFrom),
    /// From now on live items go straight to the subscriber.
    Joined,
}

/// A live item as a catching-up subscriber sees it: where the stream stood before and after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live<T> {
    pub before: Position,
    pub at: Position,
    pub item: T,
    /// Whether the item is a gap.
    pub is_gap: bool,
}

/// One subscriber that is catching up on one topic.
#[derive(Debug, Clone)]
pub struct Replay<T> {
    asked: ReadFrom,
    /// How far the subscriber has been told; set by the answer.
    at: Option<Position>,
    held: Vec<Live<T>>,
    capacity: usize,
    overflowed: bool,
    /// The page was ahead of the live stream: pass over live items until it is there.
    ahead: bool,
}

impl<T> Replay<T> {
    /// Begins. `live` is where the live stream stands; at most `capacity` live items are held during a read.
    /// `None` in place of the machine: there is nothing to catch up on.
    pub fn start(asked: ReadFrom, live: Position, capacity: usize) -> (Option<Replay<T>>, Vec<Step<T>>) {
        if asked == ReadFrom::After(live) {
            let answer = Answer { at: live, resumed: Some(Ok(())) };
            return (None, vec![Step::Answer(answer), Step::Joined]);
        }
        let replay = Replay { asked, at: None, held: Vec::new(), capacity, overflowed: false, ahead: false };
        (Some(replay), vec![Step::Read(asked)])
    }

    /// The live stream moved while the subscriber is not in it.
    pub fn on_live(&mut self, live: Live<T>) -> Vec<Step<T>> {
        if self.ahead {
            let at = self.at.expect("a page was told before it could be ahead");
            if live.before == at {
                return vec![Step::Live(live.item), Step::Joined];
            }
            if live.at == at {
                return vec![Step::Joined];
            }
            if live.is_gap {
                // The stream goes on in another place than the page ended: look again.
                self.ahead = false;
                return vec![self.read_on()];
            }
            return Vec::new();
        }
        if self.held.len() < self.capacity && !self.overflowed {
            self.held.push(live);
        } else {
            self.overflowed = true;
            self.held = Vec::new();
        }
        Vec::new()
    }

    /// The page that was asked for. `live` is where the live stream stands now.
    pub fn on_page(&mut self, page: Page, live: Position) -> Vec<Step<T>> {
        let mut steps = Vec::new();
        let at = match (self.at, self.asked) {
            (Some(at), _) => at,
            (None, ReadFrom::After(after)) => {
                match page.missing {
                    Some(missing) if missing.why != GapCause::Failover => {
                        // Not whole: said so, nothing replayed, and the stream begins at the head.
                        let answer = Answer { at: live, resumed: Some(Err(missing)) };
                        return vec![Step::Answer(answer), Step::Joined];
                    }
                    _ => steps.push(Step::Answer(Answer { at: after, resumed: Some(Ok(())) })),
                }
                after
            }
            (None, ReadFrom::Last(_)) => {
                steps.push(Step::Answer(Answer { at: page.start, resumed: None }));
                page.start
            }
        };
        let (end, last) = (page.end, page.is_last());
        steps.extend(walk(at, page).into_iter().map(Step::Give));
        self.at = Some(end);
        if !last {
            steps.push(self.read_on());
        } else if end == live {
            steps.push(Step::Joined);
        } else if let Some(next) = self.held.iter().position(|l| l.before == end) {
            steps.extend(self.held.drain(next..).map(|l| Step::Live(l.item)));
            steps.push(Step::Joined);
        } else if self.overflowed {
            steps.push(self.read_on());
        } else {
            self.ahead = true;
        }
        steps
    }

    fn read_on(&mut self) -> Step<T> {
        self.held.clear();
        self.overflowed = false;
        Step::Read(ReadFrom::After(self.at.expect("a page was told before")))
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
