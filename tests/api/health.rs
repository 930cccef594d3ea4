//! Health on both addresses, and metrics on the admin's.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use fanfare::api::{self, Health, Trouble};
use fanfare::domain::access::Access;
use fanfare::hub::Hub;
use fanfare::telemetry::Metrics;
use http_body_util::BodyExt;
use serde_json::json;
use tower::ServiceExt;

use crate::start;

#[tokio::test]
async fn a_hub_is_alive_whatever_its_troubles_and_ready_without_them() {
    let api = start().await;
    assert_eq!(api.get("/healthz").await.text(), "ok\n");
    let ready = api.get("/readyz").await;
    assert_eq!((ready.status.as_u16(), ready.json()["ready"].clone()), (200, json!(true)));

    let trouble = Trouble { part: "ingest", text: "redis is away since 3 s".into() };
    api.troubles.lock().unwrap().push(trouble);
    let ready = api.get("/readyz").await;
    assert_eq!((ready.status.as_u16(), ready.reason().as_str()), (503, "unavailable"));
    assert_eq!(ready.detail(), "ingest: redis is away since 3 s");
    assert_eq!(ready.json()["trouble"], json!([{"part": "ingest", "text": "redis is away since 3 s"}]));
    assert_eq!(ready.header("retry-after"), "1");

    api.store.close().await;
    let told = api.get("/readyz").await.json();
    assert_eq!(told["trouble"][0]["part"], "store", "{told}");
    assert_eq!(api.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn metrics_are_on_the_admin_address_behind_the_same_gate() {
    let api = start().await;
    let metrics = Metrics::start();
    api.publish("t", "1").await;
    let health = Health { hub: Hub::new(api.store.clone()), troubles: Arc::new(Vec::new) };
    let access = Arc::new(Access::new([127, 0, 0, 1].into(), &[], &[]).unwrap());
    let router = api::admin_router(health, access, Arc::new(move || metrics.render()));
    let ask = |path: &str, host: &str| {
        let request = Request::get(path).header("host", host).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request);
        async move {
            let response = response.await.unwrap();
            let status = response.status().as_u16();
            (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
        }
    };
    let (status, text) = ask("/metrics", "127.0.0.1:9090").await;
    assert_eq!(status, 200);
    assert!(text.contains("# TYPE fanfare_published_total counter"), "{text}");
    assert!(text.contains("fanfare_published_total{door=\"http\"}"), "{text}");
    assert_eq!(ask("/metrics", "evil.com:9090").await.0, 421);
    for (path, status) in [("/healthz", 200), ("/readyz", 200), ("/v1/messages", 404)] {
        assert_eq!(ask(path, "localhost").await.0, status, "{path}");
    }
    assert_eq!(api.get("/metrics").await.status, 404, "not on the public address");
}
