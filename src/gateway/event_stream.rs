//! What makes a connection an event stream (SSE): every event is stamped with an id that resumes all topics of the
//! stream, and it ends with its last byte.
//!
//! **Every id that a client has stored loses nothing.** The id tells for each topic how far this stream has been given:
//! it moves with the event that carries the message, never before it; a topic that still catches up stands where it was
//! asked to begin; a gap moves nothing. And every event has one, also those that move nothing, since an event without an
//! id makes some clients forget the one that they had.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

use super::connection::{CLOSE_WAIT, Connection, State};
use super::outgoing::Told;
use super::topics::TopicKey;
use crate::domain::bookmark::{Bookmark, Tag};
use crate::domain::error::CloseCode;
use crate::domain::event::Event;
use crate::domain::name::Topic;
use crate::domain::position::Position;

/// A comment of one line: an empty line behind it would be the end of an event.
pub const HEARTBEAT: Bytes = Bytes::from_static(b":\n");
const ID: &[u8] = b"id: ";

/// How far each topic of a stream has been given.
#[derive(Debug, Clone)]
pub struct Trail {
    steps: Vec<Step>,
    /// How long the client shall wait before it comes back.
    retry: Duration,
}

#[derive(Debug, Clone)]
struct Step {
    topic: Topic,
    /// Known as soon as the shard has subscribed it.
    key: Option<TopicKey>,
    at: Option<Position>,
}

impl Trail {
    /// The topics of a stream, each with the position that it resumes from, if it does.
    pub fn new(topics: impl IntoIterator<Item = (Topic, Option<Position>)>, retry: Duration) -> Trail {
        Trail { steps: topics.into_iter().map(|(topic, at)| Step { topic, key: None, at }).collect(), retry }
    }

    pub fn bind(&mut self, topic: &Topic, key: TopicKey) {
        if let Some(step) = self.steps.iter_mut().find(|s| s.topic == *topic) {
            step.key = Some(key);
        }
    }

    /// What tells the client when to come back. No event: it has no empty line.
    pub fn retry_line(&self) -> Bytes {
        format!("retry: {}\n", self.retry.as_millis()).into()
    }

    /// Whether each message needs an id of this stream's own.
    fn has_many(&self) -> bool {
        self.steps.len() > 1
    }

    /// The frame with this stream's id, `told` counted in. `None`: as it is.
    pub fn stamped(&self, frame: &Bytes, told: Option<Told>) -> Option<Bytes> {
        let has_own = frame.starts_with(ID);
        if has_own && !self.has_many() {
            return None;
        }
        let id = self.id(told)?.to_string();
        let rest = match frame.iter().position(|b| *b == b'\n') {
            Some(end) if has_own => &frame[end + 1..],
            _ => frame,
        };
        let mut out = BytesMut::with_capacity(ID.len() + id.len() + 1 + rest.len());
        out.put_slice(ID);
        out.put_slice(id.as_bytes());
        out.put_u8(b'\n');
        out.put_slice(rest);
        Some(out.freeze())
    }

    /// The client has been given this.
    pub fn keep(&mut self, told: Told) {
        if let Some(step) = self.steps.iter_mut().find(|s| s.key == Some(told.topic)) {
            step.at = Some(told.at);
        }
    }

    /// `None`: nothing has begun yet.
    fn id(&self, told: Option<Told>) -> Option<Bookmark> {
        let at = |step: &Step| match told {
            Some(told) if step.key == Some(told.topic) => Some(told.at),
            _ => step.at,
        };
        if !self.has_many() {
            return self.steps.first().and_then(at).map(Bookmark::One);
        }
        let entries: Vec<_> = self.steps.iter().filter_map(|s| Some((Tag::of(&s.topic), at(s)?))).collect();
        (!entries.is_empty()).then_some(Bookmark::Many(entries))
    }
}

impl Connection {
    /// Whether no two connections share the bytes of a message with this one.
    pub fn stamps_each(&self) -> bool {
        self.trail().is_some_and(|trail| trail.borrow().has_many())
    }

    /// Sends what stands before the first event. A WebSocket has nothing there.
    pub(super) fn open(&self, head: &Bytes, now: Instant) {
        let Some(trail) = self.trail() else { return };
        let io = &mut *self.io.borrow_mut();
        for part in [head.clone(), trail.borrow().retry_line()] {
            let _ = io.outbox.push(part, usize::MAX, now);
        }
        self.write(io, now);
    }

    /// A client that cannot ask again is made to come back where that can help.
    pub(super) fn on_said(&self, event: &Event) {
        if let (Some(_), Event::Error { problem, .. }) = (self.trail(), event)
            && problem.reason.is_passing()
        {
            self.close(CloseCode::Internal);
        }
    }

    /// What waits is still given, except to a client that does not take it; then the stream ends.
    pub(super) fn end_stream(&self, trail: &Trail, code: CloseCode, now: Instant) {
        self.closed.set(Some(code.code()));
        let io = &mut *self.io.borrow_mut();
        if code == CloseCode::Slow {
            io.outbox.cut();
        }
        let mut last = BytesMut::from(format!(": {} {}\n", code.code(), code.word()).as_bytes());
        last.put_slice(&trail.retry_line());
        let _ = io.outbox.push(last.freeze(), usize::MAX, now);
        io.state = State::Closing { until: now + CLOSE_WAIT, deaf: true };
        self.write(io, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<Position> {
        Some(text.parse().unwrap())
    }

    fn trail(steps: &[(&str, Option<Position>)]) -> Trail {
        let topic = |name: &str| Topic::parse(name).unwrap();
        let mut trail = Trail::new(steps.iter().map(|(name, at)| (topic(name), *at)), Duration::from_secs(2));
        for (key, (name, _)) in steps.iter().enumerate() {
            trail.bind(&topic(name), key);
        }
        trail
    }

    /// The position that a stamped frame gives each topic, and the rest of it.
    fn read(frame: &Bytes, names: &[&str]) -> (Vec<Option<Position>>, String) {
        let text = std::str::from_utf8(frame).unwrap();
        let (id, rest) = text.strip_prefix("id: ").unwrap().split_once('\n').unwrap();
        let bookmark: Bookmark = id.parse().unwrap();
        let alone = names.len() == 1;
        (names.iter().map(|n| bookmark.of(&Topic::parse(n).unwrap(), alone)).collect(), rest.to_string())
    }

    #[test]
    fn a_topic_moves_only_with_what_it_was_given_and_the_others_stay() {
        let mut trail = trail(&[("a", at("k.1")), ("b", at("m.7")), ("c", None)]);
        let frame = Bytes::from_static(b"id: k.2\ndata: {}\n\n");
        let told = Told { topic: 0, at: at("k.2").unwrap() };
        let stamped = trail.stamped(&frame, Some(told)).unwrap();
        assert_eq!(read(&stamped, &["a", "b", "c"]), (vec![at("k.2"), at("m.7"), None], "data: {}\n\n".into()));
        // It was stamped and not taken: what is said next knows nothing of it.
        let gap = Bytes::from_static(b"event: gap\ndata: {}\n\n");
        assert_eq!(read(&trail.stamped(&gap, None).unwrap(), &["a", "b", "c"]).0, [at("k.1"), at("m.7"), None]);
        trail.keep(told);
        let (positions, rest) = read(&trail.stamped(&gap, None).unwrap(), &["a", "b", "c"]);
        assert_eq!((positions, rest.as_str()), (vec![at("k.2"), at("m.7"), None], "event: gap\ndata: {}\n\n"));
    }

    #[test]
    fn one_topic_shares_its_messages_and_its_id_is_the_position() {
        let mut trail = trail(&[("a", None)]);
        let (message, gap) = (Bytes::from_static(b"id: k.2\ndata: {}\n\n"), Bytes::from_static(b"event: gap\n"));
        assert_eq!(trail.stamped(&gap, None), None, "nothing is known yet");
        assert_eq!(trail.stamped(&message, None), None);
        trail.keep(Told { topic: 0, at: at("k.2").unwrap() });
        assert_eq!(trail.stamped(&gap, None).unwrap(), Bytes::from_static(b"id: k.2\nevent: gap\n"));
    }
}
