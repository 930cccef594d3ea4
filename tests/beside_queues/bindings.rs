//! Messages of bound topics become jobs before their publisher is answered: none twice, none left out.

use std::time::Duration;

use fanfare::domain::binding::{Binding, Condition};
use fanfare::domain::queue::*;
use fanfare::domain::store::{Append, Appended, EntryId, Fence, StoreError};
use fanfare::domain::topic::{Mode, Rule};
use fanfare::hub::Hub;
use fanfare::store::Options;

use super::server::RedisServer;
use super::{Place, change, drained, message, queue, stats};

fn binding(name: &str, topics: &str, filter: &[(&str, &str)]) -> Binding {
    Binding {
        name: name.into(),
        topics: topics.parse().unwrap(),
        queue: queue("jobs"),
        filter: filter.iter().map(|(of, is)| Condition::parse(of, is).unwrap()).collect(),
        priority: Priority::DEFAULT,
    }
}

fn orders() -> [Binding; 1] {
    [binding("orders", "orders.**", &[])]
}

fn kept(pattern: &str, mode: Mode, messages: u64) -> Options {
    let rule = Rule { mode: Some(mode), messages: Some(messages), ..Rule::new(pattern.parse().unwrap()) };
    Options { rules: vec![rule], ..Options::default() }
}

/// The job of a numbered message of a topic.
fn job(topic: &str, n: u64) -> String {
    format!(r#""bound":"{topic}","data":{n}"#)
}

async fn say(hub: &Hub, topic: &str, n: u64) -> Result<(), fanfare::domain::error::Problem> {
    hub.publish(message(topic, &format!("\"data\":{n}"))).await.map(drop)
}

/// Past the hub, as a node does that goes between storing and binding.
async fn store_only(place: &Place, items: Vec<Append>) {
    for answer in place.open().await.0.append(items).await {
        answer.unwrap();
    }
}

fn item(topic: &str, n: u64) -> Append {
    Append { publication: message(topic, &format!("\"data\":{n}")), fence: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_three_nodes_publish_at_once_is_a_job_once_and_in_order_when_it_is_answered() {
    for place in Place::each(Options::default()).await {
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(place.bound(&orders()).await);
        }
        let publishers = nodes.iter().enumerate().map(|(i, node)| async move {
            for n in 0..100 {
                for topic in ["orders.a", "orders.b.c", "other"] {
                    say(node, topic, i as u64 * 1000 + n).await.unwrap();
                }
            }
        });
        futures::future::join_all(publishers).await;
        assert_eq!(stats(&nodes[0], "jobs").await.totals.put, 600, "all that was answered is a job");
        let jobs = drained(&nodes[0], "jobs").await;
        for topic in ["orders.a", "orders.b.c"] {
            let stored: Vec<String> = super::history(&nodes[1], topic)
                .await
                .iter()
                .map(|m| format!(r#""bound":"{topic}",{}"#, String::from_utf8_lossy(m.body.as_bytes())))
                .collect();
            let of_topic: Vec<String> =
                jobs.iter().filter(|job| job.contains(&format!("\"{topic}\""))).cloned().collect();
            assert_eq!(of_topic, stored, "{topic}");
        }
    }
}

#[tokio::test]
async fn filters_choose_by_the_head_of_a_message_and_a_queue_gets_it_once_for_all_its_bindings() {
    for place in Place::each(Options::default()).await {
        let list = [
            binding("big", "orders.*", &[("name", "order.*"), ("tags.region", "eu")]),
            Binding { priority: Priority::new(9).unwrap(), ..binding("keyed", "orders.**", &[("key", "*")]) },
        ];
        let hub = place.bound(&list).await;
        for text in [
            r#""name":"order.created","tags":{"region":"eu"},"data":1"#,
            r#""name":"order.created","tags":{"region":"us"},"data":2"#,
            r#""name":"order.paid","tags":{"region":"eu"},"key":"k","data":3"#,
            r#""key":"k","data":4"#,
            r#""data":{"name":"order.created","tags":{"region":"eu"}}"#,
        ] {
            hub.publish(message("orders.a", text)).await.unwrap();
        }
        let jobs = drained(&hub, "jobs").await;
        let numbers: Vec<&str> = jobs.iter().map(|job| job.rsplit(':').next().unwrap()).collect();
        // The first binding that takes it gives the priority.
        assert_eq!(numbers, ["4", "1", "3"], "{jobs:?}");
    }
}

#[tokio::test]
async fn what_a_node_stored_and_did_not_bind_is_bound_with_the_next_or_when_it_is_repeated() {
    for place in Place::each(Options::default()).await {
        let hub = place.bound(&orders()).await;
        store_only(&place, vec![item("orders.a", 1), item("orders.a", 2)]).await;
        say(&hub, "orders.a", 3).await.unwrap();
        assert_eq!(drained(&hub, "jobs").await, [1, 2, 3].map(|n| job("orders.a", n)));

        let mut once = message("orders.a", "\"data\":4");
        once.idempotency_key = Some("k".into());
        store_only(&place, vec![Append { publication: once.clone(), fence: None }]).await;
        hub.publish(once.clone()).await.unwrap();
        hub.publish(once).await.unwrap();
        assert_eq!(drained(&hub, "jobs").await, [job("orders.a", 4)]);

        let fence = Some(Fence::new("in", "life", EntryId { ms: 7, seq: 1 }));
        let entry = Append { fence, ..item("orders.b", 5) };
        store_only(&place, vec![entry.clone()]).await;
        assert_eq!(hub.append(vec![entry.clone()]).await, [Ok(Appended::Skipped)]);
        assert_eq!(hub.append(vec![entry]).await, [Ok(Appended::Skipped)]);
        assert_eq!(drained(&hub, "jobs").await, [job("orders.b", 5)]);
    }
}

#[tokio::test]
async fn only_what_was_stored_since_a_binding_was_first_opened_is_bound() {
    for place in Place::each(Options::default()).await {
        store_only(&place, vec![item("orders.a", 1)]).await;
        // The clock is that of Redis, in milliseconds.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let first = place.bound(&orders()).await;
        store_only(&place, vec![item("orders.a", 2)]).await;
        drop(first);
        let hub = place.bound(&orders()).await;
        say(&hub, "orders.a", 3).await.unwrap();
        assert_eq!(drained(&hub, "jobs").await, [2, 3].map(|n| job("orders.a", n)));
    }
}

#[tokio::test]
async fn a_queue_without_room_leaves_publishes_unconfirmed_and_they_are_bound_when_they_are_repeated() {
    for place in Place::each(Options::default()).await {
        let hub = place.bound(&orders()).await;
        let settings = QueueSettings { max_messages: 1, ..QueueSettings::default() };
        change(&hub, "jobs", Change::Settings(Some(Box::new(settings)))).await;
        say(&hub, "orders.a", 1).await.unwrap();
        let mut second = message("orders.a", "\"data\":2");
        second.idempotency_key = Some("k".into());
        let refused = hub.publish(second.clone()).await.unwrap_err();
        assert!(refused.text.contains("not yet a job of jobs"), "{refused}");
        assert_eq!(drained(&hub, "jobs").await, [job("orders.a", 1)]);
        hub.publish(second).await.unwrap();
        assert_eq!(drained(&hub, "jobs").await, [job("orders.a", 2)]);
        let answers = hub.append(vec![item("orders.a", 3), item("orders.a", 4), item("other", 5)]).await;
        assert!(matches!(answers[0], Err(StoreError::Unconfirmed(_))), "{answers:?}");
        assert!(answers[2].is_ok(), "{answers:?}");
    }
}

#[tokio::test]
async fn a_message_that_is_larger_than_its_queue_may_be_holds_nothing_up() {
    for options in [Options::default(), kept("orders.**", Mode::Live, 1)] {
        for place in Place::each(options).await {
            let hub = place.bound(&orders()).await;
            let settings = QueueSettings { max_bytes: 1024, ..QueueSettings::default() };
            change(&hub, "jobs", Change::Settings(Some(Box::new(settings)))).await;
            say(&hub, "orders.a", 1).await.unwrap();
            hub.publish(message("orders.a", &format!("\"data\":\"{}\"", "x".repeat(1025)))).await.unwrap();
            say(&hub, "orders.a", 2).await.unwrap();
            assert_eq!(drained(&hub, "jobs").await, [1, 2].map(|n| job("orders.a", n)));
        }
    }
}

#[tokio::test]
async fn a_topic_without_history_is_bound_directly_and_once() {
    for place in Place::each(kept("orders.**", Mode::Live, 1)).await {
        let hub = place.bound(&orders()).await;
        let mut once = message("orders.a", "\"data\":1");
        once.idempotency_key = Some("k".into());
        hub.publish(once.clone()).await.unwrap();
        hub.publish(once).await.unwrap();
        let fence = Some(Fence::new("in", "life", EntryId { ms: 7, seq: 1 }));
        let entry = Append { fence, ..item("orders.a", 2) };
        store_only(&place, vec![entry.clone()]).await;
        for _ in 0..2 {
            assert_eq!(hub.append(vec![entry.clone()]).await, [Ok(Appended::Skipped)]);
        }
        assert_eq!(drained(&hub, "jobs").await, [1, 2].map(|n| job("orders.a", n)));
    }
}

#[tokio::test]
async fn of_a_topic_that_keeps_the_latest_what_was_replaced_is_not_bound() {
    for place in Place::each(kept("orders.**", Mode::Latest, 100)).await {
        let hub = place.bound(&orders()).await;
        let keyed = |n: u64| {
            let mut item = item("orders.a", n);
            item.publication.key = Some("k".into());
            item
        };
        store_only(&place, vec![keyed(1), keyed(2)]).await;
        say(&hub, "orders.a", 3).await.unwrap();
        assert_eq!(drained(&hub, "jobs").await, [2, 3].map(|n| job("orders.a", n)));
    }
}

/// What this process has told as missed.
fn missed() -> u64 {
    let text = fanfare::telemetry::Metrics::start().render();
    let told = text.lines().find_map(|line| line.strip_prefix("fanfare_binding_missed_total "));
    told.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn history_that_went_before_it_was_bound_is_told_and_what_is_left_is_bound() {
    for place in Place::each(kept("orders.**", Mode::Log, 5)).await {
        let hub = place.bound(&orders()).await;
        say(&hub, "orders.a", 0).await.unwrap();
        store_only(&place, (1..20).map(|n| item("orders.a", n)).collect()).await;
        let before = missed();
        say(&hub, "orders.a", 20).await.unwrap();
        let jobs = drained(&hub, "jobs").await;
        let bound = jobs.len() as u64 - 1;
        assert_eq!(jobs[0], job("orders.a", 0));
        assert_eq!(jobs[1..], (21 - bound..=20).map(|n| job("orders.a", n)).collect::<Vec<_>>());
        assert_eq!(missed() - before, 20 - bound);
    }
}

#[tokio::test]
async fn a_new_life_of_the_store_binds_nothing_twice_and_leaves_nothing_out() {
    let mut place = Place::redis(RedisServer::start_durable());
    let hub = place.bound(&orders()).await;
    say(&hub, "orders.a", 1).await.unwrap();
    let Place::Redis { server, .. } = &mut place else { unreachable!() };
    server.restart();
    let other = place.bound(&orders()).await;
    super::until("the store is there again", || async { say(&other, "orders.a", 2).await.is_ok() }).await;
    super::until("for the first node too", || async { say(&hub, "orders.b", 3).await.is_ok() }).await;
    say(&hub, "orders.a", 4).await.unwrap();
    let jobs = drained(&hub, "jobs").await;
    let of_a: Vec<&String> = jobs.iter().filter(|job| job.contains("orders.a")).collect();
    let stored: Vec<String> = super::history(&other, "orders.a")
        .await
        .iter()
        .map(|m| format!(r#""bound":"orders.a",{}"#, String::from_utf8_lossy(m.body.as_bytes())))
        .collect();
    assert_eq!(of_a, stored.iter().collect::<Vec<_>>());
}
