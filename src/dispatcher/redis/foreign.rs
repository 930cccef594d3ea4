//! Finds publishers that write next to us: frameworks put a prefix before every key, or serialise the key itself.
//! Their entries lie where nobody reads, without an error anywhere; so somebody has to look.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{Value, cmd};

use super::Shared;
use super::keys::Kind;
use crate::dispatcher::Board;
use crate::dispatcher::decode::JAVA_STRING;
use crate::dispatcher::notice::Throttle;
use crate::domain::dead::Notice;
use crate::domain::error::Reason;
use crate::domain::store::StoreError;

/// Between two looks. Each is one bounded command, and now and then the likely names.
const LOOK: Duration = Duration::from_secs(1);
const LIKELY_EVERY: u32 = 10;

/// Keys that one `SCAN` goes through.
const SCAN_KEYS: u32 = 1_000;

/// Notices kept, and how long one that was not seen again.
const MOST_NOTICES: usize = 100;
const FORGET: Duration = Duration::from_secs(3600);

/// Looks for keys that were meant for us. Works on the node that owns the first partition, and tells all of them.
pub struct Watcher {
    shared: Arc<Shared>,
    board: Arc<Board>,
    throttle: Arc<Throttle>,
}

impl Watcher {
    pub(in crate::dispatcher) fn new(shared: Arc<Shared>, board: Arc<Board>, throttle: Arc<Throttle>) -> Watcher {
        Watcher { shared, board, throttle }
    }

    /// Looks until it is dropped.
    pub async fn run(self) {
        let names = [self.shared.options.stream.clone(), self.shared.options.list.clone()];
        let (mut turn, mut pass, mut cursors) = (0, 0, HashMap::new());
        loop {
            if self.board.read().owner {
                let mut seen = Vec::new();
                if turn % LIKELY_EVERY == 0 {
                    seen.extend(self.likely(&names).await.unwrap_or_default());
                }
                let pattern = format!("*{}*", escape(&names[pass % names.len()]));
                for master in self.shared.link.masters().await.unwrap_or_default() {
                    let cursor: &mut u64 = cursors.entry(master.clone()).or_default();
                    let mut scan = cmd("SCAN");
                    scan.arg(*cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_KEYS);
                    let scanned: Result<(u64, Vec<Vec<u8>>), _> = self.shared.link.ask_master(master, &scan).await;
                    if let Ok((next, keys)) = scanned {
                        *cursor = next;
                        pass += usize::from(next == 0);
                        seen.extend(keys);
                    }
                }
                for key in seen {
                    if let Some(text) = judge(&key, &names) {
                        let _ = self.tell(&key, text).await;
                    }
                }
                turn = turn.wrapping_add(1);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn likely(&self, names: &[String]) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut found = Vec::new();
        for name in names {
            let prefixed = ["laravel_database_", "laravel-database-", "laravel_", "app:"];
            let prefixed = prefixed.iter().map(|prefix| format!("{prefix}{name}").into_bytes());
            for key in prefixed.chain([java_key(name)]) {
                if self.shared.ask::<u64>(&key, cmd("EXISTS").arg(&key)).await? == 1 {
                    found.push(key);
                }
            }
        }
        Ok(found)
    }

    async fn tell(&self, key: &[u8], text: String) -> Result<(), StoreError> {
        let beside = [b"{", key, b"}:cursor"].concat();
        if self.shared.ask::<u64>(&beside, cmd("EXISTS").arg(&beside)).await? == 1 {
            // Another hub reads it.
            return Ok(());
        }
        let home = &self.shared.partitions[0].notices;
        let (time, _): (u64, u64) = self.shared.ask(home, &cmd("TIME")).await?;
        let is_known: u64 = self.shared.ask(home, cmd("HEXISTS").arg(home).arg(key)).await?;
        if is_known == 1 || self.shared.ask::<usize>(home, cmd("HLEN").arg(home)).await? < MOST_NOTICES {
            self.shared.ask::<Value>(home, cmd("HSET").arg(home).arg(key).arg(format!("{time} {text}"))).await?;
        }
        self.throttle.warn(Reason::BadName, &format!("key {}", String::from_utf8_lossy(key)), || text);
        Ok(())
    }
}

/// What operators must know and is no dead letter.
pub(in crate::dispatcher) async fn notices(shared: &Shared) -> Result<Vec<Notice>, StoreError> {
    let mut notices = Vec::new();
    for partition in &shared.partitions {
        let mut ask = cmd("HMGET");
        ask.arg(&partition.cursor).arg("trimmed").arg("trimmed_at");
        let (count, time): (Option<u64>, Option<u64>) = shared.ask(&partition.cursor, &ask).await?;
        if let (Some(count), Some(time)) = (count, time) {
            let what = if partition.kind == Kind::List { &partition.stream } else { &partition.name };
            let text = format!(
                "{count} entries of {what} were trimmed away before they were read; publishers must not use MAXLEN or MINID"
            );
            notices.push(Notice { source: partition.name.clone(), text, time });
        }
    }
    let home = &shared.partitions[0];
    let (now, _): (u64, u64) = shared.ask(&home.notices, &cmd("TIME")).await?;
    for (key, value) in shared.ask::<Vec<(Vec<u8>, String)>>(&home.notices, cmd("HGETALL").arg(&home.notices)).await? {
        let (seconds, text) = value.split_once(' ').unwrap_or(("0", &value));
        let seconds: u64 = seconds.parse().unwrap_or(0);
        if now.saturating_sub(seconds) > FORGET.as_secs() {
            shared.ask::<u64>(&home.notices, cmd("HDEL").arg(&home.notices).arg(key)).await?;
        } else {
            notices.push(Notice { source: home.name.clone(), text: text.to_owned(), time: seconds * 1000 });
        }
    }
    Ok(notices)
}

/// What to say about a key, if it was meant for one of ours.
fn judge(key: &[u8], names: &[String]) -> Option<String> {
    let name = names.iter().find(|name| key.ends_with(name.as_bytes()) && key != name.as_bytes())?;
    let setting = if name == &names[0] { "--ingest-stream" } else { "--ingest-list" };
    if key.starts_with(JAVA_STRING) {
        return Some(format!(
            "somebody writes to a key that Java serialised, where {name} was meant (Spring's default RedisTemplate): use \
             StringRedisTemplate, or set the key, value and hash serializers to StringRedisSerializer"
        ));
    }
    let key = std::str::from_utf8(key).ok()?;
    let prefix = &key[..key.len() - name.len()];
    if prefix.contains(['{', '}']) || prefix.ends_with(|c: char| c.is_alphanumeric()) {
        return None;
    }
    let laravel = prefix.ends_with("_database_") || prefix.ends_with("-database-");
    let mend = if laravel {
        "Laravel puts that prefix before every key: set REDIS_PREFIX= (empty) for the connection that publishes"
    } else {
        "a framework puts that prefix before every key: take it away for the connection that publishes"
    };
    Some(format!("somebody writes to {key}, where {name} was meant. {mend}, or start the hub with {setting} {key}"))
}

/// A key as Spring's default template writes it.
fn java_key(name: &str) -> Vec<u8> {
    let length = u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes();
    [JAVA_STRING, &length, name.as_bytes()].concat()
}

/// A text as a pattern of Redis that matches only itself.
fn escape(name: &str) -> String {
    name.chars().flat_map(|c| ['\\', c].into_iter().skip(usize::from(!"*?[]\\^-".contains(c)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_were_meant_for_us_are_named_and_others_left_alone() {
        let names = ["fanfare:in".to_owned(), "fanfare:list".to_owned()];
        for (key, shows) in [
            ("laravel_database_fanfare:in", Some("REDIS_PREFIX")),
            ("my-app-database-fanfare:list", Some("--ingest-list my-app-database-fanfare:list")),
            ("myapp:fanfare:in", Some("--ingest-stream myapp:fanfare:in")),
            ("x_fanfare:list", Some("fanfare:list was meant")),
            ("fanfare:in", None),
            ("fanfare:in:1", None),
            ("{fanfare:list}:in", None),
            ("{fanfare:in}:owner", None),
            ("allfanfare:in", None),
            ("fanfare:{t17}:log:fanfare:in", None),
        ] {
            let said = judge(key.as_bytes(), &names);
            assert_eq!(said.is_some(), shows.is_some(), "{key}: {said:?}");
            assert!(said.unwrap_or_default().contains(shows.unwrap_or_default()), "{key}");
        }
        let said = judge(&java_key("fanfare:in"), &names).unwrap();
        assert!(said.contains("StringRedisTemplate"), "{said}");
        assert_eq!(escape("a*[b]:in"), "a\\*\\[b\\]:in");
    }
}
