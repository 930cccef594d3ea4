//! Jobs looked at without taking them, and removed.

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;

use super::admin::change_of;
use super::{MOST, USUAL, desk, done, job_of, json, listed, place_of, queue_of, unknown_job};
use crate::api::query::Query;
use crate::api::{ApiState, Segment, Segments};
use crate::document;
use crate::domain::queue::{Change, Place};
use crate::web::Failure;

/// `GET /v1/queues/{queue}/jobs?place=ready`
pub async fn list(state: State<ApiState>, queue: Segment, mut query: Query) -> Result<Response, Failure> {
    let place = place_of(&mut query)?.unwrap_or(Place::Ready);
    look(state, queue, query, place).await
}

pub async fn look(
    State(state): State<ApiState>,
    Segment(queue): Segment,
    mut query: Query,
    place: Place,
) -> Result<Response, Failure> {
    let queue = queue_of(&queue)?;
    let skip = query.number("skip", 0, u32::MAX)?.unwrap_or(0) as usize;
    let limit = query.number("limit", 1, MOST)?.unwrap_or(USUAL) as usize;
    let admin = desk(&state)?.keeper().admin.clone();
    // One more tells whether there are more; a page of the most that there may be is followed by another.
    let mut seen = admin.look(&queue, place, skip, (limit + 1).min(MOST as usize)).await?;
    let more = seen.len() > limit || limit == MOST as usize && seen.len() == limit;
    seen.truncate(limit);
    let items: Vec<Bytes> = seen.iter().map(|seen| document::seen(&queue, seen)).collect();
    let head = format!("{{\"queue\":\"{queue}\",\"place\":\"{}\"", document::place(place));
    Ok(listed(head, "jobs", &items, more, &query))
}

/// `DELETE /v1/queues/{queue}/jobs`: all of a place, or all but the dead.
pub async fn purge(
    State(state): State<ApiState>,
    Segment(queue): Segment,
    mut query: Query,
) -> Result<Response, Failure> {
    let queue = queue_of(&queue)?;
    let place = place_of(&mut query)?;
    Ok(done(&queue, "removed", change_of(&state, &queue, Change::Purge(place)).await?))
}

/// `GET /v1/queues/{queue}/jobs/{job}`
pub async fn show(State(state): State<ApiState>, Segments((queue, job)): Segments) -> Result<Response, Failure> {
    let (queue, job) = (queue_of(&queue)?, job_of(&job)?);
    match desk(&state)?.keeper().admin.find(&queue, job).await? {
        Some(seen) => Ok(json(document::seen(&queue, &seen))),
        None => Err(unknown_job(&queue, job)),
    }
}

/// `DELETE /v1/queues/{queue}/jobs/{job}`
pub async fn remove(State(state): State<ApiState>, Segments((queue, job)): Segments) -> Result<Response, Failure> {
    let (queue, job) = (queue_of(&queue)?, job_of(&job)?);
    match change_of(&state, &queue, Change::Remove(job)).await? {
        0 => {
            let text = format!("{queue} has no job {job} that could be removed: it is in flight, or gone");
            Err(Failure::not_found(text))
        }
        count => Ok(done(&queue, "removed", count)),
    }
}
