//! The seam between history and live: how a subscriber that was away reads what it missed from the store and joins the
//! live stream without losing, repeating or reordering anything. Pure; the shard feeds it pages and live items.
//!
//! The argument, in short. A read is issued when the live stream stands at P0; from then on live items are held.
//! The feed comes after the store, so the last page of the read ends at P0, at a held item, or ahead of both. In the
//! first two cases the held rest follows without a hole. In the third the items still to come are known already, up to
//! the end of the page, and are passed over until the stream reaches it. A page that is older than P0 shows it, and is
//! followed by another read. Positions are compared for equality, and by offset only within one life: two lives of a
//! topic have no order that a connection could see.
//!
//! A subscriber that was live comes back the same way: the connection had no room for the next item, or items were lost
//! on the way to it. It then stands before the first item that it did not get, and reads from there. Whatever the machine
//! wants given may be refused; the rest of its steps is then void, and it begins again before the one that was refused.
//!
//! In mode `latest` the stream may step over what was replaced, and so over the end of a page: what is past it follows.
//! In mode `live` there is nothing to read; who asks for a position is in the stream, about to be, or has missed some.

mod skip;

use std::time::Instant;

use self::skip::Skipped;
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
    Live(Live<T>),
    /// As soon as there is room, `issue` a read, and come back with the page.
    Read,
    /// From now on live items go straight to the subscriber.
    Joined,
}

impl<T> Step<T> {
    /// Where a subscriber stands that was not given this; `None` where nothing is given.
    pub fn before(&self) -> Option<Position> {
        match self {
            Step::Give(Item::Message(message)) => Some(message.at.before()),
            Step::Give(Item::Gap(gap)) => Some(gap.after),
            Step::Live(live) => Some(live.before),
            Step::Answer(_) | Step::Read | Step::Joined => None,
        }
    }
}

/// A live item as a catching-up subscriber sees it: where the stream stood before and after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live<T> {
    pub before: Position,
    pub at: Position,
    pub item: T,
    /// What it takes of the room for held items.
    pub size: usize,
    /// Whether the item is a gap.
    pub is_gap: bool,
    /// When its time to live ends: what was held so long is not given, but told as a gap.
    pub ends: Option<Instant>,
}

impl<T> Live<T> {
    /// The gap in its place, if its time has come.
    pub fn expired(&self, now: Instant) -> Option<Gap> {
        let gap = Gap { after: self.before, resume: self.at, to: Some(self.at), why: GapCause::Expired, kept: false };
        self.ends.is_some_and(|ends| ends <= now).then_some(gap)
    }
}

/// Why a subscriber that was live is not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lag {
    /// Its connection had no room: what history no longer has when it comes back is gone because it was slow.
    Slow,
    /// Items were lost on the way to it.
    Lost,
}

/// One subscriber that is catching up on one topic.
#[derive(Debug, Clone)]
pub struct Replay<T> {
    asked: ReadFrom,
    /// What is missing on the way is missing because the subscriber is slow.
    slow: bool,
    /// With how many of the newest messages it goes on where it misses more; `None`: with all.
    keeps: Option<u32>,
    /// The next read is for those, or the one under way is.
    jumps: bool,
    /// How far the subscriber has been told; set by the answer.
    at: Option<Position>,
    held: Vec<Live<T>>,
    /// What may be held, and what is, in the sizes of the items.
    capacity: usize,
    size: usize,
    /// A read is under way: live items are held. Before, there is no need: it will see them.
    reading: bool,
    overflowed: bool,
    /// The page was ahead of the live stream: pass over live items until it is there.
    ahead: bool,
    /// The topic's, as the last page tells it.
    mode: Mode,
}

impl<T> Replay<T> {
    /// Begins. `live` is where the live stream stands; live items of at most the size `capacity` are held during a read.
    /// `None` in place of the machine: there is nothing to catch up on.
    pub fn start(asked: ReadFrom, live: Position, capacity: usize) -> (Option<Replay<T>>, Vec<Step<T>>) {
        if asked == ReadFrom::After(live) {
            let answer = Answer { at: live, resumed: Some(Ok(())) };
            return (None, vec![Step::Answer(answer), Step::Joined]);
        }
        let replay = Replay { at: None, slow: false, ..Replay::behind(live, Lag::Lost, capacity) };
        (Some(Replay { asked, ..replay }), vec![Step::Read])
    }

    /// Begins for a subscriber that was told everything up to `at` and then fell behind. It wants a read first.
    pub fn behind(at: Position, lag: Lag, capacity: usize) -> Replay<T> {
        Replay {
            asked: ReadFrom::After(at),
            slow: lag == Lag::Slow,
            keeps: None,
            jumps: false,
            at: Some(at),
            held: Vec::new(),
            capacity,
            size: 0,
            reading: false,
            overflowed: false,
            ahead: false,
            mode: Mode::default(),
        }
    }

    /// The read that is wanted goes to the store now; again, if the one before failed.
    pub fn issue(&mut self) -> ReadFrom {
        self.drop_held();
        self.overflowed = false;
        self.reading = true;
        match (self.at, self.keeps) {
            (Some(_), Some(keeps)) if self.jumps => ReadFrom::Last(keeps),
            (at, _) => at.map_or(self.asked, ReadFrom::After),
        }
    }

    /// The live stream moved while the subscriber is not in it.
    pub fn on_live(&mut self, live: Live<T>) -> Vec<Step<T>> {
        if self.ahead {
            let at = self.at.expect("a page was told before it could be ahead");
            if live.before == at {
                return vec![Step::Live(live), Step::Joined];
            }
            if live.at == at {
                return vec![Step::Joined];
            }
            if live.is_gap {
                // The stream goes on in another place than the page ended: look again.
                return self.look_again();
            }
            if self.steps_over(live.at, at) {
                return vec![Step::Live(live), Step::Joined];
            }
            return Vec::new();
        }
        if self.reading && !self.overflowed {
            self.size += live.size;
            if self.size <= self.capacity {
                self.held.push(live);
            } else {
                self.overflow();
            }
        }
        Vec::new()
    }

    /// The live stream jumped: items were lost on the way here, and what is held is not whole.
    pub fn on_hole(&mut self) -> Vec<Step<T>> {
        if self.ahead {
            return self.look_again();
        }
        self.overflow();
        Vec::new()
    }

    /// The page that was asked for. `live` is where the live stream stands now.
    pub fn on_page(&mut self, mut page: Page, live: Position) -> Vec<Step<T>> {
        (self.reading, self.mode) = (false, page.mode);
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
        let at = match self.skip(at, &mut page) {
            Skipped::Nothing => at,
            Skipped::Stretch(gap) => {
                steps.push(Step::Give(Item::Gap(gap)));
                gap.resume
            }
            Skipped::Page => {
                self.drop_held();
                return vec![Step::Read];
            }
        };
        let (end, last) = (page.end, page.is_last());
        if self.at.is_some() && page.missing.is_some_and(|missing| missing.why == GapCause::Live) {
            return self.pass_over(at, live);
        }
        steps.extend(walk(at, page).into_iter().map(|item| Step::Give(self.blame(item))));
        self.at = Some(if at.is_past(end) { at } else { end });
        if !last {
            steps.push(Step::Read);
        } else if end == live {
            steps.push(Step::Joined);
        } else if let Some(next) = self.held.iter().position(|l| l.before == end || self.steps_over(l.at, end)) {
            steps.extend(self.held.drain(next..).map(Step::Live));
            steps.push(Step::Joined);
        } else if live.is_past(end) || self.is_torn() && !end.is_past(live) {
            steps.push(Step::Read);
        } else {
            self.ahead = true;
        }
        self.drop_held();
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

    /// Whether the stream may have gone past the page's end unseen: items were dropped, or it went on in another place
    /// while the page was read. No item that is still to come need then touch that end.
    fn is_torn(&self) -> bool {
        self.overflowed || self.held.iter().any(|l| l.is_gap)
    }

    /// Whether a stream that tells only what is latest goes past `end` to `at`.
    fn steps_over(&self, at: Position, end: Position) -> bool {
        self.mode == Mode::Latest && at.is_past(end)
    }

    /// Nothing is kept that could be read: goes on where the stream is held, or stands, and tells what lies before.
    fn pass_over(&mut self, at: Position, live: Position) -> Vec<Step<T>> {
        let next = self.held.iter().position(|l| l.before == at);
        if next.is_none() && at.is_past(live) {
            self.ahead = true;
            return Vec::new();
        }
        let mut steps = Vec::new();
        if next.is_none() && at != live {
            let resume = self.held.first().map_or(live, |l| l.before);
            let to = Some(resume).filter(|to| to.epoch == at.epoch);
            let gap = Gap { after: at, resume, to, why: GapCause::Live, kept: false };
            steps.push(Step::Give(self.blame(Item::Gap(gap))));
        }
        let held = std::mem::take(&mut self.held);
        steps.extend(held.into_iter().skip(next.unwrap_or(0)).map(Step::Live));
        steps.push(Step::Joined);
        steps
    }

    /// What history took from a slow subscriber was lost to its slowness.
    fn blame(&self, item: Item) -> Item {
        match item {
            Item::Gap(gap) if self.slow && matches!(gap.why, GapCause::Retention | GapCause::Live) => {
                Item::Gap(Gap { why: GapCause::Slow, ..gap })
            }
            item => item,
        }
    }

    fn look_again(&mut self) -> Vec<Step<T>> {
        self.ahead = false;
        vec![Step::Read]
    }

    fn overflow(&mut self) {
        self.overflowed = true;
        self.drop_held();
    }

    fn drop_held(&mut self) {
        self.held = Vec::new();
        self.size = 0;
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
