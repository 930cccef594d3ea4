//! Reading a topic by HTTP: a stretch of its history, and one message.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::query::Query;
use super::{ApiState, Segment, Segments};
use crate::document::{self, quote};
use crate::domain::error::{Problem, Reason};
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::domain::store::{Page, ReadFrom, ReadLimit};
use crate::web::Failure;

/// Messages in an answer when nobody says how many.
const USUAL: u32 = 100;

/// `GET /v1/topics/{topic}/messages`: what follows `after`, the newest `last`, or what was stored `since`; without any of
/// them the newest `limit`.
pub async fn messages(
    State(state): State<ApiState>,
    Segment(topic): Segment,
    mut query: Query,
) -> Result<Response, Failure> {
    let topic = Topic::parse(&topic).map_err(Problem::from)?;
    let most = state.limits.history;
    let after = query.take(&["after"])?.map(|text| text.parse::<Position>()).transpose().map_err(Problem::from)?;
    let last = query.number("last", 0, most)?;
    let limit = query.number("limit", 1, most)?;
    let since = query.take(&["since"])?.map(|text| document::since(&text, document::now())).transpose()?;
    let from = match (after, last, since) {
        (Some(after), None, None) => ReadFrom::After(after),
        (None, None, Some(since)) => ReadFrom::Since(since),
        (None, last, None) => ReadFrom::Last(last.or(limit).unwrap_or(USUAL.min(most))),
        _ => {
            let text = "\"after\", \"last\" and \"since\" exclude one another; send one";
            return Err(Failure::new(Reason::BadFrame, text));
        }
    };
    let messages = limit.or(last.map(|last| last.max(1))).unwrap_or(USUAL.min(most));
    let page = state.hub.read(&topic, from, ReadLimit { messages, ..ReadLimit::default() }).await?;
    let ignored: Vec<String> = query.left().collect();
    Ok(json(write(&topic, after.is_some() || since.is_some(), &page, &ignored)))
}

/// `GET /v1/topics/{topic}/messages/{at}`
pub async fn message(State(state): State<ApiState>, Segments((topic, at)): Segments) -> Result<Response, Failure> {
    let topic = Topic::parse(&topic).map_err(Problem::from)?;
    let at = at.parse::<Position>().map_err(Problem::from)?;
    match state.hub.find(&topic, at).await? {
        Some(message) => Ok(json(document::message(&message))),
        None => Err(Failure::not_found(format!(
            "{topic} has no message at {at}: it never had, or it is no longer kept; GET /v1/topics/{topic}/messages \
             shows what is"
        ))),
    }
}

/// `at` is how far this answer tells the topic: sent back as `after` it goes on from there.
fn write(topic: &Topic, resuming: bool, page: &Page, ignored: &[String]) -> Bytes {
    let mut out = format!("{{\"topic\":\"{topic}\",\"at\":\"{}\",\"more\":{}", page.end, !page.is_last()).into_bytes();
    match page.missing {
        Some(missing) => {
            out.extend_from_slice(format!(",\"resumed\":false,\"why\":\"{}\"", missing.why.as_str()).as_bytes());
            if let Some(to) = missing.to {
                out.extend_from_slice(format!(",\"to\":\"{to}\"").as_bytes());
            }
        }
        None if resuming => out.extend_from_slice(b",\"resumed\":true"),
        None => {}
    }
    if !ignored.is_empty() {
        let names: Vec<String> = ignored.iter().map(|name| quote(name)).collect();
        out.extend_from_slice(format!(",\"ignored\":[{}]", names.join(",")).as_bytes());
    }
    out.extend_from_slice(b",\"items\":[");
    for (i, message) in page.messages.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&document::message(message));
    }
    out.extend_from_slice(b"]}");
    out.into()
}

fn json(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
