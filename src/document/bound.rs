//! Messages that become jobs: their heads, and the job's body.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use crate::domain::binding::{Binding, Headers};
use crate::domain::message::Body;
use crate::domain::name::Topic;

#[derive(Deserialize, Default)]
struct Head<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tags: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

/// What filters look at. A body was checked when it came in.
pub fn headers(body: &Body) -> Headers {
    let object = [b"{", &body.as_bytes()[..], b"}"].concat();
    let head: Head<'_> = serde_json::from_slice(&object).unwrap_or_default();
    let own = |text: Cow<'_, str>| Box::from(&*text);
    Headers {
        name: head.name.map(own),
        key: head.key.map(own),
        tags: head.tags.into_iter().map(|(name, value)| (own(name), own(value))).collect(),
    }
}

/// The body of the job that a message of this topic becomes: the message's members behind the topic's name. The position is
/// left out, so that jobs can be told apart by what they hold.
pub fn bound(body: &Body, topic: &Topic) -> Body {
    let mut out = format!(r#""bound":"{topic}","#).into_bytes();
    out.extend_from_slice(body.as_bytes());
    Body::from_canonical(out.into())
}

/// What stands on the topic of a binding: what it binds.
pub fn binding(binding: &Binding) -> Body {
    let Binding { topics, queue, .. } = binding;
    Body::from_canonical(format!(r#""data":{{"topics":"{topics}","queue":"{queue}"}}"#).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_a_message_is_read_and_its_job_names_the_topic() {
        let body = Body::from_canonical(
            r#""name":"a\"b","tags":{"region":"eu","n":"1"},"key":"k","ttl":5,"data":{"name":"x"}"#.into(),
        );
        let tags = vec![("n".into(), "1".into()), ("region".into(), "eu".into())];
        assert_eq!(headers(&body), Headers { name: Some("a\"b".into()), key: Some("k".into()), tags });
        assert_eq!(headers(&Body::from_canonical("\"data\":[1]".into())), Headers::default());
        let job = bound(&Body::from_canonical("\"data\":1".into()), &Topic::parse("orders.eu").unwrap());
        assert_eq!(&job.as_bytes()[..], br#""bound":"orders.eu","data":1"#);
    }
}
