//! Cursors by HTTP: looked at, committed, removed. Reading from one is `topics`' part.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::advice::{in_path, put};
use super::body::{self, Media};
use super::query::Query;
use super::{ApiState, Segment, Segments};
use crate::document::Members;
use crate::domain::cursor::{CursorError, CursorKey, CursorName, Owner, Placed};
use crate::domain::error::{Problem, Reason};
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::web::Failure;

const USUAL: u32 = 100;
const MOST: u32 = 1_000;

/// `GET /v1/topics/{topic}/cursors`, in the order of their names
pub async fn list(
    State(state): State<ApiState>,
    Segment(topic): Segment,
    mut query: Query,
) -> Result<Response, Failure> {
    let topic = Topic::parse(&topic).map_err(Problem::from)?;
    let after = query.take(&["after"])?.map(|name| CursorName::parse(&name)).transpose().map_err(Problem::from)?;
    let limit = query.number("limit", 1, MOST)?.unwrap_or(USUAL) as usize;
    let cursors = state.hub.cursors()?;
    // One more tells whether there are more.
    let mut listed =
        cursors.list(&topic, &Owner::anonymous(), after.as_ref(), limit + 1).await.map_err(Problem::from)?;
    let more = listed.len() > limit;
    listed.truncate(limit);
    let items: Vec<Value> = listed.iter().map(|(name, placed)| place(name, placed)).collect();
    let mut answer = json!({ "topic": topic.as_str(), "items": items, "more": more });
    let ignored: Vec<String> = query.left().collect();
    if !ignored.is_empty() {
        answer["ignored"] = ignored.into();
    }
    Ok(Json(answer).into_response())
}

/// `GET /v1/topics/{topic}/cursors/{cursor}`
pub async fn show(State(state): State<ApiState>, Segments(path): Segments) -> Result<Response, Failure> {
    let key = key_of(path)?;
    match state.hub.cursors()?.find(&key).await.map_err(Problem::from)? {
        Some(placed) => Ok(told(&key, &placed, &[])),
        None => Err(unknown(&key)),
    }
}

/// `PUT` or `POST /v1/topics/{topic}/cursors/{cursor}`
pub async fn commit(
    State(state): State<ApiState>,
    Segments(path): Segments,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let key = key_of(path)?;
    let way = format!("/v1/topics/{}/cursors/{}", in_path(key.topic.as_str()), in_path(key.name.as_str()));
    let mend = |text: &str| format!("{text}: {}", put(&headers, &way, r#"{"at":"k3.42"}"#));
    if Media::of(&headers) != Media::Json {
        let failure = Failure::new(Reason::BadFrame, mend("a commit is JSON"));
        return Err(failure.status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let body = body::read(&headers, body, state.limits.frame, "max_frame").await?;
    let mut members = Members::read(&body, "a commit", state.limits.depth)?;
    let Some(at) = members.text("at")? else {
        return Err(Failure::new(Reason::BadFrame, mend("\"at\" is missing, a position that you were given")));
    };
    let at: Position = at.parse().map_err(Problem::from)?;
    let rewind = match members.take("rewind").map(|raw| raw.get()) {
        None | Some("null" | "false") => false,
        Some("true") => true,
        Some(_) => return Err(Failure::new(Reason::BadFrame, "\"rewind\" is true or false")),
    };
    let ignored = members.left();
    match state.hub.cursors()?.commit(&key, at, rewind).await {
        Ok(placed) => Ok(told(&key, &placed, &ignored)),
        Err(error) => {
            let stands = match &error {
                CursorError::Behind { stands, .. } => Some(stands.to_string()),
                _ => None,
            };
            let failure = Failure::from(Problem::from(error));
            Err(match stands {
                Some(stands) => failure.with("stands", stands.into()),
                None => failure,
            })
        }
    }
}

/// `DELETE /v1/topics/{topic}/cursors/{cursor}`
pub async fn remove(State(state): State<ApiState>, Segments(path): Segments) -> Result<Response, Failure> {
    let key = key_of(path)?;
    match state.hub.cursors()?.remove(&key).await.map_err(Problem::from)? {
        true => Ok(Json(json!({ "topic": key.topic.as_str(), "removed": key.name.as_str() })).into_response()),
        false => Err(unknown(&key)),
    }
}

fn key_of((topic, name): (String, String)) -> Result<CursorKey, Problem> {
    Ok(CursorKey { topic: Topic::parse(&topic)?, owner: Owner::anonymous(), name: CursorName::parse(&name)? })
}

fn place(name: &CursorName, placed: &Placed) -> Value {
    json!({ "cursor": name.as_str(), "at": placed.at.to_string(), "lag": placed.lag, "used": placed.used })
}

fn told(key: &CursorKey, placed: &Placed, ignored: &[String]) -> Response {
    let mut answer = place(&key.name, placed);
    answer["topic"] = key.topic.as_str().into();
    if !ignored.is_empty() {
        answer["ignored"] = ignored.into();
    }
    Json(answer).into_response()
}

fn unknown(key: &CursorKey) -> Failure {
    let CursorKey { topic, name, .. } = key;
    Failure::not_found(format!(
        "{topic} has no cursor {name:?}: nobody used it, or not for long, or it was removed; \
         GET /v1/topics/{topic}/messages?cursor={name} makes it"
    ))
}
