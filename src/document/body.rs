//! Writes the canonical body of a message, and the message frame around it.

use std::fmt::Write;

use bytes::{BufMut, Bytes, BytesMut};

use super::members::outside_strings;
use crate::domain::message::Message;

/// The message as every door gives it out: what the store knows, then the body as it was stored.
pub fn message(message: &Message) -> Bytes {
    let body = message.body.as_bytes();
    let mut out = BytesMut::with_capacity(body.len() + message.topic.as_str().len() + 80);
    // Names and positions hold nothing that JSON would escape.
    write!(out, r#"{{"topic":"{}","at":"{}","time":{},"#, message.topic, message.at, message.time)
        .expect("BytesMut grows");
    out.put_slice(body);
    out.put_u8(b'}');
    out.freeze()
}

/// A string as JSON writes it.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    quote_into(&mut out, text);
    out
}

pub fn quote_into(out: &mut String, text: &str) {
    out.push('"');
    let mut plain_from = 0;
    for (i, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(&text[plain_from..i]);
        if escape.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(escape);
        }
        plain_from = i + 1;
    }
    out.push_str(&text[plain_from..]);
    out.push('"');
}

/// Valid JSON without the white space between its tokens, so that a message is always one line.
pub fn compact(json: &str, out: &mut String) {
    let bytes = json.as_bytes();
    if !bytes.iter().any(|b| matches!(b, b' ' | b'\n' | b'\r' | b'\t')) {
        out.push_str(json);
        return;
    }
    let mut kept_from = 0;
    for (i, byte) in outside_strings(bytes) {
        if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
            out.push_str(&json[kept_from..i]);
            kept_from = i + 1;
        }
    }
    out.push_str(&json[kept_from..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_string_is_quoted_as_json_reads_it(text: String) {
            prop_assert_eq!(serde_json::from_str::<String>(&quote(&text)).unwrap(), text);
        }

        #[test]
        fn compacting_changes_no_value(text: String, n: i64) {
            let value = serde_json::json!({ "a": [text, n, { "b c": null }], "d\n": true });
            let mut out = String::new();
            compact(&serde_json::to_string_pretty(&value).unwrap(), &mut out);
            prop_assert!(!out.contains('\n'));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), value);
        }
    }
}
