//! Working by HTTP: a take that waits, and how deliveries end. A delivery's tag says all that is needed to settle it, at
//! whichever node.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::value::RawValue;

use super::{desk, json, queue_of};
use crate::api::{ApiState, Segment, body};
use crate::document::{self, Members, quote};
use crate::domain::error::{Problem, Reason};
use crate::domain::message::Body as Said;
use crate::domain::queue::{How, JobId, MOST_AT_ONCE, Queue, Settle, Settled};
use crate::hub::queues::{no_lease, request_name};
use crate::web::Failure;

/// How long a take may wait for jobs.
const LONGEST_WAIT: f64 = 60.0;
/// Bytes of a worker's name.
const NAME: usize = 64;
/// Bytes of a body that settles.
const SETTLEMENT: usize = 256 * 1024;

/// `POST /v1/queues/{queue}/take`: waits until there is a job, and takes those that are there. A client that goes away
/// meanwhile takes none.
pub async fn take(
    State(state): State<ApiState>,
    Segment(queue): Segment,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let queue = queue_of(&queue)?;
    let desk = desk(&state)?;
    let body = read(&state, &headers, body).await?;
    let mut members = Members::read(&body, "a take", state.limits.depth)?;
    let most = match number(&mut members, "max")? {
        None => 1,
        Some(most) if most >= 1.0 && most <= MOST_AT_ONCE as f64 && most.fract() == 0.0 => most as usize,
        Some(_) => return Err(bad(format!("\"max\" is a whole number from 1 to {MOST_AT_ONCE}")).into()),
    };
    let wait = match number(&mut members, "wait")? {
        None => Duration::ZERO,
        Some(wait) if (0.0..=LONGEST_WAIT).contains(&wait) => Duration::from_secs_f64(wait),
        Some(_) => return Err(bad(format!("\"wait\" is 0 to {LONGEST_WAIT} seconds")).into()),
    };
    let lease = lease(&mut members, "lease")?;
    // Two that do not say who they are must not share a seat.
    let worker = members.text("worker")?.unwrap_or_else(|| format!("http-{}", request_name()).into());
    if worker.is_empty() || worker.len() > NAME {
        return Err(bad(format!("\"worker\" is a name of 1 to {NAME} bytes")).into());
    }
    let jobs = desk.take_once(&queue, &worker, most, lease, wait).await;
    let mut out = format!("{{\"queue\":\"{queue}\"{},\"jobs\":[", ignored(&members)).into_bytes();
    for (i, job) in jobs.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&document::job(job, &tag(job.id, job.token)));
    }
    out.extend_from_slice(b"]}");
    Ok(json(out))
}

/// `POST /v1/queues/{queue}/ack`
pub async fn ack(state: State<ApiState>, queue: Segment, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    settle(state, queue, headers, body, "ack").await
}

/// `POST /v1/queues/{queue}/nack`
pub async fn nack(state: State<ApiState>, queue: Segment, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    settle(state, queue, headers, body, "nack").await
}

/// `POST /v1/queues/{queue}/term`
pub async fn term(state: State<ApiState>, queue: Segment, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    settle(state, queue, headers, body, "term").await
}

/// `POST /v1/queues/{queue}/extend`
pub async fn extend(
    state: State<ApiState>,
    queue: Segment,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    settle(state, queue, headers, body, "extend").await
}

async fn settle(
    State(state): State<ApiState>,
    Segment(queue): Segment,
    headers: HeaderMap,
    body: Body,
    verb: &'static str,
) -> Result<Response, Failure> {
    let queue = queue_of(&queue)?;
    let desk = desk(&state)?;
    let body = read(&state, &headers, body).await?;
    let mut members = Members::read(&body, "a settlement", state.limits.depth)?;
    let tags = tags(&mut members)?;
    let error = |members: &mut Members<'_>| -> Result<_, Problem> {
        Ok(members.text("text")?.map(|text| document::error_text(&text)))
    };
    let how = match verb {
        "ack" => How::Ack,
        "nack" => {
            let delay = members.take("delay").filter(|raw| raw.get() != "null");
            let delay = delay.map(|raw| document::delay(serde_json::from_str(raw.get()).ok())).transpose()?;
            How::Nack { delay, error: error(&mut members)? }
        }
        "term" => How::Term { error: error(&mut members)? },
        _ => How::Extend { by: lease(&mut members, "by")? },
    };
    let reply = if verb == "ack" { members.take("reply").map(document::reply_body) } else { None };
    let mut failed: Vec<(String, Problem)> = Vec::new();
    let mut known = Vec::with_capacity(tags.len());
    for text in tags {
        match parse_tag(&text) {
            Some((job, token)) => known.push((text, job, token)),
            None => failed.push((text, no_lease())),
        }
    }
    if let Some(reply) = reply {
        known = tell(&state, &queue, known, &reply, &mut failed).await;
    }
    let batch = known.iter().map(|(_, job, token)| Settle { job: *job, token: *token, how: how.clone() }).collect();
    let answers = desk.settle(&queue, batch).await;
    for ((text, ..), answer) in known.into_iter().zip(answers) {
        match answer {
            Ok(Settled::Done | Settled::Dead | Settled::Extended(_)) => {}
            Ok(Settled::NoLease | Settled::Gone) => failed.push((text, no_lease())),
            Err(error) => failed.push((text, error.into())),
        }
    }
    let told: Vec<String> =
        failed.iter().map(|(text, problem)| format!("{}:\"{}\"", quote(text), problem.reason)).collect();
    let told = if told.is_empty() { String::new() } else { format!(",\"failed\":{{{}}}", told.join(",")) };
    Ok(json(format!("{{\"ok\":\"{verb}\"{told}{}}}", ignored(&members))))
}

/// Tells a reply to whoever asked, before the job is done; gives the deliveries whose askers were told.
async fn tell(
    state: &ApiState,
    queue: &Queue,
    known: Vec<(String, JobId, u64)>,
    reply: &Said,
    failed: &mut Vec<(String, Problem)>,
) -> Vec<(String, JobId, u64)> {
    let mut told = Vec::with_capacity(known.len());
    for (text, job, token) in known {
        let done = async {
            let seen = desk(state)?.keeper().admin.find(queue, job).await?;
            let asked = seen.and_then(|seen| document::asked(&seen.body));
            if let Some(asked) = asked {
                // Only whoever has the job may answer for it.
                let lease = Settle { job, token, how: How::Extend { by: None } };
                let extended = desk(state)?.settle(queue, vec![lease]).await.pop();
                match extended.unwrap_or(Ok(Settled::NoLease))? {
                    Settled::Extended(_) => {}
                    _ => return Err(no_lease()),
                }
                state.hub.publish(document::reply(&asked, reply)).await?;
            }
            Ok::<(), Problem>(())
        };
        match done.await {
            Ok(()) => told.push((text, job, token)),
            Err(problem) => failed.push((text, problem)),
        }
    }
    told
}

async fn read(state: &ApiState, headers: &HeaderMap, body: Body) -> Result<Bytes, Failure> {
    let most = SETTLEMENT.max(state.limits.frame);
    let body = body::read(headers, body, most, "max_frame").await?;
    Ok(if body.trim_ascii().is_empty() { Bytes::from_static(b"{}") } else { body })
}

fn tags(members: &mut Members<'_>) -> Result<Vec<String>, Problem> {
    let raw = members.take("tag").or_else(|| members.take("tags")).map_or("", RawValue::get);
    let tags = match raw.starts_with('[') {
        true => serde_json::from_str::<Vec<String>>(raw).ok(),
        false => serde_json::from_str::<String>(raw).ok().map(|tag| vec![tag]),
    };
    match tags {
        Some(tags) if (1..=MOST_AT_ONCE).contains(&tags.len()) => Ok(tags),
        Some(tags) => {
            let text = format!("\"tag\" holds 1 to {MOST_AT_ONCE} tags, here are {}", tags.len());
            Err(Problem::new(Reason::TooMany, text))
        }
        None => Err(bad("\"tag\" is the tag of a job that was taken, or an array of them".into())),
    }
}

fn number(members: &mut Members<'_>, name: &str) -> Result<Option<f64>, Problem> {
    let Some(raw) = members.take(name).filter(|raw| raw.get() != "null") else { return Ok(None) };
    let number = serde_json::from_str(raw.get()).ok();
    number.map(Some).ok_or_else(|| bad(format!("{name:?} is a number, not {}", crate::api::query::clip(raw.get()))))
}

fn lease(members: &mut Members<'_>, name: &str) -> Result<Option<Duration>, Problem> {
    let Some(raw) = members.take(name).filter(|raw| raw.get() != "null") else { return Ok(None) };
    document::seconds(name, raw).and_then(|lease| document::lease(name, lease)).map(Some)
}

fn ignored(members: &Members<'_>) -> String {
    let names: Vec<String> = members.left().iter().map(|name| quote(name)).collect();
    if names.is_empty() { String::new() } else { format!(",\"ignored\":[{}]", names.join(",")) }
}

/// The job and its delivery.
fn tag(job: JobId, token: u64) -> String {
    format!("{job}.{token:x}")
}

fn parse_tag(text: &str) -> Option<(JobId, u64)> {
    let (job, token) = text.rsplit_once('.')?;
    Some((JobId(job.parse().ok()?), u64::from_str_radix(token, 16).ok()?))
}

fn bad(text: String) -> Problem {
    Problem::new(Reason::BadFrame, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_reads_back_as_it_was_written() {
        let job = JobId("k3.41".parse().unwrap());
        for token in [0, 7, u64::MAX] {
            assert_eq!(parse_tag(&tag(job, token)), Some((job, token)));
        }
        for text in ["", "d7", "k3.41", "k3.41.", "k3.41.xyz", "k3.41.1.2"] {
            assert_eq!(parse_tag(text), None, "{text:?}");
        }
    }
}
