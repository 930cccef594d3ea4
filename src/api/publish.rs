//! Publishing by HTTP: the short form (the body is the data) and the document form, one or many.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::advice::{in_path, mend, or_text, sample, unsupported};
use super::body::{self, Media};
use super::query::Query;
use super::queues::put;
use super::{ApiState, Segment};
use crate::document::{self, Content, Document, Item};
use crate::domain::error::{Problem, Reason};
use crate::domain::limits::Limits;
use crate::domain::message::{Durability, Publication};
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::domain::queue::Queue;
use crate::domain::store::{Append, Appended, StoreError};
use crate::hub::Receipt;
use crate::telemetry::{PUBLISHED, REFUSED};
use crate::web::Failure;

/// What is said of one message that was stored.
#[derive(Serialize)]
struct Stored {
    topic: String,
    stored: String,
    durability: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ignored: Vec<String>,
}

/// What is said of one message among many.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Stored(Stored),
    Put(put::Stored),
    Refused {
        error: &'static str,
        text: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        queue: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after: Option<f64>,
    },
}

#[derive(Serialize)]
struct Results {
    items: Vec<Answer>,
    failed: usize,
}

/// `POST /v1/topics/{topic}/messages`
pub async fn to_topic(
    State(state): State<ApiState>,
    Segment(topic): Segment,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let path = format!("/v1/topics/{}/messages", in_path(&topic));
    short(state, Topic::parse(&topic).map_err(Problem::from)?, path, query, headers, body).await
}

/// `POST /v1/users/{id}/messages`
pub async fn to_user(
    State(state): State<ApiState>,
    Segment(user): Segment,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let path = format!("/v1/users/{}/messages", in_path(&user));
    short(state, Topic::of_user(&user).map_err(Problem::from)?, path, query, headers, body).await
}

/// `POST /v1/messages`
pub async fn documents(
    State(state): State<ApiState>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let limits = &state.limits;
    let key = idempotency_key(&headers)?;
    if Media::of(&headers) != Media::Json {
        return Err(unsupported(&headers, "/v1/messages", r#"{"topic":"news","data":{"hi":1}}"#));
    }
    let body = body::read(&headers, body, limits.batch_body, "max_batch_body").await?;
    let (mut documents, many) = document::many(&body, limits)?;
    if many {
        if key.is_some() {
            let text = "an array has no Idempotency-Key of its own; give each message its \"idempotency_key\"";
            return Err(Failure::new(Reason::BadFrame, text));
        }
        return Ok(Json(append(&state, documents).await).into_response());
    }
    let Document { item, mut ignored } = documents.remove(0)?;
    let mut item = item;
    if let Some(key) = key {
        check_word("Idempotency-Key", &key, limits.word)?;
        let said = match &mut item {
            Item::Message(publication) => &mut publication.idempotency_key,
            Item::Job(put) => &mut put.idempotency_key,
        };
        match said {
            Some(own) if **own != *key => {
                let text = format!("the header Idempotency-Key and \"idempotency_key\" {own:?} differ; send one");
                return Err(Failure::new(Reason::BadFrame, text));
            }
            said => *said = Some(key.into()),
        }
    }
    ignored.extend(query.left());
    match item {
        Item::Message(publication) => one(&state, publication, ignored).await,
        Item::Job(put) => put::one(&state, put, ignored).await,
    }
}

/// The short form: the body is the data, the rest stands in the query and in one header.
async fn short(
    state: ApiState,
    topic: Topic,
    path: String,
    mut query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let limits = &state.limits;
    let body = body::read(&headers, body, limits.frame, "max_frame").await?;
    let publication = content(limits, &path, &mut query, &headers, &body)?.publish(topic, limits)?;
    one(&state, publication, query.left().collect()).await
}

/// What a body, its query and its headers say, for a topic or a queue.
pub fn content<'a>(
    limits: &Limits,
    path: &str,
    query: &mut Query,
    headers: &HeaderMap,
    body: &'a Bytes,
) -> Result<Content<'a>, Failure> {
    let media = Media::of(headers);
    let text = |what: &str| {
        std::str::from_utf8(body).map_err(|error| {
            let text =
                format!("{what} is not UTF-8 at byte {}; bytes go as application/octet-stream", error.valid_up_to());
            Failure::new(Reason::BadJson, text)
        })
    };
    let mut content = Content::default();
    match media {
        _ if body.is_empty() && media != Media::Text => {
            let text = format!("the body is the data and is empty; {}", mend(headers, path, "{\"hi\":1}"));
            return Err(Failure::new(Reason::MissingData, text));
        }
        Media::Json => {
            content.data =
                Some(document::value(body, limits.depth).map_err(|p| or_text(p, headers, path, body))?.into())
        }
        Media::Text => content.text = Some(text("the text")?.into()),
        Media::Bytes => content.base64 = Some(STANDARD.encode(body).into()),
        Media::Other => return Err(unsupported(headers, path, &sample(body))),
    }
    content.name = query.take(&["name"])?.map(Into::into);
    content.key = query.take(&["key"])?.map(Into::into);
    let ttl = query.take(&["ttl"])?;
    content.ttl = ttl.map(|text| document::seconds_of("ttl", text.parse().ok())).transpose()?;
    let level = query.take(&["durability", "level"])?;
    content.durability = level.map(|word| document::durability(&word)).transpose()?;
    content.idempotency_key = idempotency_key(headers)?.map(Into::into);
    Ok(content)
}

async fn one(state: &ApiState, publication: Publication, ignored: Vec<String>) -> Result<Response, Failure> {
    let Receipt { topic, stored, durability } = state.hub.publish(publication).await?;
    metrics::counter!(PUBLISHED, "door" => "http").increment(1);
    let location = HeaderValue::from_str(&format!("/v1/topics/{}/messages/{stored}", in_path(topic.as_str())))
        .expect("names and positions are ASCII");
    let body = Json(Stored::new(&topic, stored, durability, ignored));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], body).into_response())
}

/// Where an item went, until it is answered.
enum Read {
    Message(Topic),
    Job(Queue),
}

/// Stores what could be read, in its order, and answers for every item in its place.
async fn append(state: &ApiState, documents: Vec<Result<Document, Problem>>) -> Results {
    let (mut messages, mut jobs) = (Vec::new(), Vec::new());
    let read: Vec<Result<(Read, Vec<String>), Problem>> = documents
        .into_iter()
        .map(|document| {
            let Document { item, ignored } = document?;
            let read = match item {
                Item::Message(publication) => {
                    let topic = publication.topic.clone();
                    messages.push(Append { publication, fence: None });
                    Read::Message(topic)
                }
                Item::Job(put) => {
                    state.hub.queues()?;
                    let queue = put.queue.clone();
                    jobs.push(put);
                    Read::Job(queue)
                }
            };
            Ok((read, ignored))
        })
        .collect();
    let stored = async { if messages.is_empty() { Vec::new() } else { state.hub.append(messages).await } };
    let put = async { if jobs.is_empty() { Vec::new() } else { state.hub.put(jobs).await } };
    let (stored, put) = tokio::join!(stored, put);
    let (mut stored, mut put) = (stored.into_iter(), put.into_iter());
    let items: Vec<Answer> = read
        .into_iter()
        .map(|item| match item {
            Err(problem) => Answer::refused(None, problem),
            Ok((Read::Job(queue), ignored)) => {
                let answer = put.next().unwrap_or_else(|| Err(put::no_answer()));
                match put::Stored::new(&queue, answer, ignored) {
                    Ok(stored) => Answer::Put(stored),
                    Err(problem) => Answer::refused(Some(Read::Job(queue)), problem),
                }
            }
            Ok((Read::Message(topic), ignored)) => match stored.next() {
                Some(Ok(Appended::Stored { at, durability, .. } | Appended::Repeated { at, durability })) => {
                    Answer::Stored(Stored::new(&topic, at, durability, ignored))
                }
                Some(Err(error)) => Answer::refused(Some(Read::Message(topic)), error.into()),
                Some(Ok(Appended::Skipped)) | None => {
                    let error = StoreError::Broken("no answer for this message".into());
                    Answer::refused(Some(Read::Message(topic)), error.into())
                }
            },
        })
        .collect();
    let failed = items.iter().filter(|item| matches!(item, Answer::Refused { .. })).count();
    metrics::counter!(PUBLISHED, "door" => "http").increment((items.len() - failed) as u64);
    Results { items, failed }
}

impl Stored {
    fn new(topic: &Topic, stored: Position, durability: Durability, ignored: Vec<String>) -> Stored {
        Stored { topic: topic.to_string(), stored: stored.to_string(), durability: durability.as_str(), ignored }
    }
}

impl Answer {
    fn refused(read: Option<Read>, problem: Problem) -> Answer {
        let error = problem.reason.as_str();
        metrics::counter!(REFUSED, "door" => "http", "reason" => error).increment(1);
        let retry_after = problem.retry_after.map(|wait| wait.as_secs_f64());
        let (topic, queue) = match read {
            Some(Read::Message(topic)) => (Some(topic.to_string()), None),
            Some(Read::Job(queue)) => (None, Some(queue.to_string())),
            None => (None, None),
        };
        Answer::Refused { error, text: problem.text, topic, queue, retry_after }
    }
}

/// The header as a structured field ("k") or, as most send it, bare.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes())
        .map_err(|_| Problem::new(Reason::BadFrame, "the header Idempotency-Key is not UTF-8"))?
        .trim();
    let bare = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    Ok(Some(bare.to_string()))
}

fn check_word(name: &str, word: &str, most: usize) -> Result<(), Problem> {
    match word.len() {
        0 => Err(Problem::new(Reason::BadFrame, format!("{name} is empty; leave it out instead"))),
        bytes if bytes > most => {
            let text = format!("{name} has {bytes} bytes, at most {most} are taken (max_word)");
            Err(Problem::new(Reason::TooLarge, text))
        }
        _ => Ok(()),
    }
}
