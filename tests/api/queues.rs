//! Queues by HTTP: every route answers as it is described. What the answers mean is shown end to end in `tests/queues.rs`.

use axum::body::Body;
use serde_json::{Value, json};

use crate::{Api, start};

async fn post(api: &Api, path: &str, body: Value) -> Value {
    let answer = api.post(&format!("/v1/queues/{path}"), &body.to_string()).await;
    assert!(answer.status.is_success(), "{path}: {}", answer.text());
    answer.json()
}

#[tokio::test]
async fn every_route_answers_as_it_is_described() {
    let api = start().await;
    let json_body = [("content-type", "application/json")];
    let first = post(&api, "jobs/messages?priority=7&group=g&colour=red", json!({ "a": 1 })).await;
    assert_eq!(first["ignored"], json!(["colour"]));
    post(&api, "jobs/messages?dedupe=k&ttl=60", json!(2)).await;
    let taken = post(&api, "jobs/take", json!({ "max": 10, "worker": "w", "colour": "red" })).await;
    let jobs = taken["jobs"].as_array().unwrap();
    assert_eq!((jobs.len(), &jobs[0]["priority"], &jobs[0]["group"]), (2, &json!(7), &json!("g")));
    assert_eq!(post(&api, "jobs/extend", json!({ "tag": jobs[0]["tag"] })).await, json!({ "ok": "extend" }));
    post(&api, "jobs/term", json!({ "tag": jobs[0]["tag"], "text": "no" })).await;
    post(&api, "jobs/nack", json!({ "tag": jobs[1]["tag"], "delay": 60 })).await;
    post(&api, "jobs/ack", json!({ "tag": jobs[1]["tag"] })).await;
    for place in ["ready", "parked", "delayed", "in-flight", "dead"] {
        assert_eq!(api.get(&format!("/v1/queues/jobs/jobs?place={place}&skip=0&limit=5")).await.status, 200);
    }
    assert_eq!(api.get("/v1/queues/jobs/jobs?place=nowhere").await.status, 400);
    let dead = api.get("/v1/queues/jobs/dead").await.json();
    let id = dead["jobs"][0]["job"].as_str().unwrap().to_owned();
    assert_eq!(api.get(&format!("/v1/queues/jobs/jobs/{id}")).await.json()["cause"], "term");
    let edited = api.send("PUT", &format!("/v1/queues/jobs/dead/{id}"), &json_body, "3").await;
    assert_eq!(edited.status, 200, "{}", edited.text());
    assert_eq!(
        post(&api, "jobs/dead/redrive", json!({ "cause": "term", "limit": 5, "rate": 100 })).await["redriven"],
        1
    );
    assert_eq!(api.post("/v1/queues/jobs/dead/redrive", r#"{"cause":"boredom"}"#).await.status, 400);
    for (method, path, status) in [
        ("DELETE", format!("/v1/queues/jobs/dead/{id}"), 404),
        ("DELETE", format!("/v1/queues/jobs/jobs/{id}"), 200),
        ("DELETE", format!("/v1/queues/jobs/jobs/{id}"), 404),
        ("GET", format!("/v1/queues/jobs/jobs/{id}"), 404),
        ("GET", "/v1/queues/jobs/jobs/nonsense".to_owned(), 400),
        ("GET", "/v1/queues/$no".to_owned(), 400),
        ("DELETE", "/v1/queues/jobs/dead".to_owned(), 200),
        ("DELETE", "/v1/queues/jobs/jobs".to_owned(), 200),
        ("POST", "/v1/queues/jobs/pause".to_owned(), 200),
        ("POST", "/v1/queues/jobs/resume".to_owned(), 200),
        ("GET", "/v1/queues?limit=1".to_owned(), 200),
        ("GET", "/v1/queues/jobs".to_owned(), 200),
        ("GET", "/v1/queues/none".to_owned(), 404),
    ] {
        let answer = api.send(method, &path, &[], Body::empty()).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    }
    let set = api.send("PUT", "/v1/queues/jobs", &json_body, r#"{"lease":7,"exclusive":true}"#).await.json();
    assert_eq!((&set["settings"]["lease"], &set["settings"]["max_workers"]), (&json!(7), &json!(1)));
    let set = api.send("PUT", "/v1/queues/jobs", &json_body, "null").await.json();
    assert_eq!(set["settings"]["lease"], 30);
    // This hub has no feed, so nobody can reply.
    assert_eq!(api.post("/v1/queues/jobs/request?timeout=1", "1").await.reason(), "not-found");
    assert_eq!(api.post("/v1/queues/jobs/request?timeout=1000", "1").await.reason(), "bad-frame");
    assert_eq!(api.send("DELETE", "/v1/queues/jobs", &[], Body::empty()).await.status, 200);
}
