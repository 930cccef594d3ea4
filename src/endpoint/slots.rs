//! Which server of a cluster serves which slot, out of what several servers say of it. No I/O.
//!
//! Servers disagree for a while after a failover or the move of a slot. Each says with its claim in which config epoch it
//! was made, and the newest claim of a slot is right: so several are asked, and a server that was cut off and still
//! names itself is outvoted by the one that took its place.

use std::collections::BTreeSet;

use super::Place;

/// Slots of a cluster.
pub const SLOTS: u16 = 16_384;

/// The slot of a key or of a sharded channel: of what stands between its first braces, if something does.
pub fn slot_of(key: impl AsRef<[u8]>) -> u16 {
    let key = key.as_ref();
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|byte| *byte == b'}').map(|close| &rest[..close])
    });
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(key)) % SLOTS
}

/// CRC16 as Redis Cluster uses it (XMODEM).
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

/// A master's claim to slots, as one server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Claim {
    first: u16,
    last: u16,
    epoch: u64,
    master: Place,
}

/// What one server answers to `CLUSTER NODES`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    claims: Vec<Claim>,
    /// All servers it knows, masters and replicas: who else can be asked.
    servers: BTreeSet<Place>,
}

/// Which master serves which slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    /// By the first slot of each range; ranges do not meet.
    ranges: Vec<(u16, u16, Place)>,
    servers: BTreeSet<Place>,
}

impl View {
    /// Reads the lines of the answer of the server at `asked`: a server that does not know its own address leaves it out.
    pub fn parse(text: &str, asked: &Place) -> View {
        let mut view = View::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [_, address, flags, _, _, _, epoch, _, slots @ ..] = words.as_slice() else { continue };
            let flags: Vec<&str> = flags.split(',').collect();
            let Some(place) = place_of(address, asked).filter(|_| !flags.contains(&"noaddr")) else { continue };
            if !flags.contains(&"fail") && !flags.contains(&"handshake") {
                view.servers.insert(place.clone());
            }
            let Ok(epoch) = epoch.parse() else { continue };
            if !flags.contains(&"master") {
                continue;
            }
            // `[5-<-…]` and `[5->-…]` are slots on the move: they belong to whom they are listed for.
            for (first, last) in slots.iter().filter(|range| !range.starts_with('[')).filter_map(|range| span(range)) {
                view.claims.push(Claim { first, last, epoch, master: place.clone() });
            }
        }
        view
    }
}

impl Slots {
    /// What several servers say, put together.
    pub fn merge<'a>(views: impl IntoIterator<Item = &'a View>) -> Slots {
        let mut owners: Vec<Option<(u64, &Place)>> = vec![None; usize::from(SLOTS)];
        let mut servers = BTreeSet::new();
        for view in views {
            servers.extend(view.servers.iter().cloned());
            for claim in &view.claims {
                for owner in &mut owners[usize::from(claim.first)..=usize::from(claim.last)] {
                    if owner.is_none_or(|(epoch, _)| epoch < claim.epoch) {
                        *owner = Some((claim.epoch, &claim.master));
                    }
                }
            }
        }
        let mut ranges: Vec<(u16, u16, Place)> = Vec::new();
        for (slot, owner) in (0..SLOTS).zip(owners) {
            let Some((_, owner)) = owner else { continue };
            match ranges.last_mut() {
                Some((_, last, place)) if *last + 1 == slot && place == owner => *last = slot,
                _ => ranges.push((slot, slot, owner.clone())),
            }
        }
        Slots { ranges, servers }
    }

    /// Who serves this slot, if somebody does.
    pub fn owner(&self, slot: u16) -> Option<&Place> {
        let before = self.ranges.partition_point(|(first, ..)| *first <= slot);
        let (_, last, place) = self.ranges.get(before.checked_sub(1)?)?;
        (slot <= *last).then_some(place)
    }

    pub fn masters(&self) -> BTreeSet<&Place> {
        self.ranges.iter().map(|(.., place)| place).collect()
    }

    /// All servers that are known.
    pub fn servers(&self) -> impl Iterator<Item = &Place> {
        self.servers.iter()
    }

    /// Slots that nobody serves.
    pub fn uncovered(&self) -> usize {
        let covered: usize = self.ranges.iter().map(|(first, last, _)| usize::from(last - first) + 1).sum();
        usize::from(SLOTS) - covered
    }
}

/// `host:port@busport[,hostname[,…]]`
fn place_of(address: &str, asked: &Place) -> Option<Place> {
    let (host, port) = address.split(['@', ',']).next()?.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = match (host.trim_matches(['[', ']']), asked) {
        ("", Place::Tcp(asked, _)) => asked.as_str(),
        ("", Place::Unix(_)) => return None,
        (host, _) => host,
    };
    Some(Place::Tcp(host.to_owned(), port))
}

fn span(range: &str) -> Option<(u16, u16)> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < SLOTS).then_some((first, last))
}

const TABLE: [u16; 256] = {
    let mut table = [0u16; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Place {
        Place::Tcp("10.0.0.1".into(), port)
    }

    const BEFORE: &str = "\
        aa 10.0.0.1:7000@17000 myself,master - 0 0 1 connected 0-8191 [8191->-bb]\n\
        bb 10.0.0.1:7001@17001,b.example.org master - 0 1 2 connected 8192-16383\n\
        cc 10.0.0.1:7002@17002 slave aa 0 1 1 connected\n\
        dd :0@0 master,noaddr - 0 1 9 disconnected 5\n";
    const AFTER: &str = "\
        aa 10.0.0.1:7000@17000 master,fail - 0 0 1 disconnected\n\
        bb 10.0.0.1:7001@17001 myself,master - 0 1 2 connected 8192-16383\n\
        cc :7002@17002 master - 0 1 3 connected 0-8190 8191\n";

    #[test]
    fn crc16_is_the_one_of_redis_cluster() {
        assert_eq!((crc16(b"123456789"), crc16(b"")), (0x31c3, 0));
    }

    #[test]
    fn slots_are_those_of_redis() {
        // As CLUSTER KEYSLOT answers.
        for (key, slot) in [("foo", 12182), ("{foo}:x", 12182), ("a{foo}{bar}", 12182), ("{}foo", 9500), ("a{foo", 113)]
        {
            assert_eq!(slot_of(key), slot, "{key}");
        }
    }

    #[test]
    fn the_newest_claim_counts_whoever_is_asked_first() {
        let (old, new) = (View::parse(BEFORE, &at(7000)), View::parse(AFTER, &at(7002)));
        let alone = Slots::merge([&old]);
        assert_eq!(
            (alone.owner(0), alone.owner(8191), alone.owner(8192)),
            (Some(&at(7000)), Some(&at(7000)), Some(&at(7001)))
        );
        assert_eq!((alone.uncovered(), alone.servers().count()), (0, 3));
        for views in [[&old, &new], [&new, &old]] {
            let slots = Slots::merge(views);
            assert_eq!(slots.masters(), [&at(7001), &at(7002)].into());
            assert_eq!((slots.owner(8191), slots.ranges.len()), (Some(&at(7002)), 2));
        }
    }

    #[test]
    fn what_nobody_serves_has_no_owner() {
        let slots =
            Slots::merge([&View::parse("aa 10.0.0.1:7000@1 master - 0 0 1 connected 5-6 9\nnonsense\n", &at(1))]);
        let owned: Vec<u16> = (0..12).filter(|slot| slots.owner(*slot).is_some()).collect();
        assert_eq!((owned, slots.uncovered()), (vec![5, 6, 9], 16_381));
        assert_eq!(Slots::default().owner(0), None);
    }
}
