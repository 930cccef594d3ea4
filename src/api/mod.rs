//! The HTTP API under `/v1`, health, and the admin routes. Messages and documents are `document`'s, storing is the hub's;
//! here are paths, headers and statuses.

mod advice;
mod body;
mod cursors;
mod dead;
mod health;
mod publish;
mod query;
mod queues;
mod schedules;
mod topics;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRef, FromRequestParts, MatchedPath, Path};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde::de::DeserializeOwned;

pub use self::health::{Health, Trouble, Troubles};
pub use self::schedules::Schedules;
use crate::domain::access::Access;
use crate::domain::dead::DeadLetters;
use crate::domain::error::Reason;
use crate::domain::limits::Limits;
use crate::hub::Hub;
use crate::web::{Failure, gated};

/// What the routes need.
#[derive(Clone)]
pub struct ApiState {
    pub hub: Hub,
    /// `None`: nothing is taken in by a Redis client.
    pub dead: Option<Arc<dyn DeadLetters>>,
    pub access: Arc<Access>,
    pub limits: Arc<Limits>,
    pub troubles: Troubles,
}

impl FromRef<ApiState> for Health {
    fn from_ref(state: &ApiState) -> Health {
        Health { hub: state.hub.clone(), troubles: state.troubles.clone() }
    }
}

/// The description of what is below, OpenAPI 3.1.
pub const OPENAPI: &str = include_str!("openapi.json");

const OWN: &[(&str, &str)] = &[
    ("POST", "/v1/messages"),
    ("GET, POST", "/v1/topics/{topic}/messages"),
    ("GET", "/v1/topics/{topic}/messages/{at}"),
    ("GET", "/v1/topics/{topic}/cursors"),
    ("DELETE, GET, POST, PUT", "/v1/topics/{topic}/cursors/{cursor}"),
    ("POST", "/v1/users/{id}/messages"),
    // The gateway's: it leads to a shard.
    ("GET", "/v1/sse"),
    ("GET", "/v1/ingest/dead"),
    ("DELETE", "/v1/ingest/dead/{id}"),
    ("POST", "/v1/ingest/dead/{id}/retry"),
    ("GET", "/v1/schedules"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/openapi.json"),
];

/// Every described route with its methods: for what is told to who misses one, and compared with the description.
pub fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    OWN.iter().chain(queues::ROUTES).copied()
}

/// The routes of the public address. It answers what it does not know, so merge other routes into it.
pub fn router(state: ApiState) -> Router {
    let access = state.access.clone();
    let routes = Router::new()
        .route("/v1/messages", post(publish::documents))
        .route("/v1/topics/{topic}/messages", post(publish::to_topic).get(topics::messages))
        .route("/v1/topics/{topic}/messages/{at}", get(topics::message))
        .route("/v1/topics/{topic}/cursors", get(cursors::list))
        .route(
            "/v1/topics/{topic}/cursors/{cursor}",
            get(cursors::show).put(cursors::commit).post(cursors::commit).delete(cursors::remove),
        )
        .route("/v1/users/{id}/messages", post(publish::to_user))
        .route("/v1/ingest/dead", get(dead::list))
        .route("/v1/ingest/dead/{id}", delete(dead::drop))
        .route("/v1/ingest/dead/{id}/retry", post(dead::retry))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/openapi.json", get(description))
        .merge(queues::router())
        .with_state(state);
    guarded(routes, access)
}

/// `/v1/schedules`, to be merged into the public routes: the scheduler is a part beside the hub.
pub fn schedules_router(access: Arc<Access>, schedules: Schedules) -> Router {
    let list = move |query| schedules::list(schedules, query);
    gated(Router::new().route("/v1/schedules", get(list)), access)
}

/// The routes of the admin address. `render` writes the metrics.
pub fn admin_router(health: Health, access: Arc<Access>, render: Arc<dyn Fn() -> String + Send + Sync>) -> Router {
    guarded(admin_routes(render).route("/healthz", get(health::alive)).merge(readiness(health)), access)
}

/// `/metrics` alone, to be merged into the public routes where both share an address.
pub fn metrics_router(access: Arc<Access>, render: Arc<dyn Fn() -> String + Send + Sync>) -> Router {
    gated(admin_routes(render), access)
}

fn admin_routes(render: Arc<dyn Fn() -> String + Send + Sync>) -> Router {
    let metrics =
        move || async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], render()) };
    Router::new().route("/metrics", get(metrics))
}

fn readiness(health: Health) -> Router {
    Router::new().route("/readyz", get(health::ready)).with_state(health)
}

fn guarded(routes: Router, access: Arc<Access>) -> Router {
    gated(routes.fallback(no_route).method_not_allowed_fallback(no_method), access)
}

async fn description() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn no_route(method: Method, uri: Uri) -> Failure {
    let routes: Vec<String> = routes().map(|(methods, path)| format!("{methods} {path}")).collect();
    let path = query::clip(uri.path());
    Failure::not_found(format!("there is no {method} {path:?}; there are {}", routes.join(" · ")))
}

async fn no_method(method: Method, path: MatchedPath) -> Failure {
    let methods = routes().find(|(_, route)| *route == path.as_str()).map_or("GET", |(methods, _)| methods);
    let text = format!("{method} is not for {}; it takes {methods}", path.as_str());
    let allow = HeaderValue::from_str(methods).expect("methods are ASCII");
    Failure::not_found(text).status(StatusCode::METHOD_NOT_ALLOWED).header(header::ALLOW, allow)
}

/// A segment of the path, decoded.
struct Segment(String);

/// Two segments of the path, decoded.
struct Segments((String, String));

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Segment, Failure> {
        decoded(parts, state).await.map(Segment)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Segments {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Segments, Failure> {
        decoded(parts, state).await.map(Segments)
    }
}

async fn decoded<T: DeserializeOwned + Send, S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<T, Failure> {
    let path = Path::<T>::from_request_parts(parts, state).await;
    path.map(|Path(segments)| segments).map_err(|error| Failure::new(Reason::BadName, error.to_string()))
}
