//! The scripts of queues, and how a call of them is begun.

use std::time::Duration;

use redis::Cmd;

use super::line::Names;
use crate::domain::queue::{Arm, OnDead, OnFull, QueueSettings, Start, StartWhen};
use crate::store::redis::scripts::{Dice, Lua};

/// One for each shape of a call. Those with a short way have it before what the long way needs.
pub struct Scripts {
    pub put: Lua,
    pub take: Lua,
    pub settle: Lua,
    pub sweep: Lua,
    pub look: Lua,
    pub change: Lua,
}

impl Scripts {
    /// `publish`: the command that wakes are published by.
    pub fn new(publish: &str) -> Scripts {
        let lua = |parts: &[&str]| {
            let head = include_str!("head.lua");
            Lua::new(format!("local PUBLISH = '{publish}'\n{head}{}", parts.concat()))
        };
        let body = include_str!("body.lua");
        Scripts {
            put: lua(&[include_str!("put_fast.lua"), body, include_str!("put.lua")]),
            take: lua(&[include_str!("take_fast.lua"), body, include_str!("take.lua")]),
            settle: lua(&[include_str!("settle_fast.lua"), body, include_str!("settle.lua")]),
            sweep: lua(&[body, include_str!("sweep.lua")]),
            look: lua(&[body, include_str!("look.lua")]),
            change: lua(&[body, include_str!("change.lua")]),
        }
    }

    pub fn all(&self) -> [&Lua; 6] {
        [&self.put, &self.take, &self.settle, &self.sweep, &self.look, &self.change]
    }
}

/// What a queue goes by, as this node knows it.
#[derive(Debug, Clone)]
pub struct Known {
    /// Of the settings that are stored; empty: there are none, and the node's own rules hold.
    pub digest: String,
    pub settings: QueueSettings,
}

/// Begins a call: the keys of a queue and others, what the node knows of its settings, and these.
pub fn begin(script: &Lua, names: &Names, more: &[String], known: &Known, dice: &mut Dice) -> Cmd {
    let mut cmd = redis::cmd("EVALSHA");
    cmd.arg(script.digest()).arg(names.keys.len() + more.len()).arg(&names.keys).arg(more);
    cmd.arg(&known.digest).arg(&names.channel).arg(dice.epoch().to_string());
    write_settings(&mut cmd, &known.settings);
    cmd
}

/// Writes settings as `settings_at` of body.lua reads them.
pub fn write_settings(cmd: &mut Cmd, settings: &QueueSettings) {
    let s = settings;
    let backoff: Vec<String> = s.backoff.iter().map(|wait| millis(*wait).to_string()).collect();
    cmd.arg(s.max_messages).arg(s.max_bytes).arg(match s.on_full {
        OnFull::Reject => "reject",
        OnFull::DropOldest => "drop-oldest",
        OnFull::DropLowestPriority => "drop-lowest-priority",
    });
    cmd.arg(millis(s.lease)).arg(millis(s.max_lease)).arg(s.max_deliveries).arg(backoff.join(" "));
    cmd.arg(s.ttl.map_or(0, |ttl| millis(ttl).max(1))).arg(millis(s.delay));
    cmd.arg(s.dead_messages).arg(s.dead_bytes);
    cmd.arg(if s.on_dead == OnDead::Halt { "halt" } else { "continue" });
    cmd.arg(s.max_workers.unwrap_or(0)).arg(s.fair_every.unwrap_or(0));
    cmd.arg(s.start_when.as_ref().map(start).unwrap_or_default());
}

fn start(start: &StartWhen) -> String {
    let mode = if start.mode == Start::Gate { "gate" } else { "notify" };
    let arms = start.any.iter().map(|arm| match arm {
        Arm::Count(count) => format!("count {count}"),
        Arm::Urgent { count, min_priority } => format!("urgent {count} {}", min_priority.level()),
        Arm::Oldest(age) => format!("oldest {}", millis(*age)),
    });
    format!("{mode},{},{}", start.batch.unwrap_or(0), arms.collect::<Vec<_>>().join(" "))
}

/// No time is longer than this, so that Redis can add it to its clock.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

pub fn millis(time: Duration) -> u64 {
    time.min(LONGEST).as_millis() as u64
}
