//! Queues end to end, over real sockets and HTTP: the same conversations on a hub in memory, on disk and on a Redis.

#[path = "support/hub.rs"]
mod hub;
#[path = "support/redis.rs"]
mod redis_server;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use fanfare::server::Server;
use hub::{Client, Heard, PATIENCE};
use redis_server::RedisServer;
use serde_json::{Value, json};

/// A hub on a store of its own.
struct Scene {
    server: Server,
    http: SocketAddr,
    _folder: Option<tempfile::TempDir>,
    _redis: Option<RedisServer>,
}

impl Scene {
    async fn in_memory() -> Scene {
        Scene::start("memory", &[], None, None).await
    }

    async fn on_disk() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let store = format!("disk:{}", folder.path().join("store").display());
        Scene::start(&store, &[], Some(folder), None).await
    }

    async fn on_redis() -> Scene {
        let redis = RedisServer::start();
        let url = redis.url();
        Scene::start(&url, &[], None, Some(redis)).await
    }

    async fn start(
        store: &str,
        flags: &[&str],
        folder: Option<tempfile::TempDir>,
        redis: Option<RedisServer>,
    ) -> Scene {
        let store = format!("--store={store}");
        // A worker that takes nothing for long is slow, not cut, however slow the machine is.
        let flags: Vec<&str> = [store.as_str(), "--outbox-age=10m"].into_iter().chain(flags.iter().copied()).collect();
        let server = hub::start(&flags).await;
        Scene { http: server.http, server, _folder: folder, _redis: redis }
    }

    async fn connect(&self) -> Client {
        connect(self.http).await
    }

    /// A worker that was told that it takes.
    async fn worker(&self, queue: &str, credit: u32) -> Client {
        let mut worker = self.connect().await;
        take(&mut worker, json!({ "take": queue, "credit": credit })).await;
        worker
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        send(self.http, "POST", path, body).await
    }

    async fn put(&self, queue: &str, query: &str, data: &Value) -> String {
        let (status, answer) = self.post(&format!("/v1/queues/{queue}/messages{query}"), data).await;
        assert_eq!(status, 201, "{answer}");
        answer["job"].as_str().unwrap().to_owned()
    }

    async fn set(&self, queue: &str, settings: &Value) {
        let (status, answer) = send(self.http, "PUT", &format!("/v1/queues/{queue}"), settings).await;
        assert_eq!(status, 200, "{answer}");
    }

    async fn stats(&self, queue: &str) -> Value {
        let (status, answer) = send(self.http, "GET", &format!("/v1/queues/{queue}"), &Value::Null).await;
        assert_eq!(status, 200, "{answer}");
        answer["stats"].clone()
    }

    async fn take(&self, queue: &str, body: &Value) -> Vec<Value> {
        let (status, answer) = self.post(&format!("/v1/queues/{queue}/take"), body).await;
        assert_eq!(status, 200, "{answer}");
        answer["jobs"].as_array().unwrap().clone()
    }
}

async fn send(http: SocketAddr, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let request = client.request(method.parse().unwrap(), format!("http://{http}{path}"));
    let answer = match body {
        Value::Null => request,
        body => request.header("content-type", "application/json").body(body.to_string()),
    };
    let answer = answer.send().await.expect("an answer");
    (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).expect("JSON"))
}

async fn connect(http: SocketAddr) -> Client {
    let mut client = Client::connect(http, "").await;
    let hello = client.next().await;
    assert!(hello["inbox"].as_str().unwrap().starts_with("$inbox."), "{hello}");
    client
}

async fn take(worker: &mut Client, frame: Value) {
    worker.say(&frame.to_string()).await;
    let answer = worker.next().await;
    assert_eq!((&answer["ok"], &answer["queue"]), (&json!("take"), &frame["take"]), "{answer}");
}

async fn say(client: &mut Client, frame: Value) {
    client.say(&frame.to_string()).await;
}

async fn ask(client: &mut Client, frame: Value) -> Value {
    say(client, frame).await;
    client.next().await
}

/// Nothing else was on its way before this, nor came while the store did some work that was asked for later.
async fn hears_nothing(client: &mut Client) {
    for n in 0..3 {
        let answer = ask(client, json!({ "put": "aside", "data": n, "id": "aside" })).await;
        assert_eq!((&answer["id"], &answer["ok"]), (&json!("aside"), &json!("put")), "{answer}");
    }
    assert_eq!(ask(client, json!({ "ping": 1 })).await, json!({ "pong": 1 }));
}

async fn ack(worker: &mut Client, job: &Value) {
    let answer = ask(worker, json!({ "id": 1, "ack": job["tag"] })).await;
    assert_eq!(answer, json!({ "id": 1, "ok": "ack" }));
}

fn data(job: &Value) -> &Value {
    assert!(job["queue"].is_string() && job["tag"].is_string(), "a job: {job}");
    &job["data"]
}

macro_rules! on_every_store {
    ($($name:ident),* $(,)?) => {
        mod memory { use super::*; $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(Scene::in_memory().await).await; })* }
        mod disk { use super::*; $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(Scene::on_disk().await).await; })* }
        mod redis { use super::*; $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(Scene::on_redis().await).await; })* }
    };
}

on_every_store!(
    each_job_goes_to_one_worker_and_each_message_to_all,
    four_workers_share_evenly,
    a_closed_socket_gives_its_jobs_back_at_once,
    a_lease_that_ends_is_told_and_another_worker_gets_the_job,
    a_late_ack_costs_that_job_and_not_the_connection,
    untake_gives_back_what_is_held_and_counts_no_try,
    without_credit_nothing_comes,
    the_highest_priority_comes_first_and_a_group_in_its_order,
    what_failed_comes_again_after_its_delay_and_is_dead_after_its_last_try,
    extending_keeps_a_job,
    a_request_is_answered_by_the_worker,
    a_request_that_nobody_answers_times_out_and_the_late_reply_is_counted,
    a_reply_goes_to_the_inbox_that_was_named,
    taking_by_http_waits_for_a_put_and_settles_by_tag,
    a_client_that_goes_away_takes_nothing,
    an_exclusive_queue_has_a_worker_that_stands_by,
    an_exclusive_queue_keeps_the_seat_of_who_took_by_http,
    only_who_has_a_job_answers_for_it,
    a_paused_queue_gives_nothing_until_it_is_resumed,
    a_slow_worker_holds_no_more_than_it_has_room_for,
    the_same_key_is_the_same_job,
    dead_letters_are_looked_at_edited_and_redriven,
    a_document_with_a_queue_is_a_job,
    what_is_too_much_is_refused,
);

async fn each_job_goes_to_one_worker_and_each_message_to_all(scene: Scene) {
    let mut subscribers = Vec::new();
    let mut workers = Vec::new();
    for _ in 0..3 {
        let mut subscriber = scene.connect().await;
        assert_eq!(ask(&mut subscriber, json!({ "sub": "orders" })).await["ok"], "sub");
        subscribers.push(subscriber);
        workers.push(scene.worker("orders", 1).await);
    }
    let payload = json!({ "order": 17 });
    hub::publish(scene.http, "orders", &payload.to_string()).await;
    scene.put("orders", "", &payload).await;
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.next().await["data"], payload);
    }
    let heard = futures::future::select_all(workers.iter_mut().map(|worker| Box::pin(worker.next())));
    let (job, which, rest) = heard.await;
    drop(rest);
    assert_eq!((data(&job), &job["try"], &job["max"]), (&payload, &json!(1), &json!(5)));
    ack(&mut workers[which], &job).await;
    for worker in &mut workers {
        hears_nothing(worker).await;
    }
    let stats = scene.stats("orders").await;
    assert_eq!((&stats["totals"]["acked"], &stats["in_flight"]), (&json!(1), &json!(0)));
}

async fn four_workers_share_evenly(scene: Scene) {
    const JOBS: u64 = 10_000;
    let mut tasks = Vec::new();
    let (done, mut progress) = tokio::sync::mpsc::channel::<(usize, u64)>(JOBS as usize);
    for which in 0..4 {
        let mut worker = scene.worker("work", 20).await;
        let done = done.clone();
        tasks.push(tokio::spawn(async move {
            loop {
                let Heard::Text(text) = worker.hear().await else { return };
                let job: Value = serde_json::from_str(&text).unwrap();
                say(&mut worker, json!({ "ack": job["tag"] })).await;
                if done.send((which, data(&job).as_u64().unwrap())).await.is_err() {
                    return;
                }
            }
        }));
    }
    let begun = std::time::Instant::now();
    for first in (0..JOBS).step_by(500) {
        let batch: Vec<Value> = (first..first + 500).map(|n| json!({ "queue": "work", "data": n })).collect();
        let (status, answer) = scene.post("/v1/messages", &batch.into()).await;
        assert_eq!((status, &answer["failed"]), (200, &json!(0)), "{answer}");
    }
    let (mut seen, mut shares) = (HashSet::new(), BTreeMap::<usize, u64>::new());
    while seen.len() < JOBS as usize {
        let (which, n) = tokio::time::timeout(PATIENCE, progress.recv()).await.expect("it goes on").unwrap();
        assert!(seen.insert(n), "{n} came twice");
        *shares.entry(which).or_default() += 1;
    }
    eprintln!("{JOBS} jobs in {:?}: {shares:?}", begun.elapsed());
    for share in shares.values() {
        assert!((JOBS / 4).abs_diff(*share) <= JOBS / 40, "within 10 %: {shares:?}");
    }
    tasks.iter().for_each(|task| task.abort());
}

async fn a_closed_socket_gives_its_jobs_back_at_once(scene: Scene) {
    let mut first = scene.worker("jobs", 1).await;
    let id = scene.put("jobs", "", &json!("x")).await;
    let job = first.next().await;
    assert_eq!((&job["job"], &job["try"]), (&json!(id), &json!(1)));
    let mut second = scene.worker("jobs", 1).await;
    let begun = std::time::Instant::now();
    drop(first);
    let job = second.next().await;
    assert_eq!((&job["job"], &job["try"]), (&json!(id), &json!(2)));
    assert!(begun.elapsed().as_secs() < 5, "long before its lease of 30 s: {:?}", begun.elapsed());
    ack(&mut second, &job).await;
}

async fn a_lease_that_ends_is_told_and_another_worker_gets_the_job(scene: Scene) {
    let mut first = scene.connect().await;
    take(&mut first, json!({ "take": "jobs", "credit": 1, "lease": 0.4 })).await;
    let id = scene.put("jobs", "", &json!("x")).await;
    let job = first.next().await;
    assert_eq!((&job["job"], &job["lease"]), (&json!(id), &json!(0.4)));
    say(&mut first, json!({ "id": 5, "take": "jobs", "credit": 0 })).await;
    assert_eq!(first.next().await["credit"], 0);
    let mut second = scene.worker("jobs", 1).await;
    assert_eq!(first.next().await, json!({ "lost": job["tag"] }));
    let again = second.next().await;
    assert_eq!((&again["job"], &again["try"]), (&json!(id), &json!(2)));
    ack(&mut second, &again).await;
    let refused = ask(&mut first, json!({ "ack": job["tag"] })).await;
    assert_eq!((&refused["error"], &refused["for"], &refused["tag"]), (&json!("no-lease"), &json!("ack"), &job["tag"]));
}

async fn a_late_ack_costs_that_job_and_not_the_connection(scene: Scene) {
    let mut worker = scene.worker("jobs", 2).await;
    scene.put("jobs", "", &json!(1)).await;
    let job = worker.next().await;
    ack(&mut worker, &job).await;
    let refused = ask(&mut worker, json!({ "id": 7, "ack": [job["tag"], "d999", "nonsense"] })).await;
    let failed = json!({ job["tag"].as_str().unwrap(): "no-lease", "d999": "no-lease", "nonsense": "no-lease" });
    assert_eq!(refused, json!({ "id": 7, "ok": "ack", "failed": failed }));
    scene.put("jobs", "", &json!(2)).await;
    let job = worker.next().await;
    assert_eq!(data(&job), 2);
    ack(&mut worker, &job).await;
}

async fn untake_gives_back_what_is_held_and_counts_no_try(scene: Scene) {
    let mut worker = scene.worker("jobs", 3).await;
    for n in 0..3 {
        scene.put("jobs", "", &json!(n)).await;
    }
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(worker.next().await);
    }
    assert_eq!(
        ask(&mut worker, json!({ "id": 2, "untake": "jobs" })).await,
        json!({ "id": 2, "ok": "untake", "queue": "jobs" })
    );
    let refused = ask(&mut worker, json!({ "id": 3, "ack": held[0]["tag"] })).await;
    assert_eq!(refused["failed"][held[0]["tag"].as_str().unwrap()], "no-lease");
    let mut other = scene.worker("jobs", 3).await;
    for n in 0..3 {
        let job = other.next().await;
        assert_eq!((data(&job), &job["try"]), (&json!(n), &json!(1)));
    }
    // It may take again.
    take(&mut worker, json!({ "take": "jobs" })).await;
    scene.put("jobs", "", &json!("new")).await;
    assert_eq!(data(&worker.next().await), "new");
}

async fn without_credit_nothing_comes(scene: Scene) {
    let mut worker = scene.worker("jobs", 0).await;
    scene.put("jobs", "", &json!(1)).await;
    scene.put("jobs", "", &json!(2)).await;
    hears_nothing(&mut worker).await;
    assert_eq!(scene.stats("jobs").await["in_flight"], 0);
    take(&mut worker, json!({ "take": "jobs", "credit": 1 })).await;
    let job = worker.next().await;
    assert_eq!(data(&job), 1);
    hears_nothing(&mut worker).await;
    ack(&mut worker, &job).await;
    assert_eq!(data(&worker.next().await), 2);
}

async fn the_highest_priority_comes_first_and_a_group_in_its_order(scene: Scene) {
    for (n, query) in ["?priority=1", "?priority=9", "", "?group=g", "?group=g"].iter().enumerate() {
        scene.put("jobs", query, &json!(n)).await;
    }
    let mut worker = scene.worker("jobs", 10).await;
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(worker.next().await);
    }
    assert_eq!(jobs.iter().map(data).collect::<Vec<_>>(), [1, 2, 3, 0]);
    assert_eq!((&jobs[0]["priority"], jobs[1].get("priority"), &jobs[2]["group"]), (&json!(9), None, &json!("g")));
    // The next of the group waits for the one before it, however much credit there is.
    hears_nothing(&mut worker).await;
    say(&mut worker, json!({ "ack": jobs[2]["tag"] })).await;
    assert_eq!(data(&worker.next().await), 4);
}

async fn what_failed_comes_again_after_its_delay_and_is_dead_after_its_last_try(scene: Scene) {
    scene.set("jobs", &json!({ "max_deliveries": 2, "backoff": [] })).await;
    let mut worker = scene.worker("jobs", 1).await;
    let id = scene.put("jobs", "", &json!("x")).await;
    let job = worker.next().await;
    let begun = std::time::Instant::now();
    say(&mut worker, json!({ "nack": job["tag"], "delay": 0.5, "text": "no route" })).await;
    let job = worker.next().await;
    assert!(begun.elapsed().as_millis() >= 450, "{:?}", begun.elapsed());
    assert_eq!((&job["job"], &job["try"]), (&json!(id), &json!(2)));
    assert_eq!(
        ask(&mut worker, json!({ "id": 1, "nak": job["tag"], "text": "again" })).await,
        json!({ "id": 1, "ok": "nack" })
    );
    let other = scene.put("jobs", "", &json!("y")).await;
    let job = worker.next().await;
    assert_eq!(job["job"], other);
    let answer = ask(&mut worker, json!({ "id": 2, "term": job["tag"], "text": "never" })).await;
    assert_eq!(answer, json!({ "id": 2, "ok": "term" }));
    let (_, dead) = send(scene.http, "GET", "/v1/queues/jobs/dead", &Value::Null).await;
    let dead = dead["jobs"].as_array().unwrap();
    let told: Vec<_> = dead.iter().map(|job| (&job["job"], &job["cause"], &job["error"])).collect();
    let (first, second) = (json!(id), json!(other));
    assert_eq!(told, [(&first, &json!("max-deliveries"), &json!("again")), (&second, &json!("term"), &json!("never"))]);
    assert_eq!(dead[0]["attempts"].as_array().unwrap().len(), 2);
}

async fn extending_keeps_a_job(scene: Scene) {
    let mut worker = scene.connect().await;
    take(&mut worker, json!({ "take": "jobs", "lease": 0.5 })).await;
    scene.put("jobs", "", &json!("x")).await;
    let job = worker.next().await;
    assert_eq!(
        ask(&mut worker, json!({ "id": 1, "extend": job["tag"], "by": 20 })).await,
        json!({ "id": 1, "ok": "extend" })
    );
    // Another's lease of the same length ends, this one's does not.
    let mut other = scene.connect().await;
    take(&mut other, json!({ "take": "others", "lease": 0.6 })).await;
    scene.put("others", "", &json!("y")).await;
    let lost = other.next().await;
    assert_eq!(other.next().await, json!({ "lost": lost["tag"] }));
    hears_nothing(&mut worker).await;
    ack(&mut worker, &job).await;
}

async fn a_request_is_answered_by_the_worker(scene: Scene) {
    let mut worker = scene.worker("sums", 1).await;
    let mut asker = scene.connect().await;
    say(&mut asker, json!({ "id": 4, "request": "sums", "data": [2, 3], "timeout": 15 })).await;
    let job = worker.next().await;
    assert_eq!(data(&job), &json!([2, 3]));
    say(&mut worker, json!({ "ack": job["tag"], "reply": { "sum": 5 } })).await;
    let answer = asker.next().await;
    assert_eq!(answer, json!({ "id": 4, "ok": "request", "queue": "sums", "job": job["job"], "data": { "sum": 5 } }));

    let http = scene.http;
    let asked =
        tokio::spawn(async move { send(http, "POST", "/v1/queues/sums/request?timeout=15", &json!([4, 5])).await });
    let job = worker.next().await;
    ack_with(&mut worker, &job, json!(9)).await;
    let (status, answer) = asked.await.unwrap();
    assert_eq!((status, &answer["data"], &answer["job"]), (200, &json!(9), &job["job"]));
    assert_eq!(scene.stats("sums").await["totals"]["acked"], 2);
}

async fn ack_with(worker: &mut Client, job: &Value, reply: Value) {
    let answer = ask(worker, json!({ "id": 1, "ack": job["tag"], "reply": reply })).await;
    assert_eq!(answer, json!({ "id": 1, "ok": "ack" }));
}

async fn a_request_that_nobody_answers_times_out_and_the_late_reply_is_counted(scene: Scene) {
    let mut asker = scene.connect().await;
    let before = hub::metric(&scene.server, "fanfare_late_replies_total", "").await;
    let answer = ask(&mut asker, json!({ "id": 4, "request": "sums", "data": 1, "timeout": 0.2 })).await;
    assert_eq!(
        (&answer["error"], &answer["for"], &answer["queue"]),
        (&json!("timeout"), &json!("request"), &json!("sums"))
    );
    let (status, answer) = scene.post("/v1/queues/sums/request?timeout=0.2", &json!(2)).await;
    assert_eq!((status, &answer["reason"]), (504, &json!("timeout")));
    let mut worker = scene.worker("sums", 2).await;
    for job in [worker.next().await, worker.next().await] {
        ack_with(&mut worker, &job, json!("late")).await;
    }
    let counted = async {
        while hub::metric(&scene.server, "fanfare_late_replies_total", "").await < before + 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("late replies are counted");
}

async fn a_reply_goes_to_the_inbox_that_was_named(scene: Scene) {
    let mut asker = Client::connect(scene.http, "").await;
    let inbox = asker.next().await["inbox"].as_str().unwrap().to_owned();
    assert_eq!(ask(&mut asker, json!({ "sub": inbox })).await["ok"], "sub");
    let answer = ask(&mut asker, json!({ "id": "r-1", "request": "sums", "data": [1], "reply_to": inbox })).await;
    assert_eq!((&answer["ok"], &answer["request"]), (&json!("request"), &json!("r-1")));
    let mut worker = scene.worker("sums", 1).await;
    let job = worker.next().await;
    assert_eq!(job["job"], answer["job"]);
    ack_with(&mut worker, &job, json!(1)).await;
    let reply = asker.next().await;
    assert_eq!((&reply["topic"], &reply["name"], &reply["data"]), (&json!(inbox), &json!("r-1"), &json!(1)));
    for (frame, word) in [
        (json!({ "request": "sums", "data": 1, "reply_to": "$inbox.short" }), "forbidden"),
        (json!({ "request": "sums", "data": 1, "reply_to": "news" }), "forbidden"),
        (json!({ "sub": "$inbox.short" }), "forbidden"),
        (json!({ "sub": "$inbox.node-0123456789abcdef0123456789abcdef" }), "forbidden"),
        (json!({ "request": "sums", "data": 1, "reply_to": "$inbox.node-0123456789abcdef01" }), "forbidden"),
        (json!({ "pub": inbox, "data": 1 }), "forbidden"),
    ] {
        assert_eq!(ask(&mut asker, frame.clone()).await["error"], word, "{frame}");
    }
}

async fn taking_by_http_waits_for_a_put_and_settles_by_tag(scene: Scene) {
    assert_eq!(scene.take("jobs", &json!({})).await, Vec::<Value>::new());
    let http = scene.http;
    let waiting = tokio::spawn(async move {
        send(http, "POST", "/v1/queues/jobs/take", &json!({ "max": 10, "wait": 15, "worker": "w" })).await
    });
    // It waits when the store says that nobody has a job: a first answer would be empty.
    until(|| async { hub::metric(&scene.server, "fanfare_queue_takers", "").await > 0 || !waiting.is_finished() })
        .await;
    let id = scene.put("jobs", "", &json!({ "a": 1 })).await;
    let (status, answer) = waiting.await.unwrap();
    assert_eq!(status, 200);
    let job = &answer["jobs"][0];
    assert_eq!((data(job), &job["job"], &job["try"]), (&json!({ "a": 1 }), &json!(id), &json!(1)));
    let (status, answer) = scene.post("/v1/queues/jobs/extend", &json!({ "tag": job["tag"], "by": 60 })).await;
    assert_eq!((status, answer), (200, json!({ "ok": "extend" })));
    let (status, answer) = scene.post("/v1/queues/jobs/nack", &json!({ "tag": job["tag"], "delay": 0 })).await;
    assert_eq!((status, answer), (200, json!({ "ok": "nack" })));
    let again = scene.take("jobs", &json!({ "wait": 15 })).await;
    assert_eq!(again[0]["try"], 2);
    let (_, answer) = scene.post("/v1/queues/jobs/ack", &json!({ "tag": [again[0]["tag"], job["tag"], "x"] })).await;
    let failed = json!({ job["tag"].as_str().unwrap(): "no-lease", "x": "no-lease" });
    assert_eq!(answer, json!({ "ok": "ack", "failed": failed }));
    let (status, _) = send(http, "GET", &format!("/v1/queues/jobs/jobs/{id}"), &Value::Null).await;
    assert_eq!(status, 404);
}

/// Asks until it is so.
async fn until<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) {
    let asking = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("it becomes so");
}

async fn a_client_that_goes_away_takes_nothing(scene: Scene) {
    for _ in 0..3 {
        use tokio::io::AsyncWriteExt;
        let mut stream = tokio::net::TcpStream::connect(scene.http).await.unwrap();
        let body = r#"{"wait":60}"#;
        let head = "POST /v1/queues/jobs/take HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        drop(stream);
    }
    let id = scene.put("jobs", "", &json!("x")).await;
    let job = scene.take("jobs", &json!({ "wait": 15 })).await.remove(0);
    // Had one of them been given it, it would have gone back without a try.
    assert_eq!((&job["job"], &job["try"]), (&json!(id), &json!(1)));
}

async fn an_exclusive_queue_has_a_worker_that_stands_by(scene: Scene) {
    scene.set("jobs", &json!({ "exclusive": true, "backoff": [] })).await;
    let mut first = scene.worker("jobs", 1).await;
    scene.put("jobs", "", &json!(1)).await;
    let job = first.next().await;
    let mut second = scene.worker("jobs", 5).await;
    scene.put("jobs", "", &json!(2)).await;
    scene.put("jobs", "", &json!(3)).await;
    ack(&mut first, &job).await;
    let job = first.next().await;
    assert_eq!(data(&job), 2);
    hears_nothing(&mut second).await;
    assert_eq!(scene.stats("jobs").await["seats"].as_array().unwrap().len(), 1);
    // The one that stands by takes over: what was held first, then the rest.
    drop(first);
    let jobs = [second.next().await, second.next().await];
    assert_eq!(
        jobs.each_ref().map(|job| (data(job).clone(), job["try"].clone())),
        [(json!(2), json!(2)), (json!(3), json!(1))]
    );
}

async fn an_exclusive_queue_keeps_the_seat_of_who_took_by_http(scene: Scene) {
    scene.set("jobs", &json!({ "exclusive": true })).await;
    scene.put("jobs", "", &json!(1)).await;
    scene.put("jobs", "", &json!(2)).await;
    let jobs = scene.take("jobs", &json!({ "worker": "a" })).await;
    assert_eq!(data(&jobs[0]), 1);
    assert_eq!(scene.take("jobs", &json!({ "worker": "b" })).await, Vec::<Value>::new());
    assert_eq!(scene.take("jobs", &json!({})).await, Vec::<Value>::new(), "nor who does not say who it is");
    scene.post("/v1/queues/jobs/ack", &json!({ "tag": jobs[0]["tag"] })).await;
    let jobs = scene.take("jobs", &json!({ "worker": "a" })).await;
    assert_eq!(data(&jobs[0]), 2);
}

async fn only_who_has_a_job_answers_for_it(scene: Scene) {
    let mut worker = scene.worker("jobs", 1).await;
    let mut asker = scene.connect().await;
    say(&mut asker, json!({ "id": 1, "request": "jobs", "data": 1, "timeout": 20 })).await;
    let job = worker.next().await;
    let made_up = format!("{}.1", job["job"].as_str().unwrap());
    let (_, answer) = scene.post("/v1/queues/jobs/ack", &json!({ "tag": made_up, "reply": "forged" })).await;
    assert_eq!(answer["failed"], json!({ made_up: "no-lease" }));
    say(&mut worker, json!({ "ack": job["tag"], "reply": "true" })).await;
    assert_eq!(asker.next().await["data"], "true");
}

async fn a_paused_queue_gives_nothing_until_it_is_resumed(scene: Scene) {
    let mut worker = scene.worker("jobs", 1).await;
    scene.put("jobs", "", &json!(0)).await;
    let job = worker.next().await;
    let (status, answer) = scene.post("/v1/queues/jobs/pause", &Value::Null).await;
    assert_eq!((status, answer), (200, json!({ "queue": "jobs", "paused": true })));
    ack(&mut worker, &job).await;
    scene.put("jobs", "", &json!(1)).await;
    assert_eq!(scene.take("jobs", &json!({ "wait": 0.2 })).await, Vec::<Value>::new());
    hears_nothing(&mut worker).await;
    scene.post("/v1/queues/jobs/resume", &Value::Null).await;
    assert_eq!(data(&worker.next().await), 1);
}

async fn a_slow_worker_holds_no_more_than_it_has_room_for(scene: Scene) {
    let mut slow = hub::narrow(scene.http, "").await;
    slow.next().await;
    take(&mut slow, json!({ "take": "jobs", "credit": 200, "lease": 600 })).await;
    // 200 jobs of 60 kB are more than an outbox of 1 MiB and what the kernel holds.
    let large = "x".repeat(60_000);
    for _ in 0..4 {
        let batch = vec![json!({ "queue": "jobs", "data": large }); 50];
        assert_eq!(scene.post("/v1/messages", &batch.into()).await.1["failed"], 0);
    }
    // Others are given what it has no room for, and it was not counted as a try.
    let mut quick = scene.worker("jobs", 1).await;
    for _ in 0..20 {
        let job = quick.next().await;
        assert_eq!((data(&job).as_str().unwrap().len(), &job["try"]), (60_000, &json!(1)));
        say(&mut quick, json!({ "ack": job["tag"] })).await;
    }
    drop(quick);
    // When it reads, it goes on.
    let mut got = 0;
    while got < 100 {
        let job = slow.next().await;
        say(&mut slow, json!({ "ack": job["tag"] })).await;
        got += 1;
    }
}

async fn the_same_key_is_the_same_job(scene: Scene) {
    let mut client = scene.connect().await;
    let first = ask(&mut client, json!({ "id": 1, "put": "jobs", "data": 1, "dedupe": "k" })).await;
    let again = ask(&mut client, json!({ "id": 2, "put": "jobs", "data": 1, "dedupe": "k" })).await;
    assert_eq!((&first["job"], first.get("repeated"), &again["repeated"]), (&again["job"], None, &json!(true)));
    let refused = ask(&mut client, json!({ "put": "jobs", "data": 1, "group": "g", "delay": 5 })).await;
    assert_eq!(
        (&refused["error"], &refused["for"], &refused["queue"]),
        (&json!("bad-frame"), &json!("put"), &json!("jobs"))
    );
    let conflict = [1, 2].map(|data| json!({ "put": "jobs", "data": data, "idempotency_key": "i" }));
    assert_eq!(ask(&mut client, conflict[0].clone()).await["ok"], "put");
    assert_eq!(ask(&mut client, conflict[1].clone()).await["error"], "conflict");
    let stats = scene.stats("jobs").await;
    assert_eq!((&stats["waiting"][4], &stats["totals"]["repeated"]), (&json!(2), &json!(1)));
}

async fn dead_letters_are_looked_at_edited_and_redriven(scene: Scene) {
    scene.set("jobs", &json!({ "max_deliveries": 1 })).await;
    for n in 0..5 {
        scene.put("jobs", "", &json!(n)).await;
    }
    let jobs = scene.take("jobs", &json!({ "max": 5 })).await;
    let tags: Vec<&Value> = jobs.iter().map(|job| &job["tag"]).collect();
    scene.post("/v1/queues/jobs/nack", &json!({ "tag": tags, "text": "bad" })).await;
    assert_eq!(scene.stats("jobs").await["dead"], 5);
    let id = jobs[0]["job"].as_str().unwrap();
    let (status, answer) = send(scene.http, "PUT", &format!("/v1/queues/jobs/dead/{id}"), &json!("mended")).await;
    assert_eq!((status, &answer["edited"]), (200, &json!(1)));
    let (_, answer) = scene.post("/v1/queues/jobs/dead/redrive", &json!({ "jobs": [id] })).await;
    assert_eq!(answer["redriven"], 1);
    let job = scene.take("jobs", &json!({})).await.remove(0);
    assert_eq!((data(&job), &job["try"]), (&json!("mended"), &json!(1)));
    let (status, _) = scene.post("/v1/queues/jobs/dead/redrive", &json!({ "limit": 1, "rate": 1e-300 })).await;
    assert_eq!(status, 400);
    let begun = std::time::Instant::now();
    let (_, answer) = scene.post("/v1/queues/jobs/dead/redrive", &json!({ "limit": 3, "rate": 5 })).await;
    assert_eq!(answer["redriven"], 3);
    assert!(begun.elapsed().as_millis() >= 300, "at a pace: {:?}", begun.elapsed());
    let last = jobs[4]["job"].as_str().unwrap();
    let (status, _) = send(scene.http, "DELETE", &format!("/v1/queues/jobs/dead/{last}"), &Value::Null).await;
    assert_eq!(status, 200);
    let (_, page) = send(scene.http, "GET", "/v1/queues/jobs/jobs?limit=2", &Value::Null).await;
    assert_eq!((page["jobs"].as_array().unwrap().len(), &page["more"]), (2, &json!(true)));
    let (_, answer) = send(scene.http, "DELETE", "/v1/queues/jobs/jobs?place=ready", &Value::Null).await;
    assert_eq!(answer["removed"], 3);
    let (_, list) = send(scene.http, "GET", "/v1/queues", &Value::Null).await;
    assert_eq!(list, json!({ "queues": ["jobs"], "more": false }));
    let (status, _) = send(scene.http, "DELETE", "/v1/queues/jobs", &Value::Null).await;
    assert_eq!(status, 200);
    let (status, _) = send(scene.http, "GET", "/v1/queues/jobs", &Value::Null).await;
    assert_eq!(status, 404);
}

async fn a_document_with_a_queue_is_a_job(scene: Scene) {
    let (status, answer) = scene.post("/v1/messages", &json!({ "queue": "jobs", "data": 1, "priority": 8 })).await;
    assert_eq!((status, &answer["queue"]), (201, &json!("jobs")), "{answer}");
    let many = json!([
        { "topic": "news", "data": 1 },
        { "queue": "jobs", "data": 2 },
        { "queue": "$no", "data": 3 },
        { "queue": "jobs", "data": 4, "group": "g", "delay": 1 },
    ]);
    let (status, answer) = scene.post("/v1/messages", &many).await;
    assert_eq!((status, &answer["failed"]), (200, &json!(2)), "{answer}");
    let items = answer["items"].as_array().unwrap();
    assert!(items[0]["stored"].is_string() && items[1]["job"].is_string(), "{answer}");
    assert_eq!((&items[2]["error"], &items[3]["error"]), (&json!("bad-name"), &json!("bad-frame")));
    let jobs = scene.take("jobs", &json!({ "max": 10 })).await;
    assert_eq!(jobs.iter().map(data).collect::<Vec<_>>(), [1, 2]);
}

async fn what_is_too_much_is_refused(scene: Scene) {
    let mut client = scene.connect().await;
    for (frame, word) in [
        (json!({ "take": "jobs", "credit": 1001 }), "bad-frame"),
        (json!({ "take": "jobs", "lease": 0.01 }), "bad-frame"),
        (json!({ "take": "$jobs" }), "bad-name"),
        (json!({ "ack": [] }), "too-many"),
        (json!({ "ack": 7 }), "bad-frame"),
        (json!({ "nack": "d1", "delay": -1 }), "bad-frame"),
        (json!({ "put": "jobs" }), "missing-data"),
        (json!({ "put": "jobs", "data": 1, "priority": 10 }), "bad-frame"),
        (json!({ "request": "jobs", "data": 1, "timeout": 100 }), "bad-frame"),
    ] {
        assert_eq!(ask(&mut client, frame.clone()).await["error"], word, "{frame}");
        hears_nothing(&mut client).await;
    }
    for n in 0..10 {
        take(&mut client, json!({ "take": format!("q{n}"), "credit": 1000 })).await;
    }
    let refused = ask(&mut client, json!({ "take": "more", "credit": 1 })).await;
    assert_eq!((&refused["error"], &refused["queue"]), (&json!("too-many"), &json!("more")));
    for (body, status) in [(json!({ "max": 101 }), 400), (json!({ "wait": 61 }), 400), (json!({ "lease": 0 }), 400)] {
        assert_eq!(scene.post("/v1/queues/jobs/take", &body).await.0, status, "{body}");
    }
    let (status, answer) = send(scene.http, "PUT", "/v1/queues/jobs", &json!({ "max_deliveries": 0 })).await;
    assert_eq!((status, &answer["reason"]), (400, &json!("bad-frame")));
}

/// Jobs cross between two nodes of one Redis: shares by demand, replies to the node that asked, what a node held.
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_of_one_redis_share_a_queue() {
    let redis = RedisServer::start();
    let url = format!("--store={}", redis.url());
    let nodes = [hub::start(&[&url]).await, hub::start(&[&url]).await];
    let mut here = connect(nodes[0].http).await;
    let mut there = connect(nodes[1].http).await;
    take(&mut here, json!({ "take": "jobs", "credit": 1 })).await;
    take(&mut there, json!({ "take": "jobs", "credit": 1 })).await;
    let mut asker = connect(nodes[0].http).await;
    say(&mut asker, json!({ "put": "jobs", "data": "a" })).await;
    say(&mut asker, json!({ "put": "jobs", "data": "b" })).await;
    assert_eq!((&asker.next().await["ok"], &asker.next().await["ok"]), (&json!("put"), &json!("put")));
    let jobs = [here.next().await, there.next().await];
    let told: HashSet<String> = jobs.iter().map(|job| data(job).to_string()).collect();
    assert_eq!(told.len(), 2);
    ack(&mut here, &jobs[0]).await;
    // The other node's worker goes; its job comes here at once.
    drop(there);
    let job = here.next().await;
    assert_eq!((&job["job"], &job["try"]), (&jobs[1]["job"], &json!(2)));
    ack(&mut here, &job).await;
    // Asked at one node, answered at the other.
    let mut there = connect(nodes[1].http).await;
    take(&mut there, json!({ "take": "sums", "credit": 1 })).await;
    say(&mut asker, json!({ "id": 9, "request": "sums", "data": 1, "timeout": 15 })).await;
    let job = there.next().await;
    ack_with(&mut there, &job, json!(2)).await;
    assert_eq!(asker.next().await["data"], 2);
    // A node that is sent away gives back what its workers held, without a try.
    say(&mut asker, json!({ "put": "sums", "data": "last" })).await;
    assert_eq!(asker.next().await["ok"], "put");
    let job = there.next().await;
    let [first, second] = nodes;
    second.stop().await;
    take(&mut asker, json!({ "take": "sums" })).await;
    let again = asker.next().await;
    assert_eq!((&again["job"], &again["try"]), (&job["job"], &json!(1)));
    drop((here, asker));
    first.stop().await;
}
