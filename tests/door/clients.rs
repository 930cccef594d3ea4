//! The clients that people use, as they come from their registries, publishing through the door. `./dev` installs them.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::ingest::{House, data};

/// Runs a client's script against a door and looks at what came of it.
async fn publishes(program: &str, script: &str, more: &[&str]) {
    let (house, door) = House::with_door(|_| {}).await;
    let address = door.door().unwrap();
    let ran = Command::new(program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script))
        .args([address.ip().to_string(), address.port().to_string()])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap_or_else(|error| panic!("{program} does not run ({error}); ./dev installs it"));
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{script}: {out}{err}");
    let told: serde_json::Value = serde_json::from_str(out.trim()).expect(&out);
    let topic = told["topic"].as_str().unwrap();
    for (name, count, shape) in [
        (topic.to_owned(), &told["stream"], r#"{"n":N,"text":"안녕!"}"#),
        (format!("{topic}.list"), &told["list"], r#"{"n":N}"#),
    ] {
        let count = count.as_u64().unwrap();
        let expected: Vec<String> = (1..=count).map(|n| data(&shape.replace('N', &n.to_string()))).collect();
        let found: Vec<String> =
            house.bodies(&name).await.into_iter().map(|body| body.replace("\\uc548\\ub155", "안녕")).collect();
        assert_eq!(found, expected, "{name}");
        assert!(count >= 100);
    }
    assert_eq!(door.dead().count().await, Ok(0));
    door.stop().await;
}

/// Python with redis-py: of the test environment that `./dev` makes, or the one that is on the path.
fn python() -> String {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".dev/venv/bin/python");
    if own.exists() { own.to_string_lossy().into_owned() } else { "python3".to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_py_in_both_versions() {
    publishes(&python(), "redis_py.py", &["2"]).await;
    publishes(&python(), "redis_py.py", &["3"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_redis_in_both_versions() {
    publishes("node", "node_redis.mjs", &["2"]).await;
    publishes("node", "node_redis.mjs", &["3"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ioredis() {
    publishes("node", "ioredis.mjs", &[]).await;
}
