//! The way out of a refused publish, as a line to paste into a shell.

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};

use crate::domain::error::{Problem, Reason};
use crate::web::Failure;

/// What was posted as JSON and is none, may be meant as text.
pub fn or_text(problem: Problem, headers: &HeaderMap, path: &str, body: &Bytes) -> Problem {
    let wordy = body.first().is_some_and(|b| !b"{[\"".contains(b)) && !problem.text.contains("deeper");
    match std::str::from_utf8(body).ok().filter(|text| wordy && text.len() <= 80 && !text.chars().any(char::is_control))
    {
        Some(text) => {
            let line = format!(
                "if it is plain text: curl -H 'Content-Type: text/plain' --data-raw {} {}",
                shell(text),
                url(headers, path)
            );
            Problem { text: format!("{}; {line}", problem.text), ..problem }
        }
        None => problem,
    }
}

pub fn unsupported(headers: &HeaderMap, path: &str, sample: &str) -> Failure {
    let had = match headers.get(header::CONTENT_TYPE) {
        Some(value) => format!("the Content-Type is {value:?}"),
        None => "there is no Content-Type".to_string(),
    };
    let takes = match path {
        "/v1/messages" => "application/json",
        _ => "application/json, text/plain or application/octet-stream",
    };
    let text = format!("{had}; this takes {takes} (in UTF-8): {}", mend(headers, path, sample));
    Failure::new(Reason::BadFrame, text).status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

/// The line that would have worked.
pub fn mend(headers: &HeaderMap, path: &str, sample: &str) -> String {
    match serde_json::from_str::<serde::de::IgnoredAny>(sample) {
        Ok(_) => format!("curl --json {} {}", shell(sample), url(headers, path)),
        Err(_) => format!("curl -H 'Content-Type: text/plain' --data-raw {} {}", shell(sample), url(headers, path)),
    }
}

/// The line that would have worked, for what is put.
pub fn put(headers: &HeaderMap, path: &str, sample: &str) -> String {
    format!("curl -X PUT --json {} {}", shell(sample), url(headers, path))
}

/// What was sent, if it is short enough to be shown in a line to paste.
pub fn sample(body: &Bytes) -> String {
    match std::str::from_utf8(body) {
        Ok(text) if text.len() <= 200 && !text.chars().any(char::is_control) => text.to_string(),
        _ => "{\"hi\":1}".to_string(),
    }
}

/// The address as the client sees it. The gate has judged the host: it holds nothing that a shell would read.
fn url(headers: &HeaderMap, path: &str) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost:8080");
    let tls = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    format!("{}://{host}{path}", if tls { "https" } else { "http" })
}

/// One word of a shell.
fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// One segment of a path. Only what every shell and URL leaves alone stands as it is.
pub fn in_path(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte.is_ascii_alphanumeric() || b"._-~:@=+".contains(&byte) {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_to_paste_is_one_word_wherever_it_should_be() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "hub.example".parse().unwrap());
        let path = format!("/v1/topics/{}/messages", in_path("user.auth0|5f"));
        assert_eq!(
            mend(&headers, &path, "it's $HOME"),
            r"curl -H 'Content-Type: text/plain' --data-raw 'it'\''s $HOME' http://hub.example/v1/topics/user.auth0%7C5f/messages"
        );
        headers.insert("x-forwarded-proto", "https".parse().unwrap());
        assert_eq!(mend(&headers, "/v1/messages", "[1]"), "curl --json '[1]' https://hub.example/v1/messages");
        assert_eq!(in_path("a b/가"), "a%20b%2F%EA%B0%80");
    }
}
