//! `GET /v1/schedules`: what schedules there are, when each ran last and runs next.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::query::Query;
use crate::domain::schedule::{Seen, Target};
use crate::web::Failure;

/// Tells what this node knows of its schedules.
pub type Schedules = Arc<dyn Fn() -> Vec<Seen> + Send + Sync>;

pub async fn list(schedules: Schedules, query: Query) -> Result<Response, Failure> {
    let mut answer = json!({ "schedules": schedules().iter().map(shown).collect::<Vec<_>>() });
    let ignored: Vec<String> = query.left().collect();
    if !ignored.is_empty() {
        answer["ignored"] = ignored.into();
    }
    Ok(Json(answer).into_response())
}

fn shown(seen: &Seen) -> Value {
    let Seen { name, cron, timezone, target, catch_up, next, last } = seen;
    let mut out = json!({
        "name": name, "cron": cron, "timezone": timezone, "catch_up": catch_up, "next": next, "last": last,
    });
    match target {
        Target::Queue { queue, priority } => {
            out["queue"] = queue.as_str().into();
            out["priority"] = priority.level().into();
        }
        Target::Topic(topic) => out["topic"] = topic.as_str().into(),
    }
    out
}
