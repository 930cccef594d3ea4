//! Whether this process lives, and whether it should be sent work.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use crate::domain::error::{Problem, Reason};
use crate::hub::Hub;
use crate::web::Failure;

/// What keeps this node from serving well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// `store`, `feed`, `ingest`, `drain`.
    pub part: &'static str,
    pub text: String,
}

/// Asked on each `/readyz`: the troubles of all parts but the store, which is asked by itself. Empty when there are none.
pub type Troubles = Arc<dyn Fn() -> Vec<Trouble> + Send + Sync>;

#[derive(Clone)]
pub struct Health {
    pub hub: Hub,
    pub troubles: Troubles,
}

/// `/healthz`: the process answers, which is all that a supervisor should restart it for.
pub async fn alive() -> &'static str {
    "ok\n"
}

/// `/readyz`: whether a load balancer should send new connections here.
pub async fn ready(State(health): State<Health>) -> Result<Response, Failure> {
    let status = health.hub.status();
    let store = status.trouble.into_iter().map(|text| Trouble { part: "store", text });
    let troubles: Vec<Trouble> = store.chain((health.troubles)()).collect();
    if troubles.is_empty() {
        return Ok(Json(json!({ "ready": true, "store": status.kind })).into_response());
    }
    let text = troubles.iter().map(|t| format!("{}: {}", t.part, t.text)).collect::<Vec<_>>().join("; ");
    let problem = Problem::new(Reason::Unavailable, text).retry_after(std::time::Duration::from_secs(1));
    Err(Failure::from(problem).with("ready", false.into()).with("trouble", json!(troubles)))
}
