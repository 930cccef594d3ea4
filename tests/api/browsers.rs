//! What pages of other sites can do: nothing, unless they are listed.

use axum::body::Body;

use crate::{Api, Setup, start, start_with};

const TOPIC: &str = "/v1/topics/news/messages";

async fn kept(api: &Api) -> usize {
    api.get(TOPIC).await.json()["items"].as_array().unwrap().len()
}

async fn listed() -> Api {
    start_with(Setup { origins: vec!["https://app.example".into()], ..Setup::default() }).await
}

#[tokio::test]
async fn a_page_of_another_site_can_do_nothing() {
    let api = listed().await;
    for origin in
        ["https://evil.com", "http://app.example", "https://app.example.evil.com", "null", "https://evil-app.example"]
    {
        for (method, path, content) in [
            // The three kinds that browsers send without asking first, then those they ask for, then reading.
            ("POST", TOPIC, "text/plain"),
            ("POST", TOPIC, "application/x-www-form-urlencoded"),
            ("POST", "/v1/messages", "multipart/form-data; boundary=x"),
            ("POST", TOPIC, "application/json"),
            ("POST", "/v1/ingest/dead/1/retry", "text/plain"),
            ("DELETE", "/v1/ingest/dead/1", ""),
            ("GET", TOPIC, ""),
            ("GET", "/healthz", ""),
            ("GET", "/nowhere", ""),
        ] {
            let answer = api.send(method, path, &[("origin", origin), ("content-type", content)], "1").await;
            assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (403, "origin"), "{origin} {method} {path}");
            assert_eq!(answer.header("access-control-allow-origin"), "", "{origin} {method} {path}");
            assert_eq!(answer.header("vary"), "origin");
            assert!(answer.detail().contains(&format!("--origins {origin}")), "{}", answer.detail());
        }
        let asked = [("origin", origin), ("access-control-request-method", "POST")];
        let preflight = api.send("OPTIONS", TOPIC, &asked, Body::empty()).await;
        assert_eq!(preflight.status, 403, "{origin}");
        assert_eq!(preflight.header("access-control-allow-origin"), "");
    }
    assert_eq!(kept(&api).await, 0);
}

#[tokio::test]
async fn a_listed_page_may_publish_and_read_the_answer() {
    let api = listed().await;
    let origin = ("origin", "https://app.example");
    let asked = [
        origin,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,idempotency-key"),
        ("access-control-request-private-network", "true"),
    ];
    let preflight = api.send("OPTIONS", TOPIC, &asked, Body::empty()).await;
    assert_eq!(preflight.status, 200);
    assert_eq!(preflight.header("access-control-allow-origin"), "https://app.example");
    assert_eq!(preflight.header("access-control-allow-methods"), "GET,POST,PUT,DELETE");
    assert_eq!(preflight.header("access-control-allow-private-network"), "true");
    assert_eq!(preflight.header("access-control-allow-credentials"), "");
    let headers = preflight.header("access-control-allow-headers");
    assert!(headers.contains("content-type") && headers.contains("idempotency-key"), "{headers}");

    let answer = api.send("POST", TOPIC, &[origin, ("content-type", "application/json")], "1").await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example");
    assert_eq!(answer.header("access-control-expose-headers"), "location,retry-after");
    assert!(answer.header("vary").contains("origin"), "{}", answer.header("vary"));
    // A failure can be read too, or its way out would be lost.
    let failed = api.send("POST", TOPIC, &[origin, ("content-type", "application/json")], "{").await;
    assert_eq!((failed.status.as_u16(), failed.header("access-control-allow-origin")), (400, "https://app.example"));
    assert!(api.get(TOPIC).await.header("vary").contains("origin"), "answers differ by origin, caches must know");
}

#[tokio::test]
async fn a_listed_page_may_move_a_cursor() {
    let api = listed().await;
    let at = api.publish("t", "1").await;
    let (cursor, origin) = ("/v1/topics/t/cursors/phone", ("origin", "https://app.example"));
    let asked = [origin, ("access-control-request-method", "PUT"), ("access-control-request-headers", "content-type")];
    let preflight = api.send("OPTIONS", cursor, &asked, Body::empty()).await;
    assert_eq!(
        (preflight.status.as_u16(), preflight.header("access-control-allow-origin")),
        (200, "https://app.example")
    );
    let methods = preflight.header("access-control-allow-methods");
    assert!(methods.split(',').any(|method| method == "PUT"), "{methods}");
    let body = format!(r#"{{"at":"{at}"}}"#);
    let moved = api.send("PUT", cursor, &[origin, ("content-type", "application/json")], body).await;
    assert_eq!((moved.status.as_u16(), moved.header("access-control-allow-origin")), (200, "https://app.example"));
}

#[tokio::test]
async fn pages_of_this_machine_and_of_the_hub_itself_come_in_on_loopback_only() {
    let loopback = start().await;
    let everywhere = start_with(Setup { listener: Some([0, 0, 0, 0].into()), ..Setup::default() }).await;
    for (host, origin, on_loopback, on_all) in [
        ("localhost:8080", "http://localhost:8080", 201, 201),
        ("localhost:8080", "http://localhost:3000", 201, 403),
        ("127.0.0.1:8080", "http://localhost:3000", 201, 403),
        ("10.0.0.7:8080", "http://10.0.0.7:8080", 201, 201),
        ("10.0.0.7:8080", "http://10.0.0.9:8080", 403, 403),
    ] {
        for (api, expected) in [(&loopback, on_loopback), (&everywhere, on_all)] {
            let headers = [("host", host), ("origin", origin), ("content-type", "application/json")];
            let answer = api.send("POST", TOPIC, &headers, "1").await;
            assert_eq!(answer.status.as_u16(), expected, "{host} {origin}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_name_that_is_pointed_at_the_hub_is_refused_before_anything() {
    let api = start_with(Setup { hosts: vec!["hub.example".into()], ..Setup::default() }).await;
    for (method, path) in [("GET", TOPIC), ("POST", TOPIC), ("GET", "/healthz"), ("GET", "/openapi.json")] {
        for headers in [&[("host", "evil.com:8080")][..], &[("host", "evil.com"), ("origin", "http://evil.com")]] {
            let answer = api.send(method, path, headers, "1").await;
            assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (421, "origin"), "{method} {path}");
            assert!(answer.detail().ends_with("--hosts evil.com"), "{}", answer.detail());
        }
        let answer = api.send(method, "http://evil.com/healthz", &[], "").await;
        assert_eq!(answer.status, 421, "a target may name the host as well");
    }
    assert_eq!(api.send("GET", "/healthz", &[("host", "HUB.example:80")], "").await.status, 200);
    let twice = api.send("GET", "/healthz", &[("host", "localhost"), ("host", "evil.com")], "").await;
    assert_eq!(twice.status, 421);
    let twice = [("origin", "http://localhost:8080"), ("origin", "https://evil.com")];
    assert_eq!(api.send("GET", "/healthz", &twice, "").await.status, 403);
    assert_eq!(kept(&api).await, 0);
}
