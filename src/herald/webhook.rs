//! Posts to webhooks, signed as Standard Webhooks say: `webhook-id`, `webhook-timestamp` and `webhook-signature`, which is
//! `v1,` and the base64 of the HMAC-SHA256 over id, timestamp and body joined by dots.
//!
//! Each post goes to an address that its host has at that moment and that is allowed; no redirection is followed, and no
//! proxy of the environment is used, so nobody is led elsewhere with a signed message.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use sha2::Sha256;
use tower::util::BoxCloneSyncService;

use super::Trust;
use crate::document;
use crate::domain::secret::Secret;
use crate::domain::webhook::{self, Hosts};

/// How long a receiver may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How long a line to a receiver is kept after a post.
const IDLE: Duration = Duration::from_secs(10);

type Addresses = std::vec::IntoIter<SocketAddr>;
type Resolver = BoxCloneSyncService<Name, Addresses, Error>;
type Error = Box<dyn std::error::Error + Send + Sync>;

pub struct Poster {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>,
    hosts: Hosts,
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

/// A host whose addresses are all not allowed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

impl Poster {
    pub fn new(secret: Secret, hosts: Hosts, trust: Trust) -> Poster {
        let judge = hosts.clone();
        let resolve = tower::service_fn(move |name: Name| resolve(judge.clone(), name));
        let mut plain = HttpConnector::new_with_resolver(Resolver::new(resolve));
        plain.enforce_http(false);
        let tls = HttpsConnectorBuilder::new().with_tls_config(trust.into_config()).https_or_http().enable_http1();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(hyper_util::rt::TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(tls.wrap_connector(plain));
        Poster { client, hosts, secret }
    }

    /// Posts once. The id is the same for each try, the timestamp is that of the try.
    pub async fn post(&self, url: &str, id: &str, body: Bytes) -> Posted {
        // Settings may have been written by a node with other lists.
        let url = match webhook::read(url).and_then(|url| self.hosts.judge(&url).map(|()| url)) {
            Ok(url) => url,
            Err(why) => return Posted::Never(why),
        };
        let time = document::now() / 1000;
        let request = Request::post(url.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("fanfare/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", time)
            .header("webhook-signature", sign(&self.secret, id, time, &body))
            .body(Full::new(body));
        let request = match request {
            Ok(request) => request,
            Err(error) => return Posted::Never(causes(&error)),
        };
        match tokio::time::timeout(PATIENCE, self.client.request(request)).await {
            Ok(Ok(answer)) if answer.status().is_success() => Posted::Accepted,
            Ok(Ok(answer)) if answer.status() == StatusCode::GONE => {
                Posted::Never("the receiver answered 410 Gone".into())
            }
            Ok(Ok(answer)) => Posted::Failed(format!("the receiver answered {}", answer.status())),
            Ok(Err(error)) => match refusal(&error) {
                Some(why) => Posted::Never(why),
                None => Posted::Failed(causes(&error)),
            },
            Err(_) => Posted::Failed(format!("no answer within {PATIENCE:?}")),
        }
    }
}

/// The addresses of a host that are allowed.
fn resolve(hosts: Hosts, name: Name) -> BoxFuture<'static, Result<Addresses, Error>> {
    Box::pin(async move {
        let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
        let (mut allowed, mut why) = (Vec::new(), None);
        for address in found {
            match hosts.judge_address(name.as_str(), address.ip()) {
                Ok(()) => allowed.push(address),
                Err(text) => why = Some(text),
            }
        }
        match why {
            Some(why) if allowed.is_empty() => Err(Refused(why).into()),
            _ => Ok(allowed.into_iter()),
        }
    })
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

/// Why no address of the host is allowed, if that is behind an error.
fn refusal(error: &dyn std::error::Error) -> Option<String> {
    let mut cause = error.source();
    while let Some(deeper) = cause {
        if let Some(Refused(why)) = deeper.downcast_ref() {
            return Some(why.clone());
        }
        cause = deeper.source();
    }
    None
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
