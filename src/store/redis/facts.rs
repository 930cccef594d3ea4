//! What a Redis says of itself, and whether topics can be kept there.

use std::collections::HashMap;
use std::sync::Arc;

use redis::{Cmd, Value};

use super::scripts::text_of;
use crate::domain::message::Durability;
use crate::endpoint::replicas_in_step;

/// Redis 7.0 brought what the scripts rely on.
const OLDEST_VERSION: (u32, u32) = (7, 0);

/// `WAITAOF` came with it.
const WAITS_FOR_DISK: (u32, u32) = (7, 2);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    version: String,
    /// One for each start of the server.
    pub run_id: String,
    /// The life of the data: another one after a restart, and on another master.
    pub life: Arc<str>,
    role: String,
    policy: String,
    loading: bool,
    pub appends: bool,
    /// `appendfsync`, where it may be asked for.
    pub syncs: Option<String>,
    /// Replicas that are in step.
    pub replicas: usize,
    pub is_cluster: bool,
}

/// Asks for what `read` takes.
pub(super) fn ask() -> Cmd {
    redis::cmd("INFO")
}

/// Asks for what `update` takes too: what changes with masters and replicas.
pub(super) fn ask_replication() -> Cmd {
    let mut cmd = redis::cmd("INFO");
    cmd.arg("replication");
    cmd
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
        let lines = lines_of(&info);
        let line = |name: &str| lines.get(name).copied().unwrap_or_default().to_string();
        let mut facts = Facts {
            version: line("redis_version"),
            run_id: line("run_id"),
            life: "".into(),
            role: String::new(),
            policy: line("maxmemory_policy"),
            loading: line("loading") == "1",
            appends: line("aof_enabled") == "1",
            syncs: None,
            replicas: 0,
            is_cluster: line("cluster_enabled") == "1",
        };
        facts.replication(&info);
        Ok(facts)
    }

    /// Takes in how it stands with masters and replicas, or the settings. Hosted servers often refuse CONFIG; what is not
    /// known is not promised.
    pub fn update(&mut self, answer: &Value) {
        let parts = match answer {
            Value::Array(parts) => parts,
            Value::BulkString(bytes) => return self.replication(&String::from_utf8_lossy(bytes)),
            _ => return,
        };
        for pair in parts.chunks_exact(2) {
            let (Some(name), Some(value)) = (text_of(&pair[0]), text_of(&pair[1])) else { continue };
            match name {
                "appendonly" => self.appends = value == "yes",
                "appendfsync" => self.syncs = Some(value.to_string()),
                "maxmemory-policy" => self.policy = value.to_string(),
                _ => {}
            }
        }
    }

    /// The life that an `INFO` tells.
    pub fn life_of(answer: &Value) -> Option<Arc<str>> {
        let info = text_of(answer)?;
        lines_of(info).get("master_replid").copied().map(Arc::from)
    }

    fn replication(&mut self, info: &str) {
        let lines = lines_of(info);
        let line = |name: &str| lines.get(name).copied().unwrap_or_default();
        self.role = line("role").to_string();
        self.life = line("master_replid").into();
        self.replicas = replicas_in_step(info);
    }

    pub fn is_master(&self) -> bool {
        self.role == "master"
    }

    /// Why topics cannot be kept here, if so, and what would help.
    pub fn objection(&self) -> Option<String> {
        if self.version() < OLDEST_VERSION {
            let (major, minor) = OLDEST_VERSION;
            return Some(format!("Redis {major}.{minor} or newer is needed, this is {:?}", self.version));
        }
        if self.loading {
            return Some("Redis is loading its data".into());
        }
        if !self.is_master() {
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

    /// What every write has once it is answered. `stated` is what the operator says of `appendfsync`.
    pub fn durability(&self, stated: Option<&str>) -> Durability {
        let syncs = self.syncs.as_deref().or(stated);
        if self.appends && syncs == Some("always") { Durability::Disk } else { Durability::Memory }
    }

    /// Whether it can be asked to wait until what was written is on disk.
    pub fn waits_for_disk(&self) -> bool {
        self.appends && self.version() >= WAITS_FOR_DISK
    }

    /// Why the level `disk` cannot be given, and what would help.
    pub fn no_disk(&self) -> String {
        match (self.appends, self.syncs.as_deref()) {
            (false, _) => "the append-only file is off; CONFIG SET appendonly yes, CONFIG SET appendfsync always, and \
                           CONFIG REWRITE to keep it so"
                .into(),
            (true, Some(syncs)) => {
                format!("appendfsync is {syncs:?}; CONFIG SET appendfsync always, and CONFIG REWRITE to keep it so")
            }
            (true, None) => "this Redis does not tell its appendfsync (CONFIG is refused); if you know that it is \
                             \"always\", say so with --redis-fsync always"
                .into(),
        }
    }

    fn version(&self) -> (u32, u32) {
        let mut numbers = self.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}

fn lines_of(info: &str) -> HashMap<&str, &str> {
    info.lines().filter_map(|line| line.trim().split_once(':')).collect()
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
        assert_eq!(facts(&with_log, "always").durability(None), Durability::Disk);
        assert_eq!(facts(&with_log, "everysec").durability(None), Durability::Memory);
        assert_eq!(facts(GOOD, "always").durability(None), Durability::Memory);
        // Its own word goes before the operator's, who is asked where it says nothing.
        assert_eq!(facts(&with_log, "everysec").durability(Some("always")), Durability::Memory);
        let mut silent = facts(&with_log, "always");
        silent.syncs = None;
        assert_eq!(silent.durability(None), Durability::Memory);
        assert!(silent.no_disk().contains("--redis-fsync always"), "{}", silent.no_disk());
        assert_eq!(silent.durability(Some("always")), Durability::Disk);
    }

    #[test]
    fn disk_can_be_waited_for_since_7_2() {
        let with_log = format!("{GOOD}aof_enabled:1\r\n");
        assert!(!facts(&with_log, "everysec").waits_for_disk());
        assert!(facts(&with_log.replace("7.0.15", "7.2.4"), "everysec").waits_for_disk());
        assert!(!facts(&GOOD.replace("7.0.15", "8.0.0"), "everysec").waits_for_disk());
    }

    #[test]
    fn replicas_that_are_in_step_are_counted() {
        let mut facts = facts(GOOD, "everysec");
        let told = "role:master\r\nconnected_slaves:4\r\nslave0:ip=a,port=1,state=online,offset=5,lag=0\r\n\
                    slave1:ip=a,port=1,state=wait_bgsave,offset=0,lag=0\r\nslave2:ip=a,port=2,state=online,offset=1,lag=11\r\n\
                    slave10:ip=a,port=2,state=online,offset=1,lag=1\r\nmaster_replid:8b2a\r\n";
        facts.update(&Value::BulkString(told.as_bytes().to_vec()));
        assert_eq!((facts.replicas, &*facts.life, facts.is_master()), (2, "8b2a", true));
    }
}
