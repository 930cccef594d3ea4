//! The gate before every route: the judgement of `Host` and `Origin`, and CORS for whom it lets in.
//!
//! It stands outermost, so that a refused request has done nothing, be it a form, a `text/plain` post that browsers send
//! without asking first, or a plain GET.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower::ServiceBuilder;
use tower_http::cors::{AllowOrigin, AllowPrivateNetwork, CorsLayer};
use tower_http::set_header::SetResponseHeaderLayer;

use super::failure::Failure;
use crate::domain::access::{Access, Refusal};

/// How long browsers may remember the answer to their first question.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

/// Routes behind the gate, and what every answer says to browsers: do not guess its type, do not embed it, do not keep it.
pub fn gated(routes: Router, access: Arc<Access>) -> Router {
    let set = |name, value| SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value));
    routes.layer(
        ServiceBuilder::new()
            .layer(set(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .layer(set(header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"))
            .layer(set(header::CACHE_CONTROL, "no-store"))
            .layer(from_fn_with_state(access, guard))
            .layer(cors()),
    )
}

/// Judges what came with a request.
pub fn judge(access: &Access, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let host = only(headers, &header::HOST).map_err(Refusal::Host)?;
    let origin = only(headers, &header::ORIGIN).map_err(Refusal::Origin)?;
    // A target like `http://name/path` names the host, whatever the header says; neither may be a stranger.
    if let Some(authority) = uri.authority() {
        access.judge(Some(authority.as_str()), None)?;
    }
    access.judge(host, origin)
}

async fn guard(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    if let Err(refusal) = judge(&access, request.uri(), request.headers()) {
        tracing::debug!(path = request.uri().path(), %refusal, "refused at the gate");
        let vary = HeaderValue::from_static("origin");
        return Failure::from(refusal).header(header::VARY, vary).into_response();
    }
    next.run(request).await
}

/// CORS headers for requests that have passed the guard: their origin is one that may read the answers.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request())
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([
            header::CONTENT_TYPE,
            header::AUTHORIZATION,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers([header::LOCATION, header::RETRY_AFTER])
        .allow_private_network(AllowPrivateNetwork::yes())
        .max_age(PREFLIGHT_AGE)
}

/// A header that may stand once. What is no text cannot be right and is judged as it looks.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, String> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            value.to_str().map(Some).map_err(|_| format!("the header {name} holds bytes that are no ASCII text"))
        }
        _ => Err(format!("the header {name} stands twice")),
    }
}
