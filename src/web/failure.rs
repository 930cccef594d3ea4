//! From a reason to an HTTP answer: one match, and the problem document (RFC 9457) that every failure is told with.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::domain::access::Refusal;
use crate::domain::error::{Problem, Reason};
use crate::domain::store::StoreError;
use crate::telemetry::REFUSED;

/// A request that was not done.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    problem: Problem,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

pub fn status(reason: Reason) -> StatusCode {
    use Reason::*;
    match reason {
        BadFrame | BadJson | BadName | MissingData | UnknownVerb => StatusCode::BAD_REQUEST,
        Unauthorized | Expired => StatusCode::UNAUTHORIZED,
        Forbidden | Origin => StatusCode::FORBIDDEN,
        NotFound => StatusCode::NOT_FOUND,
        TooLarge | TooMany => StatusCode::PAYLOAD_TOO_LARGE,
        RateLimited => StatusCode::TOO_MANY_REQUESTS,
        NoLease | Conflict => StatusCode::CONFLICT,
        StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        Unconfirmed | Unavailable | Busy => StatusCode::SERVICE_UNAVAILABLE,
        Timeout => StatusCode::GATEWAY_TIMEOUT,
        Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl Failure {
    pub fn new(reason: Reason, text: impl Into<String>) -> Failure {
        Problem::new(reason, text).into()
    }

    /// Where HTTP has a more exact status than the reason.
    pub fn status(mut self, status: StatusCode) -> Failure {
        self.status = status;
        self
    }

    /// A member of the document that only this kind of failure has.
    pub fn with(mut self, name: &str, value: Value) -> Failure {
        self.members.insert(name.to_string(), value);
        self
    }

    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Failure {
        self.headers.push((name, value));
        self
    }

    pub fn reason(&self) -> Reason {
        self.problem.reason
    }

    pub fn not_found(text: impl Into<String>) -> Failure {
        Failure::new(Reason::NotFound, text)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure { status: status(problem.reason), problem, members: Map::new(), headers: Vec::new() }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Problem::from(error).into()
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        let failure = Failure::new(Reason::Origin, refusal.to_string());
        match refusal {
            Refusal::Host(_) => failure.status(StatusCode::MISDIRECTED_REQUEST),
            Refusal::Origin(_) => failure,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Failure { status, problem, members, headers } = self;
        let word = problem.reason.as_str();
        metrics::counter!(REFUSED, "door" => "http", "reason" => word).increment(1);
        let mut document = json!({
            "type": format!("urn:fanfare:error:{word}"),
            "title": status.canonical_reason().unwrap_or(word),
            "status": status.as_u16(),
            "reason": word,
            "detail": problem.text,
        });
        if let (Some(object), true) = (document.as_object_mut(), !members.is_empty()) {
            object.extend(members);
        }
        let content = (header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let mut response = (status, [content], document.to_string()).into_response();
        if let Some(wait) = problem.retry_after {
            let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        for (name, value) in headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_told_as_the_servers_fault_and_what_will_not_as_the_clients() {
        for reason in Reason::ALL {
            let status = status(reason);
            let retriable = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
            assert_eq!(retriable, reason.is_passing(), "{reason}");
        }
    }
}
