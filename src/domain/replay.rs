//! The seam between history and live: how a subscriber that was away reads what it missed from the store and joins the
//! live stream without losing, repeating or reordering anything. Pure; the shard feeds it pages and live items.
//!
//! The argument, in short. A read is issued when the live stream stands at P0; from then on live items are held.
//! The feed comes after the store, so the last page of the read ends at P0, at a held item, or ahead of both. In the
//! first two cases the held rest follows without a hole. In the third the items still to come are known already, up to
//! the end of the page, and are passed over until the stream reaches it. Positions are compared for equality, and by
//! offset only within one life: two lives of a topic have no order that a connection could see.
//!
//! In mode `latest` the stream may step over what was replaced, and so over the end of a page: what is past it follows.
//! In mode `live` there is nothing to read; who asks for a position is in the stream, about to be, or has missed some.

use super::message::Message;
use super::position::Position;
use super::store::{GapCause, Missing, Page, ReadFrom};
use super::topic::Mode;

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

impl Gap {
    /// Whether subscribers are told. What newer messages replaced is missed by nobody; the stream only steps over it.
    pub fn is_told(&self) -> bool {
        self.why != GapCause::Conflated
    }
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
    let hole =
        |after: Position, to: Position, why| Item::Gap(Gap { after, resume: to, to: Some(to), why, kept: false });
    let latest = page.mode == Mode::Latest;
    // Nothing replaces the newest message: it can only have expired.
    let tail = if latest && !page.is_last() { GapCause::Conflated } else { GapCause::Expired };
    let end = page.end;
    for message in page.messages {
        if message.at.before() != at && !latest {
            items.push(hole(at, message.at.before(), GapCause::Expired));
        }
        at = message.at;
        items.push(Item::Message(message));
    }
    if end != at {
        items.push(hole(at, end, tail));
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
    /// The topic's, as the last page tells it.
    mode: Mode,
}

impl<T> Replay<T> {
    /// Begins. `live` is where the live stream stands; at most `capacity` live items are held during a read.
    /// `None` in place of the machine: there is nothing to catch up on.
    pub fn start(asked: ReadFrom, live: Position, capacity: usize) -> (Option<Replay<T>>, Vec<Step<T>>) {
        if asked == ReadFrom::After(live) {
            let answer = Answer { at: live, resumed: Some(Ok(())) };
            return (None, vec![Step::Answer(answer), Step::Joined]);
        }
        let mode = Mode::default();
        let replay = Replay { asked, at: None, held: Vec::new(), capacity, overflowed: false, ahead: false, mode };
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
            if self.steps_over(live.at, at) {
                return vec![Step::Live(live.item), Step::Joined];
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
    pub fn on_page(&mut self, mut page: Page, live: Position) -> Vec<Step<T>> {
        self.mode = page.mode;
        let mut steps = Vec::new();
        let at = match self.at {
            Some(at) => at,
            None => {
                let (answer, is_over) = self.answer(&mut page, live);
                let at = answer.at;
                steps.push(Step::Answer(answer));
                if is_over {
                    steps.push(Step::Joined);
                    return steps;
                }
                at
            }
        };
        let (end, last) = (page.end, page.is_last());
        steps.extend(walk(at, page).into_iter().map(Step::Give));
        self.at = Some(end);
        if !last {
            steps.push(self.read_on());
        } else if end == live {
            steps.push(Step::Joined);
        } else if let Some(next) = self.held.iter().position(|l| l.before == end || self.steps_over(l.at, end)) {
            steps.extend(self.held.drain(next..).map(|l| Step::Live(l.item)));
            steps.push(Step::Joined);
        } else if self.overflowed && !end.is_past(live) {
            steps.push(self.read_on());
        } else {
            self.ahead = true;
        }
        steps
    }

    /// What is said to the first page, and whether nothing of it is given. What the answer tells is taken out of it.
    fn answer(&self, page: &mut Page, live: Position) -> (Answer, bool) {
        let after = match self.asked {
            ReadFrom::After(after) => after,
            ReadFrom::Last(_) => return (Answer { at: page.start, resumed: None }, false),
            ReadFrom::Since(_) => {
                let resumed = page.missing.take().map_or(Ok(()), Err);
                return (Answer { at: page.start, resumed: Some(resumed) }, false);
            }
        };
        let resumed = (Answer { at: after, resumed: Some(Ok(())) }, false);
        match page.missing {
            None | Some(Missing { why: GapCause::Failover, .. }) => resumed,
            // The stream stands elsewhere than the store: it still holds what follows, or has not come so far.
            Some(Missing { why: GapCause::Live, .. }) if after == live || self.is_to_come(after, live) => {
                (page.start, page.end, page.head, page.missing) = (after, after, after, None);
                resumed
            }
            Some(missing) if page.mode == Mode::Latest => {
                // Not whole: said so, and what is kept is the state all the same.
                page.missing = None;
                (Answer { at: page.start, resumed: Some(Err(missing)) }, false)
            }
            Some(missing) => {
                // Not whole: said so, nothing replayed, and the stream begins at the head.
                let to = if missing.why == GapCause::Live { Some(live) } else { missing.to };
                (Answer { at: live, resumed: Some(Err(Missing { to, ..missing })) }, true)
            }
        }
    }

    fn is_to_come(&self, after: Position, live: Position) -> bool {
        after.is_past(live) || self.held.iter().any(|l| l.before == after)
    }

    /// Whether a stream that tells only what is latest goes past `end` to `at`.
    fn steps_over(&self, at: Position, end: Position) -> bool {
        self.mode == Mode::Latest && at.is_past(end)
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
