//! The same through the doors of a whole hub.

use std::time::Duration;

use serde_json::{Value, json};

use super::hub::{Client, start};
use super::tls_receiver::Authority;
use super::{SOON, until};

async fn ask(http: std::net::SocketAddr, path: &str) -> Value {
    reqwest::get(format!("http://{http}{path}")).await.expect("an answer").json().await.expect("JSON")
}

#[tokio::test]
async fn what_comes_through_any_door_is_bound_and_a_firing_is_heard_by_who_subscribes() {
    let server = start(&[
        r#"--binding={"name":"orders","topics":"orders.**","queue":"jobs","filter":{"name":"paid"}}"#,
        "--queue=jobs: start_when=3 notify",
        "--queue-stats=200ms",
    ])
    .await;
    let mut client = Client::connect(server.http, "").await;
    client.say(r#"{"sub":["$queue.jobs.trigger","$queue.jobs.stats"]}"#).await;
    client.say(r#"{"id":1,"pub":"orders.a","name":"paid","data":1}"#).await;
    for (name, data) in [("paid", "2"), ("other", "0")] {
        let url = format!("http://{}/v1/topics/orders.b/messages?name={name}", server.http);
        let post = reqwest::Client::new().post(url).header("content-type", "application/json").body(data);
        assert_eq!(post.send().await.unwrap().status(), 201);
    }
    let door = redis::Client::open(format!("redis://{}", server.door.expect("it has a door"))).unwrap();
    let mut door = door.get_multiplexed_async_connection().await.unwrap();
    let mut add = redis::cmd("XADD");
    add.arg("fanfare:in").arg("*").arg(&["topic", "orders.c", "name", "paid", "data", "3"]);
    let _: String = add.query_async(&mut door).await.unwrap();
    let (mut firing, mut figures) = (Value::Null, Value::Null);
    while firing.is_null() || figures.is_null() {
        let frame = client.next().await;
        match frame["topic"].as_str() {
            Some("$queue.jobs.trigger") if frame["data"].is_object() => firing = frame,
            Some("$queue.jobs.stats") if frame["data"]["stats"]["waiting"][4] == 3 => figures = frame,
            _ => {}
        }
    }
    assert_eq!(firing["data"]["why"], json!({"count": 3}));
    let shown = ask(server.http, "/v1/queues/jobs").await;
    assert_eq!(shown["stats"]["totals"]["put"], 3, "{shown}");
    let mut bound: Vec<Value> = ask(server.http, "/v1/queues/jobs/jobs?place=ready").await["jobs"]
        .as_array()
        .expect("jobs")
        .iter()
        .map(|job| json!([job["bound"], job["data"]]))
        .collect();
    bound.sort_by_key(Value::to_string);
    assert_eq!(bound, [json!(["orders.a", 1]), json!(["orders.b", 2]), json!(["orders.c", 3])]);
    // The hub's own topics are not for clients to publish to.
    client.say(r#"{"id":2,"pub":"$queue.jobs.trigger","data":1}"#).await;
    loop {
        let frame = client.next().await;
        if frame["id"] == 2 {
            assert_eq!(frame["error"], "forbidden", "{frame}");
            break;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn schedules_are_shown_and_a_webhook_that_nothing_signs_is_refused() {
    let server =
        start(&[r#"--schedule={"name":"nightly","cron":"0 2 * * *","timezone":"Asia/Seoul","queue":"jobs"}"#]).await;
    let http = server.http;
    until("the next run is known", || async { ask(http, "/v1/schedules").await["schedules"][0]["next"].is_u64() })
        .await;
    let shown = ask(http, "/v1/schedules").await["schedules"][0].clone();
    assert_eq!((&shown["name"], &shown["queue"], &shown["last"]), (&json!("nightly"), &json!("jobs"), &Value::Null));
    let next = Duration::from_millis(shown["next"].as_u64().unwrap());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(next > now && next < now + Duration::from_secs(24 * 3600 + 60), "{shown}");

    let settings = json!({"start_when": {"any": [{"count": 1}], "webhook": "http://127.0.0.1:9/hook"}});
    let put = reqwest::Client::new().put(format!("http://{http}/v1/queues/jobs")).json(&settings);
    let refused = put.send().await.unwrap();
    assert_eq!(refused.status(), 403);
    let text = refused.text().await.unwrap();
    assert!(text.contains("webhook_secret"), "{text}");
    server.stop().await;
}

async fn set(http: std::net::SocketAddr, settings: &Value) -> (u16, Value) {
    let put = reqwest::Client::new().put(format!("http://{http}/v1/queues/jobs")).json(settings);
    let answer = put.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn a_webhook_by_https_is_posted_to_and_only_its_host_is_shown() {
    let authority = Authority::new();
    let (receiver, mut posts) = authority.receiver("localhost", "HTTP/1.1 204 No Content\r\n\r\n").await;
    let secret = "--webhook-secret=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let ca = format!("--webhook-ca={}", authority.file.path().display());
    let server = start(&[secret, &ca, "--webhook-hosts=localhost"]).await;
    let url = format!("https://localhost:{}/hook?token=hunter2", receiver.port());
    let settings = json!({"start_when": {"any": [{"count": 1}], "mode": "notify", "webhook": url}});
    let shown = json!(format!("https://localhost:{}/***", receiver.port()));
    let (status, answer) = set(server.http, &settings).await;
    assert_eq!((status, &answer["settings"]["start_when"]["webhook"]), (200, &shown), "{answer}");
    // What is shown is written back, with something else changed.
    let mut settings = ask(server.http, "/v1/queues/jobs").await["settings"].clone();
    assert_eq!(settings["start_when"]["webhook"], shown);
    settings["lease"] = json!(60);
    let (status, answer) = set(server.http, &settings).await;
    assert_eq!((status, &answer["settings"]), (200, &settings));

    let url = format!("http://{}/v1/queues/jobs/messages", server.http);
    assert_eq!(reqwest::Client::new().post(url).json(&1).send().await.unwrap().status(), 201);
    let post = tokio::time::timeout(SOON, posts.recv()).await.expect("a post in time").unwrap();
    assert!(post.starts_with("POST /hook?token=hunter2 HTTP/1.1\r\n"), "{post}");
    for header in ["webhook-id: jobs/1/", "webhook-signature: v1,", "host: localhost:"] {
        assert!(post.contains(header), "{header}: {post}");
    }

    for (webhook, shows) in [
        ("https://127.0.0.1/hook", "add 127.0.0.1 to webhook_hosts"),
        ("https://hooks.example/", "hooks.example: it is not among webhook_hosts"),
    ] {
        let (status, answer) =
            set(server.http, &json!({"start_when": {"any": [{"count": 1}], "webhook": webhook}})).await;
        let text = answer["detail"].as_str().unwrap();
        assert!(status == 403 && text.contains(shows), "{webhook}: {answer}");
    }
    server.stop().await;
}
