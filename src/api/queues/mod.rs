//! Queues by HTTP: put, take, settle, ask; look at them and change them.

mod admin;
mod dead;
mod jobs;
pub mod put;
mod work;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put as put_route};

use super::ApiState;
use super::query::Query;
use crate::document::{self, quote};
use crate::domain::error::{Problem, Reason};
use crate::domain::queue::{JobId, Queue};
use crate::hub::queues::Desk;
use crate::web::Failure;

/// Jobs in an answer when nobody says how many, and at most.
const USUAL: u32 = 100;
const MOST: u32 = 1_000;

/// Every described route with its methods.
pub const ROUTES: &[(&str, &str)] = &[
    ("GET", "/v1/queues"),
    ("DELETE, GET, PUT", "/v1/queues/{queue}"),
    ("POST", "/v1/queues/{queue}/messages"),
    ("POST", "/v1/queues/{queue}/take"),
    ("POST", "/v1/queues/{queue}/ack"),
    ("POST", "/v1/queues/{queue}/nack"),
    ("POST", "/v1/queues/{queue}/term"),
    ("POST", "/v1/queues/{queue}/extend"),
    ("POST", "/v1/queues/{queue}/request"),
    ("POST", "/v1/queues/{queue}/pause"),
    ("POST", "/v1/queues/{queue}/resume"),
    ("DELETE, GET", "/v1/queues/{queue}/jobs"),
    ("DELETE, GET", "/v1/queues/{queue}/jobs/{job}"),
    ("DELETE, GET", "/v1/queues/{queue}/dead"),
    ("POST", "/v1/queues/{queue}/dead/redrive"),
    ("DELETE, PUT", "/v1/queues/{queue}/dead/{job}"),
];

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/v1/queues", get(admin::list))
        .route("/v1/queues/{queue}", get(admin::show).put(admin::change).delete(admin::delete))
        .route("/v1/queues/{queue}/messages", post(put::short))
        .route("/v1/queues/{queue}/take", post(work::take))
        .route("/v1/queues/{queue}/ack", post(work::ack))
        .route("/v1/queues/{queue}/nack", post(work::nack))
        .route("/v1/queues/{queue}/term", post(work::term))
        .route("/v1/queues/{queue}/extend", post(work::extend))
        .route("/v1/queues/{queue}/request", post(put::request))
        .route("/v1/queues/{queue}/pause", post(admin::pause))
        .route("/v1/queues/{queue}/resume", post(admin::resume))
        .route("/v1/queues/{queue}/jobs", get(jobs::list).delete(jobs::purge))
        .route("/v1/queues/{queue}/jobs/{job}", get(jobs::show).delete(jobs::remove))
        .route("/v1/queues/{queue}/dead", get(dead::list).delete(dead::purge))
        .route("/v1/queues/{queue}/dead/redrive", post(dead::redrive))
        .route("/v1/queues/{queue}/dead/{job}", put_route(dead::edit).delete(dead::remove))
}

fn desk(state: &ApiState) -> Result<Arc<Desk>, Problem> {
    state.hub.queues().cloned()
}

fn queue_of(name: &str) -> Result<Queue, Problem> {
    Ok(Queue::parse(name)?)
}

fn job_of(text: &str) -> Result<JobId, Problem> {
    text.parse().map(JobId).map_err(|_| {
        let text = format!("{:?} is not the id of a job; it is written like \"k3.41\"", super::query::clip(text));
        Problem::new(Reason::BadFrame, text)
    })
}

fn unknown(queue: &Queue) -> Failure {
    Failure::not_found(format!("there is no queue {queue}: nobody has put a job into it, or it was deleted"))
}

fn unknown_job(queue: &Queue, job: JobId) -> Failure {
    Failure::not_found(format!("{queue} has no job {job}: it was acknowledged or removed, or never was"))
}

fn json(body: impl Into<Bytes>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.into()).into_response()
}

/// An answer with parts that are JSON already, and the parameters that were not understood.
fn listed(mut head: String, name: &str, items: &[Bytes], more: bool, query: &Query) -> Response {
    head.push_str(&format!(",\"more\":{more}"));
    head.push_str(&ignored(query));
    let mut out = format!("{head},\"{name}\":[").into_bytes();
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item);
    }
    out.extend_from_slice(b"]}");
    json(out)
}

fn ignored(query: &Query) -> String {
    let names: Vec<String> = query.left().map(|name| quote(&name)).collect();
    if names.is_empty() { String::new() } else { format!(",\"ignored\":[{}]", names.join(",")) }
}

/// What a change did: how many jobs it met.
fn done(queue: &Queue, what: &str, count: u64) -> Response {
    json(format!("{{\"queue\":\"{queue}\",\"{what}\":{count}}}"))
}

/// The place that a query names.
fn place_of(query: &mut Query) -> Result<Option<crate::domain::queue::Place>, Problem> {
    let Some(word) = query.take(&["place"])? else { return Ok(None) };
    document::parse_place(&word).map(Some).ok_or_else(|| {
        let text =
            format!("\"place\" is ready, parked, delayed, in-flight or dead, not {:?}", super::query::clip(&word));
        Problem::new(Reason::BadFrame, text)
    })
}
