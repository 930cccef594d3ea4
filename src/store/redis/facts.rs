//! What a Redis says of itself, and whether topics can be kept there.

use std::collections::HashMap;

use redis::{Cmd, Value};

use super::scripts::text_of;
use crate::domain::message::Durability;

/// Redis 7.0 brought what the scripts rely on.
const OLDEST_VERSION: (u32, u32) = (7, 0);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    version: String,
    /// One for each start of the server.
    pub run_id: String,
    /// One for each master, and for each start of one.
    pub life: String,
    role: String,
    policy: String,
    loading: bool,
    appends: bool,
    syncs_always: bool,
    pub is_cluster: bool,
}

/// Asks for what `read` takes.
pub(super) fn ask() -> Cmd {
    redis::cmd("INFO")
}

/// Asks for what `update` takes: the settings that can change while Redis runs.
pub(super) fn ask_settings() -> Cmd {
    let mut cmd = redis::cmd("CONFIG");
    cmd.arg("GET").arg("appendonly").arg("appendfsync").arg("maxmemory-policy");
    cmd
}

impl Facts {
    pub fn read(answer: &Value) -> Result<Facts, String> {
        let info = match answer {
            Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::ServerError(error) if error.code() == "NOAUTH" => {
                return Err("it wants a password; write redis://[user]:PASSWORD@host".into());
            }
            Value::ServerError(error) => return Err(format!("it refuses INFO: {error}")),
            _ => return Err("INFO is not answered".into()),
        };
        let lines: HashMap<&str, &str> = info.lines().filter_map(|line| line.trim().split_once(':')).collect();
        let line = |name: &str| lines.get(name).copied().unwrap_or_default().to_string();
        Ok(Facts {
            version: line("redis_version"),
            run_id: line("run_id"),
            life: line("master_replid"),
            role: line("role"),
            policy: line("maxmemory_policy"),
            loading: line("loading") == "1",
            appends: line("aof_enabled") == "1",
            syncs_always: false,
            is_cluster: line("cluster_enabled") == "1",
        })
    }

    /// Takes the settings in. Hosted servers often refuse CONFIG; what is not known is not promised.
    pub fn update(&mut self, answer: &Value) {
        self.syncs_always = false;
        let Value::Array(parts) = answer else { return };
        for pair in parts.chunks_exact(2) {
            let (Some(name), Some(value)) = (text_of(&pair[0]), text_of(&pair[1])) else { continue };
            match name {
                "appendonly" => self.appends = value == "yes",
                "appendfsync" => self.syncs_always = value == "always",
                "maxmemory-policy" => self.policy = value.to_string(),
                _ => {}
            }
        }
    }

    /// Why topics cannot be kept here, if so, and what would help.
    pub fn objection(&self) -> Option<String> {
        let mut numbers = self.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if version < OLDEST_VERSION {
            let (major, minor) = OLDEST_VERSION;
            return Some(format!("Redis {major}.{minor} or newer is needed, this is {:?}", self.version));
        }
        if self.loading {
            return Some("Redis is loading its data".into());
        }
        if self.role != "master" {
            return Some(format!("this Redis is a {}, give the address of its master", self.role));
        }
        if self.policy != "noeviction" {
            return Some(format!(
                "maxmemory-policy is {:?}, with which Redis removes messages in silence when memory is short; \
                 set `maxmemory-policy noeviction`",
                self.policy
            ));
        }
        None
    }

    pub fn durability(&self) -> Durability {
        if self.appends && self.syncs_always { Durability::Disk } else { Durability::Memory }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(info: &str, fsync: &str) -> Facts {
        let text = |s: &str| Value::BulkString(s.as_bytes().to_vec());
        let mut facts = Facts::read(&text(info)).unwrap();
        facts.update(&Value::Array(vec![text("appendfsync"), text(fsync)]));
        facts
    }

    const GOOD: &str =
        "# Server\r\nredis_version:7.0.15\r\nrole:master\r\nmaxmemory_policy:noeviction\r\nloading:0\r\n";

    #[test]
    fn a_server_that_could_lose_messages_in_silence_is_refused_with_the_way_out() {
        assert_eq!(facts(GOOD, "everysec").objection(), None);
        for (was, is, says) in [
            ("7.0.15", "6.2.14", "7.0 or newer"),
            ("noeviction", "allkeys-lru", "set `maxmemory-policy noeviction`"),
            ("role:master", "role:slave", "master"),
            ("loading:0", "loading:1", "loading"),
        ] {
            let text = facts(&GOOD.replace(was, is), "everysec").objection().unwrap();
            assert!(text.contains(says), "{text}");
        }
    }

    #[test]
    fn disk_is_promised_only_if_every_write_is_synced() {
        let with_log = format!("{GOOD}aof_enabled:1\r\n");
        assert_eq!(facts(&with_log, "always").durability(), Durability::Disk);
        assert_eq!(facts(&with_log, "everysec").durability(), Durability::Memory);
        assert_eq!(facts(GOOD, "always").durability(), Durability::Memory);
    }
}
