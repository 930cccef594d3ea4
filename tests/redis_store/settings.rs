//! Which Redis is opened, and which is refused with the way out.

use super::*;

#[tokio::test]
async fn settings_that_lose_messages_are_refused_by_name() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let error = open(&server.url(), options()).await.err().unwrap();
    assert!(
        matches!(error, OpenError::Unfit(_)) && error.to_string().contains("maxmemory-policy noeviction"),
        "{error}"
    );
}

#[tokio::test]
async fn another_number_of_groups_is_refused() {
    let server = RedisServer::start();
    store(&server).await.close().await;
    let error = open(&server.url(), RedisOptions { groups: 64, ..options() }).await.err().unwrap();
    assert!(matches!(error, OpenError::Groups { .. }) && error.to_string().contains("256"), "{error}");
    let other = RedisOptions { groups: 64, prefix: "other".into(), ..options() };
    assert!(open(&server.url(), other).await.is_ok());
}

#[tokio::test]
async fn two_databases_of_one_redis_do_not_hear_each_other() {
    let server = RedisServer::start();
    let first = open(&server.url(), options()).await.unwrap();
    let second = open(&format!("{}/3?protocol=resp3", server.url()), options()).await.unwrap();
    let (mut ear, mut other_ear) = (Ear::open(&first), Ear::open(&second));
    ear.watch("news").await;
    other_ear.watch("news").await;
    put(&first, "news", "in 0").await.unwrap();
    put(&second, "news", "in 3").await.unwrap();
    assert_eq!(ear.until("in 0").await, ["in 0"]);
    assert_eq!(other_ear.until("in 3").await, ["in 3"]);
    assert_eq!(bodies(&page(&second, "news", ReadFrom::Last(9)).await), ["in 3"]);
}

#[tokio::test]
async fn every_form_of_address_connects_and_refusals_show_no_password() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("redis.sock").display().to_string();
    let server = RedisServer::start_with(&["--requirepass", "secret", "--unixsocket", &socket]);
    let port = server.port();
    for url in [
        format!("redis://:secret@127.0.0.1:{port}"),
        format!("redis://default:secret@localhost:{port}/2"),
        format!("unix:{socket}?pass=secret"),
    ] {
        let store = open(&url, options()).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(put(&store, &format!("t{}", url.len()), "x").await.unwrap().offset, 1);
        let mut ear = Ear::open(&store);
        ear.watch("news").await;
    }
    for url in [format!("redis://:wrong-secret@127.0.0.1:{port}"), format!("redis://127.0.0.1:{port}")] {
        let error = open(&url, options()).await.err().unwrap().to_string();
        assert!(!error.contains("secret") && error.contains(&port.to_string()), "{error}");
    }
    drop(server);
    let error = open(&format!("redis://127.0.0.1:{port}"), options()).await.err().unwrap();
    assert!(matches!(error, OpenError::Unreachable(_)), "{error}");
}
