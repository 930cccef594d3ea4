//! From an HTTP request to a socket of ours: judges it, answers the handshake, and takes the bare TCP stream out of the
//! HTTP server. Whoever is refused learns why in a form that it can read.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::TcpStream;
use tungstenite::handshake::derive_accept_key;

use super::{Arrival, Door, Gateway, counters};
use crate::document;
use crate::domain::command::{Command, Refusal, Request, Subject, UseCursor};
use crate::domain::error::{CloseCode, Problem, Reason};
use crate::domain::name::Topic;
use crate::domain::store::ReadFrom;
use crate::protocol;
use crate::web::{self, Failure, Socket};

/// Unsent bytes that the kernel holds for one socket; beyond it we see that the peer is slow.
const UNSENT: u32 = 128 * 1024;
/// Parameters of the URL that are named when they are not understood.
const MOST_NAMED: usize = 8;

/// `/ws`.
pub fn routes(gateway: Gateway) -> Router {
    Router::new().route("/ws", any(answer)).with_state(gateway)
}

/// Takes the handshakes on `/` away from the routes that otherwise answer there. It stands before their gate, since a
/// browser cannot read what a gate answers to a handshake.
pub fn beside(gateway: Gateway, routes: Router) -> Router {
    routes.layer(from_fn_with_state(gateway, divert))
}

async fn divert(State(gateway): State<Gateway>, request: HttpRequest, next: Next) -> Response {
    match request.uri().path() == "/" && Gateway::wants_upgrade(request.headers()) {
        true => gateway.upgrade(request),
        false => next.run(request).await,
    }
}

async fn answer(State(gateway): State<Gateway>, request: HttpRequest) -> Response {
    gateway.upgrade(request)
}

impl Gateway {
    /// Whether a request asks for a WebSocket.
    fn wants_upgrade(headers: &HeaderMap) -> bool {
        has_token(headers, header::UPGRADE, "websocket")
    }

    /// Answers a request for a WebSocket and takes its socket over.
    fn upgrade(&self, mut request: HttpRequest) -> Response {
        let headers = request.headers();
        let accept = match handshake(request.method(), headers) {
            Ok(accept) => accept,
            Err((status, text)) => return refuse_handshake(status, text),
        };
        let subprotocol =
            protocol::choose(header_text(headers, header::SEC_WEBSOCKET_PROTOCOL).unwrap_or("").split(','));
        let slot = self.place(counters::WEBSOCKET);
        let refused = self.judge(request.uri(), headers, slot.is_none() || self.is_full()).err();
        // A browser reads nothing but the close code of a socket that was open.
        let is_browser = headers.contains_key(header::ORIGIN) || subprotocol.is_some();
        let (Some(slot), true) = (slot, refused.is_none() || is_browser) else {
            return refused.expect("without a place it is refused").1.into_response();
        };
        let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
            return Failure::new(Reason::Internal, "this connection cannot be upgraded").into_response();
        };
        let (requests, batch) = opening(request.uri().query().unwrap_or(""), self.inner.limits.array);
        let refuse = refused.map(|(code, failure)| {
            tracing::debug!(?failure, "upgraded only to be told why not");
            counters::count_refused(counters::WEBSOCKET, failure.reason());
            code
        });
        let gateway = self.clone();
        tokio::spawn(async move {
            match take_over(upgrade).await {
                Ok((stream, read_ahead)) => {
                    let requests = if refuse.is_some() { Vec::new() } else { requests };
                    let door = Door::WebSocket { read_ahead, subprotocol, batch, refuse };
                    gateway.hand_over(Arrival { stream, door, requests, slot }).await;
                }
                Err(error) => tracing::debug!(%error, "an upgrade came to nothing"),
            }
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(subprotocol) = subprotocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
        }
        response
    }

    fn judge(&self, uri: &Uri, headers: &HeaderMap, full: bool) -> Result<(), (CloseCode, Failure)> {
        if self.inner.draining.load(Ordering::Relaxed) {
            return Err((CloseCode::Drain, leaving().into()));
        }
        web::judge(&self.inner.access, uri, headers).map_err(|refusal| (CloseCode::Origin, refusal.into()))?;
        if full {
            let failure = Failure::from(self.crowded()).status(StatusCode::SERVICE_UNAVAILABLE);
            return Err((CloseCode::Limit, failure));
        }
        Ok(())
    }

    /// The node is full.
    pub(super) fn crowded(&self) -> Problem {
        let most = self.inner.limits.connections;
        let text = match self.inner.budget.is_spent() {
            true => "as much waits for the connections of this node as may (--memory-limit); try another".into(),
            false => format!("this node has its {most} connections (--max-connections); try another"),
        };
        Problem::new(Reason::TooMany, text)
    }
}

/// The node goes down.
pub(super) fn leaving() -> Problem {
    let problem = Problem::new(Reason::Unavailable, "this node is shutting down; connect to another, or again");
    problem.retry_after(Duration::from_secs(1))
}

/// The value of `Sec-WebSocket-Accept`, or what the request lacks.
fn handshake(method: &Method, headers: &HeaderMap) -> Result<HeaderValue, (StatusCode, String)> {
    let host = header_text(headers, header::HOST).unwrap_or("localhost:8080");
    if !Gateway::wants_upgrade(headers) {
        let text = format!(
            "this address speaks WebSocket: new WebSocket(\"ws://{host}/ws\") in a browser, or: wscat -c 'ws://{host}/ws?sub=news'"
        );
        return Err((StatusCode::UPGRADE_REQUIRED, text));
    }
    let bad = |text: &str| Err((StatusCode::BAD_REQUEST, text.to_string()));
    if method != Method::GET {
        return bad("a WebSocket handshake is a GET");
    }
    if !has_token(headers, header::CONNECTION, "upgrade") {
        return bad("the header \"Connection: Upgrade\" is missing; a proxy in between must pass it on");
    }
    if header_text(headers, header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err((StatusCode::UPGRADE_REQUIRED, "\"Sec-WebSocket-Version\" must be 13".into()));
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        return bad("the header \"Sec-WebSocket-Key\" is missing");
    };
    HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .or_else(|_| bad("the header \"Sec-WebSocket-Key\" is malformed"))
}

async fn take_over(
    upgrade: OnUpgrade,
) -> Result<(std::net::TcpStream, bytes::Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let upgraded = upgrade.await?;
    let parts = upgraded.downcast::<TokioIo<Socket>>().map_err(|_| "not a socket of this server")?;
    // Copied, so that the HTTP server's read buffer is let go.
    let read_ahead = bytes::Bytes::copy_from_slice(&parts.read_buf);
    let stream = parts.io.inner().take().ok_or("the socket is gone")?;
    Ok((prepare(stream)?, read_ahead))
}

/// A socket as shards want it.
pub(super) fn prepare(stream: TcpStream) -> std::io::Result<std::net::TcpStream> {
    let stream = stream.into_std()?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT)?;
    Ok(stream)
}

/// What the URL asks for: `?sub=news&after=k3.41`, at most so many `sub` one after the other, `batch=1`.
fn opening(query: &str, most: usize) -> (Vec<Result<Request, Refusal>>, bool) {
    let mut wishes: Vec<Wish> = Vec::new();
    let (mut batch, mut ignored) = (false, Vec::new());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match (&*name, wishes.last_mut()) {
            ("sub", _) => wishes.push(Wish { topic: value.into_owned(), ..Wish::default() }),
            ("batch", _) => batch = value == "1",
            ("after", Some(_)) if value.is_empty() => {}
            ("after", Some(wish)) => wish.from = Some(value.parse().map(ReadFrom::After).map_err(Problem::from)),
            ("last", Some(wish)) => {
                let wrong = |_| Problem::new(Reason::BadFrame, "\"last\" in the URL is a whole number");
                wish.from = Some(value.parse().map(ReadFrom::Last).map_err(wrong));
            }
            ("cursor", Some(wish)) => wish.cursor = Some(value.into_owned()),
            ("first", Some(wish)) => wish.first = Some(value.into_owned()),
            ("since", Some(wish)) => {
                wish.from = Some(document::since(&value, document::now()).map(ReadFrom::Since));
            }
            // They come back in every answer.
            _ if ignored.len() < MOST_NAMED => ignored.push(name.chars().take(40).collect::<String>()),
            _ => {}
        }
    }
    if wishes.len() > most {
        let text = format!("a URL holds at most {most} \"sub\", this one {}; send the others in frames", wishes.len());
        let problem = Problem::new(Reason::TooMany, text);
        return (vec![Err(Refusal { id: None, verb: Some("sub"), about: None, problem })], batch);
    }
    let requests = wishes.into_iter().map(|wish| {
        let name: Box<str> = wish.topic.chars().take(200).collect();
        let command = wish.command().map_err(|problem| Refusal {
            id: None,
            verb: Some("sub"),
            about: Some(Subject::Topic(name)),
            problem,
        })?;
        Ok(Request { id: None, command, ignored: ignored.clone() })
    });
    (requests.collect(), batch)
}

/// One `sub` of a URL, with what belongs to it.
#[derive(Default)]
struct Wish {
    topic: String,
    from: Option<Result<ReadFrom, Problem>>,
    cursor: Option<String>,
    first: Option<String>,
}

impl Wish {
    fn command(self) -> Result<Command, Problem> {
        let topic = Topic::parse(&self.topic)?;
        let from = self.from.transpose()?;
        let cursor = self.cursor.map(|name| UseCursor::read(&name, self.first.as_deref(), from)).transpose()?;
        Ok(Command::Subscribe { topics: vec![topic], from, cursor })
    }
}

fn header_text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|t| t.trim().eq_ignore_ascii_case(token))
}

fn refuse_handshake(status: StatusCode, text: String) -> Response {
    let failure = Failure::new(Reason::BadFrame, text).status(status);
    match status {
        StatusCode::UPGRADE_REQUIRED => failure
            .header(header::UPGRADE, HeaderValue::from_static("websocket"))
            .header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
            .into_response(),
        _ => failure.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_asks_for_no_more_than_one_frame_may_and_names_only_the_first_strangers() {
        let (requests, _) = opening(&format!("{}{}", "sub=a&".repeat(100), "x&".repeat(5_000)), 100);
        assert_eq!(requests.len(), 100);
        assert!(requests.iter().all(|r| r.as_ref().is_ok_and(|r| r.ignored.len() == MOST_NAMED)));
        let (requests, batch) = opening(&format!("{}batch=1", "sub=a&".repeat(101)), 100);
        let [Err(refusal)] = &requests[..] else { panic!("{requests:?}") };
        assert_eq!((refusal.problem.reason, batch), (Reason::TooMany, true));
    }
}
