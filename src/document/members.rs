//! A JSON object as the list of its members, values still raw: the first step of reading anything from outside.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::error::{Problem, Reason};

/// The members of one JSON object in their order. Members are taken out by name; what is left was not understood.
#[derive(Debug)]
pub struct Members<'a> {
    list: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Members<'a> {
    /// Reads one object. `what` names the thing in errors ("a frame", "a message").
    pub fn read(text: &'a [u8], what: &str, depth: usize) -> Result<Members<'a>, Problem> {
        check_depth(text, depth)?;
        let members: Members<'a> = serde_json::from_slice(text).map_err(|error| {
            if error.is_data() {
                return Problem::new(Reason::BadFrame, format!("{what} is one JSON object; {}", seen(text, 0)));
            }
            json_problem(text, &error)
        })?;
        if let Some(name) = members.twice() {
            return Err(Problem::new(Reason::BadFrame, format!("the field {name:?} stands twice in this object")));
        }
        Ok(members)
    }

    pub fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let i = self.list.iter().position(|(n, _)| n == name)?;
        Some(self.list.remove(i).1)
    }

    /// Looks at a member and leaves it.
    pub fn peek(&self, name: &str) -> Option<&'a RawValue> {
        self.list.iter().find(|(n, _)| n == name).map(|(_, raw)| *raw)
    }

    /// Reads a member under another name, unless there is one of that name.
    pub fn rename(&mut self, from: &str, to: &'static str) {
        if !self.has(to)
            && let Some((name, _)) = self.list.iter_mut().find(|(name, _)| name == from)
        {
            *name = to.into();
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.list.iter().any(|(n, _)| n == name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|(n, _)| n.as_ref())
    }

    /// The names of what was not taken, bounded for an answer.
    pub fn left(&self) -> Vec<String> {
        self.list.iter().take(8).map(|(n, _)| n.chars().take(40).collect()).collect()
    }

    /// Takes a string.
    pub fn text(&mut self, name: &str) -> Result<Option<Cow<'a, str>>, Problem> {
        self.take(name).map(|raw| string(name, raw)).transpose()
    }

    /// Sorted, because an object of nothing but short names has tens of thousands of them.
    fn twice(&self) -> Option<&str> {
        let mut names: Vec<&str> = self.names().collect();
        names.sort_unstable();
        names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
    }
}

/// Checks that the text is one JSON value and nothing more, not nested too deeply.
pub fn value(text: &[u8], depth: usize) -> Result<&str, Problem> {
    check_depth(text, depth)?;
    serde_json::from_slice::<&RawValue>(text).map_err(|error| json_problem(text, &error))?;
    Ok(std::str::from_utf8(text).expect("JSON that was read is UTF-8").trim_ascii())
}

/// A raw value as a string, or an error that names the field.
pub fn string<'a>(name: &str, raw: &'a RawValue) -> Result<Cow<'a, str>, Problem> {
    #[derive(Deserialize)]
    struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Borrowed<'a>>(raw.get())
        .map(|b| b.0)
        .map_err(|_| Problem::new(Reason::BadFrame, format!("{name:?} is a string, not {}", clip(raw.get()))))
}

/// Turns an error of the JSON reader into one that shows the byte and what stands there.
pub fn json_problem(text: &[u8], error: &serde_json::Error) -> Problem {
    let line_start: usize = text.split(|b| *b == b'\n').take(error.line().saturating_sub(1)).map(|l| l.len() + 1).sum();
    let at = (line_start + error.column().saturating_sub(1)).min(text.len());
    let at = if error.is_eof() { text.len() } else { at };
    let what = error.to_string();
    let what = what.split(" at line ").next().unwrap_or("not JSON");
    Problem::new(Reason::BadJson, format!("not JSON at byte {at}: {what}; {}", seen(text, at)))
}

fn seen(text: &[u8], at: usize) -> String {
    let from = at.saturating_sub(12);
    let to = (at + 12).min(text.len());
    if text.is_empty() {
        return "there is nothing".to_string();
    }
    format!("seen there: {:?}", String::from_utf8_lossy(&text[from..to]))
}

fn clip(text: &str) -> String {
    let mut clipped: String = text.chars().take(40).collect();
    if clipped.len() < text.len() {
        clipped.push('…');
    }
    clipped
}

/// Refuses nesting that is too deep before anything recursive sees it.
fn check_depth(text: &[u8], most: usize) -> Result<(), Problem> {
    let mut depth = 0usize;
    for (at, byte) in outside_strings(text) {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > most {
                    let text = format!("nested deeper than {most} levels at byte {at}; flatten it");
                    return Err(Problem::new(Reason::BadJson, text));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// The bytes of JSON that stand outside of its strings, with their places.
pub fn outside_strings(json: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    let (mut in_string, mut escaped) = (false, false);
    json.iter().copied().enumerate().filter(move |(_, byte)| {
        if !in_string {
            in_string = *byte == b'"';
            return !in_string;
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = false,
            _ => {}
        }
        false
    })
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                #[derive(Deserialize)]
                struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
                let mut list = Vec::new();
                while let Some((Key(name), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    list.push((name, value));
                }
                Ok(Members { list })
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_very_many_names_is_read_in_a_moment() {
        let names = (0..200_000).map(|n| format!("\"{n}\":1")).collect::<Vec<_>>().join(",");
        let begun = std::time::Instant::now();
        let members = Members::read(format!("{{{names}}}").as_bytes(), "a frame", 2).map(|m| m.names().count());
        assert_eq!(members, Ok(200_000));
        let twice = Members::read(format!("{{{names},\"7\":1}}").as_bytes(), "a frame", 2).map(|_| ()).unwrap_err();
        assert!(twice.text.contains("\"7\" stands twice"), "{twice}");
        // Comparing each with each takes minutes.
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    }

    #[test]
    fn one_value_and_nothing_more_is_a_value() {
        for text in ["1", " {\"a\":[1, 2]}\n", "\"a,\\\"b\"", "null"] {
            assert_eq!(value(text.as_bytes(), 2), Ok(text.trim()));
        }
        for text in [&b""[..], b"1,2", b"1 2", b"}", b"{\"a\":1},\"b\":2", b"[[[1]]]", b"\"\xff\"", b"hello", b"\x0c1"]
        {
            assert_eq!(value(text, 2).map_err(|p| p.reason), Err(Reason::BadJson), "{}", String::from_utf8_lossy(text));
        }
    }
}
