//! Which levels of acknowledgement can be given now, and what must be proven for a message. No I/O.
//!
//! Redis answers a write when it is in the memory of the master, and on its disk where every write is synced. More is
//! known only by waiting for it (`witness`).

use super::RedisOptions;
use super::facts::Facts;
use crate::domain::message::Durability;
use crate::domain::store::StoreError;

/// What the store can give now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Levels {
    /// What every write has once it is answered.
    pub writes: Durability,
    /// The disk can be waited for.
    waits_for_disk: bool,
    /// Replicas that are in step, and how many must have a message of the level `replica`; none: there is no such level.
    replicas: usize,
    needed: usize,
    /// What is given where nothing is asked for.
    default: Option<Durability>,
    no_disk: String,
}

/// What is to be done with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is stored, and this is proven then, beside what every write has.
    Store(Option<Durability>),
    /// It alone is refused.
    Refuse(StoreError),
    /// Nothing of its call is stored, so that no later entry overtakes it.
    Hold(StoreError),
}

impl Levels {
    /// `had_replicas`: whether the level `replica` is something that comes back, if it cannot be given now.
    pub fn new(facts: &Facts, options: &RedisOptions, had_replicas: bool) -> Levels {
        Levels {
            writes: facts.durability(options.fsync.as_deref()),
            waits_for_disk: facts.waits_for_disk(),
            replicas: facts.replicas,
            needed: if had_replicas || options.durability == Some(Durability::Replica) { options.replicas } else { 0 },
            default: options.durability,
            no_disk: facts.no_disk(),
        }
    }

    /// Of a server that was not asked yet.
    pub fn unknown() -> Levels {
        let writes = Durability::Memory;
        Levels { writes, waits_for_disk: false, replicas: 0, needed: 0, default: None, no_disk: String::new() }
    }

    /// What both of two servers give.
    pub fn least(self, other: Levels) -> Levels {
        let no_disk = if self.writes <= other.writes { self.no_disk } else { other.no_disk };
        Levels {
            writes: self.writes.min(other.writes),
            waits_for_disk: self.waits_for_disk && other.waits_for_disk,
            replicas: self.replicas.min(other.replicas),
            needed: self.needed.max(other.needed),
            default: self.default.or(other.default),
            no_disk,
        }
    }

    /// What a message has for which nothing was asked.
    pub fn default(&self) -> Durability {
        self.default.map_or(self.writes, |level| level.max(self.writes))
    }

    pub fn judge(&self, asked: Option<Durability>, is_fenced: bool) -> Verdict {
        let Some(level) = asked.or(self.default) else { return Verdict::Store(None) };
        let is_default = asked.is_none();
        match level {
            Durability::Memory => Verdict::Store(None),
            Durability::Disk if self.writes >= Durability::Disk => Verdict::Store(None),
            Durability::Disk if self.waits_for_disk => Verdict::Store(Some(Durability::Disk)),
            // It was checked at the start, so somebody has changed the settings, and may change them back.
            Durability::Disk if is_default => {
                Verdict::Hold(StoreError::Unavailable(self.trouble().unwrap_or_default()))
            }
            Durability::Replica if self.needed == 0 => {
                Verdict::Refuse(StoreError::Durability { asked: level, gives: self.default() })
            }
            // An entry that waits is not helped by a refusal, and must not be overtaken.
            Durability::Replica if self.replicas < self.needed && !is_fenced => {
                Verdict::Refuse(StoreError::Unavailable(self.too_few()))
            }
            Durability::Replica => Verdict::Store(Some(Durability::Replica)),
            Durability::Disk => Verdict::Refuse(StoreError::Durability { asked: level, gives: self.default() }),
        }
    }

    /// Why the level that is given by default cannot be given now, if so.
    pub fn trouble(&self) -> Option<String> {
        match self.default? {
            Durability::Disk if self.writes < Durability::Disk && !self.waits_for_disk => {
                Some(format!("the level \"disk\" cannot be given: {}", self.no_disk))
            }
            Durability::Replica if self.replicas < self.needed => Some(self.too_few()),
            _ => None,
        }
    }

    fn too_few(&self) -> String {
        let Levels { replicas, needed, .. } = self;
        format!("the level \"replica\" needs {needed} replicas in step, and {replicas} are; nothing was stored")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_by_table() {
        use Durability::{Disk, Memory, Replica};
        let plain = Levels {
            writes: Memory,
            waits_for_disk: false,
            replicas: 0,
            needed: 0,
            default: None,
            no_disk: "it is off".into(),
        };
        let synced = Levels { writes: Disk, ..plain.clone() };
        let newer = Levels { waits_for_disk: true, ..plain.clone() };
        let pair = Levels { replicas: 1, needed: 1, ..plain.clone() };
        let alone = Levels { replicas: 0, ..pair.clone() };
        let by_default = |levels: &Levels, level| Levels { default: Some(level), ..levels.clone() };
        for (levels, asked, fenced, expected) in [
            (&plain, None, false, "store"),
            (&plain, Some(Memory), false, "store"),
            (&plain, Some(Disk), false, "refuse forbidden"),
            (&plain, Some(Replica), true, "refuse forbidden"),
            (&synced, None, false, "store"),
            (&synced, Some(Disk), false, "store"),
            (&newer, Some(Disk), false, "store, prove disk"),
            (&newer, None, false, "store"),
            (&by_default(&newer, Disk), None, false, "store, prove disk"),
            (&by_default(&newer, Disk), Some(Memory), false, "store"),
            (&by_default(&plain, Disk), None, true, "hold unavailable"),
            (&by_default(&plain, Disk), Some(Disk), true, "refuse forbidden"),
            (&pair, Some(Replica), false, "store, prove replica"),
            (&pair, Some(Disk), false, "refuse forbidden"),
            (&by_default(&pair, Replica), None, true, "store, prove replica"),
            (&by_default(&pair, Replica), Some(Memory), false, "store"),
            (&alone, Some(Replica), false, "refuse unavailable"),
            (&alone, Some(Replica), true, "store, prove replica"),
            (&by_default(&alone, Replica), None, false, "refuse unavailable"),
        ] {
            let said = match levels.judge(asked, fenced) {
                Verdict::Store(None) => "store".into(),
                Verdict::Store(Some(level)) => format!("store, prove {}", level.as_str()),
                Verdict::Refuse(StoreError::Durability { .. }) => "refuse forbidden".into(),
                Verdict::Refuse(StoreError::Unavailable(_)) => "refuse unavailable".into(),
                Verdict::Hold(StoreError::Unavailable(_)) => "hold unavailable".into(),
                other => format!("{other:?}"),
            };
            assert_eq!(said, expected, "{levels:?} {asked:?} fenced {fenced}");
        }
        assert_eq!(by_default(&alone, Replica).trouble().map(|t| t.contains("0 are")), Some(true));
        assert_eq!(by_default(&pair, Replica).trouble(), None);
        assert_eq!(by_default(&synced, Memory).default(), Disk);
    }
}
