//! The scripts, and the values that they are called with and answer.

use std::collections::HashSet;
use std::str::FromStr;
use std::time::Duration;

use redis::{Arg, Cmd, Script, Value};

use crate::domain::cursor::CursorBounds;
use crate::domain::position::{Epoch, MAX_OFFSET, Position};
use crate::domain::store::{Retention, StoreError};
use crate::domain::topic::{Rule, Rules, TopicSettings};
use crate::store::redis::queues;

/// No bound of time is longer than this, so that Redis can add it to its clock.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A script by its text and by the digest that Redis knows it by.
pub(super) struct Lua {
    text: String,
    digest: String,
}

/// The scripts, and the settings that every call tells them.
pub(super) struct Scripts {
    pub append: Lua,
    pub read: Lua,
    pub cursor: Lua,
    pub queues: queues::Scripts,
    pub cursors: CursorBounds,
    pub rules: Rules,
    window: String,
    /// For a cluster, where channels have slots as keys have.
    pub sharded: bool,
}

impl Scripts {
    pub fn new(retention: &Retention, rules: &[Rule], cursors: CursorBounds, sharded: bool) -> Scripts {
        let publish = if sharded { "SPUBLISH" } else { "PUBLISH" };
        let lua = |own: &str| Lua::new(format!("local PUBLISH = '{publish}'\n{}{own}", include_str!("common.lua")));
        Scripts {
            append: lua(include_str!("append.lua")),
            read: lua(include_str!("read.lua")),
            cursor: lua(include_str!("cursor.lua")),
            queues: queues::Scripts::new(publish),
            cursors,
            rules: Rules::new(retention.into(), rules),
            window: millis(retention.idempotency_window),
            sharded,
        }
    }
}

impl Scripts {
    /// Commands that make Redis know them all: what a connection begins with. A call that comes to a script that is not there
    /// may be overtaken, and then fails.
    pub fn load_all(&self) -> Vec<Cmd> {
        self.all().map(Lua::load).collect()
    }

    fn all(&self) -> impl Iterator<Item = &Lua> {
        [&self.append, &self.read, &self.cursor].into_iter().chain(self.queues.all())
    }

    /// Commands that make Redis know those that these calls want, and no others: what takes longer to load is more easily
    /// unloaded again before it is used.
    pub fn load<'a>(&self, calls: impl Iterator<Item = &'a Cmd>) -> Vec<Cmd> {
        let wanted: HashSet<&[u8]> = calls.filter_map(digest_in).collect();
        self.all().filter(|lua| wanted.contains(lua.digest.as_bytes())).map(Lua::load).collect()
    }
}

/// The script that a call names.
fn digest_in(call: &Cmd) -> Option<&[u8]> {
    match call.args_iter().nth(1)? {
        Arg::Simple(digest) => Some(digest),
        _ => None,
    }
}

impl Lua {
    pub fn new(text: String) -> Lua {
        Lua { digest: Script::new(&text).get_hash().to_string(), text }
    }

    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// A command that makes Redis know the script.
    fn load(&self) -> Cmd {
        let mut cmd = redis::cmd("SCRIPT");
        cmd.arg("LOAD").arg(&self.text);
        cmd
    }

    /// Begins a call: keys, and then the settings of the topics that it is about, which are the first arguments of every
    /// script.
    pub fn call(&self, keys: &[String], scripts: &Scripts, settings: &[TopicSettings]) -> Cmd {
        // Redis counts in doubles.
        let number = |n: u64| n.min(MAX_OFFSET);
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&self.digest).arg(keys.len()).arg(keys).arg(&scripts.window).arg(settings.len());
        for TopicSettings { mode, messages, bytes, age, record, .. } in settings {
            cmd.arg(mode.as_str()).arg(number((*messages).max(1))).arg(number(*bytes));
            cmd.arg(millis(*age)).arg(millis(*record));
        }
        cmd
    }
}

pub(super) fn millis(time: Duration) -> String {
    time.min(LONGEST).as_millis().max(1).to_string()
}

/// Random bits for epochs, drawn from the system in larger portions.
#[derive(Default)]
pub(super) struct Dice {
    drawn: Vec<u64>,
}

impl Dice {
    pub fn epoch(&mut self) -> Epoch {
        Epoch::from_random(self.bits())
    }

    /// A number in 0.0..1.0.
    pub fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn bits(&mut self) -> u64 {
        if self.drawn.is_empty() {
            let mut bytes = [0; 512];
            getrandom::fill(&mut bytes).expect("the system has random bits");
            self.drawn.extend(bytes.chunks_exact(8).map(|b| u64::from_ne_bytes(b.try_into().expect("eight bytes"))));
        }
        self.drawn.pop().expect("just filled")
    }
}

/// What an error answer of Redis means for the command that it answers.
pub(super) fn refusal(text: &str) -> StoreError {
    let text = text.trim();
    match text.split_whitespace().next().unwrap_or_default().trim_end_matches(':') {
        "OOM" => StoreError::Full(format!("Redis is at its maxmemory ({text})")),
        "FULL" => StoreError::Full(text.trim_start_matches("FULL ").into()),
        "LARGE" => StoreError::TooLarge(text.trim_start_matches("LARGE ").into()),
        "MISCONF" if text.contains("No space") => StoreError::Full(text.into()),
        "READONLY" | "LOADING" | "MASTERDOWN" | "BUSY" | "NOREPLICAS" | "MISCONF" | "CLUSTERDOWN" | "TRYAGAIN"
        | "NOSCRIPT" | "HELD" | "MOVED" | "ASK" => StoreError::Unavailable(text.into()),
        // A script that broke off may have stored something before.
        _ if text.contains("script") => StoreError::Unconfirmed(text.into()),
        _ => StoreError::Broken(format!("Redis refuses: {text}")),
    }
}

pub(super) fn odd(what: &str) -> StoreError {
    StoreError::Broken(format!("Redis answers something unexpected: {what}"))
}

pub(super) fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

pub(super) fn parse<T: FromStr>(value: &Value) -> Option<T> {
    text_of(value)?.parse().ok()
}

pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(n) => u64::try_from(*n).ok(),
        other => parse(other),
    }
}

pub(super) fn position(text: &str) -> Option<Position> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_whether_it_may_be_stored() {
        use StoreError::*;
        assert!(matches!(refusal("OOM command not allowed when used memory > 'maxmemory'."), Full(_)));
        assert!(matches!(refusal("MISCONF Errors writing to the AOF file: No space left on device"), Full(_)));
        for text in ["READONLY You can't write", "LOADING Redis is loading", "MASTERDOWN x", "NOREPLICAS x", "BUSY x"] {
            assert!(matches!(refusal(text), Unavailable(_)), "{text}");
        }
        assert!(matches!(refusal("ERR user_script:70: boom script: 12ab, on @user_script:70."), Unconfirmed(_)));
        assert!(matches!(refusal("WRONGTYPE Operation against a key"), Broken(_)));
        assert!(matches!(refusal("MOVED 1234 10.0.0.1:6379"), Unavailable(_)));
        assert!(matches!(refusal("CROSSSLOT Keys in request don't hash to the same slot"), Broken(_)));
    }
}
