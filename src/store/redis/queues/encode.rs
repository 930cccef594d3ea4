//! How tasks are written as calls of the scripts.

use std::time::Duration;

use redis::Cmd;
use sha1::{Digest, Sha1};

use super::line::Names;
use super::scripts::{Known, Scripts, begin, millis, write_settings};
use super::tasks::{Call, PutTask, SettleTask, Task};
use crate::domain::queue::{Dedupe, Due, How, MOST_AT_ONCE, Settle};
use crate::domain::store::Retention;
use crate::store::redis::scripts::Dice;
use crate::store::redis::topics::mark_of;

/// The longest window of a de-duplication key.
const MOST_DEDUPE: Duration = Duration::from_secs(24 * 3600);

/// Of one put, as put_fast.lua tells.
const TTL: u32 = 1;
const GROUP: u32 = 2;
const DELAY: u32 = 4;
const AT: u32 = 8;
const DEDUPE: u32 = 16;
const IDEMPOTENCY: u32 = 32;
const FENCE: u32 = 64;
const UNDER: u32 = 128;

pub fn encode(
    call: &Call,
    scripts: &Scripts,
    names: &Names,
    known: &Known,
    retention: &Retention,
    dice: &mut Dice,
) -> Cmd {
    // How long idempotency keys are remembered, in milliseconds.
    let window = millis(retention.idempotency_window).max(1);
    match call.tasks.first() {
        Some(Task::Put(_)) => puts(call, scripts, names, known, window, dice),
        Some(Task::Settle(_)) => settlements(call, scripts, names, known, dice),
        Some(Task::Take(take, ..)) => {
            let mut cmd = begin(&scripts.take, names, &[], known, dice);
            cmd.arg(&*take.worker).arg(take.count.min(MOST_AT_ONCE)).arg(take.bytes);
            cmd.arg(take.lease.map(|lease| millis(lease).to_string()).unwrap_or_default());
            cmd.arg(&take.token.to_be_bytes()[..]);
            cmd
        }
        Some(Task::Sweep(..)) | None => {
            let mut cmd = begin(&scripts.sweep, names, &[], known, dice);
            // No sooner than the keys of its puts.
            cmd.arg(millis(retention.record.max(MOST_DEDUPE)).max(window));
            cmd
        }
        Some(Task::Look(words, ..)) => {
            let mut cmd = begin(&scripts.look, names, &[], known, dice);
            cmd.arg(words);
            cmd
        }
        Some(Task::Change(words, ..)) => {
            let mut cmd = begin(&scripts.change, names, &[], known, dice);
            cmd.arg(&words.words);
            if let Some(settings) = &words.settings {
                write_settings(&mut cmd, settings);
            }
            cmd
        }
    }
}

/// A number as the scripts have it, so that texts have the order of numbers.
pub fn id(number: u64) -> String {
    format!("{number:015}")
}

fn puts(call: &Call, scripts: &Scripts, names: &Names, known: &Known, window: u64, dice: &mut Dice) -> Cmd {
    let items: Vec<(&PutTask, Option<(String, u64)>)> = call
        .tasks
        .iter()
        .filter_map(|task| if let Task::Put(one) = task { Some((one, dedupe(one, names, known))) } else { None })
        .collect();
    let mut keys = Vec::new();
    for (one, dedupe) in &items {
        keys.extend(one.put.idempotency_key.as_ref().map(|key| format!("{}idem:{key}", names.base)));
        keys.extend(dedupe.as_ref().map(|(key, _)| key.clone()));
    }
    let is_plain = items.iter().all(|(one, dedupe)| flags(one, dedupe.is_some()) & !TTL == 0);
    let mut cmd = begin(&scripts.put, names, &keys, known, dice);
    cmd.arg(if is_plain { "plain" } else { "any" }).arg(items.len());
    for (one, dedupe) in &items {
        let put = &one.put;
        cmd.arg(flags(one, dedupe.is_some())).arg(put.priority.level()).arg(&put.body.as_bytes()[..]);
        if let Some(ttl) = put.ttl {
            cmd.arg(millis(ttl).max(1));
        }
        if let Some(group) = &put.group {
            cmd.arg(&**group);
        }
        match put.due {
            Due::Default => {}
            Due::After(delay) => drop(cmd.arg(millis(delay))),
            Due::At(time) => drop(cmd.arg(time)),
        }
        if let Some((_, window)) = dedupe {
            cmd.arg(window);
        }
        if put.idempotency_key.is_some() {
            cmd.arg(window);
        }
        if let Some(fence) = &put.fence {
            cmd.arg(&*fence.source).arg(mark_of(fence)).arg(fence.later.as_deref().unwrap_or_default());
            if let Some(under) = &fence.under {
                cmd.arg(&**under);
            }
        }
    }
    cmd
}

fn flags(one: &PutTask, is_deduped: bool) -> u32 {
    let put = &one.put;
    let set = |flag: u32, is_set: bool| if is_set { flag } else { 0 };
    set(TTL, put.ttl.is_some())
        | set(GROUP, put.group.is_some())
        | set(DELAY, matches!(put.due, Due::After(_)))
        | set(AT, matches!(put.due, Due::At(_)))
        | set(DEDUPE, is_deduped)
        | set(IDEMPOTENCY, put.idempotency_key.is_some())
        | set(FENCE, put.fence.is_some())
        | set(UNDER, put.fence.as_ref().is_some_and(|fence| fence.under.is_some()))
}

/// The key that a put is de-duplicated by, and its window.
fn dedupe(one: &PutTask, names: &Names, known: &Known) -> Option<(String, u64)> {
    let usual = known.settings.dedupe_window;
    let (key, window) = match &one.put.dedupe {
        Some(Dedupe { key, window }) => (format!("{}dedupe:{key}", names.base), window.unwrap_or(usual)),
        None if known.settings.dedupe_content => {
            let digest = Sha1::digest(one.put.body.as_bytes());
            let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            (format!("{}content:{digits}", names.base), usual)
        }
        None => return None,
    };
    Some((key, millis(window))).filter(|(_, window)| *window > 0)
}

fn settlements(call: &Call, scripts: &Scripts, names: &Names, known: &Known, dice: &mut Dice) -> Cmd {
    let items: Vec<&Settle> = call
        .tasks
        .iter()
        .filter_map(|task| if let Task::Settle(SettleTask { settle, .. }) = task { Some(settle) } else { None })
        .collect();
    let mut cmd = begin(&scripts.settle, names, &[], known, dice);
    let is_plain = items.iter().all(|settle| settle.how == How::Ack);
    cmd.arg(if is_plain { "acks" } else { "any" }).arg(items.len());
    let text = |error: &Option<Box<str>>| error.as_ref().map(|text| format!("+{text}")).unwrap_or_default();
    for Settle { job, token, how } in items {
        let code = match how {
            How::Ack => "a",
            How::Nack { .. } => "n",
            How::Release => "r",
            How::Term { .. } => "t",
            How::Extend { .. } => "x",
        };
        cmd.arg(code).arg(id(job.number())).arg(job.0.epoch.to_string()).arg(&token.to_be_bytes()[..]);
        match how {
            How::Ack | How::Release => {}
            How::Nack { delay, error } => {
                cmd.arg(delay.map(|delay| millis(delay).to_string()).unwrap_or_default()).arg(text(error));
            }
            How::Term { error } => drop(cmd.arg(text(error))),
            How::Extend { by } => drop(cmd.arg(by.map(|by| millis(by).to_string()).unwrap_or_default())),
        }
    }
    cmd
}
