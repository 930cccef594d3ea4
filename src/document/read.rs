//! Reads what publishers hand in: the JSON document, its short form, and the fields of a stream entry.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use super::body::{compact, quote, quote_into};
use super::job::JobTerms;
use super::members::{Members, json_problem, string, value};
use crate::domain::error::{Problem, Reason};
use crate::domain::limits::Limits;
use crate::domain::message::{Body, Durability, Publication};
use crate::domain::name::Topic;
use crate::domain::queue::{Put, Queue};

/// Fields that are named when they are not understood.
const MOST_NAMED: usize = 8;

/// A document, read whole: what is asked for, and the fields that were not understood.
#[derive(Debug)]
pub struct Document {
    pub item: Item,
    pub ignored: Vec<String>,
}

/// What a document asks for: a message for all who follow a topic, or a job for one worker of a queue.
#[derive(Debug)]
pub enum Item {
    Message(Publication),
    Job(Put),
}

/// Where it goes.
enum To {
    Topic(Topic),
    Queue(Queue),
}

/// What a publisher says beside the name of the topic or queue, still unchecked. Each door fills in what it has.
#[derive(Debug, Default)]
pub struct Content<'a> {
    /// JSON text, known to be valid.
    pub data: Option<Cow<'a, str>>,
    pub text: Option<Cow<'a, str>>,
    /// `enc:"b64"`: base64 of bytes, in place of JSON.
    pub base64: Option<Cow<'a, str>>,
    pub name: Option<Cow<'a, str>>,
    /// A JSON object of flat strings.
    pub tags: Option<Cow<'a, str>>,
    /// The user who publishes, as the hub knows them; never what a publisher wrote.
    pub from: Option<Cow<'a, str>>,
    pub key: Option<Cow<'a, str>>,
    pub ttl: Option<Duration>,
    pub idempotency_key: Option<Cow<'a, str>>,
    pub durability: Option<Durability>,
}

/// One document: `{"topic":…,"data":…}`, or `"user"` or `"queue"` in place of `topic`.
pub fn one(text: &[u8], limits: &Limits) -> Result<Document, Problem> {
    let mut members = Members::read(text, "a message", limits.depth)?;
    let (topic, user, queue) = (members.text("topic")?, members.text("user")?, members.text("queue")?);
    let to = target(topic, user, queue, &members.left())?;
    let content = Content::take(&mut members)?;
    let item = match to {
        To::Topic(topic) => Item::Message(content.publish(topic, limits)?),
        To::Queue(queue) => Item::Job(content.put(queue, JobTerms::take(&mut members)?, limits)?),
    };
    Ok(Document { item, ignored: members.left() })
}

/// One document or an array of them, each judged alone. The flag tells whether it was an array.
pub fn many(text: &[u8], limits: &Limits) -> Result<(Vec<Result<Document, Problem>>, bool), Problem> {
    if text.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'[') {
        return one(text, limits).map(|d| (vec![Ok(d)], false));
    }
    let items: Vec<&RawValue> = serde_json::from_slice(text).map_err(|e| json_problem(text, &e))?;
    if items.len() > limits.batch {
        let text = format!(
            "{} messages in one request, at most {} are taken (max_batch); send several",
            items.len(),
            limits.batch
        );
        return Err(Problem::new(Reason::TooMany, text));
    }
    Ok((items.iter().map(|item| one(item.get().as_bytes(), limits)).collect(), true))
}

/// The fields of a stream entry, the same names as in the document; values are text, `data` and `tags` JSON text.
pub fn fields<'a>(list: impl IntoIterator<Item = (&'a [u8], &'a [u8])>, limits: &Limits) -> Result<Document, Problem> {
    let (mut topic, mut user, mut queue) = (None, None, None);
    let (mut data, mut enc, mut content, mut ignored) = (None, None, Content::default(), Vec::new());
    let mut of_jobs = Vec::new();
    for (name, value) in list {
        let shown = String::from_utf8_lossy(name);
        let value = || {
            std::str::from_utf8(value).map_err(|e| {
                let text = format!(
                    "the field {shown:?} is not UTF-8 at byte {}; bytes travel as enc b64 data <base64>",
                    e.valid_up_to()
                );
                Problem::new(Reason::BadFrame, text)
            })
        };
        let slot = match name {
            b"topic" => &mut topic,
            b"user" => &mut user,
            b"queue" => &mut queue,
            b"data" => &mut data,
            b"enc" => &mut enc,
            b"text" => &mut content.text,
            b"name" => &mut content.name,
            b"tags" => &mut content.tags,
            b"key" => &mut content.key,
            b"idempotency_key" => &mut content.idempotency_key,
            b"ttl" => {
                content.ttl = Some(seconds_of("ttl", value()?.parse().ok())?);
                continue;
            }
            b"durability" => {
                content.durability = Some(durability(value()?)?);
                continue;
            }
            _ => {
                if let Some(known) = JobTerms::NAMES.iter().find(|known| known.as_bytes() == name) {
                    of_jobs.push((*known, value()?));
                } else if ignored.len() < MOST_NAMED {
                    ignored.push(shown.chars().take(40).collect());
                }
                continue;
            }
        };
        if slot.replace(Cow::Borrowed(value()?)).is_some() {
            return Err(Problem::new(Reason::BadFrame, format!("the field {shown:?} stands twice in this entry")));
        }
    }
    let to = target(topic, user, queue, &ignored)?;
    if let Some(data) = data {
        content.put_data(data, enc, |text| {
            let mut problem = value(text.as_bytes(), limits.depth).err()?;
            problem.text = format!("the field \"data\" is {}; plain text goes into the field \"text\"", problem.text);
            Some(problem)
        })?;
    }
    let item = match to {
        To::Topic(topic) => {
            ignored.extend(of_jobs.iter().map(|(name, _)| name.to_string()));
            Item::Message(content.publish(topic, limits)?)
        }
        To::Queue(queue) => {
            let mut terms = JobTerms::default();
            for (name, text) in of_jobs {
                terms.put(name, text)?;
            }
            Item::Job(content.put(queue, terms, limits)?)
        }
    };
    Ok(Document { item, ignored })
}

impl<'a> Content<'a> {
    /// Takes what belongs to a message out of the members of a document or frame.
    pub fn take(members: &mut Members<'a>) -> Result<Content<'a>, Problem> {
        let mut content = Content {
            text: members.text("text")?,
            name: members.text("name")?,
            tags: members.take("tags").map(|raw| Cow::Borrowed(raw.get())),
            key: members.text("key")?,
            idempotency_key: members.text("idempotency_key")?,
            durability: members.text("durability")?.map(|word| durability(&word)).transpose()?,
            ttl: members.take("ttl").map(|raw| seconds("ttl", raw)).transpose()?,
            ..Content::default()
        };
        let enc = members.text("enc")?;
        if let Some(raw) = members.take("data") {
            match enc {
                None => content.data = Some(Cow::Borrowed(raw.get())),
                some => content.put_data(string("data", raw)?, some, |_| None)?,
            }
        }
        Ok(content)
    }

    fn put_data(
        &mut self,
        data: Cow<'a, str>,
        enc: Option<Cow<'a, str>>,
        judge: impl Fn(&str) -> Option<Problem>,
    ) -> Result<(), Problem> {
        match enc.as_deref() {
            None => match judge(&data) {
                Some(problem) => return Err(problem),
                None => self.data = Some(data),
            },
            Some("b64") => self.base64 = Some(data),
            Some(other) => {
                let text = format!("\"enc\" is \"b64\" or absent, not {other:?}");
                return Err(Problem::new(Reason::BadFrame, text));
            }
        }
        Ok(())
    }

    /// A message for a topic: checks everything and writes the canonical body.
    pub fn publish(self, topic: Topic, limits: &Limits) -> Result<Publication, Problem> {
        if topic.is_reserved() {
            let text = format!("topics that begin with '$' are the hub's own; {topic} is one");
            return Err(Problem::new(Reason::Forbidden, text));
        }
        Ok(Publication {
            topic,
            body: self.body(limits)?,
            ttl: self.ttl,
            key: self.key.map(|k| k.into()),
            idempotency_key: self.idempotency_key.map(|k| k.into()),
            durability: self.durability,
        })
    }

    /// A job for a queue, the same way.
    pub fn put(self, queue: Queue, terms: JobTerms<'_>, limits: &Limits) -> Result<Put, Problem> {
        let put = Put {
            ttl: self.ttl,
            durability: self.durability,
            idempotency_key: self.idempotency_key.as_deref().map(Into::into),
            ..Put::new(queue, self.body(limits)?)
        };
        terms.of(put)
    }

    fn body(&self, limits: &Limits) -> Result<Body, Problem> {
        let refuse = |reason, text: String| Err(Problem::new(reason, text));
        for (field, value) in [("name", &self.name), ("key", &self.key), ("idempotency_key", &self.idempotency_key)] {
            match value.as_deref() {
                Some("") => return refuse(Reason::BadFrame, format!("{field:?} is empty; leave it out instead")),
                Some(v) if v.len() > limits.word => {
                    let text = format!("{field:?} has {} bytes, at most {} are taken (max_word)", v.len(), limits.word);
                    return refuse(Reason::TooLarge, text);
                }
                _ => {}
            }
        }
        let payload = self.data.as_ref().or(self.text.as_ref()).or(self.base64.as_ref()).map_or(0, |p| p.len());
        if payload > limits.frame {
            let text = format!("the data has {payload} bytes, at most {} are taken (max_frame)", limits.frame);
            return refuse(Reason::TooLarge, text);
        }
        if let Some(ttl) = self.ttl.filter(|ttl| *ttl > limits.ttl) {
            let (asked, most) = (ttl.as_secs_f64(), limits.ttl.as_secs());
            return refuse(Reason::BadFrame, format!("\"ttl\" is at most {most} seconds (max_ttl), not {asked}"));
        }
        let mut body = String::with_capacity(payload + 64);
        let mut member = |name: &str, write: &dyn Fn(&mut String)| {
            if !body.is_empty() {
                body.push(',');
            }
            quote_into(&mut body, name);
            body.push(':');
            write(&mut body);
        };
        for (name, value) in [("name", &self.name), ("from", &self.from), ("key", &self.key)] {
            if let Some(value) = value {
                member(name, &|out| quote_into(out, value));
            }
        }
        if let Some(tags) = &self.tags {
            let tags = flat_tags(tags, limits)?;
            member("tags", &|out| out.push_str(&tags));
        }
        if let Some(ttl) = self.ttl {
            member("ttl", &|out| out.push_str(&ttl.as_secs_f64().to_string()));
        }
        match (&self.data, &self.text, &self.base64) {
            (Some(json), None, None) => member("data", &|out| compact(json, out)),
            (None, Some(text), None) => member("data", &|out| quote_into(out, text)),
            (None, None, Some(base64)) => {
                if let Err(error) = STANDARD.decode(base64.as_bytes()) {
                    return refuse(Reason::BadFrame, format!("\"data\" is not standard base64 (enc b64): {error}"));
                }
                member("enc", &|out| out.push_str("\"b64\""));
                member("data", &|out| quote_into(out, base64));
            }
            (None, None, None) => {
                let text = "nothing to publish: \"data\" is any JSON and required; \"text\" is for plain text";
                return refuse(Reason::MissingData, text.to_string());
            }
            _ => return refuse(Reason::BadFrame, "\"data\" and \"text\" are two ways of one thing; send one".into()),
        }
        Ok(Body::from_canonical(body.into()))
    }
}

/// A duration on the wire: seconds, decimals allowed.
pub fn seconds(name: &str, raw: &RawValue) -> Result<Duration, Problem> {
    seconds_of(name, serde_json::from_str(raw.get()).ok())
}

/// The same from a number that another door has read; `None` if it was none.
pub fn seconds_of(name: &str, value: Option<f64>) -> Result<Duration, Problem> {
    let positive = value.filter(|v| *v >= 0.001).and_then(|v| Duration::try_from_secs_f64(v).ok());
    positive.ok_or_else(|| Problem::new(Reason::BadFrame, format!("{name:?} is a number of seconds, at least 0.001")))
}

pub fn durability(word: &str) -> Result<Durability, Problem> {
    Durability::parse(word).ok_or_else(|| {
        Problem::new(Reason::BadFrame, format!("\"durability\" is memory, disk or replica, not {word:?}"))
    })
}

fn target(
    topic: Option<Cow<'_, str>>,
    user: Option<Cow<'_, str>>,
    queue: Option<Cow<'_, str>>,
    left: &[String],
) -> Result<To, Problem> {
    match (topic, user, queue) {
        (Some(topic), None, None) => Ok(To::Topic(Topic::parse(&topic)?)),
        (None, Some(user), None) => Ok(To::Topic(Topic::of_user(&user)?)),
        (None, None, Some(queue)) => Ok(To::Queue(Queue::parse(&queue)?)),
        (None, None, None) => {
            let had = if left.is_empty() { String::new() } else { format!("; it has {}", left.join(", ")) };
            Err(Problem::new(Reason::BadFrame, format!("a message needs \"topic\" (or \"user\", or \"queue\"){had}")))
        }
        _ => Err(Problem::new(Reason::BadFrame, "\"topic\", \"user\" and \"queue\" exclude one another; send one")),
    }
}

/// `tags`: an object of flat strings, bounded, written compactly.
fn flat_tags(json: &str, limits: &Limits) -> Result<String, Problem> {
    let wrong = |what: String| Problem::new(Reason::BadFrame, format!("\"tags\" is an object of strings; {what}"));
    let mut members = Members::read(json.as_bytes(), "\"tags\"", limits.depth)?;
    let names: Vec<String> = members.names().map(str::to_owned).collect();
    if names.len() > limits.tags {
        return Err(wrong(format!("{} are too many, at most {} are taken (max_tags)", names.len(), limits.tags)));
    }
    let mut out = String::from("{");
    for name in &names {
        let value = members.text(name).ok().flatten().ok_or_else(|| wrong(format!("{name:?} is not a string")))?;
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(&quote(name));
        out.push(':');
        quote_into(&mut out, &value);
    }
    out.push('}');
    if out.len() > limits.tag_bytes {
        let text = format!("they have {} bytes, at most {} are taken (max_tag_bytes)", out.len(), limits.tag_bytes);
        return Err(Problem::new(Reason::TooLarge, text));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(document: Result<Document, Problem>) -> String {
        let body = match document.unwrap().item {
            Item::Message(publication) => publication.body,
            Item::Job(put) => put.body,
        };
        String::from_utf8(body.as_bytes().to_vec()).unwrap()
    }

    fn read(text: &str) -> Result<Document, Problem> {
        one(text.as_bytes(), &Limits::default())
    }

    fn entry(list: &[(&str, &str)]) -> Result<Document, Problem> {
        fields(list.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())), &Limits::default())
    }

    #[test]
    fn the_document_and_the_stream_entry_give_the_same_body() {
        let json =
            r#"{ "topic":"a", "data": {"hi": [1, "x y"]}, "tags":{"via":"x"}, "ttl": 1.5, "name":"n", "key":"k" }"#;
        let fields = [
            ("topic", "a"),
            ("data", "{\"hi\": [1, \"x y\"]}"),
            ("tags", "{\"via\": \"x\"}"),
            ("ttl", "1.5"),
            ("name", "n"),
            ("key", "k"),
        ];
        let expected = r#""name":"n","key":"k","tags":{"via":"x"},"ttl":1.5,"data":{"hi":[1,"x y"]}"#;
        assert_eq!(body(read(json)), expected);
        assert_eq!(body(entry(&fields)), expected);
    }

    #[test]
    fn text_and_bytes_stand_in_for_json() {
        assert_eq!(body(read(r#"{"topic":"a","text":"he said \"no\"\n"}"#)), r#""data":"he said \"no\"\n""#);
        assert_eq!(body(entry(&[("user", "42"), ("text", "안녕")])), r#""data":"안녕""#);
        assert_eq!(body(read(r#"{"topic":"a","enc":"b64","data":"/+8="}"#)), r#""enc":"b64","data":"/+8=""#);
        assert_eq!(body(entry(&[("topic", "a"), ("data", "null")])), r#""data":null"#);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_way_out() {
        let deep = format!(r#"{{"topic":"a","data":{}1{}}}"#, "[".repeat(40), "]".repeat(40));
        let long = format!(r#"{{"topic":"a","text":"{}"}}"#, "x".repeat(65_537));
        for (text, reason, shows) in [
            ("", Reason::BadJson, "byte 0"),
            ("{", Reason::BadJson, "byte"),
            (r#"{"topic":"a","data":tru}"#, Reason::BadJson, "byte 23"),
            ("[]", Reason::BadFrame, "one JSON object"),
            (r#"{"data":1}"#, Reason::BadFrame, "\"topic\""),
            (r#"{"topic":"a"}"#, Reason::MissingData, "\"text\""),
            (r#"{"topic":"a b","data":1}"#, Reason::BadName, "byte 1"),
            (r#"{"topic":"$x","data":1}"#, Reason::Forbidden, "hub's own"),
            (r#"{"topic":"a","user":"b","data":1}"#, Reason::BadFrame, "exclude"),
            (r#"{"topic":"a","data":1,"data":2}"#, Reason::BadFrame, "twice"),
            (r#"{"topic":"a","data":1,"text":"x"}"#, Reason::BadFrame, "send one"),
            (r#"{"topic":"a","data":1,"ttl":-1}"#, Reason::BadFrame, "seconds"),
            (r#"{"topic":"a","data":1,"ttl":"5s"}"#, Reason::BadFrame, "seconds"),
            (r#"{"topic":"a","data":1,"ttl":1e9}"#, Reason::BadFrame, "max_ttl"),
            (r#"{"topic":"a","data":1,"tags":{"a":1}}"#, Reason::BadFrame, "not a string"),
            (r#"{"topic":"a","data":1,"tags":[]}"#, Reason::BadFrame, "object"),
            (r#"{"topic":"a","data":1,"durability":"ssd"}"#, Reason::BadFrame, "replica"),
            (r#"{"topic":"a","data":"?","enc":"b64"}"#, Reason::BadFrame, "base64"),
            (r#"{"topic":"a","data":"?","enc":"hex"}"#, Reason::BadFrame, "b64"),
            (r#"{"topic":7,"data":1}"#, Reason::BadFrame, "string"),
            (r#"{"queue":"jobs"}"#, Reason::MissingData, "\"text\""),
            (r#"{"queue":"$jobs","data":1}"#, Reason::BadName, "'$'"),
            (r#"{"queue":"jobs","topic":"a","data":1}"#, Reason::BadFrame, "exclude"),
            (r#"{"queue":"jobs","data":1,"priority":10}"#, Reason::BadFrame, "0 to 9"),
            (r#"{"queue":"jobs","data":1,"priority":"7"}"#, Reason::BadFrame, "0 to 9"),
            (r#"{"queue":"jobs","data":1,"delay":5,"group":"g"}"#, Reason::BadFrame, "\"group\""),
            (r#"{"queue":"jobs","data":1,"delay":-1}"#, Reason::BadFrame, "seconds"),
            (r#"{"queue":"jobs","data":1,"delay":1e9}"#, Reason::BadFrame, "365 days"),
            (r#"{"queue":"jobs","data":1,"deliver_at":"9999-01-01T00:00:00Z"}"#, Reason::BadFrame, "365 days"),
            (r#"{"queue":"jobs","data":1,"deliver_at":"tomorrow"}"#, Reason::BadFrame, "2026-11-25T12:00:00Z"),
            (r#"{"queue":"jobs","data":1,"deliver_at":5}"#, Reason::BadFrame, "string"),
            (
                r#"{"queue":"jobs","data":1,"delay":1,"deliver_at":"2026-01-01T00:00:00Z"}"#,
                Reason::BadFrame,
                "send one",
            ),
            (r#"{"queue":"jobs","data":1,"group":""}"#, Reason::BadFrame, "empty"),
            (r#"{"queue":"jobs","data":1,"group":"a\nb"}"#, Reason::BadFrame, "control"),
            (r#"{"queue":"jobs","data":1,"dedupe_window":60}"#, Reason::BadFrame, "\"dedupe\""),
            (r#"{"queue":"jobs","data":1,"dedupe":"k","dedupe_window":1e6}"#, Reason::BadFrame, "1 day"),
            (r#"{"queue":"jobs","data":1,"ttl":1e9}"#, Reason::BadFrame, "max_ttl"),
            (&deep, Reason::BadJson, "deeper"),
            (&long, Reason::TooLarge, "65536"),
        ] {
            let problem = read(text).expect_err(text);
            assert_eq!(problem.reason, reason, "{text}: {problem}");
            assert!(problem.text.contains(shows), "{text}: {problem}");
        }
        let problem = entry(&[("topic", "a"), ("data", "hello")]).unwrap_err();
        assert_eq!(problem.reason, Reason::BadJson);
        assert!(problem.text.contains("\"text\""), "{problem}");
        let problem = entry(&[("topic", "a"), ("data", r#"1,"at":"k.9""#)]).unwrap_err();
        assert_eq!(problem.reason, Reason::BadJson, "one value, not members of the frame");
        let problem = entry(&[("channel", "a"), ("data", "1")]).unwrap_err();
        assert!(problem.text.contains("channel"), "{problem}");
        let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        for (data, shows) in
            [(r#"1,"from":"eve""#, "byte 1"), (r#"{}}"#, "byte 2"), ("1 2", "byte 2"), (&deep, "deeper")]
        {
            let problem = entry(&[("topic", "a"), ("data", data)]).expect_err(data);
            assert_eq!(problem.reason, Reason::BadJson, "{data}");
            assert!(problem.text.contains(shows), "{problem}");
        }
        let problem = fields([(&b"topic"[..], &b"a"[..]), (b"data", b"\xff")], &Limits::default()).unwrap_err();
        assert!(problem.text.contains("b64"), "{problem}");
    }

    #[test]
    fn what_is_not_understood_is_told_not_refused() {
        assert_eq!(read(r#"{"topic":"a","data":1,"color":"red"}"#).unwrap().ignored, ["color"]);
        assert_eq!(entry(&[("topic", "a"), ("data", "1"), ("x", "y")]).unwrap().ignored, ["x"]);
    }
}
