//! The bounded queue of bytes to one connection, and what its room is for. Draining it is the transport's affair.
//!
//! It takes memory only while the peer does not keep up. Frames are shared, so a thousand slow readers of one stream
//! hold one copy; each is counted whole all the same.
//!
//! The rule for every transport: an answer is pushed up to the whole, and where even that is full the connection is cut.
//! A frame of a stream is pushed up to `Shares::streams`, and where there is no room for it the subscription falls
//! behind; when the outbox has drained to `Shares::low_water`, it is read on from the store, a page at a time.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};

use super::budget::Budget;
use crate::domain::store::ReadLimit;

/// Slices handed to one vectored write.
pub const SLICES: usize = 32;

#[derive(Debug)]
pub struct Outbox {
    backlog: Option<Box<Backlog>>,
    /// That of the whole node, where all that waits is counted.
    budget: Arc<Budget>,
}

#[derive(Debug)]
struct Backlog {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// Whether the first frame has been written in part: then it must be finished before anything else.
    torn: bool,
    /// When the peer last took something, or the backlog began.
    moved: Instant,
}

/// What an outbox of so many bytes is for: a slow connection holds no more than them, and still hears its answers.
/// The low water, a page with its frames, what is held meanwhile and a rest for answers make up the whole.
#[derive(Debug, Clone, Copy)]
pub struct Shares(pub usize);

/// What a message takes on the wire beside its body, for a name of usual length.
const FRAME_BYTES: usize = 256;

impl Shares {
    /// With no more than this waiting, history is read for the connection.
    pub fn low_water(self) -> usize {
        self.0 / 4
    }

    /// A page that fits on top of the low water.
    pub fn page(self) -> ReadLimit {
        let usual = ReadLimit::default();
        let messages = (self.0 / 8 / FRAME_BYTES).max(1) as u32;
        ReadLimit { messages: messages.min(usual.messages), bytes: self.0 / 8 * 3 }
    }

    /// Live frames that are held for it while a page is read.
    pub fn held(self) -> usize {
        self.0 / 8
    }

    /// How far frames of streams may fill it; `reading`: a page is on its way, whose room is kept free.
    pub fn streams(self, reading: bool) -> usize {
        if reading { self.low_water() } else { self.0 / 8 * 7 }
    }
}

/// The outbox holds as much as it may.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Outbox {
    pub fn new(budget: Arc<Budget>) -> Outbox {
        Outbox { backlog: None, budget }
    }

    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    pub fn is_empty(&self) -> bool {
        self.backlog.is_none()
    }

    pub fn bytes(&self) -> usize {
        self.backlog.as_ref().map_or(0, |b| b.bytes)
    }

    /// Whether so many bytes more are within `most`. An empty outbox takes any frame.
    pub fn fits(&self, bytes: usize, most: usize) -> bool {
        self.is_empty() || self.bytes() + bytes <= most
    }

    /// Queues a whole frame behind the others, if `most` bytes are not exceeded by it. An empty outbox takes any frame.
    pub fn push(&mut self, frame: Bytes, most: usize, now: Instant) -> Result<(), Full> {
        if !self.fits(frame.len(), most) {
            return Err(Full);
        }
        self.append(frame, now);
        Ok(())
    }

    /// Queues what is left of a frame whose beginning was written past an empty outbox.
    pub fn push_rest(&mut self, rest: Bytes, now: Instant) {
        debug_assert!(self.is_empty());
        self.append(rest, now);
        if let Some(backlog) = &mut self.backlog {
            backlog.torn = true;
        }
    }

    fn append(&mut self, frame: Bytes, now: Instant) {
        let backlog = self
            .backlog
            .get_or_insert_with(|| Box::new(Backlog { queue: VecDeque::new(), bytes: 0, torn: false, moved: now }));
        backlog.bytes += frame.len();
        self.budget.add(frame.len());
        backlog.queue.push_back(frame);
    }

    /// How long the peer has taken nothing although something waits.
    pub fn stalled(&self, now: Instant) -> Duration {
        self.backlog.as_ref().map_or(Duration::ZERO, |b| now.saturating_duration_since(b.moved))
    }

    /// The first slices to write.
    pub fn slices<'a>(&'a self, room: &mut [IoSlice<'a>; SLICES]) -> usize {
        let queue = self.backlog.iter().flat_map(|b| &b.queue);
        room.iter_mut().zip(queue).map(|(slot, frame)| *slot = IoSlice::new(frame)).count()
    }

    /// So many bytes of the front were written.
    pub fn advance(&mut self, mut written: usize, now: Instant) {
        let Some(backlog) = &mut self.backlog else { return };
        let written_off = written.min(backlog.bytes);
        self.budget.give_back(written_off);
        backlog.bytes -= written_off;
        backlog.moved = now;
        while let Some(front) = backlog.queue.front_mut() {
            if written < front.len() {
                backlog.torn |= written > 0;
                front.advance(written);
                return;
            }
            written -= front.len();
            backlog.torn = false;
            backlog.queue.pop_front();
        }
        self.backlog = None;
    }

    /// Drops everything but a frame that has begun, so that what is pushed next is read whole.
    pub fn cut(&mut self) {
        let before = self.bytes();
        match &mut self.backlog {
            Some(backlog) if backlog.torn => {
                backlog.queue.truncate(1);
                backlog.bytes = backlog.queue[0].len();
            }
            _ => self.backlog = None,
        }
        self.budget.give_back(before - self.bytes());
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(outbox: &mut Outbox, most: usize, now: Instant) -> Vec<u8> {
        let mut written = Vec::new();
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = outbox.slices(&mut slices);
        for slice in &slices[..count] {
            written.extend_from_slice(&slice[..slice.len().min(most - written.len())]);
        }
        outbox.advance(written.len(), now);
        written
    }

    proptest! {
        #[test]
        fn whatever_the_peer_takes_at_a_time_it_gets_whole_frames_in_order(
            frames in prop::collection::vec(1usize..40, 1..60), takes in prop::collection::vec(1usize..100, 1..200), cut_at in 0usize..200
        ) {
            let now = Instant::now();
            let mut outbox = Outbox::new(Budget::new(usize::MAX));
            let mut expected = Vec::new();
            let mut got = Vec::new();
            for (i, len) in frames.iter().enumerate() {
                let frame = vec![i as u8; *len];
                if outbox.push(frame.clone().into(), 500, now).is_ok() {
                    expected.extend(frame);
                }
            }
            for (i, most) in takes.iter().enumerate() {
                if i == cut_at {
                    let rest = got.len();
                    // Only the frame that has begun may still come.
                    let frame = expected.get(rest).copied();
                    let begun = rest > 0 && frame.is_some() && expected[rest - 1] == expected[rest];
                    let end = if begun { rest + expected[rest..].iter().take_while(|b| Some(**b) == frame).count() } else { rest };
                    outbox.cut();
                    expected.truncate(end);
                }
                got.extend(drain(&mut outbox, *most, now));
            }
            while !outbox.is_empty() {
                got.extend(drain(&mut outbox, 1000, now));
            }
            prop_assert_eq!(got, expected);
            prop_assert_eq!((outbox.bytes(), outbox.budget().used()), (0, 0));
        }
    }

    #[test]
    fn a_page_what_is_held_and_answers_fit_on_top_of_the_low_water() {
        for most in [64 * 1024, 1024 * 1024, 1024 * 1024 * 1024] {
            let shares = Shares(most);
            let page = shares.page().bytes + shares.page().messages as usize * FRAME_BYTES;
            assert!(shares.streams(true) + page + shares.held() <= shares.streams(false), "{most}");
            assert!(shares.streams(false) < most && shares.page().messages > 0);
        }
    }

    #[test]
    fn it_is_bounded_by_bytes_and_remembers_when_the_peer_last_took_something() {
        let now = Instant::now();
        let mut outbox = Outbox::new(Budget::new(usize::MAX));
        assert_eq!(outbox.push(Bytes::from_static(&[0; 100]), 50, now), Ok(()));
        assert_eq!(outbox.push(Bytes::from_static(&[0; 1]), 100, now), Err(Full));
        let later = now + Duration::from_secs(3);
        assert_eq!(outbox.stalled(later), Duration::from_secs(3));
        outbox.advance(1, later);
        assert_eq!(outbox.stalled(later), Duration::ZERO);
    }
}
