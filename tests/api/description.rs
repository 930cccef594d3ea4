//! `/openapi.json` against what the hub really answers.

use std::collections::BTreeSet;

use axum::body::Body;
use fanfare::api::{OPENAPI, routes};
use serde_json::Value;

use crate::{Answer, start};

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// Fails unless the description knows this answer: its status, its kind of content, its required members.
pub fn describes(method: &str, path: &str, answer: &Answer) {
    let document = document();
    let path = path.split('?').next().unwrap();
    let path = path.split_once("://").map_or(path, |(_, rest)| &rest[rest.find('/').unwrap()..]);
    let Some(route) = route_of(&document, path) else {
        assert!(matches!(answer.status.as_u16(), 404 | 403 | 421), "{path} is not described");
        return;
    };
    let Some(operation) = document["paths"][&route].get(method.to_lowercase().replace("head", "get")) else {
        assert!(matches!(answer.status.as_u16(), 405 | 403 | 421), "{method} {route} is not described");
        return;
    };
    let status = answer.status.as_str();
    let response = resolve(&document, &operation["responses"][status]);
    assert!(response.is_object(), "{method} {route} answers {status}, which is not described: {}", answer.text());
    let content = answer.header("content-type").split(';').next().unwrap();
    let schema = response["content"][content].get("schema");
    let schema = schema.unwrap_or_else(|| panic!("{method} {route} {status} answers {content:?}, not described"));
    if content.ends_with("json") && method != "HEAD" {
        fits(&document, schema, &answer.json(), &format!("{method} {route} {status}"));
    }
}

/// A path's template in the description: as many segments, each the same or a parameter.
fn route_of(document: &Value, path: &str) -> Option<String> {
    let segments: Vec<&str> = path.split('/').collect();
    document["paths"].as_object().unwrap().keys().find_map(|route| {
        let template: Vec<&str> = route.split('/').collect();
        let fits = template.len() == segments.len()
            && template.iter().zip(&segments).all(|(t, s)| t == s || t.starts_with('{'));
        fits.then(|| route.clone())
    })
}

fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap_or_else(|| panic!("{reference} leads nowhere")),
        None => value,
    }
}

/// The part of JSON Schema that our description uses for answers.
fn fits(document: &Value, schema: &Value, value: &Value, place: &str) {
    let schema = resolve(document, schema);
    if let Some(all) = schema["allOf"].as_array() {
        all.iter().for_each(|schema| fits(document, schema, value, place));
    }
    if let Some(constant) = schema.get("const") {
        assert_eq!(value, constant, "{place}");
    }
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{place}: {value} is none of {words:?}");
    }
    match schema["type"].as_str() {
        Some("object") => {
            let object = value.as_object().unwrap_or_else(|| panic!("{place}: {value} is no object"));
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(object.contains_key(name.as_str().unwrap()), "{place}: no {name} in {value}");
            }
            for (name, value) in object {
                if let Some(schema) = schema["properties"].get(name) {
                    fits(document, schema, value, &format!("{place} {name}"));
                } else if schema["properties"].is_object() && schema.get("additionalProperties").is_none() {
                    assert!(!place.contains(" 20"), "{place}: {name} is not described");
                }
            }
        }
        Some("array") => {
            let items = value.as_array().unwrap_or_else(|| panic!("{place}: {value} is no array"));
            items.iter().filter(|_| schema["items"].get("oneOf").is_none()).for_each(|item| {
                fits(document, &schema["items"], item, place);
            });
        }
        Some("string") => assert!(value.is_string(), "{place}: {value} is no string"),
        Some("integer") => assert!(value.is_i64() || value.is_u64(), "{place}: {value} is no integer"),
        Some("boolean") => assert!(value.is_boolean(), "{place}: {value} is no boolean"),
        _ => {}
    }
}

#[test]
fn the_description_knows_every_route_and_no_other() {
    let document = document();
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
            methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
        })
        .collect();
    let real: BTreeSet<(String, String)> = routes()
        .flat_map(|(methods, path)| methods.split(", ").map(|method| (method.to_string(), path.to_string())))
        .collect();
    assert_eq!(described, real);
}

#[test]
fn every_reference_leads_somewhere_and_every_reason_is_described() {
    let document = document();
    fn walk(document: &Value, value: &Value) {
        match value {
            Value::Object(object) => {
                resolve(document, value);
                object.values().for_each(|value| walk(document, value));
            }
            Value::Array(items) => items.iter().for_each(|value| walk(document, value)),
            _ => {}
        }
    }
    walk(&document, &document);
    let words: Vec<&str> = fanfare::domain::error::Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(document["components"]["schemas"]["Reason"]["enum"], serde_json::json!(words));
}

#[tokio::test]
async fn the_hub_serves_its_description() {
    let api = start().await;
    let answer = api.get("/openapi.json").await;
    assert_eq!((answer.status.as_u16(), answer.json()["openapi"].as_str()), (200, Some("3.1.0")));
}

#[tokio::test]
async fn what_is_no_route_is_told_the_routes_and_what_is_no_method_the_methods() {
    let api = start().await;
    for path in ["/", "/v1", "/v1/topics", "/v1/topics/news", "/v2/messages", "/metrics"] {
        let answer = api.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (404, "not-found"), "{path}");
        assert!(answer.detail().contains("/v1/topics/{topic}/messages"), "{}", answer.detail());
    }
    for (method, path, allow) in [
        ("GET", "/v1/messages", "POST"),
        ("DELETE", "/v1/topics/news/messages", "GET, POST"),
        ("PUT", "/v1/topics/news/messages", "GET, POST"),
        ("POST", "/v1/topics/news/messages/k3.1", "GET"),
        ("GET", "/v1/ingest/dead/7", "DELETE"),
        ("POST", "/healthz", "GET"),
    ] {
        let answer = api.send(method, path, &[], Body::empty()).await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
        assert!(answer.detail().ends_with(&format!("it takes {allow}")), "{}", answer.detail());
    }
}
