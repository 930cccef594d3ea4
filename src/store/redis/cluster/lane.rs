//! The order of one group's calls while its slot moves. Pure; time comes in as an argument.
//!
//! Calls of a group go to the server of its slot, many at a time. When one is answered that it was not carried out there,
//! newer ones wait until everything on its way has been answered; then what was not carried out goes first, alone, and
//! the rest follows once that was taken. What is still not taken after a bound fails, with nothing stored.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::domain::store::{Append, StoreError};
use crate::endpoint::Place;
use crate::store::redis::calls::ForeignCall;
use crate::store::redis::cursors::Use;
use crate::store::redis::pages::{Ask, Stretch};
use crate::store::redis::queue::Weight;

/// The waits between tries, from the first to the longest.
const FIRST_RETRY: Duration = Duration::from_millis(5);
const LONGEST_RETRY: Duration = Duration::from_millis(100);

/// What one call of the store wants of one group.
pub struct Piece {
    /// Counts pieces in the order of the calls.
    pub number: u64,
    pub work: Work,
}

pub enum Work {
    Append {
        /// The call that it is a part of.
        whole: usize,
        /// Each with its place in that call.
        items: Vec<(usize, Append)>,
    },
    Read {
        ask: Ask,
        answer: oneshot::Sender<Result<Stretch, StoreError>>,
        weight: Weight,
    },
    Cursor(Use),
    Call(ForeignCall),
}

/// Why a server did not carry a call out, if the call should be tried elsewhere or later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Elsewhere {
    /// Another server has the slot.
    Moved,
    /// This server has these keys already, though not the slot yet.
    Ask(Place),
    /// Nobody can do it at this moment.
    Later,
}

impl Elsewhere {
    pub fn of(error: &StoreError) -> Option<Elsewhere> {
        let StoreError::Unavailable(text) = error else { return None };
        let mut words = text.split_ascii_whitespace();
        match words.next()? {
            "MOVED" => Some(Elsewhere::Moved),
            "ASK" => {
                let (host, port) = words.nth(1)?.rsplit_once(':')?;
                let place = Place::Tcp(host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?);
                Some(if host.is_empty() { Elsewhere::Later } else { Elsewhere::Ask(place) })
            }
            "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" => Some(Elsewhere::Later),
            _ => None,
        }
    }
}

/// What a server said why it did not carry a call out.
pub fn text_of(error: Option<&StoreError>) -> String {
    match error {
        Some(StoreError::Unavailable(text)) => text.clone(),
        other => format!("{other:?}"),
    }
}

#[derive(Default)]
pub struct Lane {
    /// The slot of all its keys.
    pub slot: u16,
    /// Who serves the slot.
    pub home: Option<Place>,
    flying: usize,
    held: VecDeque<Piece>,
    bounced: Vec<Piece>,
    /// The newest message that was stored: its piece, and its place there.
    stored: Option<(u64, usize)>,
    trouble: Option<Trouble>,
}

struct Trouble {
    why: String,
    /// Where to go once.
    ask: Option<Place>,
    /// One piece went ahead to see whether it is taken.
    ahead: bool,
    until: Instant,
    retry: Instant,
    wait: Duration,
}

/// What a lane in trouble may do now.
#[derive(Default)]
pub struct Next {
    /// To be sent, in this order.
    pub send: Vec<Piece>,
    /// Send it there, announced as asking.
    pub asking: Option<Place>,
    /// To be refused, with this reason: it waited too long, or something newer is stored already.
    pub refuse: Vec<(Piece, String)>,
}

impl Lane {
    pub fn of(slot: u16) -> Lane {
        Lane { slot, ..Lane::default() }
    }

    /// Whether a new piece may be sent at once.
    pub fn is_clear(&self) -> bool {
        self.trouble.is_none()
    }

    /// Whether it is the turn of the one piece that goes ahead.
    pub fn is_ahead(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.ahead)
    }

    pub fn hold(&mut self, piece: Piece) {
        self.held.push_back(piece);
    }

    pub fn took_off(&mut self) {
        self.flying += 1;
    }

    /// A piece was answered; `stored` is the place of the last message of it that was stored now.
    pub fn landed(&mut self, number: u64, stored: Option<usize>) {
        self.flying -= 1;
        self.stored = self.stored.max(stored.map(|place| (number, place)));
        if self.bounced.is_empty() && self.held.is_empty() {
            self.trouble = None;
        }
    }

    /// What of a piece was not carried out.
    pub fn bounce(&mut self, piece: Piece, why: &str, elsewhere: Elsewhere, patience: Duration, now: Instant) {
        self.bounced.push(piece);
        let trouble = self.trouble.get_or_insert_with(|| Trouble {
            why: String::new(),
            ask: None,
            ahead: false,
            until: now + patience,
            retry: now,
            wait: FIRST_RETRY,
        });
        trouble.why = why.to_owned();
        trouble.ahead = false;
        trouble.ask = match elsewhere {
            Elsewhere::Ask(place) => Some(place),
            _ => None,
        };
        if trouble.ask.is_none() {
            trouble.retry = now + trouble.wait;
            trouble.wait = (trouble.wait * 2).min(LONGEST_RETRY);
        }
    }

    /// Something changed that may be what was waited for: try at once.
    pub fn hurry(&mut self, now: Instant) {
        if let Some(trouble) = &mut self.trouble {
            trouble.retry = trouble.retry.min(now);
        }
    }

    /// What may be done now.
    pub fn next(&mut self, now: Instant) -> Next {
        let mut next = Next::default();
        if self.flying > 0 || self.trouble.is_none() {
            return next;
        }
        self.gather();
        next.refuse = self.take_overtaken();
        let Some(trouble) = &mut self.trouble else { return next };
        if self.held.is_empty() || trouble.ahead {
            // What went ahead was taken: all the rest may follow.
            next.send = self.held.drain(..).collect();
            self.trouble = None;
        } else if now >= trouble.until {
            let why = trouble.why.clone();
            next.refuse.extend(self.held.drain(..).map(|piece| (piece, why.clone())));
            self.trouble = None;
        } else if now >= trouble.retry {
            trouble.ahead = true;
            next.asking = trouble.ask.take();
            next.send.extend(self.held.pop_front());
        }
        next
    }

    /// Puts what was not carried out in front of what waits, in order.
    fn gather(&mut self) {
        self.bounced.sort_by_key(|piece| std::cmp::Reverse(piece.number));
        self.bounced.drain(..).for_each(|piece| self.held.push_front(piece));
    }

    /// Sent again they would come after something newer: they must fail instead.
    fn take_overtaken(&mut self) -> Vec<(Piece, String)> {
        let Some(stored) = self.stored else { return Vec::new() };
        let mut overtaken = Vec::new();
        let why = || "the slot moved, and newer calls came first".to_string();
        let is_late = |piece: &Piece| matches!(piece.work, Work::Call(_)) && (piece.number, usize::MAX) < stored;
        let (late, rest) = std::mem::take(&mut self.held).into_iter().partition::<Vec<_>, _>(is_late);
        self.held = rest.into();
        overtaken.extend(late.into_iter().map(|piece| (piece, why())));
        for piece in &mut self.held {
            let Work::Append { whole, items } = &mut piece.work else { continue };
            let (late, rest) =
                std::mem::take(items).into_iter().partition(|(place, _)| (piece.number, *place) < stored);
            *items = rest;
            let late: Vec<_> = late;
            if !late.is_empty() {
                let work = Work::Append { whole: *whole, items: late };
                overtaken.push((Piece { number: piece.number, work }, why()));
            }
        }
        self.held.retain(|piece| !matches!(&piece.work, Work::Append { items, .. } if items.is_empty()));
        overtaken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::{Body, Publication};
    use crate::domain::name::Topic;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn piece(number: u64, places: std::ops::Range<usize>) -> Piece {
        let publication = Publication {
            topic: Topic::parse("news").unwrap(),
            body: Body::from_canonical(bytes::Bytes::from_static(b"x")),
            ttl: None,
            key: None,
            idempotency_key: None,
            durability: None,
        };
        let items = places.map(|place| (place, Append { publication: publication.clone(), fence: None })).collect();
        Piece { number, work: Work::Append { whole: 0, items } }
    }

    fn shown(pieces: impl IntoIterator<Item = Piece>) -> Vec<(u64, Vec<usize>)> {
        let places = |piece: Piece| match piece.work {
            Work::Append { items, .. } => (piece.number, items.into_iter().map(|(place, _)| place).collect()),
            Work::Read { .. } | Work::Cursor(_) | Work::Call(_) => (piece.number, Vec::new()),
        };
        pieces.into_iter().map(places).collect()
    }

    /// Two pieces are on their way, and neither is carried out; a third one waits.
    fn moved(now: Instant) -> Lane {
        let mut lane = Lane::default();
        lane.took_off();
        lane.took_off();
        lane.bounce(piece(2, 0..1), "MOVED", Elsewhere::Moved, PATIENCE, now);
        lane.landed(2, None);
        assert!(!lane.is_clear());
        lane.hold(piece(3, 0..1));
        assert!(lane.next(now + PATIENCE / 2).send.is_empty(), "the first is not answered yet");
        lane.bounce(piece(1, 0..2), "MOVED", Elsewhere::Moved, PATIENCE, now);
        lane.landed(1, None);
        lane
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_carried_out_goes_first_and_alone_and_then_the_rest() {
        let now = Instant::now();
        let mut lane = moved(now);
        assert!(lane.next(now).send.is_empty());
        lane.hurry(now);
        assert_eq!(shown(lane.next(now).send), [(1, vec![0, 1])]);
        lane.took_off();
        assert!(lane.next(now).send.is_empty());
        lane.landed(1, Some(1));
        assert_eq!(shown(lane.next(now).send), [(2, vec![0]), (3, vec![0])]);
        assert!(lane.is_clear());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_tried_again_after_longer_and_longer_and_fails_after_the_bound() {
        let now = Instant::now();
        let (mut lane, mut at, mut tries) = (moved(now), now, 0);
        let refused = loop {
            at += Duration::from_millis(1);
            let mut next = lane.next(at);
            if let Some(piece) = next.send.pop() {
                tries += 1;
                lane.took_off();
                lane.bounce(piece, "TRYAGAIN", Elsewhere::Later, PATIENCE, at);
                lane.landed(1, None);
            }
            if !next.refuse.is_empty() {
                break next.refuse;
            }
        };
        assert_eq!((at - now, lane.is_clear()), (PATIENCE, true));
        assert!((50..60).contains(&tries), "{tries}");
        assert!(refused.iter().all(|(_, why)| why == "TRYAGAIN"));
        assert_eq!(shown(refused.into_iter().map(|(piece, _)| piece)).len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_something_newer_has_overtaken_fails() {
        let now = Instant::now();
        let mut lane = Lane::default();
        (0..3).for_each(|_| lane.took_off());
        lane.bounce(piece(1, 0..3), "TRYAGAIN", Elsewhere::Later, PATIENCE, now);
        lane.landed(1, None);
        // The last of its piece was stored, the ones before it were not.
        lane.bounce(piece(2, 4..6), "TRYAGAIN", Elsewhere::Later, PATIENCE, now);
        lane.landed(2, Some(5));
        lane.bounce(piece(3, 0..1), "TRYAGAIN", Elsewhere::Later, PATIENCE, now);
        lane.landed(3, None);
        let next = lane.next(now + LONGEST_RETRY);
        let refused = next.refuse.into_iter().map(|(piece, _)| piece);
        assert_eq!((shown(refused), shown(next.send)), (vec![(1, vec![0, 1, 2]), (2, vec![4])], vec![(2, vec![5])]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_named_is_asked_at_once_and_once() {
        let now = Instant::now();
        let mut lane = Lane::default();
        lane.took_off();
        let there = Elsewhere::of(&StoreError::Unavailable("ASK 12182 127.0.0.1:7001".into())).unwrap();
        assert_eq!(there, Elsewhere::Ask(Place::Tcp("127.0.0.1".into(), 7001)));
        lane.bounce(piece(1, 0..1), "ASK", there, PATIENCE, now);
        lane.landed(1, None);
        let next = lane.next(now);
        assert_eq!((shown(next.send).len(), next.asking.is_some()), (1, true));
        lane.took_off();
        lane.bounce(piece(1, 0..1), "TRYAGAIN", Elsewhere::Later, PATIENCE, now);
        lane.landed(1, None);
        let next = lane.next(now + LONGEST_RETRY);
        assert_eq!((shown(next.send).len(), next.asking), (1, None));
    }

    #[test]
    fn other_refusals_are_final() {
        for text in ["OOM x", "READONLY x", "connection lost", ""] {
            assert_eq!(Elsewhere::of(&StoreError::Unavailable(text.into())), None, "{text}");
        }
        assert_eq!(Elsewhere::of(&StoreError::Broken("MOVED 1 a:1".into())), None);
        assert_eq!(Elsewhere::of(&StoreError::Unavailable("MOVED 1 a:1".into())), Some(Elsewhere::Moved));
    }
}
