//! `GET /v1/sse`: topics as Server-Sent Events. The request is judged here; what may be answered at once is, with a
//! problem document, before any stream begins. Then the socket goes to a shard like a WebSocket's.

use std::convert::Infallible;
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::event_stream::Trail;
use super::{Arrival, Door, Gateway, Slot, counters, upgrade};
use crate::document;
use crate::domain::bookmark::{Bookmark, Tag};
use crate::domain::command::{Command, Refusal, Request};
use crate::domain::error::{Problem, Reason};
use crate::domain::event::Event;
use crate::domain::limits::Limits;
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::domain::store::ReadFrom;
use crate::protocol;
use crate::web::{self, Failure, HandOver};

const PATH: &str = "/v1/sse";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Clients come back after this, and up to `SPREAD` more: they have no jitter of their own.
const RETRY: Duration = Duration::from_secs(1);
const SPREAD: u64 = 3_000;
/// Parameters of the URL that are named when they are not understood.
const MOST_NAMED: usize = 8;

/// `/v1/sse`, behind the gate that all HTTP is behind.
pub fn routes(gateway: Gateway) -> Router {
    let access = gateway.inner.access.clone();
    web::gated(Router::new().route(PATH, get(open).fallback(no_method)).with_state(gateway), access)
}

async fn no_method(method: Method) -> Failure {
    let text = format!("{method} is not for {PATH}; it takes GET");
    Failure::not_found(text)
        .status(StatusCode::METHOD_NOT_ALLOWED)
        .header(header::ALLOW, HeaderValue::from_static("GET"))
}

async fn open(
    State(gateway): State<Gateway>,
    method: Method,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let is_event_source = accepts(&headers)?;
    let wish = Wish::read(query.as_deref().unwrap_or(""), &headers, &gateway)?;
    if method == Method::HEAD {
        // Not an empty body, whose length would be told.
        return Ok(stream_response(Body::from_stream(futures::stream::empty::<Result<Bytes, Infallible>>())));
    }
    let slot = match gateway.room() {
        Ok(slot) => slot,
        // An `EventSource` gives up for good at every status but 200.
        Err(problem) if is_event_source => return Ok(come_back(problem, &wish, &gateway)),
        Err(problem) => return Err(Failure::from(problem).status(StatusCode::SERVICE_UNAVAILABLE)),
    };
    let trail = wish.trail(slot.number);
    let mut response = stream_response(Body::empty());
    response.extensions_mut().insert(HandOver::new(move |stream, head| {
        match gateway.prepare(stream) {
            Ok(stream) => {
                let door = Door::EventStream { head, trail };
                let arrival = Arrival { stream, door, requests: wish.requests(), slot };
                tokio::spawn(async move { gateway.hand_over(arrival).await });
            }
            Err(error) => tracing::debug!(%error, "a socket could not be handed over"),
        };
    }));
    Ok(response)
}

impl Gateway {
    /// A place for one more stream, unless this node takes none now.
    fn room(&self) -> Result<Slot, Problem> {
        if self.inner.draining.load(Ordering::Relaxed) {
            return Err(upgrade::leaving());
        }
        let slot = self.place(counters::SSE).filter(|_| !self.is_full());
        slot.ok_or_else(|| self.crowded().retry_after(RETRY))
    }

    /// A peer that is gone without a word is seen by the kernel: it does not take our heartbeats.
    fn prepare(&self, stream: TcpStream) -> std::io::Result<std::net::TcpStream> {
        let stream = upgrade::prepare(stream)?;
        let limits = &self.inner.limits;
        SockRef::from(&stream).set_tcp_user_timeout(Some(limits.ping + limits.pong))?;
        Ok(stream)
    }
}

fn stream_response(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        // nginx would hold events back.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

/// A stream that only says why it is over already, and asks the client to come back.
fn come_back(problem: Problem, wish: &Wish, gateway: &Gateway) -> Response {
    counters::count_refused(counters::SSE, problem.reason);
    let trail = wish.trail(gateway.inner.numbers.fetch_add(1, Ordering::Relaxed));
    let event = Event::Error { id: None, verb: Some("sub"), about: None, problem };
    let frame = protocol::codec(Some(protocol::EVENT_STREAM), &gateway.inner.limits).encode(&event);
    let frame = trail.stamped(&frame, None).unwrap_or(frame);
    stream_response(Body::from([trail.retry_line(), frame].concat()))
}

/// Whether the client asked for an event stream by name; an error if it takes none.
fn accepts(headers: &HeaderMap) -> Result<bool, Failure> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    let kinds: Vec<String> =
        values.map(|v| v.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()).collect();
    let has = |kind: &str| kinds.iter().any(|k| k == kind);
    if has("text/event-stream") {
        return Ok(true);
    }
    if kinds.is_empty() || has("*/*") || has("text/*") {
        return Ok(false);
    }
    let text = format!("{PATH} answers text/event-stream; say so in Accept, or leave it out");
    Err(Failure::new(Reason::BadFrame, text).status(StatusCode::NOT_ACCEPTABLE))
}

/// What a request asks for.
#[derive(Debug)]
struct Wish {
    topics: Vec<(Topic, Option<ReadFrom>)>,
    ignored: Vec<String>,
}

impl Wish {
    fn read(query: &str, headers: &HeaderMap, gateway: &Gateway) -> Result<Wish, Problem> {
        let Query { topics, after, last, since, ignored } = Query::read(query, &gateway.inner.limits)?;
        if topics.is_empty() {
            let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("localhost:8080");
            let text = format!("no topic: curl -N 'http://{host}{PATH}?topic=news'");
            return Err(Problem::new(Reason::MissingData, text));
        }
        let alone = topics.len() == 1;
        if let Some(after) = &after
            && topics.iter().all(|topic| after.of(topic, alone).is_none())
        {
            let text = "\"after\" holds none of these topics; send back an id of a stream of theirs, \
                        or, for one topic, an \"at\"";
            return Err(Problem::new(Reason::BadFrame, text));
        }
        let header = last_event_id(headers, alone);
        let start = |topic: &Topic| match &header {
            // It came by itself and cannot be mended: a refusal would end the stream for good. Nothing is resumed,
            // and that is told.
            Some(Err(())) => Some(ReadFrom::After(Position::NOWHERE)),
            Some(Ok(mark)) if let Some(at) = mark.of(topic, alone) => Some(ReadFrom::After(at)),
            _ => after.as_ref().and_then(|mark| mark.of(topic, alone)).map(ReadFrom::After).or(last).or(since),
        };
        let topics = topics.into_iter().map(|topic| {
            let from = start(&topic);
            (topic, from)
        });
        Ok(Wish { topics: topics.collect(), ignored })
    }

    /// What the stream's ids begin with. `number`: of the connection, so that many do not come back at once.
    fn trail(&self, number: u64) -> Trail {
        let topics = self.topics.iter().map(|(topic, from)| match from {
            Some(ReadFrom::After(at)) => (topic.clone(), Some(*at)),
            _ => (topic.clone(), None),
        });
        let jitter = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % SPREAD;
        Trail::new(topics, RETRY + Duration::from_millis(jitter))
    }

    fn requests(&self) -> Vec<Result<Request, Refusal>> {
        let request = |(topic, from): &(Topic, Option<ReadFrom>)| {
            let command = Command::Subscribe { topics: vec![topic.clone()], from: *from, cursor: None };
            Ok(Request { id: None, command, ignored: self.ignored.clone() })
        };
        self.topics.iter().map(request).collect()
    }
}

/// `None`: there is none; an error: it is none of ours, or not one for these topics.
fn last_event_id(headers: &HeaderMap, alone: bool) -> Option<Result<Bookmark, ()>> {
    let value = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty())?;
    Some(match value.to_str().ok().and_then(|text| text.parse().ok()) {
        Some(Bookmark::One(_)) if !alone => Err(()),
        Some(mark) => Ok(mark),
        None => Err(()),
    })
}

/// The parameters of the URL.
struct Query {
    topics: Vec<Topic>,
    after: Option<Bookmark>,
    last: Option<ReadFrom>,
    since: Option<ReadFrom>,
    ignored: Vec<String>,
}

impl Query {
    fn read(query: &str, limits: &Limits) -> Result<Query, Problem> {
        // As many as a connection may ask for at once.
        let most = limits.array.min(limits.subscriptions).min(limits.burst as usize);
        let mut found = Query { topics: Vec::new(), after: None, last: None, since: None, ignored: Vec::new() };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "topic" => found.add(Topic::parse(&value)?, most)?,
                "user" => found.add(Topic::of_user(&value)?, most)?,
                "after" if value.is_empty() => {}
                "after" => once(&mut found.after, "after", parse(&value)?)?,
                "last" => once(&mut found.last, "last", ReadFrom::Last(number(&value, limits.history)?))?,
                "since" => {
                    let since = document::since(&value, document::now())?;
                    once(&mut found.since, "since", ReadFrom::Since(since))?;
                }
                _ if found.ignored.len() < MOST_NAMED => found.ignored.push(name.chars().take(40).collect()),
                _ => {}
            }
        }
        let given = [found.after.is_some(), found.last.is_some(), found.since.is_some()];
        match given.into_iter().filter(|given| *given).count() {
            0 | 1 => Ok(found),
            _ => Err(bad("\"after\", \"last\" and \"since\" exclude one another; send one")),
        }
    }

    fn add(&mut self, topic: Topic, most: usize) -> Result<(), Problem> {
        if self.topics.contains(&topic) {
            return Ok(());
        }
        if self.topics.len() == most {
            let text = format!("a stream has at most {most} topics (max_array); open another, or use a WebSocket");
            return Err(Problem::new(Reason::TooMany, text));
        }
        if let Some(other) = self.topics.iter().find(|other| Tag::of(other) == Tag::of(&topic)) {
            return Err(bad(&format!("{topic} and {other} cannot be told apart in one stream; open two")));
        }
        self.topics.push(topic);
        Ok(())
    }
}

fn parse(text: &str) -> Result<Bookmark, Problem> {
    Bookmark::from_str(text).map_err(|error| bad(&format!("\"after\": {error}")))
}

fn number(text: &str, most: u32) -> Result<u32, Problem> {
    let number = text.parse().ok().filter(|number| *number <= most);
    number.ok_or_else(|| bad(&format!("\"last\" is a whole number from 0 to {most}")))
}

fn once<T>(place: &mut Option<T>, name: &str, value: T) -> Result<(), Problem> {
    match place.replace(value) {
        Some(_) => Err(bad(&format!("the parameter {name:?} stands twice"))),
        None => Ok(()),
    }
}

fn bad(text: &str) -> Problem {
    Problem::new(Reason::BadFrame, text)
}
