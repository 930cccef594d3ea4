//! Positions: where a message stands in its topic.
//!
//! A position is `epoch.offset`. The epoch is drawn at random for each life of a topic, so a position of another
//! topic, or of an earlier life of this one, is never taken for a valid one. Offsets count by one and go on
//! counting over epochs. Two epochs cannot be ordered by looking at them: only the topic's record knows.

use std::fmt;
use std::str::FromStr;

/// The largest offset: what a double holds exactly, since the Redis scripts count in doubles.
pub const MAX_OFFSET: u64 = (1 << 53) - 1;
const EPOCH_DIGITS: usize = 8;
const EPOCHS: u64 = 36u64.pow(EPOCH_DIGITS as u32);

/// One life of a topic: about 41 random bits, written as up to eight characters of `0-9a-z`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    pub epoch: Epoch,
    pub offset: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a position; send back an `at` of this topic as it came, like \"k3.42\"")]
pub struct BadPosition(pub String);

impl Epoch {
    /// Makes an epoch of random bits that the caller has drawn.
    pub fn from_random(bits: u64) -> Epoch {
        Epoch(bits % EPOCHS)
    }

    /// The epoch as a number, for forms that are more compact than its digits: below 2^42.
    pub fn number(self) -> u64 {
        self.0
    }

    pub fn from_number(number: u64) -> Option<Epoch> {
        (number < EPOCHS).then_some(Epoch(number))
    }
}

impl Position {
    /// A position that no life of a topic reaches: to resume from it fails, and says so.
    pub const NOWHERE: Position = Position { epoch: Epoch(0), offset: MAX_OFFSET };

    pub fn new(epoch: Epoch, offset: u64) -> Position {
        Position { epoch, offset }
    }

    /// The position of the message after this one, in the same epoch.
    pub fn next(self) -> Position {
        Position { epoch: self.epoch, offset: self.offset + 1 }
    }

    /// The position before this one, in the same epoch. (An offset of 0 stands before the first message.)
    pub fn before(self) -> Position {
        Position { epoch: self.epoch, offset: self.offset.saturating_sub(1) }
    }

    /// Whether this is the same life as `other` and lies further on.
    pub fn is_past(self, other: Position) -> bool {
        self.epoch == other.epoch && self.offset > other.offset
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [b'0'; EPOCH_DIGITS];
        let mut rest = self.0;
        let mut first = EPOCH_DIGITS;
        loop {
            first -= 1;
            digits[first] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(rest % 36) as usize];
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        f.write_str(std::str::from_utf8(&digits[first..]).expect("digits are ASCII"))
    }
}

impl FromStr for Epoch {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Epoch, BadPosition> {
        let canonical = !text.is_empty()
            && text.len() <= EPOCH_DIGITS
            && (text == "0" || !text.starts_with('0'))
            && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        if !canonical {
            return Err(BadPosition(shown(text)));
        }
        u64::from_str_radix(text, 36).map(Epoch).map_err(|_| BadPosition(shown(text)))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.offset)
    }
}

impl FromStr for Position {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Position, BadPosition> {
        let bad = || BadPosition(shown(text));
        let (epoch, offset) = text.split_once('.').ok_or_else(bad)?;
        let canonical = offset.bytes().all(|b| b.is_ascii_digit()) && (offset == "0" || !offset.starts_with('0'));
        if !canonical {
            return Err(bad());
        }
        let offset = offset.parse().ok().filter(|&o| o <= MAX_OFFSET).ok_or_else(bad)?;
        Ok(Position { epoch: epoch.parse().map_err(|_| bad())?, offset })
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_position_reads_back_as_written(bits: u64, offset in 0..=MAX_OFFSET) {
            let position = Position::new(Epoch::from_random(bits), offset);
            prop_assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
        }

        #[test]
        fn no_text_makes_the_parser_panic_or_is_read_in_two_ways(text in "\\PC{0,24}") {
            if let Ok(position) = text.parse::<Position>() {
                prop_assert_eq!(position.to_string(), text);
            }
        }
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in ["", "k3", "k3.", ".3", "k3.-1", "K3.1", "k3.1.2", "k3.9007199254740992", "k3.01", "abcdefghi.1"] {
            assert!(text.parse::<Position>().is_err(), "{text:?}");
        }
    }
}
