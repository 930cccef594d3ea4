//! Reads `fanfare.toml`: flat keys with the names of the settings, each found with its line.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::Place;
use super::nearest::nearest;
use super::objects;
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
        let tables = match name {
            "topics" => Some(("topic", topic_rules as Tables)),
            "queues" => Some(("queue", queue_rules as Tables)),
            _ => None,
        };
        if let (Some((setting, read)), DeValue::Table(table)) = (tables, value.get_ref()) {
            let rules = read(&ruled(name, table, path, &line_of, faults), faults);
            given.push((known(setting), place.clone(), vec![rules]));
            continue;
        }
        if let ("bindings" | "schedules", DeValue::Table(table)) = (name, value.get_ref()) {
            let setting = known(&name[..name.len() - 1]);
            let check = |texts: &[String]| setting.kind.read(texts).map(drop);
            let text = objects::tables(name, table, path, &line_of, check, faults);
            given.push((setting, place, vec![text]));
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
    for name in ["topic", "queue", "binding", "schedule"] {
        if given.iter().filter(|(setting, ..)| setting.name == name).count() > 1 {
            faults.push(format!("{shown}: some stand in `{name}` and some in [{name}s.\"…\"]; say it in one way"));
        }
    }
    given
}

fn known(name: &str) -> &'static Setting {
    SETTINGS.iter().find(|setting| setting.name == name).expect("it is in the table")
}

/// A table of rules: where it stands, its pattern, and its fields as texts.
type Ruled<'a> = (Place, &'a str, Vec<(String, String)>);
type Tables = fn(&[Ruled<'_>], &mut Vec<String>) -> String;

/// The tables `[topics."PATTERN"]` or `[queues."PATTERN"]`, in the order of the file; what is wrong with one is told with its
/// line.
fn ruled<'a>(
    section: &str,
    table: &'a DeTable<'_>,
    path: &Path,
    line_of: &dyn Fn(usize) -> usize,
    faults: &mut Vec<String>,
) -> Vec<Ruled<'a>> {
    let mut tables: Vec<_> = table.iter().collect();
    tables.sort_by_key(|(pattern, _)| pattern.span().start);
    let mut list = Vec::new();
    for (pattern, value) in tables {
        let line = line_of(pattern.span().start);
        let key = format!("{section}.{:?}", pattern.get_ref());
        let place = Place::File { path: path.to_path_buf(), line, key };
        let fields = match value.get_ref() {
            DeValue::Table(fields) => {
                fields.iter().map(|(name, value)| field(name.get_ref(), value.get_ref())).collect()
            }
            _ => Err(format!("it takes a table of settings, as in [{section}.\"chat.*\"]")),
        };
        match fields {
            Ok(fields) => list.push((place, pattern.get_ref().as_ref(), fields)),
            Err(why) => faults.push(format!("{place}: {why}")),
        }
    }
    list
}

/// A field of a rule. Lists are joined by spaces, and what stands in a table of its own becomes its one line.
fn field(name: &str, value: &DeValue<'_>) -> Result<(String, String), String> {
    let text = match value {
        DeValue::Table(start) if name == "start_when" => {
            Some(start_when(start).map_err(|why| format!("{name}: {why}"))?)
        }
        other => texts(other).map(|texts| texts.join(" ")),
    };
    text.map(|text| (name.to_string(), text))
        .ok_or_else(|| format!("{name}: it takes a text, a number or a list of them"))
}

/// `{ any = [{ count = 10 }, { count = 3, min_priority = 7 }, { oldest = "60s" }], mode = "notify", … }` as one line.
fn start_when(table: &DeTable<'_>) -> Result<String, String> {
    let takes = "it takes any = [{ count = 10 }, { count = 3, min_priority = 7 }, { oldest = \"60s\" }], and where wanted \
                 mode, batch and webhook";
    let mut line = String::new();
    let part = |name: &str| table.get(name).map(|value| text(value.get_ref()).ok_or(takes)).transpose();
    if let Some(other) = table.keys().find(|key| !["any", "mode", "batch", "webhook"].contains(&key.get_ref().as_ref()))
    {
        return Err(format!("{:?} is not known; {takes}", other.get_ref()));
    }
    let Some(DeValue::Array(any)) = table.get("any").map(|any| any.get_ref()) else { return Err(takes.into()) };
    for (n, arm) in any.iter().enumerate() {
        let DeValue::Table(arm) = arm.get_ref() else { return Err(takes.into()) };
        let of = |name: &str| arm.get(name).and_then(|value| text(value.get_ref()));
        line.push_str(if n > 0 { " or " } else { "" });
        line.push_str(&match (of("count"), of("min_priority"), of("oldest"), arm.len()) {
            (Some(count), None, None, 1) => count,
            (Some(count), Some(level), None, 2) => format!("{count} of {level}"),
            (None, None, Some(age), 1) => age,
            _ => return Err(takes.into()),
        });
    }
    match part("mode")?.as_deref() {
        None | Some("gate") => {}
        Some("notify") => line.push_str(" notify"),
        Some(_) => return Err("mode is gate or notify".into()),
    }
    if let Some(batch) = part("batch")? {
        line.push_str(&format!(" batch {batch}"));
    }
    if let Some(url) = part("webhook")? {
        line.push_str(&format!(" to {}", url.replace(char::is_whitespace, "%20")));
    }
    Ok(line)
}

fn topic_rules(tables: &[Ruled<'_>], faults: &mut Vec<String>) -> String {
    super::rules::write(&read_all(tables, super::rules::of, faults))
}

fn queue_rules(tables: &[Ruled<'_>], faults: &mut Vec<String>) -> String {
    super::queues::write(&read_all(tables, super::queues::of, faults))
}

fn read_all<T>(
    tables: &[Ruled<'_>],
    of: impl Fn(&str, &[(String, String)]) -> Result<T, String>,
    faults: &mut Vec<String>,
) -> Vec<T> {
    let mut list = Vec::new();
    for (place, pattern, fields) in tables {
        match of(pattern, fields) {
            Ok(rule) => list.push(rule),
            Err(why) => faults.push(format!("{place}: {why}")),
        }
    }
    list
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
