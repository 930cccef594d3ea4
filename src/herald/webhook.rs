//! Posts to webhooks, signed as Standard Webhooks say: `webhook-id`, `webhook-timestamp` and `webhook-signature`, which is
//! `v1,` and the base64 of the HMAC-SHA256 over id, timestamp and body joined by dots.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, StatusCode, redirect};
use sha2::Sha256;

use crate::document;
use crate::domain::secret::Secret;

/// How long a receiver may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(3);

pub struct Poster {
    client: Client,
    secret: Secret,
}

/// How a post ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posted {
    Accepted,
    /// Another try may help. What happened instead.
    Failed(String),
    /// No other try will help.
    Never(String),
}

impl Poster {
    pub fn new(secret: Secret) -> Poster {
        // Nobody is led elsewhere with a signed message.
        let client = Client::builder().redirect(redirect::Policy::none()).timeout(PATIENCE).build();
        Poster { client: client.expect("a client without certificates"), secret }
    }

    /// Posts once. The id is the same for each try, the timestamp is that of the try.
    pub async fn post(&self, url: &str, id: &str, body: Bytes) -> Posted {
        if url.starts_with("https://") {
            return Posted::Never(
                "this version posts by plain HTTP only; name a proxy beside it that speaks TLS".into(),
            );
        }
        let time = document::now() / 1000;
        let request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", time)
            .header("webhook-signature", sign(&self.secret, id, time, &body))
            .body(body);
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Posted::Accepted,
            Ok(answer) if answer.status() == StatusCode::GONE => Posted::Never("the receiver answered 410 Gone".into()),
            Ok(answer) => Posted::Failed(format!("the receiver answered {}", answer.status())),
            // Without the URL: it may hold a token.
            Err(error) => Posted::Failed(causes(&error.without_url())),
        }
    }
}

fn sign(secret: &Secret, id: &str, time: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.key()).expect("HMAC takes keys of any length");
    mac.update(format!("{id}.{time}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// An error with what is behind it: "connection refused" is never the first.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification of Standard Webhooks.
    #[test]
    fn a_post_is_signed_as_the_specification_shows() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signature = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
