//! Bindings: messages of topics that become jobs of a queue as well, by the pattern of the topic's name and by what stands in
//! a message's head. A queue never publishes, so no chain of bindings leads back to where it began.

use std::fmt;

use super::queue::{Priority, Queue};
use super::topic::Pattern;

/// Bindings of one hub. Each costs a look at its first letters for every publish.
pub const MOST_BINDINGS: usize = 64;
/// Conditions of one filter.
pub const MOST_CONDITIONS: usize = 16;
/// Bytes of a binding's name.
pub const MAX_BINDING: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Letters, digits, `_` and `-`: it is part of a topic's name.
    pub name: Box<str>,
    pub topics: Pattern,
    pub queue: Queue,
    /// All of them must hold; none lets everything through.
    pub filter: Vec<Condition>,
    pub priority: Priority,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub of: Header,
    pub is: Is,
}

/// What of a message's head is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    Name,
    Key,
    Tag(Box<str>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Is {
    There,
    Text(Box<str>),
    Prefix(Box<str>),
}

/// The head of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers {
    pub name: Option<Box<str>>,
    pub key: Option<Box<str>>,
    pub tags: Vec<(Box<str>, Box<str>)>,
}

impl Binding {
    pub fn takes(&self, headers: &Headers) -> bool {
        self.filter.iter().all(|condition| condition.holds(headers))
    }
}

impl Condition {
    /// Reads `name`, `key` or `tags.X`, and a text: `*` for "there is one", `eu*` for what begins so, else the text itself.
    pub fn parse(of: &str, is: &str) -> Result<Condition, String> {
        let of = match (of, of.strip_prefix("tags.")) {
            ("name", _) => Header::Name,
            ("key", _) => Header::Key,
            (_, Some(tag)) if !tag.is_empty() => Header::Tag(tag.into()),
            _ => return Err(format!("a filter looks at name, key or tags.NAME, not at {of:?}")),
        };
        let is = match is.strip_suffix('*') {
            Some("") => Is::There,
            Some(prefix) => Is::Prefix(prefix.into()),
            None => Is::Text(is.into()),
        };
        Ok(Condition { of, is })
    }

    /// How much of what is written tells what is looked at.
    pub fn of_len(&self) -> usize {
        match &self.of {
            Header::Name => "name".len(),
            Header::Key => "key".len(),
            Header::Tag(tag) => "tags.".len() + tag.len(),
        }
    }

    fn holds(&self, headers: &Headers) -> bool {
        let value = match &self.of {
            Header::Name => headers.name.as_deref(),
            Header::Key => headers.key.as_deref(),
            Header::Tag(tag) => headers.tags.iter().find(|(name, _)| name == tag).map(|(_, value)| &**value),
        };
        value.is_some_and(|value| match &self.is {
            Is::There => true,
            Is::Text(text) => value == &**text,
            Is::Prefix(prefix) => value.starts_with(&**prefix),
        })
    }
}

/// As it is read: `tags.region=eu*`.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.of {
            Header::Name => f.write_str("name")?,
            Header::Key => f.write_str("key")?,
            Header::Tag(tag) => write!(f, "tags.{tag}")?,
        }
        match &self.is {
            Is::There => f.write_str("=*"),
            Is::Text(text) => write!(f, "={text}"),
            Is::Prefix(prefix) => write!(f, "={prefix}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_by_table() {
        let headers = Headers {
            name: Some("order.created".into()),
            key: None,
            tags: vec![("region".into(), "eu-west".into()), ("empty".into(), "".into())],
        };
        for (of, is, holds) in [
            ("name", "order.created", true),
            ("name", "order.*", true),
            ("name", "order", false),
            ("name", "*", true),
            ("key", "*", false),
            ("key", "a", false),
            ("tags.region", "eu*", true),
            ("tags.region", "eu", false),
            ("tags.region", "EU*", false),
            ("tags.empty", "*", true),
            ("tags.empty", "", true),
            ("tags.other", "*", false),
        ] {
            let condition = Condition::parse(of, is).unwrap();
            assert_eq!(condition.holds(&headers), holds, "{condition}");
            assert_eq!(condition.to_string(), format!("{of}={is}"));
        }
        for of in ["", "data", "tags", "tags.", "tag.x"] {
            assert!(Condition::parse(of, "x").unwrap_err().contains("tags.NAME"), "{of}");
        }
    }
}
