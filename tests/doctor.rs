//! `fanfare doctor` as a shell runs it, against good and bad stores.

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/sentinel.rs"]
mod sentinel;
#[path = "support/redis.rs"]
mod server;

use std::process::{Command, Output};

use sentinel::Replicated;
use serde_json::Value;
use server::RedisServer;

fn doctor(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FANFARE_") {
            command.env_remove(name);
        }
    }
    command.arg("doctor").args(arguments).output().expect("the binary was built")
}

/// What it prints, and that it ends so.
fn told(arguments: &[&str], code: i32) -> String {
    let output = doctor(arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
    format!("{out}{err}")
}

fn set(server: &RedisServer, name: &str, value: &str) {
    redis::cmd("CONFIG").arg(&["SET", name, value]).exec(&mut server.connection()).unwrap();
}

#[test]
fn a_store_that_is_well_is_told_with_what_each_level_means_there() {
    let server = RedisServer::start_durable();
    set(&server, "maxmemory", "100mb");
    let text = told(&["--store", &server.url(), "--durability", "disk"], 0);
    for part in
        ["appendonly yes, appendfsync always", "disk    yes", "replica no", "nothing is wrong", "no hub has opened"]
    {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains("WRONG"), "{text}");
    let json: Value = serde_json::from_str(&told(&["--store", &server.url(), "--json"], 0)).unwrap();
    assert_eq!(
        (json["servers"][0]["appendfsync"].as_str(), json["servers"][0]["role"].as_str()),
        (Some("always"), Some("master"))
    );
    assert!(json["servers"][0]["round_trip_ms"].as_f64().unwrap() > 0.0, "{json}");
}

#[test]
fn what_is_wrong_is_told_with_the_lines_that_change_it() {
    let server = RedisServer::start();
    let url = server.url();
    let text = told(&["--store", &url, "--durability", "disk"], 1);
    assert!(text.contains("WRONG") && text.contains("CONFIG SET appendonly yes"), "{text}");
    let text = told(&["--store", &url, "--durability", "replica"], 1);
    assert!(text.contains("0 of 1 replicas are in step"), "{text}");
    // Without a wish it is advice.
    let text = told(&["--store", &url], 0);
    assert!(text.contains("advice") && text.contains("a restart of Redis loses everything"), "{text}");

    set(&server, "maxmemory-policy", "volatile-lru");
    let text = told(&["--store", &url], 1);
    assert!(text.contains("CONFIG SET maxmemory-policy noeviction"), "{text}");
    set(&server, "maxmemory-policy", "noeviction");

    redis::cmd("XADD").arg(&["fanfare:in", "*", "topic", "t", "data", "1"]).exec(&mut server.connection()).unwrap();
    redis::cmd("RPUSH").arg(&["fanfare:list", "{}"]).exec(&mut server.connection()).unwrap();
    let json: Value = serde_json::from_slice(&doctor(&["--store", &url, "--json"]).stdout).unwrap();
    let queues = json["servers"][0]["queues"].as_array().unwrap();
    assert!(queues.iter().all(|queue| queue["waiting"] == 1), "{json}");
    let text = told(&["--store", &url], 1);
    assert!(text.contains("1 entries wait in fanfare:in, and no hub works on them"), "{text}");
}

#[test]
fn a_redis_that_tells_nothing_of_its_settings_is_not_guessed_at() {
    let server =
        RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always", "--rename-command", "CONFIG", ""]);
    let text = told(&["--store", &server.url()], 0);
    assert!(text.contains("appendfsync not told") && text.contains("--redis-fsync always"), "{text}");
    let text = told(&["--store", &server.url(), "--redis-fsync", "always", "--durability", "disk"], 0);
    assert!(text.contains("disk    yes") && !text.contains("say --redis-fsync"), "{text}");
    assert!(told(&["--store", &server.url(), "--redis-fsync", "perhaps"], 2).contains("everysec"));
    // What it tells itself goes before.
    let telling = RedisServer::start();
    let text = told(&["--store", &telling.url(), "--redis-fsync", "always", "--durability", "disk"], 1);
    assert!(text.contains("cannot be given"), "{text}");
}

#[test]
fn what_cannot_be_looked_at_is_said_without_a_password() {
    let server = RedisServer::start_with(&["--requirepass", "secret"]);
    let url = format!("redis://:wrong-secret@127.0.0.1:{}", server.port());
    assert!(!told(&["--store", &url], 3).contains("secret"));
    drop(server);
    told(&["--store", &url], 3);
    assert!(told(&["--store", "memory"], 2).contains("--url"));
    assert!(told(&["--store", "redis://x", "--durability", "paper"], 2).contains("replica"));
    told(&["--url", "http://127.0.0.1:1"], 3);
}

#[test]
fn behind_sentinels_the_master_is_looked_at_and_the_risk_of_its_isolation_is_told() {
    let mut set = Replicated::start(1, &["--appendonly", "yes"]);
    let text = told(&["--store", &set.url(), "--durability", "replica"], 0);
    assert!(text.contains("CONFIG SET min-replicas-to-write 1") && text.contains("replica yes"), "{text}");
    set.servers[1].redis.kill();
    let text = told(&["--store", &set.url()], 1);
    assert!(text.contains("nobody could take its place"), "{text}");
}
