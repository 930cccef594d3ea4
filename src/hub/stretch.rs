//! The newest messages of one topic, without a hole: what the sequencer has handed on, kept so that many who come back
//! at once need not all ask the store. Pure. A page out of it is the page that the store would give, or there is none.

use std::collections::VecDeque;

use crate::domain::message::Message;
use crate::domain::position::Position;
use crate::domain::store::{Page, ReadFrom, ReadLimit};
use crate::domain::topic::{Mode, TopicSettings};

/// What a message takes beside its body.
pub const MESSAGE_BYTES: usize = 128;

/// Every message after `from`, in one life of the topic; none of them has a time to live.
#[derive(Debug)]
pub struct Stretch {
    settings: TopicSettings,
    from: Position,
    messages: VecDeque<Message>,
    bytes: usize,
    /// The topic is being compared with the store: what is here may not be the newest.
    pub suspended: bool,
}

impl Stretch {
    pub fn new(settings: TopicSettings, at: Position) -> Stretch {
        Stretch { settings, from: at, messages: VecDeque::new(), bytes: 0, suspended: false }
    }

    pub fn to(&self) -> Position {
        self.messages.back().map_or(self.from, |newest| newest.at)
    }

    pub fn holds(&self, offset: u64) -> bool {
        self.from.offset < offset && offset <= self.to().offset
    }

    pub fn size(&self) -> usize {
        self.bytes + self.messages.len() * MESSAGE_BYTES
    }

    /// The next message. One that does not follow, or whose time ends, begins the stretch anew behind it.
    pub fn push(&mut self, message: &Message) {
        if message.at != self.to().next() || message.expires.is_some() || self.settings.mode != Mode::Log {
            return self.restart(message.at);
        }
        self.bytes += message.body.as_bytes().len();
        self.messages.push_back(message.clone());
    }

    /// The stream goes on elsewhere.
    pub fn restart(&mut self, at: Position) {
        (self.from, self.bytes) = (at, 0);
        self.messages = VecDeque::new();
    }

    /// A page of the store that reaches into the stretch, or to its beginning, makes it reach further back.
    pub fn extend(&mut self, page: &Page) {
        let joins = page.mode == Mode::Log
            && page.end.epoch == self.from.epoch
            && (self.from.offset..=self.to().offset).contains(&page.end.offset);
        if !joins {
            return;
        }
        let begun = self.from.offset;
        for message in page.messages.iter().rev().filter(|m| m.at.offset <= begun) {
            if message.at != self.from || message.expires.is_some() {
                return;
            }
            self.bytes += message.body.as_bytes().len();
            self.from = message.at.before();
            self.messages.push_front(message.clone());
        }
    }

    /// Drops the messages up to this offset.
    pub fn drop_through(&mut self, offset: u64) {
        while self.messages.front().is_some_and(|m| m.at.offset <= offset)
            && let Some(oldest) = self.messages.pop_front()
        {
            self.bytes -= oldest.body.as_bytes().len();
            self.from = oldest.at;
        }
    }

    /// The page that the store would give to one who stands at `live` in the stream; `None` where that is not known.
    /// `now`: milliseconds since 1970.
    pub fn read(&self, from: ReadFrom, limit: ReadLimit, live: Position, now: u64) -> Option<Page> {
        let to = self.to();
        if self.suspended || to.epoch != live.epoch || to.offset < live.offset || self.settings.mode != Mode::Log {
            return None;
        }
        let start = match from {
            ReadFrom::After(after) if after.epoch == to.epoch => after.offset,
            ReadFrom::Last(count) => to.offset.checked_sub(u64::from(count))?,
            ReadFrom::After(_) | ReadFrom::Since(_) => return None,
        };
        if !(self.from.offset..=to.offset).contains(&start) || !self.is_kept_after(start, now) {
            return None;
        }
        let mut messages = Vec::new();
        let mut bytes = 0;
        for message in self.messages.range((start - self.from.offset) as usize..) {
            bytes += message.body.as_bytes().len();
            if !messages.is_empty() && (messages.len() >= limit.messages as usize || bytes > limit.bytes) {
                break;
            }
            messages.push(message.clone());
        }
        let start = Position::new(to.epoch, start);
        let end = messages.last().map_or(start, |last: &Message| last.at);
        Some(Page { mode: Mode::Log, start, messages, end, head: to, missing: None })
    }

    /// Whether the store certainly keeps everything after this offset. Its clock may differ a little from ours, so what
    /// is close to its end by age is left to it.
    fn is_kept_after(&self, start: u64, now: u64) -> bool {
        let TopicSettings { messages, bytes, age, .. } = self.settings;
        let age = age.as_millis() as u64 / 8 * 7;
        let (mut count, mut size) = (0, 0);
        // Many wait for the lock: no further back than what was asked.
        self.messages.iter().rev().take_while(|m| m.at.offset > start).all(|message| {
            count += 1;
            size += message.body.as_bytes().len() as u64;
            count <= messages && size <= bytes && message.time.saturating_add(age) > now
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::Body;
    use crate::domain::name::Topic;
    use crate::domain::position::Epoch;
    use crate::domain::store::Retention;

    fn at(offset: u64) -> Position {
        Position::new(Epoch::from_random(1), offset)
    }

    fn message(offset: u64) -> Message {
        let body = Body::from_canonical(vec![b'x'; 10].into());
        Message { topic: Topic::parse("t").unwrap(), at: at(offset), time: 1_000, expires: None, body }
    }

    fn stretch(offsets: std::ops::RangeInclusive<u64>) -> Stretch {
        let mut stretch = Stretch::new((&Retention::default()).into(), at(offsets.start() - 1));
        offsets.for_each(|offset| stretch.push(&message(offset)));
        stretch
    }

    fn offsets(page: Option<Page>) -> Option<Vec<u64>> {
        Some(page?.messages.iter().map(|m| m.at.offset).collect())
    }

    fn after(offset: u64) -> ReadFrom {
        ReadFrom::After(at(offset))
    }

    #[test]
    fn it_answers_what_it_holds_and_nothing_else() {
        let stretch = stretch(5..=9);
        let all = ReadLimit::default();
        let read = |from, live| offsets(stretch.read(from, all, at(live), 1_000));
        assert_eq!(read(after(4), 9), Some(vec![5, 6, 7, 8, 9]));
        assert_eq!(read(after(9), 9), Some(vec![]));
        assert_eq!(read(ReadFrom::Last(2), 9), Some(vec![8, 9]));
        assert_eq!(read(after(3), 9), None, "it does not reach back so far");
        assert_eq!(read(after(10), 9), None, "beyond the end");
        assert_eq!(read(ReadFrom::Last(6), 9), None);
        assert_eq!(read(after(8), 10), None, "the reader's stream is further on");
        let few = ReadLimit { messages: 3, bytes: 25 };
        let page = stretch.read(after(5), few, at(9), 1_000).unwrap();
        assert_eq!((page.end, page.head, offsets(Some(page))), (at(7), at(9), Some(vec![6, 7])));
        let other = ReadFrom::After(Position::new(Epoch::from_random(2), 6));
        assert_eq!(read(other, 9), None, "another life");
    }

    #[test]
    fn it_begins_anew_at_whatever_it_cannot_hold() {
        let mut stretch = stretch(1..=3);
        stretch.push(&Message { expires: Some(9), ..message(4) });
        stretch.push(&message(5));
        assert_eq!((stretch.from, stretch.to()), (at(4), at(5)));
        stretch.push(&message(8));
        assert_eq!((stretch.from, stretch.to(), stretch.size()), (at(8), at(8), 0));
    }

    #[test]
    fn a_page_that_touches_it_makes_it_longer_up_to_the_first_hole() {
        let page = |offsets: &[u64], end| Page {
            mode: Mode::Log,
            start: at(0),
            messages: offsets.iter().map(|o| message(*o)).collect(),
            end: at(end),
            head: at(99),
            missing: None,
        };
        let from = |page: Page| {
            let mut stretch = stretch(6..=9);
            stretch.extend(&page);
            assert_eq!((stretch.to(), stretch.messages.len() as u64), (at(9), 9 - stretch.from.offset));
            stretch.from.offset
        };
        assert_eq!(from(page(&[3, 4, 5], 5)), 2);
        assert_eq!(from(page(&[4, 5, 6, 7], 7)), 3);
        assert_eq!(from(page(&[2, 4, 5], 5)), 3);
        assert_eq!(from(page(&[3, 4], 5)), 5, "the last one expired");
        assert_eq!(from(page(&[3, 4], 4)), 5, "it does not reach so far");
        assert_eq!(from(page(&[10], 10)), 5, "it is past it");
    }

    #[test]
    fn it_holds_no_more_than_the_store_keeps() {
        let mut stretch = stretch(1..=9);
        let read = |stretch: &Stretch, from, now| offsets(stretch.read(from, ReadLimit::default(), at(9), now));
        stretch.settings.messages = 3;
        assert_eq!((read(&stretch, after(6), 0), read(&stretch, after(5), 0)), (Some(vec![7, 8, 9]), None));
        (stretch.settings.messages, stretch.settings.bytes) = (99, 29);
        assert_eq!((read(&stretch, after(7), 0), read(&stretch, after(6), 0)), (Some(vec![8, 9]), None));
        let day = 24 * 3600 * 1000;
        stretch.settings.bytes = 999;
        assert_eq!((read(&stretch, after(9), day), read(&stretch, after(8), day)), (Some(vec![]), None));
        // What is older than what was asked for decides nothing.
        stretch.messages[0].time = 0;
        let soon = 1_000 + day / 7;
        stretch.settings.age = std::time::Duration::from_millis(2 * day / 7);
        assert_eq!(offsets(stretch.read(after(1), ReadLimit::default(), at(9), soon)).map(|o| o.len()), Some(8));
        stretch.settings.age = Retention::default().age;
        stretch.drop_through(4);
        assert_eq!((read(&stretch, after(4), 0), read(&stretch, after(3), 0)), (Some(vec![5, 6, 7, 8, 9]), None));
    }
}
