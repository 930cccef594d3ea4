//! Names of topics: one grammar for every door.
//!
//! 1 to 200 bytes, segments of `[A-Za-z0-9_:@|=+~-]+` joined by `.`; a leading `$` is the hub's own. The
//! characters need no escaping in JSON, in a URL path, in a Redis key or in a shell word (bar `|`).

use std::fmt;
use std::sync::Arc;

pub const MAX_NAME: usize = 200;
/// What the inboxes of nodes begin with.
pub const NODE_INBOX: &str = "$inbox.node-";
/// Bytes that the own segment of an inbox has at least.
const INBOX: usize = 22;

/// The name of a topic, known to be well formed.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name has 1 to {most} bytes, this one is empty")]
    Empty { most: usize },
    #[error("a name has 1 to {most} bytes, this one has {had}")]
    TooLong { had: usize, most: usize },
    #[error(
        "{character:?} at byte {at} cannot stand in a name; use segments of A-Z a-z 0-9 _ : @ | = + ~ - joined by '.'"
    )]
    Character { character: char, at: usize },
    #[error("an empty segment at byte {0}; segments are joined by a single '.'")]
    EmptySegment(usize),
}

impl Topic {
    /// Takes a name as a user wrote it.
    pub fn parse(name: &str) -> Result<Topic, NameError> {
        check(name, MAX_NAME)?;
        Ok(Topic(name.into()))
    }

    /// The topic of one user, `user.<id>`, with every byte that cannot stand in a segment, and `.`, written `~2E`.
    pub fn of_user(id: &str) -> Result<Topic, NameError> {
        if id.is_empty() {
            return Err(NameError::Empty { most: MAX_NAME });
        }
        let mut name = String::with_capacity(id.len() + 5);
        name.push_str("user.");
        for byte in id.bytes() {
            // `~` begins an escape, so it is escaped itself: two ids never share a topic.
            if is_segment_byte(byte) && byte != b'~' {
                name.push(byte as char);
            } else {
                name.push_str(&format!("~{byte:02X}"));
            }
        }
        Topic::parse(&name)
    }

    /// Whether the name belongs to the hub (`$…`): clients may not publish there.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('$')
    }

    /// Whether replies can be sent here, and only whoever was told the name can listen: `$inbox.` and one segment that
    /// holds more than 96 random bits in any usual writing.
    pub fn is_inbox(&self) -> bool {
        self.0.strip_prefix("$inbox.").is_some_and(|rest| rest.len() >= INBOX && !rest.contains('.'))
    }

    /// Whether a node itself listens here, and nobody else may: replies to all of its requests come here, and the workers of
    /// each of them know the name.
    pub fn is_inbox_of_node(&self) -> bool {
        self.0.starts_with(NODE_INBOX)
    }

    /// Whether the name lies where inboxes do, guessable or not.
    pub fn is_among_inboxes(&self) -> bool {
        self.0.starts_with("$inbox.")
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// The grammar, for names of at most so many bytes.
pub(super) fn check(name: &str, most: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { most });
    }
    if name.len() > most {
        return Err(NameError::TooLong { had: name.len(), most });
    }
    let start = usize::from(name.starts_with('$'));
    let mut segment_start = start;
    for (at, byte) in name.bytes().enumerate().skip(start) {
        if byte == b'.' {
            if at == segment_start {
                return Err(NameError::EmptySegment(at));
            }
            segment_start = at + 1;
        } else if !is_segment_byte(byte) {
            let character = name[at..].chars().next().unwrap_or('\u{fffd}');
            return Err(NameError::Character { character, at });
        }
    }
    if segment_start == name.len() {
        return Err(NameError::EmptySegment(name.len()));
    }
    Ok(())
}

fn is_segment_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_:@|=+~-".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_grammar_are_taken() {
        for name in ["news", "a", "a.b.c", "user.auth0|5f", "$queue.jobs.stats", "x:@|=+~-_9", &"n".repeat(200)] {
            assert_eq!(Topic::parse(name).map(|t| t.to_string()), Ok(name.to_string()));
        }
    }

    #[test]
    fn other_names_are_refused_with_the_place() {
        let character = |character, at| NameError::Character { character, at };
        for (name, error) in [
            ("", NameError::Empty { most: 200 }),
            (".a", NameError::EmptySegment(0)),
            ("a..b", NameError::EmptySegment(2)),
            ("a.", NameError::EmptySegment(2)),
            ("$", NameError::EmptySegment(1)),
            ("a b", character(' ', 1)),
            ("소식", character('소', 0)),
            ("a.*", character('*', 2)),
            ("a$", character('$', 1)),
            ("a/b", character('/', 1)),
            ("a\0", character('\0', 1)),
        ] {
            assert_eq!(Topic::parse(name), Err(error), "{name:?}");
        }
        assert_eq!(Topic::parse(&"n".repeat(201)), Err(NameError::TooLong { had: 201, most: 200 }));
    }

    #[test]
    fn any_user_id_has_its_own_topic() {
        assert_eq!(Topic::of_user("42").unwrap().as_str(), "user.42");
        assert_eq!(Topic::of_user("auth0|5f").unwrap().as_str(), "user.auth0|5f");
        assert_eq!(Topic::of_user("ann.lee@x.org").unwrap().as_str(), "user.ann~2Elee@x~2Eorg");
        assert_eq!(Topic::of_user("~2E").unwrap().as_str(), "user.~7E2E");
        assert_eq!(Topic::of_user("김").unwrap().as_str(), "user.~EA~B9~80");
        assert!(Topic::of_user("").is_err());
    }
}
