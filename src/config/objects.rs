//! Settings that are lists of things with names and several members: bindings and schedules. In the file each is a table,
//! `[bindings.NAME]`; in a flag or a variable they are JSON, one object or an array of them, with the name as `name`.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value};
use toml::de::{DeTable, DeValue};

use super::Place;

/// Reads texts, each one object or an array; or all that is wrong with them.
pub fn read<W: DeserializeOwned, T>(
    texts: &[String],
    of: impl Fn(W) -> Result<T, String>,
    name_of: impl Fn(&T) -> &str,
    most: usize,
) -> Result<Vec<T>, String> {
    let (mut list, mut faults) = (Vec::<T>::new(), Vec::new());
    for text in texts.iter().filter(|text| !text.trim().is_empty()) {
        let items = match serde_json::from_str::<Value>(text) {
            Ok(Value::Array(items)) => items,
            Ok(item) => vec![item],
            Err(error) => {
                let shown: String = text.chars().take(80).collect();
                faults.push(format!("{shown:?} is not JSON: {error}"));
                continue;
            }
        };
        for item in items {
            match one(&item, &of) {
                Ok(thing) if list.iter().any(|other| name_of(other) == name_of(&thing)) => {
                    faults.push(format!("there are two of the name {:?}", name_of(&thing)));
                }
                Ok(thing) => list.push(thing),
                Err(why) => {
                    let shown: String = item.to_string().chars().take(80).collect();
                    faults.push(format!("{shown}: {why}"));
                }
            }
        }
    }
    if list.len() > most {
        faults.push(format!("{} are too many, at most {most} are taken", list.len()));
    }
    if faults.is_empty() { Ok(list) } else { Err(faults.join("; ")) }
}

fn one<W: DeserializeOwned, T>(item: &Value, of: impl Fn(W) -> Result<T, String>) -> Result<T, String> {
    of(serde_json::from_value(item.clone()).map_err(|error| error.to_string())?)
}

/// Reads the tables of a section, in the order of the file, and gives those that are well as one text; what is wrong with the
/// others is told with their line.
pub fn tables(
    section: &str,
    table: &DeTable<'_>,
    path: &Path,
    line_of: &dyn Fn(usize) -> usize,
    check: impl Fn(&[String]) -> Result<(), String>,
    faults: &mut Vec<String>,
) -> String {
    let mut tables: Vec<_> = table.iter().collect();
    tables.sort_by_key(|(name, _)| name.span().start);
    let mut list = Vec::new();
    for (name, value) in tables {
        let (line, key) = (line_of(name.span().start), format!("{section}.{}", name.get_ref()));
        let place = Place::File { path: path.to_path_buf(), line, key };
        let object = match json(value.get_ref()) {
            Some(Value::Object(members)) if !members.contains_key("name") => {
                let name = ("name".to_string(), Value::from(name.get_ref().as_ref()));
                Ok(Value::Object([name].into_iter().chain(members).collect()))
            }
            Some(Value::Object(_)) => Err("its name stands in the brackets, not in a member `name`".into()),
            _ => Err(format!("it takes a table, as in [{section}.NAME]")),
        };
        match object.and_then(|object| check(&[object.to_string()]).map(|()| object)) {
            Ok(object) => list.push(object),
            Err(why) => faults.push(format!("{place}: {why}")),
        }
    }
    Value::Array(list).to_string()
}

/// TOML as JSON. Times become texts.
fn json(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(number) => {
            Value::from(i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()?)
        }
        DeValue::Float(number) => Value::Number(Number::from_f64(number.as_str().replace('_', "").parse().ok()?)?),
        DeValue::Boolean(on) => Value::Bool(*on),
        DeValue::Datetime(time) => Value::from(time.to_string()),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| json(item.get_ref())).collect::<Option<_>>()?),
        DeValue::Table(members) => {
            let member = |(name, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| member(name, value);
            Value::Object(members.iter().map(member).collect::<Option<Map<_, _>>>()?)
        }
    })
}

fn member(
    name: &toml::Spanned<std::borrow::Cow<'_, str>>,
    value: &toml::Spanned<DeValue<'_>>,
) -> Option<(String, Value)> {
    Some((name.get_ref().to_string(), json(value.get_ref())?))
}

/// A name that is part of a topic's: letters, digits, `_` and `-`.
pub fn check_name(name: &str, most: usize) -> Result<(), String> {
    let fits = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    match fits && (1..=most).contains(&name.len()) {
        true => Ok(()),
        false => Err(format!("the name {name:?} does not fit; it takes 1 to {most} of A-Z a-z 0-9 _ -")),
    }
}
