//! What is wrong with a request is named, with the way out.

use axum::body::{Body, Bytes};
use fanfare::domain::limits::Limits;
use futures::stream;

use crate::{Setup, start, start_with};

const JSON: &str = "application/json";
const TOPIC: &str = "/v1/topics/news/messages";
const MANY: &str = "/v1/messages";

#[tokio::test]
async fn every_bad_request_has_its_named_error_and_its_way_out() {
    let api = start().await;
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    let long_name = format!("/v1/topics/{}/messages", "n".repeat(201));
    let long_query = format!("{TOPIC}?name={}", "n".repeat(201));
    for (content, path, body, status, reason, shows) in [
        // Bodies that are no JSON.
        (
            JSON,
            TOPIC,
            "",
            400,
            "missing-data",
            r#"curl --json '{"hi":1}' http://localhost:8080/v1/topics/news/messages"#,
        ),
        (JSON, TOPIC, "{\"hi\":tru}", 400, "bad-json", "byte 9"),
        (JSON, TOPIC, "{\"hi\":1", 400, "bad-json", "byte 7"),
        (JSON, TOPIC, "1 2", 400, "bad-json", "byte 2"),
        (JSON, TOPIC, "{'hi':1}", 400, "bad-json", "seen there: \"{'hi':1}\""),
        (
            JSON,
            TOPIC,
            "hello",
            400,
            "bad-json",
            "curl -H 'Content-Type: text/plain' --data-raw 'hello' http://localhost:8080/v1/topics/news/messages",
        ),
        (JSON, TOPIC, &deep, 400, "bad-json", "deeper than 32 levels at byte 32"),
        (JSON, MANY, "", 400, "bad-json", "there is nothing"),
        (JSON, MANY, "[{\"topic\":\"a\",\"data\":1},]", 400, "bad-json", "byte 24"),
        (JSON, MANY, "7", 400, "bad-frame", "one JSON object"),
        // Documents that are not whole.
        (JSON, MANY, "{\"data\":1}", 400, "bad-frame", "needs \"topic\""),
        (JSON, MANY, "{\"channel\":\"a\",\"data\":1}", 400, "bad-frame", "it has channel"),
        (JSON, MANY, "{\"topic\":\"a\"}", 400, "missing-data", "\"text\""),
        (JSON, MANY, "{\"topic\":\"a\",\"topic\":\"b\",\"data\":1}", 400, "bad-frame", "twice"),
        (
            JSON,
            MANY,
            "{\"queue\":\"jobs\",\"data\":1,\"group\":\"g\",\"delay\":1}",
            400,
            "bad-frame",
            "leave one of them out",
        ),
        (JSON, MANY, "{\"topic\":\"a\",\"data\":1,\"ttl\":\"5s\"}", 400, "bad-frame", "number of seconds"),
        (JSON, MANY, "{\"topic\":\"a\",\"data\":1,\"ttl\":1e9}", 400, "bad-frame", "max_ttl"),
        // Names.
        (JSON, "/v1/topics/a%20b/messages", "1", 400, "bad-name", "byte 1"),
        (JSON, "/v1/topics/a%2Fb/messages", "1", 400, "bad-name", "byte 1"),
        (JSON, "/v1/topics/a..b/messages", "1", 400, "bad-name", "empty segment"),
        (JSON, "/v1/topics/%EC%86%8C%EC%8B%9D/messages", "1", 400, "bad-name", "byte 0"),
        (JSON, "/v1/topics/%FF/messages", "1", 400, "bad-name", "UTF-8"),
        (JSON, "/v1/topics//messages", "1", 400, "bad-name", "is empty"),
        (JSON, "/v1/users//messages", "1", 400, "bad-name", "is empty"),
        (JSON, "/v1/topics/a.*/messages", "1", 400, "bad-name", "'*'"),
        (JSON, &long_name, "1", 400, "bad-name", "201"),
        (JSON, "/v1/topics/$hub/messages", "1", 403, "forbidden", "hub's own"),
        // Parameters.
        (JSON, "/v1/topics/news/messages?ttl=5s", "1", 400, "bad-frame", "number of seconds"),
        (JSON, "/v1/topics/news/messages?ttl=0", "1", 400, "bad-frame", "at least"),
        (JSON, "/v1/topics/news/messages?ttl=inf", "1", 400, "bad-frame", "number of seconds"),
        (JSON, "/v1/topics/news/messages?level=ssd", "1", 400, "bad-frame", "memory, disk or replica"),
        (JSON, "/v1/topics/news/messages?durability=disk", "1", 403, "forbidden", "leave durability out"),
        (JSON, "/v1/topics/news/messages?durability=memory&level=memory", "1", 400, "bad-frame", "twice"),
        (JSON, "/v1/topics/news/messages?name=", "1", 400, "bad-frame", "empty"),
        (JSON, &long_query, "1", 413, "too-large", "max_word"),
        // Kinds of body.
        (
            "application/x-www-form-urlencoded",
            TOPIC,
            "{\"a\":\"it's\"}",
            415,
            "bad-frame",
            r#"curl --json '{"a":"it'\''s"}' http://localhost:8080/v1/topics/news/messages"#,
        ),
        ("application/x-www-form-urlencoded", TOPIC, "hello", 415, "bad-frame", "--data-raw 'hello' http://localhost"),
        ("application/x-www-form-urlencoded", TOPIC, "a\nb", 415, "bad-frame", "curl --json '{\"hi\":1}'"),
        (
            "application/x-www-form-urlencoded",
            "/v1/users/a%7Cb/messages",
            "1",
            415,
            "bad-frame",
            "/v1/users/a%7Cb/messages",
        ),
        ("application/x-www-form-urlencoded", MANY, "{}", 415, "bad-frame", "curl --json '{\"topic\":\"news\","),
        ("text/plain", MANY, "{}", 415, "bad-frame", "takes application/json"),
        ("text/html", TOPIC, "<p>", 415, "bad-frame", "text/html"),
        ("multipart/form-data; boundary=x", TOPIC, "--x", 415, "bad-frame", "multipart"),
        ("text/plain; charset=latin1", TOPIC, "x", 415, "bad-frame", "UTF-8"),
    ] {
        let answer = api.send("POST", path, &[("content-type", content)], body.to_string()).await;
        let told = (answer.status.as_u16(), answer.reason());
        assert_eq!((told.0, told.1.as_str()), (status, reason), "{content} {path} {body:?}: {}", answer.detail());
        assert!(answer.detail().contains(shows), "{content} {path} {body:?}: {}", answer.detail());
    }
    assert_eq!(api.get("/v1/topics/news/messages").await.json()["items"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn bad_questions_for_history_are_named() {
    let api = start().await;
    for (query, shows) in [
        ("limit=0", "from 1 to 1000"),
        ("limit=1001", "from 1 to 1000"),
        ("limit=ten", "\"ten\""),
        ("last=-1", "from 0 to 1000"),
        ("last=5&last=6", "twice"),
        ("after=k3", "is not a position"),
        ("after=k3.1&last=5", "exclude one another"),
        ("since=60&last=5", "exclude one another"),
        ("since=yesterday", "seconds ago"),
        ("since=2026-11-25T12:00:00+09:00", "%2B"),
    ] {
        let answer = api.get(&format!("{TOPIC}?{query}")).await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (400, "bad-frame"), "{query}");
        assert!(answer.detail().contains(shows), "{query}: {}", answer.detail());
    }
    assert_eq!(api.get("/v1/topics/news/messages/now").await.reason(), "bad-frame");
    assert_eq!(api.get("/v1/topics/a%20b/messages").await.reason(), "bad-name");
    assert_eq!(api.get("/v1/topics/news/messages/zz.3").await.status, 404);
}

#[tokio::test]
async fn bytes_that_are_no_text_are_named_with_their_place() {
    let api = start().await;
    for (content, shows) in
        [("text/plain", "not UTF-8 at byte 2; bytes go as application/octet-stream"), (JSON, "byte")]
    {
        let answer = api.send("POST", TOPIC, &[("content-type", content)], b"\"a\xff\"".to_vec()).await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (400, "bad-json"), "{content}");
        assert!(answer.detail().contains(shows), "{}", answer.detail());
    }
    let compressed = [("content-type", JSON), ("content-encoding", "gzip")];
    assert_eq!(api.send("POST", TOPIC, &compressed, b"\x1f\x8b".to_vec()).await.status, 415);
    let missing = api.send("POST", TOPIC, &[], "1").await;
    assert_eq!(missing.status, 415);
    assert!(missing.detail().starts_with("there is no Content-Type"), "{}", missing.detail());
}

#[tokio::test]
async fn idempotency_keys_have_bounds_and_a_place() {
    let api = start().await;
    let long = "k".repeat(201);
    for (path, body, key, status, reason, shows) in [
        (TOPIC, "1", "", 400, "bad-frame", "empty"),
        (TOPIC, "1", "\"\"", 400, "bad-frame", "empty"),
        (TOPIC, "1", long.as_str(), 413, "too-large", "max_word"),
        (MANY, "{\"topic\":\"a\",\"data\":1}", "", 400, "bad-frame", "empty"),
        (MANY, "{\"topic\":\"a\",\"data\":1}", long.as_str(), 413, "too-large", "max_word"),
        (MANY, "{\"topic\":\"a\",\"data\":1,\"idempotency_key\":\"x\"}", "y", 400, "bad-frame", "differ"),
        (MANY, "[{\"topic\":\"a\",\"data\":1}]", "y", 400, "bad-frame", "each message its \"idempotency_key\""),
    ] {
        let headers = [("content-type", JSON), ("idempotency-key", key)];
        let answer = api.send("POST", path, &headers, body).await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (status, reason), "{body} {key}");
        assert!(answer.detail().contains(shows), "{body} {key}: {}", answer.detail());
    }
}

#[tokio::test]
async fn too_large_is_refused_with_limit_and_setting_before_it_is_read() {
    let limits = Limits { frame: 1024, batch_body: 2048, batch: 2, ..Limits::default() };
    let api = start_with(Setup { limits, ..Setup::default() }).await;
    let of = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    assert_eq!(api.post(TOPIC, &of(1024)).await.status, 201);
    for (path, bytes, limit, setting) in [(TOPIC, 1025, 1024, "max_frame"), (MANY, 2049, 2048, "max_batch_body")] {
        let told = api.post(path, &of(bytes)).await;
        assert_eq!((told.status.as_u16(), told.reason().as_str()), (413, "too-large"));
        assert_eq!((told.json()["limit"].as_i64(), told.json()["setting"].as_str()), (Some(limit), Some(setting)));
        assert!(told.detail().contains(&limit.to_string()) && told.detail().contains(setting), "{}", told.detail());

        // Without a length: an endless body is left as soon as it is too long.
        let endless =
            Body::from_stream(stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b'1'; 100]))));
        let told = api.send("POST", path, &[("content-type", JSON)], endless).await;
        assert_eq!((told.status.as_u16(), told.reason().as_str()), (413, "too-large"));

        // With a length: nothing is read at all.
        let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let headers = [("content-type", JSON), ("content-length", "99999999")];
        assert_eq!(api.send("POST", path, &headers, never).await.status, 413);
    }
    let three = r#"[{"topic":"a","data":1},{"topic":"a","data":1},{"topic":"a","data":1}]"#;
    let told = api.post(MANY, three).await;
    assert_eq!((told.status.as_u16(), told.reason().as_str()), (413, "too-many"));
    assert!(told.detail().contains("at most 2") && told.detail().contains("max_batch"), "{}", told.detail());
    let bytes = api.send("POST", TOPIC, &[("content-type", "application/octet-stream")], vec![7; 1000]).await;
    assert_eq!((bytes.status.as_u16(), bytes.reason().as_str()), (413, "too-large"), "base64 must fit a frame");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_not_waited_for() {
    let api = start().await;
    let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let answer = api.send("POST", TOPIC, &[("content-type", JSON)], never).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (408, "timeout"));
    let broken = Body::from_stream(stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("cut"))]));
    let answer = api.send("POST", TOPIC, &[("content-type", JSON)], broken).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (400, "bad-frame"));
}
