//! Putting by HTTP: the body is the data, the rest stands in the query and in one header; and requests, whose answer is the
//! worker's reply.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::{ignored, json, queue_of};
use crate::api::advice::in_path;
use crate::api::query::Query;
use crate::api::{ApiState, Segment, body, publish};
use crate::document::{self, JobTerms};
use crate::domain::error::Problem;
use crate::domain::limits::Limits;
use crate::domain::message::Durability;
use crate::domain::queue::{JobId, Put, PutAnswer, Queue};
use crate::domain::store::StoreError;
use crate::hub::queues::Reply;
use crate::telemetry::PUBLISHED;
use crate::web::Failure;

/// What is said of one job that was put.
#[derive(Serialize)]
pub struct Stored {
    queue: String,
    job: String,
    durability: &'static str,
    /// It was there before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    repeated: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ignored: Vec<String>,
}

/// `POST /v1/queues/{queue}/messages`
pub async fn short(
    State(state): State<ApiState>,
    Segment(queue): Segment,
    mut query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let path = format!("/v1/queues/{}/messages", in_path(&queue));
    let put = read(&state.limits, &path, queue_of(&queue)?, &mut query, &headers, body).await?;
    one(&state, put, query.left().collect()).await
}

/// `POST /v1/queues/{queue}/request`
pub async fn request(
    State(state): State<ApiState>,
    Segment(queue): Segment,
    mut query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let path = format!("/v1/queues/{}/request", in_path(&queue));
    let timeout = query.take(&["timeout"])?;
    let timeout = timeout.map(|text| document::seconds_of("timeout", text.parse().ok())).transpose()?;
    let timeout = document::timeout(timeout, &state.limits)?;
    let put = read(&state.limits, &path, queue_of(&queue)?, &mut query, &headers, body).await?;
    let queue = put.queue.clone();
    let Reply { job, body } = state.hub.request(put, timeout).await?;
    let head = format!("{{\"queue\":\"{queue}\",\"job\":\"{job}\"{},", ignored(&query)).into_bytes();
    Ok(json([&head[..], body.as_bytes(), b"}"].concat()))
}

/// A job out of a body, its query and its headers.
async fn read(
    limits: &Limits,
    path: &str,
    queue: Queue,
    query: &mut Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<Put, Failure> {
    let body = body::read(headers, body, limits.frame, "max_frame").await?;
    let content = publish::content(limits, path, query, headers, &body)?;
    let mut given = Vec::new();
    for name in JobTerms::NAMES {
        given.extend(query.take(&[name])?.map(|text| (name, text)));
    }
    let mut terms = JobTerms::default();
    for (name, text) in &given {
        terms.put(name, text)?;
    }
    Ok(content.put(queue, terms, limits)?)
}

pub async fn one(state: &ApiState, put: Put, ignored: Vec<String>) -> Result<Response, Failure> {
    super::desk(state)?;
    let queue = put.queue.clone();
    let answer = state.hub.put(vec![put]).await.pop().unwrap_or_else(|| Err(no_answer()));
    let stored = Stored::new(&queue, answer, ignored)?;
    metrics::counter!(PUBLISHED, "door" => "http").increment(1);
    let location = HeaderValue::from_str(&format!("/v1/queues/{}/jobs/{}", in_path(queue.as_str()), stored.job))
        .expect("names and ids are ASCII");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(stored)).into_response())
}

impl Stored {
    pub fn new(queue: &Queue, answer: Result<PutAnswer, StoreError>, ignored: Vec<String>) -> Result<Stored, Problem> {
        let told = |job: JobId, durability: Durability, repeated| Stored {
            queue: queue.to_string(),
            job: job.to_string(),
            durability: durability.as_str(),
            repeated,
            ignored,
        };
        match answer? {
            PutAnswer::Stored { job, durability, .. } => Ok(told(job, durability, false)),
            PutAnswer::Repeated { job, durability } => Ok(told(job, durability, true)),
            PutAnswer::Skipped => Err(no_answer().into()),
        }
    }
}

pub fn no_answer() -> StoreError {
    StoreError::Broken("no answer for this job".into())
}
