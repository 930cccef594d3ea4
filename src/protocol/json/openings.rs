//! Kind answers to those who speak another protocol: the frame that was probably meant.

use serde_json::value::RawValue;

use crate::document::{Members, quote};
use crate::domain::error::{Problem, Reason};

/// The fields in which other protocols name a channel.
const CHANNELS: [&str; 8] = ["channel", "topic", "room", "stream", "channels", "topics", "name", "identifier"];

/// An object without one of our verbs.
pub fn of_object(members: &Members<'_>) -> Option<Problem> {
    let raw = |name: &str| members.peek(name);
    let word = |name: &str| raw(name).and_then(text);
    let action = ["type", "action", "event", "op", "cmd", "command", "method", "t"].iter().find_map(|f| word(f));
    if let Some(action) = &action {
        let action = action.to_ascii_lowercase();
        let channel = channel(members);
        if action.contains("unsub") || action.contains("leave") {
            return Some(meant(&format!(r#"{{"unsub":{}}}"#, quote(&channel))));
        }
        if action.contains("sub") || action.contains("join") || action == "listen" {
            return Some(meant(&format!(r#"{{"sub":{}}}"#, quote(&channel))));
        }
        if action.contains("pub") || action.contains("message") || action.contains("send") || action.contains("emit") {
            return Some(meant(&format!(r#"{{"pub":{},"data":…}}"#, quote(&channel))));
        }
        if action.contains("ping") {
            return Some(meant(r#"{"ping":1}"#));
        }
        if action.contains("connect") || action.contains("init") {
            return Some(meant(r#"{"sub":"news"} (nothing needs to be sent before it)"#));
        }
    }
    for (field, verb) in [("subscribe", "sub"), ("join", "sub"), ("unsubscribe", "unsub"), ("leave", "unsub")] {
        if let Some(value) = raw(field) {
            let channel = text(value).or_else(|| inner(value)).unwrap_or_else(|| "news".into());
            return Some(meant(&format!(r#"{{"{verb}":{}}}"#, quote(&channel))));
        }
    }
    if let Some(value) = raw("publish") {
        let channel = text(value).or_else(|| inner(value)).unwrap_or_else(|| "news".into());
        return Some(meant(&format!(r#"{{"pub":{},"data":…}}"#, quote(&channel))));
    }
    if raw("connect").is_some() {
        return Some(meant(r#"{"sub":"news"} (nothing needs to be sent before it)"#));
    }
    if let Some(topic) = word("topic").filter(|_| raw("data").is_some() || raw("text").is_some()) {
        return Some(meant(&format!(r#"{{"pub":{},"data":…}}"#, quote(&topic))));
    }
    None
}

/// An array whose elements are no commands, like Phoenix' `[null,"1","room:1","phx_join",{}]`.
pub fn of_array(items: &[&RawValue]) -> Option<Problem> {
    if items.is_empty() || items.iter().any(|i| i.get().starts_with('{')) && items[0].get().starts_with('{') {
        return None;
    }
    let words: Vec<String> = items.iter().filter_map(|i| text(i)).collect();
    match words.iter().position(|w| w.starts_with("phx_")) {
        Some(at) if at > 0 => Some(meant(&format!(r#"{{"sub":{}}}"#, quote(&words[at - 1])))),
        _ => {
            let text = r#"an array holds commands, like [{"sub":"news"},{"sub":"chat"}]"#;
            Some(Problem::new(Reason::BadFrame, text))
        }
    }
}

/// A frame that is no JSON object or array.
pub fn of_text(frame: &[u8]) -> Option<Problem> {
    let start = String::from_utf8_lossy(&frame[..frame.len().min(200)]);
    let start = start.trim();
    let line = start.lines().next().unwrap_or_default();
    let mut words = line.split_whitespace();
    let (first, second) = (words.next().unwrap_or_default(), words.next());
    if let Some(rest) =
        start.strip_prefix("42[").or_else(|| start.strip_prefix("40").filter(|r| r.is_empty() || r.starts_with('{')))
    {
        let event = rest.split('"').nth(1).unwrap_or("news");
        let text =
            format!(r#"this hub does not speak Socket.IO; send {{"sub":{}}} over a plain WebSocket"#, quote(event));
        return Some(Problem::new(Reason::UnknownVerb, text));
    }
    match first {
        "CONNECT" | "STOMP" | "SUBSCRIBE" | "SEND" if second.is_none() => {
            let destination = start.lines().find_map(|l| l.strip_prefix("destination:")).unwrap_or("news");
            let name = destination.trim_start_matches('/').replace('/', ".");
            let text = format!(r#"this hub does not speak STOMP; send {{"sub":{}}}"#, quote(&name));
            Some(Problem::new(Reason::UnknownVerb, text))
        }
        "SUB" | "sub" | "subscribe" | "SUBSCRIBE" | "join" | "JOIN" => {
            Some(meant(&format!(r#"{{"sub":{}}}"#, quote(second.unwrap_or("news")))))
        }
        "PUB" | "pub" | "publish" | "PUBLISH" => {
            Some(meant(&format!(r#"{{"pub":{},"data":…}}"#, quote(second.unwrap_or("news")))))
        }
        "ping" | "PING" => Some(meant(r#"{"ping":1}"#)),
        _ => None,
    }
}

fn meant(frame: &str) -> Problem {
    Problem::new(Reason::UnknownVerb, format!("one frame has one verb, and its value is the topic; perhaps {frame}"))
}

fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str::<String>(raw.get()).ok().map(|t| t.chars().take(200).collect())
}

fn channel(members: &Members<'_>) -> String {
    let here = CHANNELS.iter().find_map(|f| members.peek(f)).and_then(|raw| text(raw).or_else(|| first_of(raw)));
    let below = || ["data", "payload", "params"].iter().find_map(|f| members.peek(f)).and_then(inner);
    here.or_else(below).unwrap_or_else(|| "news".into())
}

/// The channel that an object one level down names.
fn inner(raw: &RawValue) -> Option<String> {
    let members = Members::read(raw.get().as_bytes(), "", 32).ok()?;
    CHANNELS.iter().find_map(|f| members.peek(f)).and_then(|raw| text(raw).or_else(|| first_of(raw)))
}

fn first_of(raw: &RawValue) -> Option<String> {
    serde_json::from_str::<Vec<String>>(raw.get()).ok()?.into_iter().next()
}
