//! The pages whose lines a shell runs: `docs/cursors.md` and `docs/queues.md`.

#[path = "support/page.rs"]
mod page;

use fanfare::document;
use fanfare::domain::queue::QueueSettings;
use fanfare::domain::queue::fields::{FIELDS, Kind, Value};
use page::is_like;

#[test]
fn every_line_of_the_page_prints_what_the_page_says() {
    page::run("docs/cursors.md", 5);
}

#[test]
fn every_line_of_the_page_of_queues_prints_what_the_page_says() {
    page::run("docs/queues.md", 5);
}

#[test]
fn every_setting_of_a_queue_is_told_with_its_default_and_its_bounds() {
    let page = std::fs::read_to_string("docs/queues.md").unwrap();
    let defaults: serde_json::Value =
        serde_json::from_str(&document::write_settings(&QueueSettings::default())).unwrap();
    for field in FIELDS {
        let start = format!("| `{}` | `{}` | ", field.name, defaults[field.name]);
        let row = page.lines().find(|line| line.starts_with(&start));
        let row = row.unwrap_or_else(|| panic!("there is no row {start:?}"));
        if matches!(field.kind, Kind::Count | Kind::Bytes) {
            let mut settings = QueueSettings::default();
            field.put(&mut settings, Value::Number(u64::MAX));
            let bounds = row[start.len()..].split(" |").next().unwrap();
            assert!(settings.faults()[0].ends_with(&format!("it takes {bounds}")), "{row}\n{:?}", settings.faults());
        }
    }
    let rows = page.split("## Settings").nth(1).unwrap().split("\n## ").next().unwrap();
    assert_eq!(rows.lines().filter(|line| line.starts_with("| `")).count(), FIELDS.len());
}

#[test]
fn what_differs_is_seen() {
    for (told, printed, like) in [
        (r#"{"at":"k3.1","used":…}"#, r#"{"at":"8x1.1","used":17}"#, true),
        (r#"{"at":"k3.1","used":…}"#, r#"{"at":"8x1.2","used":17}"#, false),
        (r#"{"at":"k3.1"}"#, r#"{"at":"8.x.1"}"#, false),
        (r#"{"at":"k3.1"}"#, r#"{"at":"8x1.1"} "#, false),
        ("a", "ab", false),
        ("a…", "ab", true),
    ] {
        assert_eq!(is_like(told, printed), like, "{told} {printed}");
    }
}
