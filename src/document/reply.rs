//! Requests and replies as bodies: who asks stands first in a job's body, whose reply it is in the reply's.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::body::{compact, quote_into};
use super::job::Asked;
use super::members::Members;
use crate::domain::message::{Body, Publication};
use crate::domain::name::Topic;

/// Bodies were checked when they came in; this only keeps the reader within its means.
const MOST_NESTING: usize = 128;

/// The body of a job whose reply goes to this topic, under this name.
pub fn address(body: &Body, reply_to: &Topic, request: &str) -> Body {
    let rest = body.as_bytes();
    let mut out = String::with_capacity(rest.len() + reply_to.as_str().len() + request.len() + 40);
    out.push_str("\"reply_to\":");
    quote_into(&mut out, reply_to.as_str());
    out.push_str(",\"request\":");
    quote_into(&mut out, request);
    out.push(',');
    let mut out = out.into_bytes();
    out.extend_from_slice(rest);
    Body::from_canonical(out.into())
}

/// What a worker replies: any JSON.
pub fn reply_body(data: &RawValue) -> Body {
    let mut out = String::with_capacity(data.get().len() + 8);
    out.push_str("\"data\":");
    compact(data.get(), &mut out);
    Body::from_canonical(out.into())
}

/// The message that tells it to whoever asked.
pub fn reply(asked: &Asked, body: &Body) -> Publication {
    let mut out = String::from("\"name\":");
    quote_into(&mut out, &asked.request);
    out.push(',');
    let mut out = out.into_bytes();
    out.extend_from_slice(body.as_bytes());
    Publication {
        topic: asked.reply_to.clone(),
        body: Body::from_canonical(out.into()),
        ttl: None,
        key: None,
        idempotency_key: None,
        durability: None,
    }
}

/// The name of the request that a message replies to, and the members that hold what it says.
pub fn read_reply(body: &Body) -> Option<(Box<str>, Body)> {
    let object = [b"{", &body.as_bytes()[..], b"}"].concat();
    let mut members = Members::read(&object, "a reply", MOST_NESTING).ok()?;
    let name = members.text("name").ok()??;
    let data = format!("\"data\":{}", members.take("data")?.get());
    Some((name.into(), Body::from_canonical(Bytes::from(data))))
}

#[cfg(test)]
mod tests {
    use super::super::job::asked;
    use super::*;

    #[test]
    fn a_reply_finds_who_asked() {
        let body = Body::from_canonical("\"name\":\"resize\",\"data\":{\"a\":1}".into());
        let inbox = Topic::parse("$inbox.0123456789abcdef").unwrap();
        let job = address(&body, &inbox, "r\"7");
        let asked = asked(&job).unwrap();
        assert_eq!((asked.reply_to.as_str(), asked.request.as_str()), (inbox.as_str(), "r\"7"));
        let told = reply(&asked, &reply_body(&RawValue::from_string("{\"b\": [1]}".into()).unwrap()));
        assert_eq!(told.topic, inbox);
        let (name, said) = read_reply(&told.body).unwrap();
        assert_eq!((&*name, &said.as_bytes()[..]), ("r\"7", &b"\"data\":{\"b\":[1]}"[..]));
    }
}
