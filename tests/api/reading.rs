//! Reading a topic's history.

use serde_json::{Value, json};

use fanfare::domain::topic::{Mode, Rule};

use crate::{Api, Setup, start, start_with};

async fn page(api: &Api, query: &str) -> Value {
    let answer = api.get(&format!("/v1/topics/t/messages{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    answer.json()
}

fn data(page: &Value) -> Vec<i64> {
    page["items"].as_array().unwrap().iter().map(|m| m["data"].as_i64().unwrap()).collect()
}

async fn filled(count: usize) -> (Api, Vec<String>) {
    let api = start().await;
    let mut at = Vec::new();
    for i in 0..count {
        at.push(api.publish("t", &i.to_string()).await);
    }
    (api, at)
}

#[tokio::test]
async fn what_follows_a_position_is_given_in_pages_whose_at_goes_on() {
    let (api, at) = filled(5).await;
    let first = page(&api, &format!("?after={}&limit=2", at[0])).await;
    assert_eq!((data(&first), &first["more"], &first["resumed"]), (vec![1, 2], &json!(true), &json!(true)));
    assert_eq!(first["at"], at[2].as_str());
    let second = page(&api, &format!("?after={}&limit=2", at[2])).await;
    assert_eq!((data(&second), &second["more"]), (vec![3, 4], &json!(false)));
    let none = page(&api, &format!("?after={}", at[4])).await;
    assert_eq!((data(&none), none["at"].as_str(), &none["resumed"]), (vec![], Some(at[4].as_str()), &json!(true)));
}

#[tokio::test]
async fn the_newest_are_given_oldest_first() {
    let (api, at) = filled(5).await;
    assert_eq!(data(&page(&api, "?last=2").await), [3, 4]);
    assert_eq!(data(&page(&api, "?limit=3").await), [2, 3, 4]);
    assert_eq!(data(&page(&api, "").await), [0, 1, 2, 3, 4]);
    let head = page(&api, "?last=0").await;
    assert_eq!((data(&head), head["at"].as_str(), &head["more"]), (vec![], Some(at[4].as_str()), &json!(false)));
    assert_eq!(head.get("resumed"), None, "nothing was to be resumed");
    let part = page(&api, "?last=4&limit=2").await;
    assert_eq!((data(&part), &part["more"]), (vec![1, 2], &json!(true)));
}

#[tokio::test]
async fn what_history_no_longer_holds_is_told() {
    let mut setup = Setup::default();
    setup.options.retention.messages = 3;
    let api = start_with(setup).await;
    let mut at = Vec::new();
    for i in 0..6 {
        at.push(api.publish("t", &i.to_string()).await);
    }
    let gone = page(&api, &format!("?after={}", at[0])).await;
    assert_eq!((&gone["resumed"], gone["why"].as_str()), (&json!(false), Some("retention")));
    assert_eq!((data(&gone), gone["to"].as_str()), (vec![3, 4, 5], Some(at[2].as_str())));
    let strange = page(&api, "?after=zz.7").await;
    assert_eq!((&strange["resumed"], strange["why"].as_str()), (&json!(false), Some("epoch")));
    let missed = api.get(&format!("/v1/topics/t/messages/{}", at[0])).await;
    assert_eq!((missed.status.as_u16(), missed.reason().as_str()), (404, "not-found"));
    assert!(missed.detail().contains("/v1/topics/t/messages"), "{}", missed.detail());
}

#[tokio::test]
async fn what_was_stored_since_a_time_is_given_and_what_is_gone_is_told() {
    let (api, at) = filled(3).await;
    let all = page(&api, "?since=3600").await;
    assert_eq!((data(&all), &all["resumed"], all["at"].as_str()), (vec![0, 1, 2], &json!(true), Some(at[2].as_str())));
    let part = page(&api, "?since=2001-01-01T00:00:00%2B09:00&limit=2").await;
    assert_eq!((data(&part), &part["more"], part["at"].as_str()), (vec![0, 1], &json!(true), Some(at[1].as_str())));
    let none = page(&api, "?since=2100-01-01T00:00:00Z").await;
    assert_eq!((data(&none), &none["resumed"], none["at"].as_str()), (vec![], &json!(true), Some(at[2].as_str())));
    let mut setup = Setup::default();
    setup.options.retention.messages = 2;
    let api = start_with(setup).await;
    for i in 0..5 {
        api.publish("t", &i.to_string()).await;
    }
    let left = page(&api, "?since=60").await;
    assert_eq!((data(&left), &left["resumed"], &left["why"]), (vec![3, 4], &json!(false), &json!("retention")));
}

#[tokio::test]
async fn topics_are_read_by_their_mode() {
    let mut setup = Setup::default();
    let in_mode = |name: &str, mode| Rule { mode: Some(mode), ..Rule::new(name.parse().unwrap()) };
    setup.options.rules = vec![in_mode("t", Mode::Latest), in_mode("live", Mode::Live)];
    let api = start_with(setup).await;
    let first = api.publish("t", "1").await;
    api.publish("t", "2").await;
    let latest = page(&api, &format!("?after={first}")).await;
    assert_eq!((data(&latest), &latest["resumed"]), (vec![2], &json!(true)));
    assert_eq!(data(&page(&api, "").await), [2]);
    assert_eq!(api.get(&format!("/v1/topics/t/messages/{first}")).await.status, 404, "it was replaced");
    let first = api.publish("live", "1").await;
    let second = api.publish("live", "2").await;
    let answer = api.get(&format!("/v1/topics/live/messages?after={first}")).await.json();
    assert_eq!((&answer["items"], &answer["why"], &answer["to"]), (&json!([]), &json!("live"), &json!(second)));
}

#[tokio::test]
async fn a_topic_that_nobody_wrote_is_empty_and_can_be_resumed_from() {
    let api = start().await;
    let empty = page(&api, "").await;
    assert_eq!((data(&empty), &empty["more"]), (vec![], &json!(false)));
    api.publish("t", "7").await;
    let after = page(&api, &format!("?after={}", empty["at"].as_str().unwrap())).await;
    assert_eq!((data(&after), &after["resumed"]), (vec![7], &json!(true)));
}

#[tokio::test]
async fn a_message_is_the_same_alone_and_in_a_page() {
    let (api, at) = filled(2).await;
    let alone = api.get(&format!("/v1/topics/t/messages/{}", at[1])).await;
    assert_eq!(alone.json(), page(&api, "?last=1").await["items"][0]);
    assert_eq!(alone.header("content-type"), "application/json");
    assert_eq!(alone.header("x-content-type-options"), "nosniff");
    assert_eq!(alone.header("cache-control"), "no-store");
}

#[tokio::test]
async fn unknown_parameters_are_told() {
    let (api, _) = filled(1).await;
    assert_eq!(page(&api, "?color=red&last=1").await["ignored"], json!(["color"]));
}
