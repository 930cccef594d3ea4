//! What is wrong with what was seen, what would be better, and what each level means there. No I/O.

use super::look::version;
use super::{Finding, Level, Question, Server};
use crate::domain::message::Durability;

const OLDEST_VERSION: (u32, u32) = (7, 0);
/// A clock that is further away than this, or an answer that takes longer, is worth a word.
const CLOCK_MS: i64 = 1_000;
const ROUND_TRIP_MS: f64 = 20.0;

/// Writes findings down for one server.
struct Pen<'a> {
    server: &'a Server,
    findings: Vec<Finding>,
}

impl Pen<'_> {
    fn note(&mut self, wrong: bool, text: String, change: &[&str]) {
        let change = change.iter().map(|line| line.to_string()).collect();
        self.findings.push(Finding { wrong, server: self.server.address.clone(), text, change });
    }
}

pub(super) fn findings(servers: &[Server], question: &Question, has_sentinels: bool) -> Vec<Finding> {
    let mut all = Vec::new();
    for server in servers {
        let mut pen = Pen { server, findings: Vec::new() };
        judge_server(&mut pen);
        judge_levels(&mut pen, question, has_sentinels || server.is_cluster);
        judge_queues(&mut pen);
        all.append(&mut pen.findings);
    }
    if !servers.iter().any(|server| server.is_opened) {
        let text = format!("no hub has opened a store with the prefix {:?} here yet", question.prefix);
        all.push(Finding { wrong: false, server: String::new(), text, change: Vec::new() });
    }
    all
}

fn judge_server(pen: &mut Pen) {
    let server = pen.server;
    if version(&server.version) < OLDEST_VERSION {
        pen.note(true, format!("Redis {} is too old: 7.0 or newer is needed", server.version), &[]);
    }
    if server.role != "master" {
        pen.note(true, format!("this is a {}: give the address of its master", server.role), &[]);
    }
    if server.maxmemory_policy != "noeviction" {
        let text = format!("maxmemory-policy {}: Redis would remove messages in silence", server.maxmemory_policy);
        pen.note(true, text, &["CONFIG SET maxmemory-policy noeviction", "CONFIG REWRITE"]);
    }
    if server.maxmemory > 0 && server.used_memory > server.maxmemory / 10 * 9 {
        let text = format!("{} of {} bytes are used: soon publishes are refused", server.used_memory, server.maxmemory);
        pen.note(true, text, &["CONFIG SET maxmemory <more>", "or keep less: --history-messages, --history-age"]);
    }
    if server.maxmemory == 0 {
        let text = "maxmemory is not set: where the machine has no more, the system kills Redis".to_string();
        pen.note(false, text, &["CONFIG SET maxmemory <bytes>", "CONFIG REWRITE"]);
    }
    if server.disk_trouble {
        pen.note(true, "its last write to disk failed: look at its log and its disk".into(), &[]);
    }
    if server.clock_ahead_ms.abs() > CLOCK_MS {
        let text = format!("its clock is {} ms from ours; times of messages are told by it", server.clock_ahead_ms);
        pen.note(false, text, &[]);
    }
    if server.round_trip_ms > ROUND_TRIP_MS {
        pen.note(false, format!("an answer takes {:.1} ms, and each publish waits for one", server.round_trip_ms), &[]);
    }
}

fn judge_levels(pen: &mut Pen, question: &Question, fails_over: bool) {
    let server = pen.server;
    let fsync = fsync(server, question);
    let to_disk: &[&str] = &["CONFIG SET appendonly yes", "CONFIG SET appendfsync always", "CONFIG REWRITE"];
    if question.durability == Some(Durability::Disk) && !gives_disk(server, question) {
        pen.note(true, "the level \"disk\" cannot be given: not every write is synced".into(), to_disk);
    } else if !server.appendonly {
        let text = "the append-only file is off: a restart of Redis loses everything, and tells every subscriber so";
        pen.note(false, text.into(), &["CONFIG SET appendonly yes", "CONFIG REWRITE"]);
    } else if fsync.is_none() {
        let text = "it does not tell its appendfsync; where you know that it is \"always\", say --redis-fsync always";
        pen.note(false, text.into(), &[]);
    } else if fsync != Some("always") && question.durability.is_none() {
        let text = "appendfsync is not \"always\": a loss of power may lose the last second or two";
        pen.note(false, text.into(), &["CONFIG SET appendfsync always", "CONFIG REWRITE"]);
    }
    let asks_replica = question.durability == Some(Durability::Replica);
    let needed = if asks_replica { question.replicas.max(1) } else { 1 };
    if (asks_replica || fails_over) && server.replicas_in_step < needed {
        let what = if asks_replica { "the level \"replica\" cannot be given" } else { "nobody could take its place" };
        pen.note(true, format!("{what}: {} of {needed} replicas are in step", server.replicas_in_step), &[]);
    }
    if fails_over && server.min_replicas_to_write == Some(0) {
        let text = "a master that is cut off from its replicas goes on taking writes, which a failover then loses; \
                    neither clients nor sentinels can tell it from a good one";
        let change = ["CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-max-lag 10", "CONFIG REWRITE"];
        pen.note(false, text.into(), &change);
    }
}

fn judge_queues(pen: &mut Pen) {
    for queue in &pen.server.queues {
        if queue.waiting > 0 && queue.owner.is_none() {
            let text = format!("{} entries wait in {}, and no hub works on them", queue.waiting, queue.name);
            pen.note(true, text, &["start a hub with this --ingest, or look at why it does not"]);
        }
        if queue.dead_letters > 0 {
            let text = format!("{} entries of {} could not be used", queue.dead_letters, queue.name);
            pen.note(false, text, &["fanfare ingest dead"]);
        }
    }
}

/// Its own word goes before the operator's, as with a hub.
fn fsync<'a>(server: &'a Server, question: &'a Question) -> Option<&'a str> {
    server.appendfsync.as_deref().or(question.fsync.as_deref())
}

fn gives_disk(server: &Server, question: &Question) -> bool {
    server.appendonly && (fsync(server, question) == Some("always") || server.has_waitaof)
}

/// What each level means, where all servers give it.
pub(super) fn levels(servers: &[Server], question: &Question) -> Vec<Level> {
    let all = |gives: &dyn Fn(&Server) -> bool| servers.iter().all(gives);
    let memory = if all(&|s| s.appendonly) {
        "an answer means: in the memory of Redis, and soon on its disk; survives the end of every hub, and a crash of Redis \
         itself. A loss of power may take the last second or two, a failover what no replica had; both are told"
    } else {
        "an answer means: in the memory of Redis; survives the end of every hub, and nothing else: a restart of Redis loses \
         everything, and a failover what no replica had; both are told"
    };
    let disk = all(&|s| gives_disk(s, question));
    let disk_text = if disk {
        "an answer means: synced to the disk of the master; survives its loss of power, not the loss of the machine"
    } else {
        "not given here"
    };
    let replica = question.replicas > 0 && all(&|s| s.replicas_in_step >= question.replicas);
    let replica_text = match replica {
        true => format!(
            "an answer means: {} of the replicas have it too; survives the loss of the master where one of those takes its \
             place (for certain only if all replicas must have it)",
            question.replicas
        ),
        false => format!("not given here: it needs {} replicas in step", question.replicas.max(1)),
    };
    vec![
        Level { level: "memory", given: true, text: memory.into() },
        Level { level: "disk", given: disk, text: disk_text.into() },
        Level { level: "replica", given: replica, text: replica_text },
    ]
}
