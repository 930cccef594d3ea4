//! Serves `static/` out of the binary, with a policy that lets the page speak to this hub and to nobody else.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use include_dir::{Dir, include_dir};
use serde::Serialize;

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/static");

/// What the page must know of the hub it came from (`/demo.json`).
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    pub http: String,
    pub ws: String,
    /// `None`: no Redis client can publish without a Redis.
    pub redis: Option<String>,
    pub prefix: String,
    pub stream: String,
    pub list: String,
    pub version: &'static str,
    pub vitals: bool,
    pub store: &'static str,
}

/// `/`, the lab, the files and `/demo.json`.
pub fn routes(facts: Facts) -> Router {
    let page = |name: &'static str| get(move |headers: HeaderMap| async move { file(name, &headers) });
    let mut routes = Router::new()
        .route("/", page("index.html"))
        .route("/lab", page("lab/index.html"))
        .route("/lab/", get(async || Redirect::permanent("../lab")));
    // Each file is a route of its own, so that what does not exist is told by the API like any other path.
    for found in FILES.files().chain(FILES.dirs().flat_map(Dir::files)) {
        if let Some(name) = found.path().to_str() {
            routes = routes.route(&format!("/{name}"), get(named));
        }
    }
    routes.route("/demo.json", get(facts_of)).with_state(Arc::new(facts))
}

/// The facts, with the addresses under which this visitor reached the hub.
async fn facts_of(State(facts): State<Arc<Facts>>, headers: HeaderMap) -> Response {
    let mut facts = (*facts).clone();
    if let Some(host) = headers.get(header::HOST).and_then(|h| h.to_str().ok()) {
        facts.http = format!("http://{host}");
        facts.ws = format!("ws://{host}/ws");
    }
    axum::Json(facts).into_response()
}

async fn named(uri: Uri, headers: HeaderMap) -> Response {
    file(uri.path().trim_start_matches('/'), &headers)
}

fn file(name: &str, headers: &HeaderMap) -> Response {
    let Some(found) = FILES.get_file(name) else { return StatusCode::NOT_FOUND.into_response() };
    let kind = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    };
    let mut response = Response::new(Body::from(found.contents()));
    let set = response.headers_mut();
    set.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    set.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    set.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    set.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Ok(policy) = HeaderValue::from_str(&policy(headers)) {
        set.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// Nothing from other hosts, nothing inline. Not every browser counts a WebSocket of the same host as `'self'`.
fn policy(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    let is_plain = |h: &&str| h.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-[]".contains(&b));
    let socket = host.filter(is_plain).map(|h| format!(" ws://{h} wss://{h}")).unwrap_or_default();
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'{socket}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}
