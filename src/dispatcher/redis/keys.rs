//! The names of the keys of one partition, all in the slot of the key that publishers write to.

/// A partition: a stream that publishers add to, or a list with the stream that its elements are moved to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Partition {
    /// What publishers write to; the name of the source.
    pub name: String,
    pub kind: Kind,
    pub stream: String,
    pub wake: String,
    pub owner: String,
    pub cursor: String,
    pub dead: String,
    pub notices: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Stream,
    List,
}

impl Partition {
    pub fn stream(name: &str) -> Partition {
        Partition::new(name, Kind::Stream)
    }

    pub fn list(name: &str) -> Partition {
        Partition::new(name, Kind::List)
    }

    fn new(name: &str, kind: Kind) -> Partition {
        let beside = |what: &str| format!("{{{name}}}:{what}");
        Partition {
            name: name.to_owned(),
            kind,
            stream: if kind == Kind::List { beside("in") } else { name.to_owned() },
            wake: beside("wake"),
            owner: beside("owner"),
            cursor: beside("cursor"),
            dead: beside("dead"),
            notices: beside("notices"),
        }
    }
}

/// A name that publishers write to: braces would put its other keys into another slot.
pub(super) fn check(name: &str) -> Result<(), String> {
    if name.is_empty() || name.contains(['{', '}']) || name.chars().any(char::is_control) {
        return Err(format!("{name:?} cannot be the name of an ingest key: it must be text without braces"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_a_partition_lies_in_the_slot_of_the_one_that_publishers_write_to() {
        let list = Partition::list("fanfare:list");
        for key in [&list.stream, &list.wake, &list.owner, &list.cursor, &list.dead, &list.notices] {
            assert!(key.starts_with("{fanfare:list}:"), "{key}");
        }
        assert_eq!(list.stream, "{fanfare:list}:in");
        let stream = Partition::stream("fanfare:in:1");
        assert_eq!((stream.stream.as_str(), stream.dead.as_str()), ("fanfare:in:1", "{fanfare:in:1}:dead"));
        assert!(check("a{b}").is_err() && check("").is_err() && check("laravel_database_fanfare:in").is_ok());
    }
}
