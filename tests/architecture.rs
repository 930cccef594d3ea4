//! Which part may use which: the table of `ARCHITECTURE.md`, held against every file in `src/`. The checker itself is
//! tested on forged files at the end.

#[path = "architecture/scan.rs"]
mod scan;

use std::fs;
use std::path::Path;

use scan::{ROOT, Source};

/// Each part with the parts that it may name. What is not here may not be drawn.
const ARROWS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("telemetry", &[]),
    ("demo", &[]),
    ("endpoint", &["domain", "telemetry"]),
    ("config", &["domain", "endpoint"]),
    ("document", &["domain"]),
    ("web", &["domain", "telemetry"]),
    ("protocol", &["domain", "document"]),
    ("store", &["domain", "endpoint", "telemetry"]),
    ("hub", &["domain", "telemetry"]),
    ("dispatcher", &["domain", "document", "endpoint", "hub", "telemetry"]),
    ("herald", &["document", "domain", "hub", "telemetry"]),
    ("scheduler", &["document", "domain", "hub", "telemetry"]),
    ("api", &["domain", "document", "hub", "telemetry", "web"]),
    ("gateway", &["domain", "document", "protocol", "hub", "telemetry", "web"]),
    ("doctor", &["domain", "endpoint"]),
    ("cli", &["config", "doctor", "document", "domain", "protocol"]),
    (
        "server",
        &[
            "api",
            "config",
            "demo",
            "dispatcher",
            "document",
            "domain",
            "gateway",
            "herald",
            "hub",
            "protocol",
            "scheduler",
            "store",
            "telemetry",
            "web",
        ],
    ),
    ("main", &["cli", "server"]),
];

/// Implementations that only their parent names: everybody else knows the contract.
const CONCRETE: &[[&str; 2]] =
    &[["store", "embedded"], ["store", "redis"], ["protocol", "json"], ["protocol", "event_stream"]];

/// What has no place in the domain: runtime, network, JSON, clock, disk, other libraries that act.
const OUTSIDE: &[&str] = &[
    "tokio",
    "tokio_util",
    "serde",
    "serde_json",
    "axum",
    "hyper",
    "tungstenite",
    "redis",
    "rusqlite",
    "reqwest",
    "metrics",
    "tracing",
    "getrandom",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
];
const OUTSIDE_PATHS: &[[&str; 2]] =
    &[["Instant", "now"], ["std", "fs"], ["std", "env"], ["std", "process"], ["std", "thread"]];

/// Lines of one file without its tests.
const LONGEST: usize = 400;

/// Everything that is wrong, in words.
fn violations(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|s| !s.is_test()) {
        let (path, lines) = (&source.path, source.lines());
        if lines > LONGEST {
            found.push(format!("{path}: {lines} lines outside tests, at most {LONGEST}"));
        }
        let module = source.module();
        let Some(from) = module.first() else { continue };
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| name == from) else {
            found.push(format!("{path}: the part {from} is not in the table"));
            continue;
        };
        for used in source.paths() {
            let shown = used.join("::");
            if from == "domain" {
                let is_outside = used.iter().any(|step| OUTSIDE.contains(&step.as_str()));
                if is_outside || OUTSIDE_PATHS.iter().any(|p| used.windows(2).any(|w| w == p)) {
                    found.push(format!("{path}: {shown} has no place in the domain"));
                }
            }
            if used[0] != ROOT {
                continue;
            }
            match used.get(1) {
                Some(to) if to != from && !allowed.contains(&to.as_str()) => {
                    found.push(format!("{path}: {from} → {to} ({shown}) is not drawn"));
                }
                _ => {}
            }
            if let Some(concrete) = CONCRETE.iter().find(|c| used[1..].starts_with(&c.map(String::from))) {
                let is_parent = module == [concrete[0]];
                if !is_parent && !module.starts_with(&concrete.map(String::from)) {
                    found.push(format!("{path}: {shown} is named outside {}/mod.rs", concrete[0]));
                }
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

fn read(folder: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            read(&path, sources);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
            sources.push(Source { path: path.to_str().unwrap().to_string(), text });
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_arrow_in_the_code_is_drawn() {
    let mut sources = Vec::new();
    read(&root().join("src"), &mut sources);
    let paths: usize = sources.iter().map(|s| s.paths().iter().filter(|p| p[0] == ROOT).count()).sum();
    assert!(sources.len() > 50 && paths > 200, "{} files and {paths} paths: not all was read", sources.len());
    let found = violations(&sources);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn the_table_in_the_document_is_the_one_that_is_checked() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let words = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_string).collect() };
    let section = text.split("\n## ").find(|s| s.starts_with("Arrows")).expect("a section \"Arrows\"");
    let told: Vec<(String, Vec<String>)> = section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').collect();
            (words(cells[1]).remove(0), words(cells[2]))
        })
        .collect();
    let checked: Vec<(String, Vec<String>)> =
        ARROWS.iter().map(|(name, to)| (name.to_string(), to.iter().map(|t| t.to_string()).collect())).collect();
    assert_eq!(told, checked);
}

#[test]
fn forged_violations_are_found() {
    let found = |path: &str, text: &str| violations(&[Source { path: path.into(), text: text.into() }]);
    for (path, text, said) in [
        ("src/hub/mod.rs", "use crate::gateway::Shard;", "hub → gateway"),
        ("src/hub/registry.rs", "use super::super::store::open;", "hub → store"),
        ("src/api/mod.rs", "fn f() { let g = crate::gateway::name(1); }", "api → gateway"),
        ("src/gateway/mod.rs", "use crate::{domain::name::Topic, hub::Hub, api::{self, Health}};", "gateway → api"),
        ("src/store/mod.rs", "use crate as us;\nfn f() { us::dispatcher::start() }", "store → dispatcher"),
        ("src/dispatcher/mod.rs", "pub use crate::config::Options;", "dispatcher → config"),
        ("src/cli/publish.rs", "use crate::server::run;", "cli → server"),
        ("src/domain/store.rs", "use crate::hub;", "domain → hub"),
        ("src/domain/store.rs", "fn f() { tokio::spawn(async {}); }", "no place"),
        ("src/domain/rate.rs", "fn f() { std::time::Instant::now(); }", "no place"),
        ("src/domain/rate.rs", "use std::time::Instant;\nfn f() { Instant::now(); }", "no place"),
        ("src/domain/rate.rs", "use std::time::{Duration, SystemTime};", "no place"),
        ("src/domain/event.rs", "use serde_json::Value;", "no place"),
        ("src/server/mod.rs", "use crate::store;\nfn f() { store::redis::open() }", "named outside store/mod.rs"),
        ("src/store/embedded/feed.rs", "use super::super::redis::Keys;", "named outside store/mod.rs"),
        ("src/gateway/mod.rs", "use crate::protocol::json::Json;", "named outside protocol/mod.rs"),
        ("src/novelty.rs", "", "not in the table"),
        ("src/hub/mod.rs", &"// a line\n".repeat(LONGEST + 1), "401 lines"),
        ("src/main.rs", "use fanfare::hub::Hub;", "main → hub"),
    ] {
        let said_of = found(path, text);
        let is_said = !said_of.is_empty() && said_of.iter().all(|s| s.contains(said));
        assert!(is_said, "{path}: {text}\ngave {said_of:?}, not {said:?}");
    }
}

#[test]
fn what_is_allowed_is_left_alone() {
    let long_tests = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n", "    // a line\n".repeat(LONGEST));
    let sources: Vec<Source> = [
        ("src/hub/mod.rs", "use crate::domain::name::Topic;\nuse self::outbox::Outbox;\nuse super::domain::store;"),
        ("src/hub/mod.rs", "// crate::gateway\n/* crate::api */ fn f<'a>() -> &'a str { \"crate::server\" }"),
        ("src/hub/mod.rs", "fn f() { r#\"use crate::api; \"quoted\" \"# ; '\"'; '\\''; }\nuse crate::domain;"),
        ("src/hub/mod.rs", "#[cfg(test)]\nmod tests { use crate::store::embedded; }\nuse crate::domain;"),
        ("src/hub/tests.rs", "use crate::store;"),
        ("src/hub/mod.rs", &long_tests),
        ("src/domain/rate.rs", "use std::time::{Duration, Instant};\nfn f(now: Instant) {}"),
        ("src/store/mod.rs", "mod redis;\nuse self::redis::Redis;\nfn f() { embedded::open() }"),
        ("src/store/redis/feed.rs", "use redis::aio::Connection;\nuse super::keys;\nuse crate::store::redis::facts;"),
        ("src/lib.rs", "pub mod hub;\npub mod server;"),
    ]
    .map(|(path, text)| Source { path: path.into(), text: text.into() })
    .into();
    assert_eq!(violations(&sources), Vec::<String>::new());
}
