//! Which server of a cluster serves which slot, out of what several servers say of it. No I/O.
//!
//! Servers disagree for a while after a failover or the move of a slot. Each says with its claim in which config epoch it
//! was made, and the newest claim of a slot is right: so several are asked, and a server that was cut off and still
//! names itself is outvoted by the one that took its place. What was known before counts too, for as long as only few answer:
//! else the one that was cut off would get its slots back as soon as it is the only one that can be reached.

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    asked: Place,
    claims: Vec<Claim>,
    /// All servers it knows, masters and replicas: who else can be asked.
    servers: BTreeSet<Place>,
}

/// Which master serves which slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    /// The newest claims, by the first slot of each; they do not meet.
    ranges: Vec<Claim>,
    servers: BTreeSet<Place>,
}

impl View {
    /// Reads the lines of the answer of the server at `asked`: a server that does not know its own address leaves it out.
    pub fn parse(text: &str, asked: &Place) -> View {
        let mut view = View { asked: asked.clone(), claims: Vec::new(), servers: BTreeSet::new() };
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

    /// Whether it knows of anybody who serves anything.
    pub fn has_slots(&self) -> bool {
        !self.claims.is_empty()
    }
}

impl Slots {
    /// What several servers say, put together with what is known. Once more than half of the known masters have answered,
    /// only what is said now counts, so that a cluster that was set up anew, and counts its epochs anew, is believed.
    pub fn merge(known: &Slots, views: &[View]) -> Slots {
        let masters = known.masters();
        let answered = masters.iter().filter(|master| views.iter().any(|view| view.asked == ***master)).count();
        let kept = Some(known).filter(|_| answered <= masters.len() / 2);
        let servers = views.iter().map(|view| &view.servers).chain(kept.map(|kept| &kept.servers));
        let servers = servers.flatten().cloned().collect();
        let mut owners: Vec<Option<&Claim>> = vec![None; usize::from(SLOTS)];
        // What is known comes last: of two claims of one epoch the one that was made now counts.
        let claims = views.iter().map(|view| &view.claims).chain(kept.map(|kept| &kept.ranges));
        for claim in claims.flatten() {
            for owner in &mut owners[usize::from(claim.first)..=usize::from(claim.last)] {
                if owner.is_none_or(|owner| owner.epoch < claim.epoch) {
                    *owner = Some(claim);
                }
            }
        }
        let mut ranges: Vec<Claim> = Vec::new();
        for (slot, owner) in (0..SLOTS).zip(owners) {
            let Some(owner) = owner else { continue };
            match ranges.last_mut() {
                Some(range) if range.last + 1 == slot && range.master == owner.master && range.epoch == owner.epoch => {
                    range.last = slot;
                }
                _ => ranges.push(Claim { first: slot, last: slot, ..owner.clone() }),
            }
        }
        Slots { ranges, servers }
    }

    /// Who serves this slot, if somebody does.
    pub fn owner(&self, slot: u16) -> Option<&Place> {
        let before = self.ranges.partition_point(|range| range.first <= slot);
        let range = self.ranges.get(before.checked_sub(1)?)?;
        (slot <= range.last).then_some(&range.master)
    }

    pub fn masters(&self) -> BTreeSet<&Place> {
        self.ranges.iter().map(|range| &range.master).collect()
    }

    /// All servers that are known.
    pub fn servers(&self) -> impl Iterator<Item = &Place> {
        self.servers.iter()
    }

    /// Slots that nobody serves.
    pub fn uncovered(&self) -> usize {
        let covered: usize = self.ranges.iter().map(|range| usize::from(range.last - range.first) + 1).sum();
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
        let alone = Slots::merge(&Slots::default(), std::slice::from_ref(&old));
        assert_eq!(
            (alone.owner(0), alone.owner(8191), alone.owner(8192)),
            (Some(&at(7000)), Some(&at(7000)), Some(&at(7001)))
        );
        assert_eq!((alone.uncovered(), alone.servers().count()), (0, 3));
        for views in [[old.clone(), new.clone()], [new, old]] {
            let slots = Slots::merge(&Slots::default(), &views);
            assert_eq!(slots.masters(), [&at(7001), &at(7002)].into());
            assert_eq!((slots.owner(8191), slots.ranges.len()), (Some(&at(7002)), 2));
        }
    }

    #[test]
    fn one_that_was_cut_off_gets_nothing_back_when_it_alone_answers() {
        let (old, new) = (View::parse(BEFORE, &at(7000)), View::parse(AFTER, &at(7002)));
        let known = Slots::merge(&Slots::default(), std::slice::from_ref(&new));
        let then = Slots::merge(&known, std::slice::from_ref(&old));
        assert_eq!((then.owner(0), then.owner(9000)), (Some(&at(7002)), Some(&at(7001))));
        // Nor later, as what is known is handed on.
        assert_eq!(Slots::merge(&then, &[old]).owner(0), Some(&at(7002)));
        // A newer claim counts even of one alone.
        let newer = View::parse("dd 10.0.0.1:7003@1 myself,master - 0 1 4 connected 0-8191\n", &at(7003));
        let then = Slots::merge(&known, &[newer]);
        assert_eq!((then.owner(0), then.owner(9000)), (Some(&at(7003)), Some(&at(7001))));
    }

    #[test]
    fn a_cluster_that_was_set_up_anew_is_believed_once_most_of_its_masters_answer() {
        let known = Slots::merge(&Slots::default(), &[View::parse(AFTER, &at(7002))]);
        let anew = "bb 10.0.0.1:7001@1 master - 0 1 1 connected 0-100\n";
        let half = Slots::merge(&known, &[View::parse(anew, &at(7001))]);
        assert_eq!((half.owner(0), half.uncovered()), (Some(&at(7002)), 0));
        let both = Slots::merge(&known, &[View::parse(anew, &at(7001)), View::parse(anew, &at(7002))]);
        assert_eq!((both.owner(0), both.owner(101)), (Some(&at(7001)), None));
    }

    #[test]
    fn what_nobody_serves_has_no_owner() {
        let told = View::parse("aa 10.0.0.1:7000@1 master - 0 0 1 connected 5-6 9\nnonsense\n", &at(1));
        let slots = Slots::merge(&Slots::default(), &[told]);
        let owned: Vec<u16> = (0..12).filter(|slot| slots.owner(*slot).is_some()).collect();
        assert_eq!((owned, slots.uncovered()), (vec![5, 6, 9], 16_381));
        assert_eq!(Slots::default().owner(0), None);
    }
}
