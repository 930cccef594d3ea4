//! Dead letters by HTTP, on the real store of them.

use axum::body::Body;
use fanfare::domain::dead::DeadLetter;
use fanfare::domain::error::Reason;
use futures::StreamExt;
use serde_json::json;

use crate::{Api, Setup, start, start_with};

async fn bury(api: &Api, fields: &[(&[u8], &[u8])]) -> String {
    let letter = DeadLetter {
        id: String::new(),
        source: "fanfare:in".into(),
        entry: "1795331083000-0".into(),
        time: 1_795_331_083_123,
        reason: Reason::MissingData,
        text: "nothing to publish".into(),
        fields: fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
    };
    api.dead.bury(letter).await.unwrap()
}

#[tokio::test]
async fn letters_are_shown_whole_whatever_bytes_they_hold() {
    let api = start().await;
    let fields: [(&[u8], &[u8]); 4] = [(b"topic", b"a"), (b"topic", b"b"), (b"raw", b"\xff\x00"), (b"\xfe", b"x")];
    let id = bury(&api, &fields).await;
    let told = api.get("/v1/ingest/dead").await.json();
    assert_eq!(told["total"], 1);
    assert_eq!(
        told["items"][0],
        json!({
            "id": id,
            "source": "fanfare:in",
            "entry": "1795331083000-0",
            "time": 1_795_331_083_123_u64,
            "reason": "missing-data",
            "text": "nothing to publish",
            "fields": { "topic": "a", "topic (2)": "b", "raw": { "b64": "/wA=" }, "b64:/g==": "x" },
        })
    );
}

#[tokio::test]
async fn letters_come_in_pages_oldest_first() {
    let api = start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(bury(&api, &[(b"x", b"y")]).await);
    }
    let page = |query: String| {
        let api = &api;
        async move {
            let told = api.get(&format!("/v1/ingest/dead{query}")).await.json();
            assert_eq!(told["total"], 5);
            told["items"].as_array().unwrap().iter().map(|l| l["id"].as_str().unwrap().to_string()).collect::<Vec<_>>()
        }
    };
    assert_eq!(page(String::new()).await, ids);
    assert_eq!(page("?limit=2".into()).await, ids[..2]);
    assert_eq!(page(format!("?limit=2&after={}", ids[1])).await, ids[2..4]);
    for query in ["?limit=0", "?limit=1001", "?limit=x", "?after=a&after=b"] {
        assert_eq!(api.get(&format!("/v1/ingest/dead{query}")).await.status, 400, "{query}");
    }
    assert_eq!(api.get("/v1/ingest/dead?since=1").await.json()["ignored"], json!(["since"]));
}

#[tokio::test]
async fn a_letter_is_sent_back_or_dropped_once() {
    let api = start().await;
    let (first, second) = (bury(&api, &[(b"n", b"1")]).await, bury(&api, &[(b"n", b"2")]).await);
    let retry = format!("/v1/ingest/dead/{first}/retry");
    let answer = api.send("POST", &retry, &[], Body::empty()).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({ "retried": first })));
    let back = api.dead.retried().next().await.unwrap();
    assert_eq!(back.fields, [(b"n".to_vec(), b"1".to_vec())]);
    let drop = format!("/v1/ingest/dead/{second}");
    let answer = api.send("DELETE", &drop, &[], Body::empty()).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({ "dropped": second })));
    for (method, path) in [("POST", &retry), ("DELETE", &drop)] {
        let again = api.send(method, path, &[], Body::empty()).await;
        assert_eq!((again.status.as_u16(), again.reason().as_str()), (404, "not-found"), "{method} {path}");
    }
    assert_eq!(api.get("/v1/ingest/dead").await.json(), json!({ "items": [], "notices": [], "total": 0 }));
}

#[tokio::test]
async fn a_hub_without_ingest_says_so() {
    let api = start_with(Setup { without_ingest: true, ..Setup::default() }).await;
    for (method, path) in
        [("GET", "/v1/ingest/dead"), ("POST", "/v1/ingest/dead/1/retry"), ("DELETE", "/v1/ingest/dead/1")]
    {
        let answer = api.send(method, path, &[], Body::empty()).await;
        assert_eq!(answer.status, 404, "{method} {path}");
        assert!(answer.detail().contains("the setting ingest"), "{}", answer.detail());
    }
}
