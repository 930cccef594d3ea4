//! Dead letters by HTTP: ingest entries that could not be used, looked at, sent back, dropped.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::query::Query;
use super::{ApiState, Segment};
use crate::domain::dead::{DeadLetter, DeadLetters, Notice};
use crate::web::Failure;

const USUAL: u32 = 100;
const MOST: u32 = 1_000;

/// `GET /v1/ingest/dead`, oldest first
pub async fn list(State(state): State<ApiState>, mut query: Query) -> Result<Response, Failure> {
    let dead = kept(&state)?;
    let after = query.take(&["after"])?;
    let limit = query.number("limit", 1, MOST)?.unwrap_or(USUAL) as usize;
    let letters = dead.list(after.as_deref(), limit).await?;
    let total = dead.count().await?;
    let notices: Vec<Value> = dead.notices().await?.into_iter().map(notice).collect();
    let mut answer =
        json!({ "items": letters.iter().map(letter).collect::<Vec<_>>(), "total": total, "notices": notices });
    let ignored: Vec<String> = query.left().collect();
    if !ignored.is_empty() {
        answer["ignored"] = ignored.into();
    }
    Ok(Json(answer).into_response())
}

/// `POST /v1/ingest/dead/{id}/retry`
pub async fn retry(State(state): State<ApiState>, Segment(id): Segment) -> Result<Response, Failure> {
    match kept(&state)?.retry(&id).await? {
        true => Ok(Json(json!({ "retried": id })).into_response()),
        false => Err(unknown(&id)),
    }
}

/// `DELETE /v1/ingest/dead/{id}`
pub async fn drop(State(state): State<ApiState>, Segment(id): Segment) -> Result<Response, Failure> {
    match DeadLetters::discard(kept(&state)?, &id).await? {
        true => Ok(Json(json!({ "dropped": id })).into_response()),
        false => Err(unknown(&id)),
    }
}

fn kept(state: &ApiState) -> Result<&dyn DeadLetters, Failure> {
    state.dead.as_deref().ok_or_else(|| {
        Failure::not_found(
            "this hub takes nothing in by a Redis client, so there are no dead letters; see the setting ingest",
        )
    })
}

fn unknown(id: &str) -> Failure {
    Failure::not_found(format!("there is no dead letter {id:?}; it was retried, dropped or displaced, or never was"))
}

fn notice(notice: Notice) -> Value {
    json!({ "source": notice.source, "text": notice.text, "time": notice.time })
}

fn letter(letter: &DeadLetter) -> Value {
    let mut fields = Map::new();
    for (name, value) in &letter.fields {
        let name = match std::str::from_utf8(name) {
            Ok(name) => name.to_string(),
            Err(_) => format!("b64:{}", STANDARD.encode(name)),
        };
        // A stream entry may hold a field twice, an object may not.
        let mut unique = name.clone();
        for n in 2.. {
            if !fields.contains_key(&unique) {
                break;
            }
            unique = format!("{name} ({n})");
        }
        fields.insert(unique, text_or_bytes(value));
    }
    json!({
        "id": letter.id,
        "source": letter.source,
        "entry": letter.entry,
        "time": letter.time,
        "reason": letter.reason.as_str(),
        "text": letter.text,
        "fields": fields,
    })
}

fn text_or_bytes(value: &[u8]) -> Value {
    match std::str::from_utf8(value) {
        Ok(text) => text.into(),
        Err(_) => json!({ "b64": STANDARD.encode(value) }),
    }
}
