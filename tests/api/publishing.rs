//! Publishing that works, and what a store that does not work makes of it.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use fanfare::api::{self, ApiState};
use fanfare::domain::access::Access;
use fanfare::domain::message::Durability;
use fanfare::domain::name::Topic;
use fanfare::domain::position::{Epoch, Position};
use fanfare::domain::store::*;
use fanfare::domain::topic::TopicSettings;
use fanfare::hub::Hub;
use fanfare::store;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use futures::stream::BoxStream;
use serde_json::json;
use tower::ServiceExt;

use crate::{Api, Setup, start, start_with};

async fn data_of(api: &Api, path: &str) -> serde_json::Value {
    api.get(path).await.json()
}

#[tokio::test]
async fn the_body_is_the_data_and_the_answer_says_where_it_is() {
    let api = start().await;
    let answer = api.post("/v1/topics/news/messages", " {\"hi\": [1, 2]}\n").await;
    assert_eq!(answer.status, 201);
    let told = answer.json();
    assert_eq!((told["topic"].as_str(), told["durability"].as_str()), (Some("news"), Some("memory")));
    let location = format!("/v1/topics/news/messages/{}", told["stored"].as_str().unwrap());
    assert_eq!(answer.header("location"), location);
    let message = data_of(&api, &location).await;
    assert_eq!(message["at"], told["stored"]);
    assert_eq!(message["data"], json!({"hi": [1, 2]}));
}

#[tokio::test]
async fn whatever_json_the_body_is_it_arrives_as_it_was() {
    let api = start().await;
    for json in ["null", "0", "-1.5e3", "true", "\"\"", "\"안녕 \\u0000\"", "[]", "{}", "{\"data\":{\"topic\":\"x\"}}"]
    {
        let at = api.publish("t", json).await;
        let message = data_of(&api, &format!("/v1/topics/t/messages/{at}")).await;
        assert_eq!(message["data"], serde_json::from_str::<serde_json::Value>(json).unwrap(), "{json}");
    }
}

#[tokio::test]
async fn text_and_bytes_travel_too() {
    let api = start().await;
    for (content, body, expected) in [
        ("text/plain", "he said \"hi\"\n".as_bytes(), json!({"data": "he said \"hi\"\n"})),
        ("text/plain; charset=UTF-8", "안녕".as_bytes(), json!({"data": "안녕"})),
        ("text/plain", b"", json!({"data": ""})),
        ("application/octet-stream", &[0xff, 0xef, 0xbc], json!({"data": "/++8", "enc": "b64"})),
        ("application/json; charset=utf-8", b"1", json!({"data": 1})),
        ("application/vnd.api+json", b"2", json!({"data": 2})),
    ] {
        let answer = api.send("POST", "/v1/topics/t/messages", &[("content-type", content)], body.to_vec()).await;
        assert_eq!(answer.status, 201, "{content}: {}", answer.text());
        let message = data_of(&api, answer.header("location")).await;
        assert_eq!((&message["data"], &message["enc"]), (&expected["data"], &expected["enc"]), "{content}");
    }
}

#[tokio::test]
async fn name_ttl_key_and_level_stand_in_the_query_and_the_unknown_is_told() {
    let api = start().await;
    let path = "/v1/topics/t/messages?name=greet%20ing&ttl=60.5&key=k1&level=memory&color=red&since=1";
    let answer = api.post(path, "1").await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.json()["ignored"], json!(["color", "since"]));
    let message = data_of(&api, answer.header("location")).await;
    assert_eq!(message["name"], "greet ing");
    assert_eq!((message["ttl"].as_f64(), message["key"].as_str()), (Some(60.5), Some("k1")));
}

#[tokio::test]
async fn the_same_idempotency_key_answers_the_first_position_in_every_form() {
    let api = start().await;
    let short = |key: &'static str, data: &'static str| {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        let api = &api;
        async move { api.send("POST", "/v1/topics/t/messages", &headers, data).await }
    };
    let first = short("o-17", "1").await.json()["stored"].clone();
    assert_eq!(short("o-17", "1").await.json()["stored"], first);
    assert_eq!(short("\"o-17\"", "1").await.json()["stored"], first, "quoted, as the standard has it");
    let document = r#"{"topic":"t","data":1,"idempotency_key":"o-17"}"#;
    assert_eq!(api.post("/v1/messages", document).await.json()["stored"], first);
    let headers = [("content-type", "application/json"), ("idempotency-key", "o-17")];
    let answer = api.send("POST", "/v1/messages", &headers, r#"{"topic":"t","data":1}"#).await;
    assert_eq!(answer.json()["stored"], first);
    let other = short("o-17", "2").await;
    assert_eq!((other.status.as_u16(), other.reason().as_str()), (409, "conflict"));
    assert!(other.detail().contains(first.as_str().unwrap()), "{}", other.detail());
}

#[tokio::test]
async fn a_user_has_a_topic_whatever_the_id() {
    let api = start().await;
    for (id, topic) in [("42", "user.42"), ("auth0%7C5f", "user.auth0|5f"), ("ann%40x.org", "user.ann@x~2Eorg")] {
        let answer = api.post(&format!("/v1/users/{id}/messages"), "1").await;
        assert_eq!(answer.json()["topic"], topic);
        assert_eq!(data_of(&api, answer.header("location")).await["topic"], topic, "the Location can be read");
    }
}

#[tokio::test]
async fn one_document_is_answered_like_the_short_form() {
    let api = start().await;
    let answer = api.post("/v1/messages", r#"{"topic":"t","text":"hi","tags":{"a":"b"},"colour":1}"#).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.json()["ignored"], json!(["colour"]));
    let message = data_of(&api, answer.header("location")).await;
    assert_eq!((message["data"].as_str(), message["tags"]["a"].as_str()), (Some("hi"), Some("b")));
}

#[tokio::test]
async fn of_many_each_is_judged_alone_and_answered_in_its_place() {
    let api = start().await;
    let body = r#"[{"topic":"a","data":1},{"topic":"a b","data":2},{"user":"7","data":3},{"topic":"a"},7,
        {"topic":"a","data":4,"durability":"replica"},{"topic":"a","data":5,"x":6}]"#;
    let answer = api.post("/v1/messages", body).await;
    assert_eq!(answer.status, 200);
    let told = answer.json();
    assert_eq!(told["failed"], 4);
    let words: Vec<&str> =
        told["items"].as_array().unwrap().iter().map(|i| i["error"].as_str().unwrap_or("ok")).collect();
    assert_eq!(words, ["ok", "bad-name", "ok", "missing-data", "bad-frame", "forbidden", "ok"]);
    assert_eq!(told["items"][2]["topic"], "user.7");
    assert_eq!(told["items"][6]["ignored"], json!(["x"]));
    let kept = data_of(&api, "/v1/topics/a/messages").await;
    let data: Vec<_> = kept["items"].as_array().unwrap().iter().map(|m| m["data"].clone()).collect();
    assert_eq!(data, [json!(1), json!(5)]);
    assert_eq!(api.post("/v1/messages", "[]").await.json(), json!({"items": [], "failed": 0}));
}

#[tokio::test]
async fn a_full_or_closed_store_is_told_with_the_time_to_come_back() {
    let options = store::Options { topics: 1, ..store::Options::default() };
    let api = start_with(Setup { options, ..Setup::default() }).await;
    api.publish("one", "1").await;
    let full = api.post("/v1/topics/two/messages", "1").await;
    assert_eq!((full.status.as_u16(), full.reason().as_str()), (507, "storage-full"));
    assert_eq!(full.header("retry-after"), "5");
    let many = api.post("/v1/messages", r#"[{"topic":"one","data":1},{"topic":"two","data":1}]"#).await.json();
    assert_eq!((&many["items"][1]["error"], &many["items"][1]["retry_after"]), (&json!("storage-full"), &json!(5.0)));
    api.store.close().await;
    let closed = api.post("/v1/topics/one/messages", "1").await;
    assert_eq!((closed.status.as_u16(), closed.reason().as_str()), (503, "unavailable"));
    assert_eq!(closed.header("retry-after"), "1");
    assert_eq!(api.get("/v1/topics/one/messages").await.status, 503);
    assert_eq!(api.get("/v1/ingest/dead").await.status, 503);
}

/// A store that gives one answer: what no store does when asked to.
struct Answers(StoreError);

impl Store for Answers {
    fn append(&self, batch: Vec<Append>) -> BoxFuture<'static, Vec<Result<Appended, StoreError>>> {
        let error = self.0.clone();
        ready(batch.into_iter().map(|_| Err(error.clone())).collect()).boxed()
    }

    fn read(&self, _: &Topic, _: ReadFrom, _: ReadLimit) -> BoxFuture<'static, Result<Page, StoreError>> {
        ready(Err(self.0.clone())).boxed()
    }

    fn feed(&self) -> (Box<dyn Watch>, BoxStream<'static, FeedEvent>) {
        unreachable!("nobody subscribes here")
    }

    fn settings(&self, _: &Topic) -> TopicSettings {
        TopicSettings::from(&Retention::default())
    }

    fn status(&self) -> StoreStatus {
        StoreStatus { trouble: Some(self.0.to_string()), durability: Durability::Memory, kind: "test" }
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        ready(()).boxed()
    }
}

#[tokio::test]
async fn every_failure_of_a_store_has_its_status() {
    let at = Position::new(Epoch::from_random(7), 3);
    let durability = StoreError::Durability { asked: Durability::Disk, gives: Durability::Memory };
    for (error, status, retry) in [
        (StoreError::Unavailable("x".into()), 503, "1"),
        (StoreError::Unconfirmed("x".into()), 503, "1"),
        (StoreError::Full("x".into()), 507, "5"),
        (StoreError::Conflict { at }, 409, ""),
        (durability, 403, ""),
        (StoreError::Broken("x".into()), 500, ""),
    ] {
        let router = api::router(ApiState {
            hub: Hub::new(Arc::new(Answers(error.clone()))),
            dead: None,
            access: Arc::new(Access::new([127, 0, 0, 1].into(), &[], &[]).unwrap()),
            limits: Arc::default(),
            troubles: Arc::new(Vec::new),
        });
        let request = Request::post("/v1/topics/t/messages").header("content-type", "application/json");
        let response = router.oneshot(request.body(Body::from("1")).unwrap()).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{error:?}");
        let header = response.headers().get("retry-after").map_or("", |value| value.to_str().unwrap());
        assert_eq!(header, retry, "{error:?}");
    }
}
