//! What the documents for client authors say, held against the code: every verb, event, field, word, code and bound.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::response::IntoResponse;
use fanfare::config::{Options, SETTINGS};
use fanfare::domain::codec::Codec;
use fanfare::domain::command::{Command, RequestId, Subject};
use fanfare::domain::cursor::{CursorName, Placed};
use fanfare::domain::error::{CloseCode, Problem, Reason};
use fanfare::domain::event::{CursorUsed, Event, Given};
use fanfare::domain::limits::Limits;
use fanfare::domain::message::{Body, Durability, Message};
use fanfare::domain::name::Topic;
use fanfare::domain::position::{Epoch, Position};
use fanfare::domain::queue::{Job, JobId, Priority, Queue};
use fanfare::domain::replay::{Answer, Gap};
use fanfare::domain::store::{GapCause, Missing};
use fanfare::domain::topic::Mode;
use fanfare::protocol;
use fanfare::web::Failure;
use serde_json::Value;

const CAUSES: [GapCause; 7] = [
    GapCause::Slow,
    GapCause::Retention,
    GapCause::Expired,
    GapCause::Conflated,
    GapCause::Failover,
    GapCause::Epoch,
    GapCause::Live,
];

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn asyncapi() -> Value {
    serde_yaml_ng::from_str(&text("docs/asyncapi.yaml")).unwrap()
}

fn codec() -> Box<dyn Codec> {
    protocol::codec(None, &Arc::new(Limits::default()))
}

/// The verbs that the hub does, from its own words.
fn verbs() -> BTreeSet<String> {
    let refusal = codec().decode(br#"{"nothing":1}"#).remove(0).unwrap_err().problem.text;
    let list = refusal.split("verbs are ").nth(1).unwrap();
    list.split(", ").map(str::to_string).collect()
}

/// The rows of a section's tables: cells without the marks of code.
fn rows(document: &str, section: &str) -> Vec<Vec<String>> {
    let body =
        document.split("\n## ").find(|s| s.lines().next() == Some(section)).unwrap_or_else(|| panic!("{section}"));
    body.lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|--"))
        .map(|line| line.trim_matches('|').split(" | ").map(|c| c.trim().trim_matches('`').to_string()).collect())
        .skip(1)
        .collect()
}

fn words<'a>(list: impl IntoIterator<Item = &'a Value>) -> Vec<&'a str> {
    list.into_iter().map(|v| v.as_str().unwrap()).collect()
}

fn position(offset: u64) -> Position {
    Position::new(Epoch::from_random(7), offset)
}

/// Every event with all that it can carry, and the message of the description that it is.
fn events() -> Vec<(&'static str, Event)> {
    let id = || Some(RequestId("1".into()));
    let topic = || Topic::parse("news").unwrap();
    let cursor = || CursorName::parse("phone").unwrap();
    let ignored = || vec!["color".to_string()];
    let queue = || Queue::parse("jobs").unwrap();
    let job = || JobId(position(41));
    let missing = Missing { why: GapCause::Retention, to: Some(position(2)) };
    let message = Message {
        topic: topic(),
        at: position(3),
        time: 1,
        expires: None,
        body: Body::from_canonical("\"data\":1".into()),
    };
    let events = vec![
        Event::Hello { connection: "c1".into(), ping: Duration::from_secs(25), max_frame: 1, inbox: Some(topic()) },
        Event::Subscribed {
            id: id(),
            topic: topic(),
            mode: Mode::Log,
            answer: Answer { at: position(1), resumed: Some(Err(missing)) },
            cursor: Some(CursorUsed { name: cursor(), lag: 3, created: true }),
            ignored: ignored(),
        },
        Event::Unsubscribed { id: id(), topic: topic(), ignored: ignored() },
        Event::Published {
            id: id(),
            topic: topic(),
            stored: position(1),
            durability: Durability::Memory,
            ignored: ignored(),
        },
        Event::Committed {
            id: id(),
            topic: topic(),
            cursor: cursor(),
            placed: Placed { at: position(1), lag: 3, used: 1 },
            ignored: ignored(),
        },
        Event::History {
            id: id(),
            topic: topic(),
            items: vec![message],
            missing: Some(missing),
            more: true,
            ignored: ignored(),
        },
        Event::Gap {
            topic: topic(),
            gap: Gap {
                after: position(1),
                resume: position(2),
                to: Some(position(2)),
                why: GapCause::Expired,
                kept: false,
            },
        },
        Event::Put {
            id: id(),
            queue: queue(),
            job: job(),
            durability: Durability::Memory,
            repeated: true,
            ignored: ignored(),
        },
        Event::Taking { id: id(), queue: queue(), credit: 1, lease: Duration::from_secs(30), ignored: ignored() },
        Event::Untaken { id: id(), queue: queue(), ignored: ignored() },
        Event::Settled { id: id(), verb: "ack", failed: vec![("d1".into(), Reason::NoLease)], ignored: ignored() },
        Event::Replied {
            id: id(),
            queue: queue(),
            job: job(),
            reply: Some(Body::from_canonical("\"data\":1".into())),
            request: Some("r1".into()),
            ignored: ignored(),
        },
        Event::Job(Given {
            tag: "d1".into(),
            job: Box::new(Job {
                queue: queue(),
                id: job(),
                token: 1,
                tries: 1,
                max_tries: 5,
                lease: Duration::from_secs(30),
                priority: Priority::new(7).unwrap(),
                group: Some("g".into()),
                time: 1,
                body: Body::from_canonical("\"data\":1".into()),
            }),
        }),
        Event::Lost { tag: "d1".into() },
        Event::Pong("1".into()),
        Event::error(id(), "sub", &topic(), Problem::new(Reason::Busy, "later").retry_after(Duration::from_secs(1))),
    ];
    // A new kind of event has to find its place here and in the description.
    let name = |event: &Event| match event {
        Event::Hello { .. } => "hello",
        Event::Subscribed { .. } => "subscribed",
        Event::Unsubscribed { .. } => "unsubscribed",
        Event::Published { .. } => "published",
        Event::Committed { .. } => "committed",
        Event::History { .. } => "told",
        Event::Gap { .. } => "gap",
        Event::Put { .. } => "stored",
        Event::Taking { .. } => "taking",
        Event::Untaken { .. } => "untaken",
        Event::Settled { .. } => "settled",
        Event::Replied { .. } => "replied",
        Event::Job(_) => "job",
        Event::Lost { .. } => "lost",
        Event::Pong(_) => "pong",
        Event::Error { .. } => "error",
    };
    events.into_iter().map(|event| (name(&event), event)).collect()
}

#[test]
fn every_event_carries_exactly_the_fields_of_its_description() {
    let description = asyncapi();
    for (name, event) in events() {
        let frame: Value = serde_json::from_slice(&codec().encode(&event)).unwrap();
        let payload = &description["components"]["messages"][name]["payload"];
        let told: BTreeSet<&str> = payload["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let mut sent: BTreeSet<&str> = frame.as_object().unwrap().keys().map(String::as_str).collect();
        if name == "error" {
            // An error is about one thing: a topic, as here, a queue, or a delivery.
            let others = [Subject::queue(&Queue::parse("jobs").unwrap()), Subject::Tag("d1".into())];
            sent.extend(others.map(|other| if other.field().0 == "tag" { "tag" } else { "queue" }));
        }
        assert_eq!(told, sent, "{name}");
        for field in words(payload["required"].as_array().unwrap()) {
            assert!(sent.contains(field), "{name} without {field}");
        }
        for (field, schema) in payload["properties"].as_object().unwrap() {
            if let Some(constant) = schema.get("const") {
                assert_eq!(constant, &frame[field], "{name}.{field}");
            }
        }
    }
    let events: Vec<&str> = events().iter().map(|(name, _)| *name).chain(["message"]).collect();
    let sent = description["operations"]["event"]["messages"].as_array().unwrap();
    assert_eq!(sent.len(), events.len());
    for name in events {
        let reference = format!("#/channels/socket/messages/{name}");
        assert!(sent.iter().any(|m| m["$ref"] == reference.as_str()), "{name}");
    }
}

#[test]
fn every_verb_is_described_and_every_example_of_one_is_understood() {
    let description = asyncapi();
    let received = description["operations"]["command"]["messages"].as_array().unwrap();
    let told: BTreeSet<String> =
        received.iter().map(|m| m["$ref"].as_str().unwrap().rsplit('/').next().unwrap().to_string()).collect();
    assert_eq!(told, verbs());
    let prose = text("docs/protocol.md");
    for verb in &told {
        assert!(prose.contains(&format!("**`{verb}`**")), "{verb} has no paragraph in protocol.md");
        for example in description["components"]["messages"][verb]["examples"].as_array().unwrap() {
            let frame = example["payload"].to_string();
            let decoded = codec().decode(frame.as_bytes());
            assert_eq!(decoded.len(), 1, "{frame}");
            let request = decoded.into_iter().next().unwrap().unwrap_or_else(|r| panic!("{frame}: {}", r.problem));
            assert_eq!(request.command.verb(), verb);
            assert!(request.ignored.is_empty(), "{frame}");
            let history = matches!(request.command, Command::History { .. });
            assert_eq!(history, verb == "history");
        }
    }
}

#[test]
fn reserved_verbs_are_answered_as_told() {
    let prose = text("docs/protocol.md");
    let reserved = prose.split("The verbs ").nth(1).unwrap().split(", and the field").next().unwrap();
    let reserved: Vec<&str> = reserved.split('`').skip(1).step_by(2).collect();
    assert!(reserved.len() >= 5, "{reserved:?}");
    for verb in reserved {
        let frame = format!("{{\"{verb}\":\"x\"}}");
        let refusal = codec().decode(frame.as_bytes()).remove(0).unwrap_err();
        assert_eq!(refusal.problem.reason, Reason::UnknownVerb, "{verb}");
    }
}

#[test]
fn every_error_word_is_told_with_its_status_and_whether_it_passes() {
    let description = asyncapi();
    let all: Vec<&str> = Reason::ALL.iter().map(|r| r.as_str()).collect();
    assert_eq!(words(description["components"]["schemas"]["Reason"]["enum"].as_array().unwrap()), all);
    let told: Vec<Vec<String>> =
        rows(&text("docs/protocol.md"), "Errors").into_iter().map(|row| row[..3].to_vec()).collect();
    let is: Vec<Vec<String>> = Reason::ALL
        .iter()
        .map(|reason| {
            let status = Failure::new(*reason, "").into_response().status().as_u16();
            let passing = if reason.is_passing() { "yes" } else { "no" };
            vec![reason.to_string(), status.to_string(), passing.to_string()]
        })
        .collect();
    assert_eq!(told, is);
}

#[test]
fn every_close_code_is_told_with_its_word() {
    let is: Vec<(u64, &str)> = CloseCode::ALL.iter().map(|c| (u64::from(c.code()), c.word())).collect();
    let description = asyncapi();
    let codes = description["channels"]["socket"]["x-close-codes"]["codes"].as_array().unwrap();
    let told: Vec<(u64, &str)> =
        codes.iter().map(|c| (c["code"].as_u64().unwrap(), c["word"].as_str().unwrap())).collect();
    assert_eq!(told, is);
    let prose = text("docs/protocol.md");
    let told = rows(&prose, "Close codes");
    let told: Vec<(u64, &str)> = told.iter().map(|row| (row[0].parse().unwrap(), row[1].as_str())).collect();
    assert_eq!(told, is);
    let reserved = |row: &Vec<String>| row[3].starts_with("reserved");
    for (row, code) in rows(&prose, "Close codes").iter().zip(codes) {
        assert_eq!(reserved(row), code["reserved"] == true, "{row:?}");
    }
}

#[test]
fn every_cause_of_a_gap_is_told() {
    let known = |cause: &GapCause| match cause {
        GapCause::Slow | GapCause::Retention | GapCause::Expired | GapCause::Conflated => cause.as_str(),
        GapCause::Failover | GapCause::Epoch | GapCause::Live => cause.as_str(),
    };
    let all: BTreeSet<&str> = CAUSES.iter().map(known).collect();
    let description = asyncapi();
    let told = words(description["components"]["schemas"]["Why"]["enum"].as_array().unwrap());
    assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), all);
    let prose = text("docs/protocol.md");
    for cause in all {
        assert!(prose.contains(&format!("\n| `{cause}` | ")), "{cause}");
    }
}

#[test]
fn every_limit_is_told_with_its_default() {
    let defaults = Options::default();
    assert_eq!(defaults.limits, Limits::default());
    let is: BTreeSet<(String, String)> = SETTINGS
        .iter()
        .filter(|setting| setting.section == "Limits")
        .map(|setting| (setting.name.to_string(), setting.shown(&defaults)))
        .collect();
    let rows = rows(&text("docs/protocol.md"), "Limits");
    let told: BTreeSet<(String, String)> = rows.iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    assert_eq!(told, is);
    assert_eq!(told.len(), rows.len());
}

#[test]
fn the_readme_names_files_that_are_there_and_the_rust_that_is_needed() {
    let readme = text("README.md");
    assert!(readme.contains(&format!("With Rust {} or newer", env!("CARGO_PKG_RUST_VERSION"))));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let words = readme.split(['`', '(', ')']).filter(|word| ["tests/", "docs/"].iter().any(|f| word.starts_with(f)));
    let named: Vec<&str> = words.filter(|word| !word.contains(char::is_whitespace)).collect();
    assert!(named.len() > 8, "{named:?}");
    for path in named {
        assert!(root.join(path).exists(), "README.md names {path}");
    }
}

#[test]
fn every_test_that_the_page_of_tests_names_is_there() {
    let sources = test_sources();
    let page = text("docs/testing.md");
    let (faults, on_queues) = (rows(&page, "The faults"), rows(&page, "The same on queues"));
    assert!(faults.len() >= 13 && on_queues.len() >= 8, "{faults:?} {on_queues:?}");
    for row in faults.into_iter().chain(on_queues) {
        for name in row.last().unwrap().split(", ").map(|name| name.trim_matches('`')) {
            assert!(sources.contains(&format!("fn {name}(")), "there is no test {name:?}");
        }
    }
}

#[test]
fn every_guarantee_names_a_test_that_is_there() {
    let (sources, page) = (test_sources(), text("docs/guarantees.md"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let headings = page.lines().filter_map(|line| line.strip_prefix("## "));
    let promises: Vec<_> = headings.flat_map(|heading| rows(&page, heading)).collect();
    assert!(promises.len() > 20, "{promises:?}");
    for row in promises {
        let shown = row.last().unwrap();
        for name in shown.split(", ").map(|name| name.trim_matches('`')) {
            let is_there = match name.contains('/') {
                true => root.join(name).exists(),
                false => ["(", "<"].iter().any(|next| sources.contains(&format!("fn {name}{next}"))),
            };
            assert!(is_there, "there is no test {name:?}: {row:?}");
        }
    }
}

/// All of `tests/` as one text.
fn test_sources() -> String {
    let mut sources = String::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("node_modules") {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                sources += &fs::read_to_string(path).unwrap();
            }
        }
    }
    sources
}
