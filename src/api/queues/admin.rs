//! What operators see and do: queues, their settings, pause and resume, deletion.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::{MOST, USUAL, desk, done, ignored, json, queue_of, unknown};
use crate::api::query::Query;
use crate::api::{ApiState, Segment, body};
use crate::document;
use crate::domain::error::{Problem, Reason};
use crate::domain::queue::{Change, Queue, QueueSettings};
use crate::domain::store::StoreError;
use crate::web::Failure;

/// `GET /v1/queues`, in the order of their names
pub async fn list(State(state): State<ApiState>, mut query: Query) -> Result<Response, Failure> {
    let desk = desk(&state)?;
    let after = query.take(&["after"])?.map(|name| queue_of(&name)).transpose()?;
    let limit = query.number("limit", 1, MOST)?.unwrap_or(USUAL) as usize;
    // One more tells whether there are more.
    let mut queues = desk.keeper().admin.list(after.as_ref(), limit + 1).await?;
    let more = queues.len() > limit;
    queues.truncate(limit);
    let names: Vec<String> = queues.iter().map(|queue| format!("\"{queue}\"")).collect();
    Ok(json(format!("{{\"queues\":[{}],\"more\":{more}{}}}", names.join(","), ignored(&query))))
}

/// `GET /v1/queues/{queue}`
pub async fn show(State(state): State<ApiState>, Segment(queue): Segment) -> Result<Response, Failure> {
    let queue = queue_of(&queue)?;
    let keeper = desk(&state)?.keeper().clone();
    let stats = keeper.admin.stats(&queue).await?.ok_or_else(|| unknown(&queue))?;
    let settings = keeper.queues.settings(&queue).await?;
    Ok(json(format!(
        "{{\"queue\":\"{queue}\",\"stats\":{},\"settings\":{}}}",
        document::stats(&stats),
        document::write_settings(&settings.shown())
    )))
}

/// `PUT /v1/queues/{queue}`: a settings document; what it does not name stays as it is. `null` takes its own settings
/// away.
pub async fn change(
    State(state): State<ApiState>,
    Segment(queue): Segment,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let queue = queue_of(&queue)?;
    let desk = desk(&state)?;
    let body = body::read(&headers, body, state.limits.frame, "max_frame").await?;
    let keeper = desk.keeper();
    let settings = match body.trim_ascii() {
        b"null" => None,
        text => {
            let holds = keeper.queues.settings(&queue).await?;
            let settings = document::read_settings(text, &holds)?;
            let webhook = settings.start_when.as_ref().and_then(|start| start.webhook.as_ref());
            if let Some(webhook) = webhook {
                desk.judge_webhook(webhook).map_err(|text| Failure::new(Reason::Forbidden, text))?;
            }
            Some(Box::new(settings))
        }
    };
    keeper.admin.change(&queue, Change::Settings(settings)).await?;
    desk.refresh(&queue);
    let holds: QueueSettings = keeper.queues.settings(&queue).await?;
    Ok(json(format!("{{\"queue\":\"{queue}\",\"settings\":{}}}", document::write_settings(&holds.shown()))))
}

/// `DELETE /v1/queues/{queue}`
pub async fn delete(State(state): State<ApiState>, Segment(queue): Segment) -> Result<Response, Failure> {
    let queue = queue_of(&queue)?;
    let desk = desk(&state)?;
    if desk.keeper().admin.stats(&queue).await?.is_none() {
        return Err(unknown(&queue));
    }
    let count = desk.keeper().admin.change(&queue, Change::Delete).await?;
    desk.refresh(&queue);
    Ok(done(&queue, "deleted", count))
}

/// `POST /v1/queues/{queue}/pause`
pub async fn pause(state: State<ApiState>, queue: Segment) -> Result<Response, Failure> {
    set_paused(state, queue, true).await
}

/// `POST /v1/queues/{queue}/resume`
pub async fn resume(state: State<ApiState>, queue: Segment) -> Result<Response, Failure> {
    set_paused(state, queue, false).await
}

async fn set_paused(State(state): State<ApiState>, Segment(queue): Segment, paused: bool) -> Result<Response, Failure> {
    let queue = queue_of(&queue)?;
    change_of(&state, &queue, Change::Pause(paused)).await?;
    Ok(json(format!("{{\"queue\":\"{queue}\",\"paused\":{paused}}}")))
}

pub async fn change_of(state: &ApiState, queue: &Queue, change: Change) -> Result<u64, Failure> {
    let changed: Result<u64, StoreError> = desk(state)?.keeper().admin.change(queue, change).await;
    Ok(changed.map_err(Problem::from)?)
}
