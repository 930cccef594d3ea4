//! Reads `fanfare.toml`: flat keys with the names of the settings, each found with its line.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::Place;
use super::nearest::nearest;
use super::table::{SETTINGS, Setting};

/// A configuration file is small; what is larger is another file.
const MOST_BYTES: u64 = 1 << 20;

/// What the file gives; what is wrong with it goes to the faults.
pub fn read(path: &Path, faults: &mut Vec<String>) -> Vec<(&'static Setting, Place, Vec<String>)> {
    let text = match std::fs::metadata(path).map(|m| m.len()) {
        Ok(bytes) if bytes > MOST_BYTES => Err(format!("has {bytes} bytes and is no configuration")),
        _ => std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}")),
    };
    let shown = path.display();
    let text = match text {
        Ok(text) => text,
        Err(why) => {
            faults.push(format!("{shown}: {why}"));
            return Vec::new();
        }
    };
    let line_of = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
    let (table, errors) = DeTable::parse_recoverable(&text);
    for error in &errors {
        let line = error.span().map_or(1, |span| line_of(span.start));
        faults.push(format!("{shown} line {line}: not TOML: {}", error.message()));
    }
    if !errors.is_empty() {
        return Vec::new();
    }
    let mut given = Vec::new();
    for (key, value) in table.get_ref().iter() {
        let (line, name) = (line_of(key.span().start), key.get_ref().as_ref());
        let place = Place::File { path: path.to_path_buf(), line, key: name.to_string() };
        if let ("topics", DeValue::Table(table)) = (name, value.get_ref()) {
            given.push((topic_setting(), place.clone(), vec![rules(table, path, &line_of, faults)]));
            continue;
        }
        if let DeValue::Table(_) = value.get_ref() {
            faults.push(format!("{place}: settings stand at the top of the file, not in a [{name}] section"));
            continue;
        }
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            faults.push(format!("{place}: there is no such setting{}", nearest(name, |s| s.name.to_string())));
            continue;
        };
        match texts(value.get_ref()) {
            Some(texts) => given.push((setting, place, texts)),
            None => faults.push(format!("{place}: it takes {}", setting.kind.takes())),
        }
    }
    if given.iter().filter(|(setting, ..)| setting.name == "topic").count() > 1 {
        faults.push(format!("{shown}: rules stand in `topic` and in [topics.\"…\"]; say it in one way"));
    }
    given
}

fn topic_setting() -> &'static Setting {
    SETTINGS.iter().find(|setting| setting.name == "topic").expect("it is in the table")
}

/// The tables `[topics."PATTERN"]`, in the order of the file; what is wrong with one is told with its line.
fn rules(table: &DeTable<'_>, path: &Path, line_of: &dyn Fn(usize) -> usize, faults: &mut Vec<String>) -> String {
    let mut tables: Vec<_> = table.iter().collect();
    tables.sort_by_key(|(pattern, _)| pattern.span().start);
    let mut list = Vec::new();
    for (pattern, value) in tables {
        let line = line_of(pattern.span().start);
        let place = Place::File { path: path.to_path_buf(), line, key: format!("topics.{:?}", pattern.get_ref()) };
        let fields = match value.get_ref() {
            DeValue::Table(fields) => fields
                .iter()
                .map(|(name, value)| Some((name.get_ref().to_string(), text(value.get_ref())?)))
                .collect::<Option<Vec<_>>>(),
            _ => None,
        };
        let rule = match fields {
            Some(fields) => super::rules::of(pattern.get_ref(), &fields),
            None => Err("it takes a table of settings, as in [topics.\"chat.*\"]".into()),
        };
        match rule {
            Ok(rule) => list.push(rule),
            Err(why) => faults.push(format!("{place}: {why}")),
        }
    }
    super::rules::write(&list)
}

fn texts(value: &DeValue<'_>) -> Option<Vec<String>> {
    match value {
        DeValue::Array(items) => items.iter().map(|item| text(item.get_ref())).collect(),
        other => Some(vec![text(other)?]),
    }
}

fn text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().replace('_', "")),
        DeValue::Float(number) => Some(number.as_str().to_string()),
        DeValue::Boolean(on) => Some(on.to_string()),
        _ => None,
    }
}
