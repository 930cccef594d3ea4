//! Reading a topic by HTTP: a stretch of its history, and one message.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::query::Query;
use super::{ApiState, Segment, Segments};
use crate::document::{self, quote};
use crate::domain::command::UseCursor;
use crate::domain::cursor::{CursorKey, CursorName, Opened, Owner};
use crate::domain::error::{Problem, Reason};
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::domain::store::{Page, ReadFrom, ReadLimit};
use crate::web::Failure;

/// Messages in an answer when nobody says how many.
const USUAL: u32 = 100;

/// `GET /v1/topics/{topic}/messages`: what follows `after`, the newest `last`, or what was stored `since`; without any of
/// them the newest `limit`. With `cursor` what follows where that stands.
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
    let asked = after.map(ReadFrom::After).or(since.map(ReadFrom::Since)).or(last.map(ReadFrom::Last));
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
    let cursor = cursor(&state, &topic, &mut query, asked).await?;
    // A position that was asked for goes before the cursor's.
    let from = match &cursor {
        Some(cursor) if after.is_none() => ReadFrom::After(cursor.opened.placed.at),
        _ => from,
    };
    let resuming = after.is_some() || cursor.as_ref().is_some_and(|cursor| !cursor.opened.created);
    let page = state.hub.read(&topic, from, ReadLimit { messages, ..ReadLimit::default() }).await?;
    let ignored: Vec<String> = query.left().collect();
    Ok(json(write(&topic, resuming || since.is_some(), &page, cursor.as_ref(), &ignored)))
}

/// The cursor that was read from.
struct ReadCursor {
    name: CursorName,
    opened: Opened,
}

async fn cursor(
    state: &ApiState,
    topic: &Topic,
    query: &mut Query,
    from: Option<ReadFrom>,
) -> Result<Option<ReadCursor>, Failure> {
    let Some(name) = query.take(&["cursor"])? else { return Ok(None) };
    let UseCursor { name, first } = UseCursor::read(&name, query.take(&["first"])?.as_deref(), from)?;
    let key = CursorKey { topic: topic.clone(), owner: Owner::anonymous(), name: name.clone() };
    let opened = state.hub.open_cursor(&key, first).await?;
    Ok(Some(ReadCursor { name, opened }))
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
fn write(topic: &Topic, resuming: bool, page: &Page, cursor: Option<&ReadCursor>, ignored: &[String]) -> Bytes {
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
    if let Some(ReadCursor { name, opened: Opened { placed, created } }) = cursor {
        let created = if *created { ",\"created\":true" } else { "" };
        out.extend_from_slice(format!(",\"cursor\":\"{name}\",\"lag\":{}{created}", placed.lag).as_bytes());
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
