//! The HTTP API without a socket: the real router on the real store in memory. Every answer is held against the
//! description that the hub itself serves.

mod bad_input;
mod browsers;
mod cursors;
mod dead_letters;
mod description;
mod health;
mod publishing;
mod queues;
mod reading;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use fanfare::api::{self, ApiState, Trouble};
use fanfare::domain::access::Access;
use fanfare::domain::dead::DeadLetterBox;
use fanfare::domain::limits::Limits;
use fanfare::domain::store::Store;
use fanfare::hub::Hub;
use fanfare::store;
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

pub struct Api {
    pub router: Router,
    pub store: Arc<dyn Store>,
    pub dead: Arc<dyn DeadLetterBox>,
    pub troubles: Arc<Mutex<Vec<Trouble>>>,
}

/// What a hub under test is like; the rest is as by default.
#[derive(Default)]
pub struct Setup {
    pub options: store::Options,
    pub limits: Limits,
    pub listener: Option<IpAddr>,
    pub origins: Vec<String>,
    pub hosts: Vec<String>,
    pub without_ingest: bool,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

pub async fn start() -> Api {
    start_with(Setup::default()).await
}

pub async fn start_with(setup: Setup) -> Api {
    let opened = store::open("memory", setup.options).await.unwrap();
    let dead = opened.embedded_dead.unwrap();
    let troubles = Arc::new(Mutex::new(Vec::new()));
    let listener = setup.listener.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let asked = troubles.clone();
    let router = api::router(ApiState {
        hub: Hub::new(opened.store.clone()).with_cursors(opened.cursors).with_queues(opened.queues.unwrap()),
        dead: if setup.without_ingest { None } else { Some(dead.clone()) },
        access: Arc::new(Access::new(listener, &setup.origins, &setup.hosts).unwrap()),
        limits: Arc::new(setup.limits),
        troubles: Arc::new(move || asked.lock().unwrap().clone()),
    });
    Api { router, store: opened.store, dead, troubles }
}

impl Api {
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header("host", "localhost:8080");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        let answer = Answer { status: parts.status, headers: parts.headers, body };
        if method != "OPTIONS" {
            description::describes(method, path, &answer);
        }
        answer
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Body::empty()).await
    }

    pub async fn post(&self, path: &str, json: &str) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], json.to_string()).await
    }

    /// Publishes and answers the position.
    pub async fn publish(&self, topic: &str, json: &str) -> String {
        let answer = self.post(&format!("/v1/topics/{topic}/messages"), json).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["stored"].as_str().unwrap().to_string()
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The word of a problem document, which must be a whole one.
    pub fn reason(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        let problem = self.json();
        let reason = problem["reason"].as_str().unwrap();
        assert_eq!(problem["type"], format!("urn:fanfare:error:{reason}"));
        assert_eq!(problem["status"], self.status.as_u16());
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        reason.to_string()
    }

    pub fn detail(&self) -> String {
        self.json()["detail"].as_str().unwrap_or_default().to_string()
    }
}
