//! The positions of several topics in one opaque word, for transports that give back one word only (SSE's `id:` and
//! `Last-Event-ID`). For one topic it is the position itself.
//!
//! The word holds a tag for each topic, not its name, so its length depends on the number of topics alone: at most 24
//! characters for each, usually 19. A tag that stands for another topic than was meant does no harm: the position is
//! then one of another life, which no store takes for its own.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha1::{Digest, Sha1};

use super::name::Topic;
use super::position::{Epoch, MAX_OFFSET, Position};

/// What a word of several topics begins with: no position does.
const MARK: char = '~';
const VERSION: u8 = 1;
const EPOCH_BYTES: usize = 6;
const TAG_BYTES: usize = 4;

/// Stands for a topic: the beginning of its name's SHA-1, the same on every node and in every version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag([u8; TAG_BYTES]);

impl Tag {
    pub fn of(topic: &Topic) -> Tag {
        let digest = Sha1::digest(topic.as_str().as_bytes());
        Tag(std::array::from_fn(|i| digest[i]))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bookmark {
    /// A bare position: of the one topic that it is used for.
    One(Position),
    Many(Vec<(Tag, Position)>),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the id of an event; send one back as it came, or leave it out")]
pub struct BadBookmark(String);

impl Bookmark {
    /// Where a topic stands in it. `alone`: it is the only topic that is asked for.
    pub fn of(&self, topic: &Topic, alone: bool) -> Option<Position> {
        match self {
            Bookmark::One(at) => alone.then_some(*at),
            Bookmark::Many(entries) => {
                let tag = Tag::of(topic);
                entries.iter().find(|(t, _)| *t == tag).map(|(_, at)| *at)
            }
        }
    }
}

impl fmt::Display for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = match self {
            Bookmark::One(at) => return at.fmt(f),
            Bookmark::Many(entries) => entries,
        };
        let mut bytes = vec![VERSION];
        // The count tells a word that was cut short from a whole one.
        put_number(&mut bytes, entries.len() as u64);
        for (tag, at) in entries {
            bytes.extend_from_slice(&tag.0);
            bytes.extend_from_slice(&at.epoch.number().to_be_bytes()[8 - EPOCH_BYTES..]);
            put_number(&mut bytes, at.offset);
        }
        write!(f, "{MARK}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Bookmark {
    type Err = BadBookmark;

    fn from_str(text: &str) -> Result<Bookmark, BadBookmark> {
        let bad = || BadBookmark(text.chars().take(40).collect());
        match text.strip_prefix(MARK) {
            None => text.parse().map(Bookmark::One).map_err(|_| bad()),
            Some(rest) => {
                let bytes = URL_SAFE_NO_PAD.decode(rest).map_err(|_| bad())?;
                read(&mut bytes.as_slice()).map(Bookmark::Many).ok_or_else(bad)
            }
        }
    }
}

fn read(bytes: &mut &[u8]) -> Option<Vec<(Tag, Position)>> {
    let [version] = take(bytes)?;
    let count = take_number(bytes)?;
    if version != VERSION || count > bytes.len() as u64 {
        return None;
    }
    let mut entries = Vec::new();
    for _ in 0..count {
        let tag = Tag(take(bytes)?);
        let mut epoch = [0; 8];
        epoch[8 - EPOCH_BYTES..].copy_from_slice(&take::<EPOCH_BYTES>(bytes)?);
        let epoch = Epoch::from_number(u64::from_be_bytes(epoch))?;
        let offset = take_number(bytes).filter(|offset| *offset <= MAX_OFFSET)?;
        if entries.iter().any(|(t, _)| *t == tag) {
            return None;
        }
        entries.push((tag, Position::new(epoch, offset)));
    }
    bytes.is_empty().then_some(entries)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// At most 56 bits, in the one way that they are written.
fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for i in 0..8 {
        let [byte] = take(bytes)?;
        number |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return (byte > 0 || i == 0).then_some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn topic(n: usize) -> Topic {
        Topic::parse(&format!("topic.{n}")).unwrap()
    }

    proptest! {
        #[test]
        fn every_word_reads_back_as_written_and_finds_each_topic(
            positions in prop::collection::vec((any::<u64>(), 0..=MAX_OFFSET), 0..100),
        ) {
            let at = |(bits, offset): &(u64, u64)| Position::new(Epoch::from_random(*bits), *offset);
            let entries: Vec<_> = positions.iter().enumerate().map(|(i, p)| (Tag::of(&topic(i)), at(p))).collect();
            let bookmark = Bookmark::Many(entries.clone());
            let text = bookmark.to_string();
            prop_assert!(text.len() <= 5 + 24 * entries.len(), "{}", text.len());
            prop_assert_eq!(text.parse::<Bookmark>().unwrap(), bookmark.clone());
            for (i, (_, at)) in entries.iter().enumerate() {
                prop_assert_eq!(bookmark.of(&topic(i), false), Some(*at));
            }
            prop_assert_eq!(bookmark.of(&topic(1000), true), None);
        }

        #[test]
        fn no_text_makes_the_parser_panic_or_is_read_in_two_ways(text in "~?[\\PC]{0,40}", word in "~AQ[A-Za-z0-9_-]{0,60}") {
            for text in [text, word] {
                if let Ok(bookmark) = text.parse::<Bookmark>() {
                    prop_assert_eq!(bookmark.to_string(), text);
                }
            }
        }

        #[test]
        fn a_word_that_was_cut_short_is_refused(count in 1usize..20, cut in 1usize..400) {
            let entries = (0..count).map(|i| (Tag::of(&topic(i)), Position::new(Epoch::from_random(i as u64), 300)));
            let text = Bookmark::Many(entries.collect()).to_string();
            prop_assert!(text[..text.len() - 1 - cut % text.len().saturating_sub(1)].parse::<Bookmark>().is_err());
        }
    }

    #[test]
    fn a_bare_position_belongs_to_one_topic_alone() {
        let bookmark: Bookmark = "k3.42".parse().unwrap();
        assert_eq!(bookmark.of(&topic(0), true), Some("k3.42".parse().unwrap()));
        assert_eq!(bookmark.of(&topic(0), false), None);
        assert_eq!(bookmark.to_string(), "k3.42");
    }
}
