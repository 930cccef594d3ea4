//! Cursors by HTTP: read, process, commit.

use axum::body::Body;
use fanfare::domain::cursor::CursorBounds;
use serde_json::{Value, json};

use crate::{Api, Setup, start, start_with};

async fn read(api: &Api, query: &str) -> Value {
    let answer = api.get(&format!("/v1/topics/t/messages?{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    answer.json()
}

fn data(page: &Value) -> Vec<i64> {
    page["items"].as_array().unwrap().iter().map(|m| m["data"].as_i64().unwrap()).collect()
}

async fn put(api: &Api, cursor: &str, body: &str) -> crate::Answer {
    let headers = [("content-type", "application/json")];
    api.send("PUT", &format!("/v1/topics/t/cursors/{cursor}"), &headers, body.to_owned()).await
}

async fn filled(api: &Api, count: usize) -> Vec<String> {
    let mut at = Vec::new();
    for i in 1..=count {
        at.push(api.publish("t", &i.to_string()).await);
    }
    at
}

#[tokio::test]
async fn what_is_read_from_a_cursor_comes_again_until_it_is_committed() {
    let api = start().await;
    let at = filled(&api, 5).await;
    let first = read(&api, "cursor=worker&first=oldest&limit=2").await;
    assert_eq!((data(&first), &first["lag"], &first["created"]), (vec![1, 2], &json!(5), &json!(true)));
    assert_eq!((first["cursor"].as_str(), first.get("resumed")), (Some("worker"), None));
    let again = read(&api, "cursor=worker&limit=2").await;
    assert_eq!((data(&again), &again["resumed"], again.get("created")), (vec![1, 2], &json!(true), None));
    let committed = put(&api, "worker", &json!({ "at": first["at"] }).to_string()).await;
    assert_eq!((committed.status.as_u16(), committed.json()["lag"].as_u64()), (200, Some(3)));
    let next = read(&api, "cursor=worker&limit=2").await;
    assert_eq!((data(&next), &next["lag"], &next["more"]), (vec![3, 4], &json!(3), &json!(true)));
    // Whoever has read on says so, and the cursor stays.
    let on = read(&api, &format!("cursor=worker&after={}", at[3])).await;
    assert_eq!((data(&on), &on["lag"]), (vec![5], &json!(3)));
}

#[tokio::test]
async fn a_cursor_begins_with_its_first_read_and_misses_nothing_after_it() {
    let api = start().await;
    filled(&api, 2).await;
    let first = read(&api, "cursor=phone").await;
    assert_eq!((data(&first), &first["lag"], &first["created"]), (vec![], &json!(0), &json!(true)));
    let at = filled(&api, 2).await;
    for _ in 0..3 {
        let page = read(&api, "cursor=phone").await;
        assert_eq!((data(&page), &page["lag"], &page["resumed"]), (vec![1, 2], &json!(2), &json!(true)));
    }
    assert_eq!(put(&api, "phone", &json!({ "at": at[1] }).to_string()).await.status, 200);
    for _ in 0..3 {
        let page = read(&api, "cursor=phone").await;
        assert_eq!((data(&page), &page["lag"], &page["resumed"]), (vec![], &json!(0), &json!(true)));
    }
}

#[tokio::test]
async fn a_cursor_moves_back_only_if_told_and_nowhere_that_is_not_known() {
    let api = start().await;
    let at = filled(&api, 3).await;
    assert_eq!(
        put(&api, "c", &json!({ "at": at[1], "color": 1 }).to_string()).await.json()["ignored"],
        json!(["color"])
    );
    let back = put(&api, "c", &json!({ "at": at[0] }).to_string()).await;
    assert_eq!((back.status.as_u16(), back.reason().as_str()), (409, "conflict"));
    assert_eq!(back.json()["stands"], at[1].as_str());
    assert!(back.detail().contains("\"rewind\":true"), "{}", back.detail());
    let rewound = put(&api, "c", &json!({ "at": at[0], "rewind": true }).to_string()).await;
    assert_eq!((rewound.status.as_u16(), rewound.json()["at"].as_str()), (200, Some(at[0].as_str())));
    for strange in ["zz.1", &format!("{}9", at[2])] {
        let refused = put(&api, "c", &json!({ "at": strange }).to_string()).await;
        assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (409, "conflict"), "{strange}");
        assert!(refused.detail().contains(&at[2]), "{}", refused.detail());
    }
}

#[tokio::test]
async fn a_commit_by_post_is_the_same_and_shows_as_one_of_all() {
    let api = start().await;
    let at = filled(&api, 2).await;
    for name in ["b", "a.x", "c"] {
        let made = api.post(&format!("/v1/topics/t/cursors/{name}"), &json!({ "at": at[0] }).to_string()).await;
        assert_eq!(made.status, 200, "{}", made.text());
    }
    let one = api.get("/v1/topics/t/cursors/a.x").await.json();
    let place = |name: &str| json!({ "cursor": name, "at": at[0], "lag": 1, "used": one["used"] });
    let mut expected = place("a.x");
    expected["topic"] = "t".into();
    assert_eq!(one, expected);
    let names = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|i| i["cursor"].as_str().unwrap().to_owned()).collect()
    };
    let page = api.get("/v1/topics/t/cursors?limit=2").await.json();
    assert_eq!((names(&page), &page["more"]), (vec!["a.x".into(), "b".into()], &json!(true)));
    let page = api.get("/v1/topics/t/cursors?after=b&color=red").await.json();
    assert_eq!((names(&page), &page["more"], &page["ignored"]), (vec!["c".into()], &json!(false), &json!(["color"])));
    let gone = api.send("DELETE", "/v1/topics/t/cursors/b", &[], Body::empty()).await;
    assert_eq!(gone.json(), json!({ "topic": "t", "removed": "b" }));
    for method in ["DELETE", "GET"] {
        let missing = api.send(method, "/v1/topics/t/cursors/b", &[], Body::empty()).await;
        assert_eq!((missing.status.as_u16(), missing.reason().as_str()), (404, "not-found"));
        assert!(missing.detail().contains("messages?cursor=b"), "{}", missing.detail());
    }
}

#[tokio::test]
async fn what_history_no_longer_holds_is_told_and_counted() {
    let mut setup = Setup::default();
    setup.options.retention.messages = 2;
    let api = start_with(setup).await;
    read(&api, "cursor=c").await;
    let at = filled(&api, 5).await;
    let page = read(&api, "cursor=c").await;
    assert_eq!(
        (&page["resumed"], page["why"].as_str(), page["to"].as_str()),
        (&json!(false), Some("retention"), Some(&*at[2]))
    );
    assert_eq!((data(&page), &page["lag"]), (vec![4, 5], &json!(5)));
}

#[tokio::test]
async fn bad_input_is_told_the_way_out() {
    let mut setup = Setup::default();
    setup.options.cursors = CursorBounds { each: 1, ..CursorBounds::default() };
    let api = start_with(setup).await;
    let at = filled(&api, 1).await;
    for (cursor, body, status, reason, says) in [
        ("c", "{}", 400, "bad-frame", "curl -X PUT --json"),
        ("c", r#"{"at":7}"#, 400, "bad-frame", "\"at\""),
        ("c", r#"{"at":"x"}"#, 400, "bad-frame", "is not a position"),
        ("c", r#"{"at":"k3.1","rewind":1}"#, 400, "bad-frame", "\"rewind\" is true or false"),
        ("c", "{\"at\"", 400, "bad-json", "byte"),
        ("no%20good", r#"{"at":"k3.1"}"#, 400, "bad-name", "cannot stand in a name"),
        (&"n".repeat(101), r#"{"at":"k3.1"}"#, 400, "bad-name", "1 to 100 bytes"),
    ] {
        let refused = put(&api, cursor, body).await;
        assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (status, reason), "{cursor} {body}");
        assert!(refused.detail().contains(says), "{body}: {}", refused.detail());
    }
    let plain = api.send("PUT", "/v1/topics/t/cursors/c", &[("content-type", "text/plain")], "x").await;
    assert_eq!((plain.status.as_u16(), plain.reason().as_str()), (415, "bad-frame"));
    for query in ["cursor=c&last=2", "cursor=c&first=third", "cursor=c&first=oldest&after=k3.1", "cursor=a..b"] {
        assert_eq!(api.get(&format!("/v1/topics/t/messages?{query}")).await.status, 400, "{query}");
    }
    assert_eq!(put(&api, "c", &json!({ "at": at[0] }).to_string()).await.status, 200);
    let many = api.get("/v1/topics/t/messages?cursor=d").await;
    assert_eq!((many.status.as_u16(), many.reason().as_str()), (413, "too-many"));
    assert!(many.detail().contains("max_cursors"), "{}", many.detail());
}
