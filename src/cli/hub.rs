//! A running hub as the client commands see it: its address, and requests to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::Args;
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde_json::Value;

use super::{Exit, Stop};

const CONNECT_TIME: Duration = Duration::from_secs(5);
/// The hub itself answers within its bounds; this is for a line that is dead.
const ANSWER_TIME: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub struct Address {
    /// The hub's public address [default: where FANFARE_LISTEN says, else http://127.0.0.1:8080]
    #[arg(long, env = "FANFARE_URL", value_name = "URL")]
    url: Option<String>,
}

impl Address {
    pub fn url(&self) -> Result<Url, Stop> {
        let listen = std::env::var("FANFARE_LISTEN").unwrap_or_default();
        let text = self.url.clone().unwrap_or_else(|| usual(&listen));
        let usage = |why: &str| Stop::new(Exit::Usage, format!("--url {text:?}: {why}, like http://127.0.0.1:8080"));
        let mut url = Url::parse(&text).map_err(|error| usage(&format!("{error}; write a whole address")))?;
        if url.scheme() != "http" || url.host().is_none() {
            return Err(usage("this command speaks plain HTTP only; write a whole address"));
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(url)
    }
}

/// The hub of this machine, or of this container: where its own setting says it listens.
fn usual(listen: &str) -> String {
    let mut address = listen.parse().unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)));
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    format!("http://{address}")
}

pub struct HubClient {
    base: Url,
    client: reqwest::Client,
}

/// An answer that came, whatever it says.
pub struct Answer {
    pub status: StatusCode,
    pub text: String,
}

impl HubClient {
    pub fn new(address: &Address) -> Result<HubClient, Stop> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIME)
            .timeout(ANSWER_TIME)
            .build()
            .map_err(|error| Stop::new(Exit::Failed, error.to_string()))?;
        Ok(HubClient { base: address.url()?, client })
    }

    /// `path` without a leading slash.
    pub fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, Stop> {
        let url = self.base.join(path).map_err(|error| Stop::new(Exit::Usage, format!("{path:?}: {error}")))?;
        Ok(self.client.request(method, url))
    }

    pub async fn send(&self, request: RequestBuilder) -> Result<Answer, Stop> {
        let lost = |error: reqwest::Error| {
            let unreachable = error.is_connect();
            let text = format!("{} was not reached: {}", self.base, innermost(&error));
            match unreachable {
                true => Stop::new(Exit::Unreachable, text),
                false => Stop::new(Exit::Unreachable, format!("{text} (what was sent may have arrived)")),
            }
        };
        let response = request.send().await.map_err(lost)?;
        let status = response.status();
        let text = response.text().await.map_err(lost)?;
        Ok(Answer { status, text })
    }
}

impl Answer {
    /// What was answered, or the problem it tells.
    pub fn accepted(self) -> Result<String, Stop> {
        if self.status.is_success() {
            return Ok(self.text);
        }
        Err(Stop::new(Exit::Failed, self.problem()))
    }

    /// A problem document in one line: its word and its way out.
    pub fn problem(&self) -> String {
        let document: Value = serde_json::from_str(&self.text).unwrap_or_default();
        match (document["reason"].as_str(), document["detail"].as_str()) {
            (Some(reason), Some(detail)) => format!("{reason}: {detail}"),
            _ => format!(
                "the answer is {} and not from a hub: {:?}",
                self.status,
                self.text.chars().take(200).collect::<String>()
            ),
        }
    }
}

/// One segment of a path, or one value behind the `?`.
pub fn in_path(id: &str) -> String {
    id.bytes()
        .map(|byte| match byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_hub_is_where_the_setting_says() {
        for (listen, url) in [
            ("", "http://127.0.0.1:8080"),
            ("0.0.0.0:9000", "http://127.0.0.1:9000"),
            ("[::]:9000", "http://[::1]:9000"),
            ("10.0.0.7:80", "http://10.0.0.7:80"),
        ] {
            assert_eq!(usual(listen), url);
        }
    }

    #[test]
    fn addresses_are_whole_and_plain() {
        let url = |text: &str| Address { url: Some(text.into()) }.url();
        assert_eq!(url("http://h:1").unwrap().as_str(), "http://h:1/");
        assert_eq!(url("http://h/hub").unwrap().join("v1/messages").unwrap().as_str(), "http://h/hub/v1/messages");
        for text in ["", "localhost:8080", "h", "https://h", "ws://h", "file:///x"] {
            assert_eq!(url(text).unwrap_err().exit, Exit::Usage, "{text}");
        }
    }
}
