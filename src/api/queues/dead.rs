//! Dead letters of queues: looked at, edited, sent back at a pace, removed.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::admin::change_of;
use super::{MOST, done, job_of, jobs, queue_of};
use crate::api::query::{Query, clip};
use crate::api::{ApiState, Segment, Segments, body, publish};
use crate::document::{JobTerms, Members};
use crate::domain::error::{Problem, Reason};
use crate::domain::queue::{Change, Death, JobId, Place, Queue};
use crate::web::Failure;

/// How many dead letters one request sends back.
const MOST_REDRIVEN: u64 = 100_000;
/// How long a paced redrive may take.
const LONGEST: Duration = Duration::from_secs(60);
/// How often a paced redrive sends some.
const STEP: Duration = Duration::from_millis(100);

/// `GET /v1/queues/{queue}/dead`, oldest first
pub async fn list(state: State<ApiState>, queue: Segment, query: Query) -> Result<Response, Failure> {
    jobs::look(state, queue, query, Place::Dead).await
}

/// `DELETE /v1/queues/{queue}/dead`
pub async fn purge(State(state): State<ApiState>, Segment(queue): Segment) -> Result<Response, Failure> {
    let queue = queue_of(&queue)?;
    Ok(done(&queue, "removed", change_of(&state, &queue, Change::Purge(Some(Place::Dead))).await?))
}

/// `DELETE /v1/queues/{queue}/dead/{job}`
pub async fn remove(State(state): State<ApiState>, Segments((queue, job)): Segments) -> Result<Response, Failure> {
    let (queue, job) = (queue_of(&queue)?, job_of(&job)?);
    let found = super::desk(&state)?.keeper().admin.find(&queue, job).await?;
    if found.is_none_or(|seen| seen.place != Place::Dead) {
        return Err(unknown_dead(&queue, job));
    }
    Ok(done(&queue, "removed", change_of(&state, &queue, Change::Remove(job)).await?))
}

/// `PUT /v1/queues/{queue}/dead/{job}`: the body is the new data.
pub async fn edit(
    State(state): State<ApiState>,
    Segments((queue, job)): Segments,
    mut query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let path = format!("/v1/queues/{queue}/dead/{job}");
    let (queue, job) = (queue_of(&queue)?, job_of(&job)?);
    let body = body::read(&headers, body, state.limits.frame, "max_frame").await?;
    let content = publish::content(&state.limits, &path, &mut query, &headers, &body)?;
    let body = content.put(queue.clone(), JobTerms::default(), &state.limits)?.body;
    match change_of(&state, &queue, Change::Edit { job, body }).await? {
        0 => Err(unknown_dead(&queue, job)),
        count => Ok(done(&queue, "edited", count)),
    }
}

/// What is sent back.
struct Redrive {
    jobs: Option<Vec<JobId>>,
    cause: Option<Death>,
    limit: u64,
    /// A second.
    rate: Option<f64>,
}

/// `POST /v1/queues/{queue}/dead/redrive`: these jobs, or the oldest, with a rate so many a second. It answers when it is
/// done, or after a minute with how many are.
pub async fn redrive(
    State(state): State<ApiState>,
    Segment(queue): Segment,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let queue = queue_of(&queue)?;
    let body = body::read(&headers, body, state.limits.batch_body, "max_batch_body").await?;
    let Redrive { jobs, cause, limit, rate } = read(if body.is_empty() { b"{}" } else { &body }, state.limits.depth)?;
    let begun = Instant::now();
    let mut left = jobs.as_ref().map_or(limit, |jobs| limit.min(jobs.len() as u64));
    let mut jobs = jobs.map(|jobs| jobs.into_iter());
    let mut redriven = 0;
    while left > 0 && begun.elapsed() < LONGEST {
        // Within a rate, as many as its time has come for; at least one.
        let due = rate.map_or(u64::from(MOST), |rate| {
            ((begun.elapsed() + STEP).as_secs_f64() * rate).ceil() as u64 - redriven.min(u64::MAX / 2)
        });
        let count = due.clamp(1, MOST.into()).min(left) as usize;
        let some = jobs.as_mut().map(|jobs| jobs.by_ref().take(count).collect());
        let met = change_of(&state, &queue, Change::Redrive { jobs: some, cause, limit: count }).await?;
        redriven += met;
        left -= count as u64;
        // There are no more, or the queue is full.
        if jobs.is_none() && met < count as u64 {
            break;
        }
        if left > 0
            && let Some(rate) = rate
        {
            let next = Duration::try_from_secs_f64(redriven as f64 / rate).unwrap_or(LONGEST);
            tokio::time::sleep_until(begun + next.min(LONGEST)).await;
        }
    }
    Ok(done(&queue, "redriven", redriven))
}

fn read(text: &[u8], depth: usize) -> Result<Redrive, Problem> {
    let bad = |text: &str| Problem::new(Reason::BadFrame, text);
    let mut members = Members::read(text, "a redrive", depth)?;
    let number = |raw: Option<&RawValue>| raw.and_then(|raw| serde_json::from_str::<f64>(raw.get()).ok());
    let jobs = match members.take("jobs") {
        None => None,
        Some(raw) => {
            let names: Vec<String> =
                serde_json::from_str(raw.get()).map_err(|_| bad("\"jobs\" is an array of ids, like [\"k3.41\"]"))?;
            Some(names.iter().map(|name| job_of(name)).collect::<Result<Vec<_>, _>>()?)
        }
    };
    let cause = members.text("cause")?.map(|word| {
        Death::parse(&word).ok_or_else(|| {
            let words: Vec<&str> = Death::ALL.iter().map(|death| death.as_str()).collect();
            bad(&format!("\"cause\" is one of {}, not {:?}", words.join(", "), clip(&word)))
        })
    });
    let limit = match members.take("limit") {
        None => MOST_REDRIVEN,
        some => number(some)
            .filter(|n| *n >= 1.0 && n.fract() == 0.0)
            .map(|n| (n as u64).min(MOST_REDRIVEN))
            .ok_or_else(|| bad("\"limit\" is a whole number of jobs, at least 1"))?,
    };
    let rate = match members.take("rate") {
        None => None,
        some => Some(
            number(some)
                .filter(|n| (0.01..=1e6).contains(n))
                .ok_or_else(|| bad("\"rate\" is a number of jobs a second, 0.01 to 1000000"))?,
        ),
    };
    if let Some(name) = members.left().first() {
        return Err(bad(&format!("{name:?} is nothing that a redrive knows; it takes jobs, cause, limit and rate")));
    }
    Ok(Redrive { jobs, cause: cause.transpose()?, limit, rate })
}

fn unknown_dead(queue: &Queue, job: JobId) -> Failure {
    Failure::not_found(format!("{queue} has no dead letter {job}: it was redriven, removed or displaced, or never was"))
}
