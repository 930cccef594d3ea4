//! Reads bodies: bounded while they stream in, within a time, of a kind that the route takes.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::domain::error::Reason;
use crate::web::Failure;

/// How long a body may take to come in whole.
const BODY_TIME: Duration = Duration::from_secs(30);

/// What a body says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    Json,
    Text,
    Bytes,
    /// None of these: a form (what `curl -d` says), nothing at all, another charset.
    Other,
}

impl Media {
    pub fn of(headers: &HeaderMap) -> Media {
        let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
            return Media::Other;
        };
        let (essence, parameters) = value.split_once(';').unwrap_or((value, ""));
        let charset = parameters
            .split(';')
            .find_map(|p| p.trim().to_ascii_lowercase().strip_prefix("charset=").map(str::to_owned));
        let charset = charset.as_deref().map(|c| c.trim_matches('"').to_owned());
        if !matches!(charset.as_deref(), None | Some("utf-8" | "utf8" | "us-ascii")) {
            return Media::Other;
        }
        match essence.trim().to_ascii_lowercase().as_str() {
            "application/json" => Media::Json,
            kind if kind.starts_with("application/") && kind.ends_with("+json") => Media::Json,
            "text/plain" => Media::Text,
            "application/octet-stream" => Media::Bytes,
            _ => Media::Other,
        }
    }
}

/// Reads a body of at most so many bytes; `setting` is where more can be allowed.
pub async fn read(headers: &HeaderMap, body: Body, most: usize, setting: &str) -> Result<Bytes, Failure> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        let text = format!("the body comes with Content-Encoding {encoding:?}; send it as it is");
        return Err(Failure::new(Reason::BadFrame, text).status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let too_large = |had: Option<u64>| {
        let had = had.map_or(String::new(), |bytes| format!(" {bytes} bytes,"));
        let text =
            format!("the body has{had} more than the {most} bytes that are taken here; the setting is {setting}");
        Failure::new(Reason::TooLarge, text).with("limit", most.into()).with("setting", setting.into())
    };
    let told = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|bytes| bytes > most as u64) {
        return Err(too_large(told));
    }
    match tokio::time::timeout(BODY_TIME, Limited::new(body, most).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(None)),
        Ok(Err(error)) => Err(Failure::new(Reason::BadFrame, format!("the body broke off: {error}"))),
        Err(_) => {
            let text = format!("the body was not whole within {} seconds", BODY_TIME.as_secs());
            Err(Failure::new(Reason::Timeout, text).status(StatusCode::REQUEST_TIMEOUT))
        }
    }
}
