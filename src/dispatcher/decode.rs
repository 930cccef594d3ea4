//! From an entry to a message or a job, and, where that fails, words for the person who wrote the publisher: what
//! frameworks and languages do to entries by default is recognised and named. The document itself is read elsewhere.

use bytes::Bytes;

use super::Content;
use crate::document::{self, Document};
use crate::domain::error::{Problem, Reason};
use crate::domain::limits::Limits;

/// How Java's serialisation begins: magic, version, and the mark of a string or an object.
pub(super) const JAVA_STRING: &[u8] = b"\xac\xed\x00\x05t";
const JAVA: &[u8] = b"\xac\xed\x00\x05";

pub(super) fn document(content: &Content, limits: &Limits) -> Result<Document, Problem> {
    match content {
        Content::Oversize { bytes, most } => {
            let text = format!("the entry has {bytes} bytes, at most {most} are read; send a link to what is larger");
            Err(Problem::new(Reason::TooLarge, text))
        }
        Content::Fields(fields) => {
            if let Some(text) = fields.iter().flat_map(|(name, value)| [name, value]).find_map(|b| serialized(b)) {
                return Err(Problem::new(Reason::BadFrame, text));
            }
            let list = fields.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
            document::fields(list, limits).map_err(|problem| advise_fields(problem, fields))
        }
        Content::Document(text) => {
            if let Some(text) = serialized(text) {
                return Err(Problem::new(Reason::BadFrame, text));
            }
            document::one(text, limits).map_err(|problem| advise_document(problem, text))
        }
    }
}

/// Bytes that some language's serialiser wrote, where plain text is wanted.
fn serialized(bytes: &[u8]) -> Option<String> {
    let what = if bytes.starts_with(JAVA) {
        "this is serialised by Java (it begins with ac ed 00 05), which is the default of Spring's RedisTemplate; use \
         StringRedisTemplate, or set the key, value and hash serializers to StringRedisSerializer"
    } else if bytes.starts_with(b"\x80\x04\x95") || bytes.starts_with(b"\x80\x05\x95") {
        "this is a Python pickle; write text, and JSON by json.dumps(...)"
    } else if bytes.starts_with(b"\x1f\x8b") {
        "this is compressed by gzip; write it uncompressed"
    } else if bytes.starts_with(b"\x00\x00\x00\x02") {
        "this is serialised by PHP's igbinary; set the connection's serializer to none (Redis::SERIALIZER_NONE)"
    } else if is_php(bytes) {
        "this is serialised by PHP; set the connection's serializer to none (Redis::SERIALIZER_NONE) and use json_encode"
    } else {
        return None;
    };
    Some(what.to_owned())
}

/// `s:5:"topic";` and `a:2:{…}`
fn is_php(bytes: &[u8]) -> bool {
    let (Some(kind), Some(b':')) = (bytes.first(), bytes.get(1)) else { return false };
    let digits = bytes[2..].iter().take_while(|b| b.is_ascii_digit()).count();
    let rest = &bytes[2 + digits..];
    digits > 0
        && match kind {
            b's' => rest.starts_with(b":\"") && rest.ends_with(b"\";"),
            b'a' => rest.starts_with(b":{") && rest.ends_with(b"}"),
            _ => false,
        }
}

fn advise_fields(mut problem: Problem, fields: &[(Bytes, Bytes)]) -> Problem {
    let value = |wanted: &[u8]| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_ref());
    let has = |wanted: &[u8]| value(wanted).is_some();
    let has_goal = has(b"topic") || has(b"user") || has(b"queue");
    match problem.reason {
        Reason::BadName if [value(b"topic"), value(b"queue")].into_iter().flatten().any(|v| v.starts_with(b"\"")) => {
            problem.text.push_str("; the name stands in quotes: a JSON serializer wrote it, a field is plain text");
        }
        Reason::BadFrame | Reason::MissingData if !has_goal && has(b"document") => {
            problem.text.push_str("; a whole document goes into the list (RPUSH), a stream entry has its fields");
        }
        Reason::BadFrame | Reason::MissingData => {
            let names = fields.iter().map(|(name, _)| name.as_ref());
            push_renames(&mut problem, names, has_goal, has(b"data") || has(b"text"));
        }
        Reason::BadJson => {
            if let Some(data) = value(b"data") {
                push_language(&mut problem, data);
            }
        }
        _ => {}
    }
    problem
}

fn advise_document(mut problem: Problem, text: &[u8]) -> Problem {
    let members = document::Members::read(text, "a message", usize::MAX).ok();
    if let Some(members) = members {
        let has = |name: &str| members.has(name);
        let job = if has("jid") && has("class") {
            Some("a Sidekiq job")
        } else if has("displayName") && has("job") {
            Some("a job of Laravel's queue")
        } else if has("content-encoding") && has("properties") {
            Some("a Celery (Kombu) task")
        } else {
            None
        };
        if let Some(job) = job {
            problem.text.push_str(&format!("; this looks like {job}: give that framework another list"));
        } else if matches!(problem.reason, Reason::BadFrame | Reason::MissingData) {
            let names = members.names().map(str::as_bytes);
            let has_goal = has("topic") || has("user") || has("queue");
            push_renames(&mut problem, names, has_goal, has("data") || has("text"));
        }
    } else {
        push_language(&mut problem, text);
    }
    problem
}

/// The usual other names of our fields.
fn push_renames<'a>(problem: &mut Problem, names: impl Iterator<Item = &'a [u8]>, has_goal: bool, has_data: bool) {
    let mut advice = Vec::new();
    for name in names {
        let ours = match name.to_ascii_lowercase().as_slice() {
            b"channel" | b"room" | b"subject" | b"stream" | b"key" | b"topic" if !has_goal => "topic",
            b"message" | b"payload" | b"body" | b"value" | b"msg" | b"content" | b"event" | b"data" if !has_data => {
                "data"
            }
            b"user_id" | b"userid" | b"uid" if !has_goal => "user",
            _ => continue,
        };
        advice.push(format!("{:?} is called {ours:?} here", String::from_utf8_lossy(name)));
    }
    if !advice.is_empty() {
        problem.text.push_str("; ");
        problem.text.push_str(&advice.join(", "));
    }
}

/// Texts that are almost JSON, by the language that makes them.
fn push_language(problem: &mut Problem, text: &[u8]) {
    let text = text.trim_ascii();
    let advice = if text.starts_with(b"{'") || text.starts_with(b"['") {
        "this is how Python prints a dict; write json.dumps(...)"
    } else if text.starts_with(b"[object ") {
        "this is how JavaScript prints an object; write JSON.stringify(...)"
    } else if text.starts_with(b"\"{") {
        "this is JSON in a JSON string: it was encoded twice; encode it once"
    } else if text.starts_with(b"\xef\xbb\xbf") {
        "it begins with a byte order mark; leave that out"
    } else {
        return;
    };
    problem.text.push_str("; ");
    problem.text.push_str(advice);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fields: &[(&'static str, &'static [u8])]) -> Content {
        Content::Fields(fields.iter().map(|(n, v)| (Bytes::from_static(n.as_bytes()), Bytes::from_static(v))).collect())
    }

    fn element(text: &'static [u8]) -> Content {
        Content::Document(Bytes::from_static(text))
    }

    #[test]
    fn what_frameworks_and_languages_write_is_named() {
        use Reason::*;
        for (content, reason, shows) in [
            (entry(&[("topic", b"\xac\xed\x00\x05t\x00\x04news"), ("data", b"1")]), BadFrame, "StringRedisTemplate"),
            (
                Content::Fields(vec![(
                    Bytes::from_static(b"\xac\xed\x00\x05t\x00\x05topic"),
                    Bytes::from_static(b"\xac\xed\x00\x05t\x00\x04news"),
                )]),
                BadFrame,
                "Spring",
            ),
            (entry(&[("topic", b"\"news\""), ("data", b"1")]), BadName, "JSON serializer"),
            (entry(&[("topic", b"s:4:\"news\";"), ("data", b"i:1;")]), BadFrame, "SERIALIZER_NONE"),
            (entry(&[("channel", b"news"), ("message", b"1")]), BadFrame, "\"channel\" is called \"topic\""),
            (entry(&[("topic", b"news"), ("payload", b"1")]), MissingData, "\"payload\" is called \"data\""),
            (entry(&[("topic", b"news"), ("data", b"{'a': 1}")]), BadJson, "json.dumps"),
            (entry(&[("topic", b"news"), ("data", b"[object Object]")]), BadJson, "JSON.stringify"),
            (entry(&[("topic", b"news"), ("data", b"\x80\x04\x95\x00")]), BadFrame, "pickle"),
            (entry(&[("document", b"{}")]), BadFrame, "RPUSH"),
            (entry(&[]), BadFrame, "\"topic\""),
            (element(b"\xac\xed\x00\x05sr\x00\x11java.util.HashMap"), BadFrame, "Spring"),
            (element(b"{'topic': 'news', 'data': 1}"), BadJson, "json.dumps"),
            (element(b"\"{\\\"topic\\\":\\\"news\\\",\\\"data\\\":1}\""), BadFrame, "encoded twice"),
            (element(br#"{"class":"Mailer","args":[],"jid":"1"}"#), BadFrame, "Sidekiq"),
            (element(br#"{"uuid":"1","displayName":"X","job":"Y"}"#), BadFrame, "Laravel"),
            (element(br#"{"channel":"a","payload":1}"#), BadFrame, "\"payload\" is called \"data\""),
            (Content::Oversize { bytes: 9, most: 8 }, TooLarge, "9 bytes"),
        ] {
            let problem = document(&content, &Limits::default()).expect_err(&format!("{content:?}"));
            assert_eq!(problem.reason, reason, "{content:?}: {problem}");
            assert!(problem.text.contains(shows), "{content:?}: {problem}");
        }
    }

    #[test]
    fn what_is_plain_is_left_alone() {
        assert!(document(&entry(&[("topic", b"a"), ("text", b"s:4: not php")]), &Limits::default()).is_ok());
        assert!(document(&element(br#"{"topic":"a","data":"x"}"#), &Limits::default()).is_ok());
    }
}
