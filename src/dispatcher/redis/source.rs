//! One partition in Redis as a `Source`: a cursor beside the stream, moved by a script that asks for the lease.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use redis::{FromRedisValue, Script, Value, cmd};

use super::Shared;
use super::again::{Again, is_of};
use super::keys::{Kind, Partition};
use crate::dispatcher::owner::{Lease, Register};
use crate::dispatcher::{Batch, Board, Content, Entry, Outcome, Settled, Source, SourceError, Step, Target};
use crate::dispatcher::{parse_id, write_id};
use crate::domain::store::EntryId;
use crate::telemetry;

/// Pairs of fields kept of a dead entry, no more than one call of Redis' Lua can take. A usable entry has about ten.
const MOST_PAIRS: usize = 2_000;

pub(super) struct Scripts {
    claim: Script,
    release: Script,
    read: Script,
    commit: Script,
    pub again: Script,
    pub made_up: Script,
    pub retry: Script,
}

impl Scripts {
    pub fn new() -> Scripts {
        Scripts {
            claim: Script::new(include_str!("claim.lua")),
            release: Script::new(include_str!("release.lua")),
            read: Script::new(concat!(include_str!("ids.lua"), include_str!("read.lua"))),
            commit: Script::new(include_str!("commit.lua")),
            again: Script::new(concat!(include_str!("ids.lua"), include_str!("again.lua"))),
            made_up: Script::new(include_str!("made_up.lua")),
            retry: Script::new(include_str!("retry.lua")),
        }
    }
}

pub(crate) struct RedisSource {
    pub(super) shared: Arc<Shared>,
    pub(super) partition: Partition,
    /// Its own connection, for commands that wait.
    waiting: super::link::Link,
    lease: Lease,
    board: Arc<Board>,
    /// The cursor when the last batch was read.
    at: String,
    /// The life of the store under which everything that is kept was handed out.
    pub(super) made_up: Option<Arc<str>>,
    /// What is kept is being handed out once more.
    pub(super) again: Option<Again>,
}

/// What `read.lua` answers.
struct Page {
    life: String,
    at: String,
    waiting: u64,
    trimmed: u64,
    now: u64,
    /// The life of the store that was noted beside the cursor.
    under: String,
    entries: Vec<Entry>,
}

impl RedisSource {
    pub(super) fn new(shared: Arc<Shared>, partition: Partition, board: Arc<Board>) -> RedisSource {
        let register = Arc::new(Owner { shared: shared.clone(), key: partition.owner.clone() });
        let lease = Lease::keep(register, shared.options.terms, board.clone());
        let waiting = shared.link.another();
        RedisSource { shared, partition, waiting, lease, board, at: "0-0".to_owned(), made_up: None, again: None }
    }

    async fn next(&mut self, most: usize, target: Target) -> Result<Option<Batch>, SourceError> {
        self.lease.held().await;
        self.shared.options.pause.after(Step::Owned).await;
        if let Some(batch) = self.next_again(most, &target).await? {
            return Ok(Some(batch));
        }
        let is_made_up = target.life.is_none() || target.life == self.made_up;
        let options = &self.shared.options;
        let keep = if is_made_up && target.is_whole { options.keep } else { options.keep.max(options.held) };
        let Some(page) = self.read_page(most, keep).await? else {
            self.yield_a_moment().await;
            return Err(SourceError::Lost);
        };
        self.tell(&page);
        self.at = page.at;
        if let Some(life) = target.life.filter(|_| !is_made_up) {
            if page.under == *life || is_of(&page.life, &life) {
                self.made_up = Some(life);
            } else {
                tracing::info!(
                    source = self.partition.name,
                    "the store is in another life: what is kept is applied again"
                );
                self.again = Some(Again::new(life));
                return Ok(Some(Batch::default()));
            }
        }
        if page.entries.is_empty() {
            self.wait().await?;
        }
        Ok(Some(Batch { life: Some(page.life.into()), later: None, entries: page.entries }))
    }

    /// `keep`: how long applied entries are kept.
    async fn read_page(&self, most: usize, keep: Duration) -> Result<Option<Page>, SourceError> {
        let (options, partition) = (&self.shared.options, &self.partition);
        let mut call = self.shared.scripts.read.key(&partition.stream);
        call.key(&partition.owner).key(&partition.cursor);
        if partition.kind == Kind::List {
            call.key(&partition.name).key(&partition.wake);
        }
        call.arg(&self.shared.node).arg(most).arg(options.batch_bytes).arg(options.entry_bytes);
        call.arg(keep.as_millis() as u64);
        let answer: Vec<Value> = self.shared.link.run(&partition.stream, &call).await?;
        if answer.len() == 1 {
            return Ok(None);
        }
        let kind = partition.kind;
        let wrong = || SourceError::Broken("the ingest script gave an answer that is not understood".to_owned());
        parse_page(answer, kind, options.entry_bytes).map(Some).ok_or_else(wrong)
    }

    fn tell(&self, page: &Page) {
        let oldest = page.entries.first().map_or(0, |entry| page.now.saturating_sub(entry.id.ms));
        self.board.lag(page.waiting, Duration::from_millis(oldest));
        if page.trimmed > 0 {
            let name = &self.partition.name;
            metrics::counter!(telemetry::INGEST_TRIMMED, "source" => name.clone()).increment(page.trimmed);
            tracing::warn!(
                source = name,
                trimmed = page.trimmed,
                "entries were trimmed away before they were read: publishers must not use MAXLEN or MINID on this stream"
            );
        }
    }

    /// Waits until there may be something, without taking it: a list's element goes over to a key that is read first.
    async fn wait(&self) -> Result<(), SourceError> {
        let block = self.shared.options.block;
        let command = match self.partition.kind {
            Kind::Stream => {
                let mut read = cmd("XREAD");
                read.arg("COUNT").arg(1).arg("BLOCK").arg(block.as_millis() as u64);
                read.arg("STREAMS").arg(&self.partition.stream).arg(&self.at);
                read
            }
            Kind::List => {
                let mut moving = cmd("BLMOVE");
                moving.arg(&self.partition.name).arg(&self.partition.wake).arg("LEFT").arg("RIGHT");
                moving.arg(block.as_secs_f64());
                moving
            }
        };
        match self.waiting.ask::<Value>(&self.partition.stream, &command, block).await {
            Ok(_) => Ok(()),
            // A Redis that is full refuses BLMOVE, and publishers too; what is there can still be read.
            Err(SourceError::Full) => {
                tokio::time::sleep(block).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The server says that another has the lease, our clock does not know it yet.
    async fn yield_a_moment(&self) {
        tokio::time::sleep(self.shared.options.terms.renewal / 5).await;
    }

    async fn settle(&mut self, settled: Vec<Settled>) -> Result<(), SourceError> {
        let Some(last) = settled.last().map(|s| write_id(s.entry.id)) else { return Ok(()) };
        if let Some(again) = &mut self.again {
            // How these ended was settled before; what was lost with the store's last life is there again.
            again.after = last;
            return Ok(());
        }
        if !self.lease.is_held() {
            return Err(SourceError::Lost);
        }
        self.shared.options.pause.after(Step::Checked).await;
        let partition = &self.partition;
        let mut call = self.shared.scripts.commit.key(&partition.stream);
        call.key(&partition.owner).key(&partition.cursor).key(&partition.dead);
        call.arg(&self.shared.node).arg(&self.at).arg(&last).arg(settled.len());
        call.arg(self.shared.options.dead_letters).arg(&partition.name);
        for Settled { entry, outcome } in &settled {
            let Outcome::Dead(problem) = outcome else { continue };
            call.arg(write_id(entry.id)).arg(problem.reason.as_str());
            match &entry.content {
                Content::Fields(fields) => {
                    let (kept, left) = (fields.len().min(MOST_PAIRS), fields.len().saturating_sub(MOST_PAIRS));
                    match left {
                        0 => call.arg(&problem.text),
                        _ => call.arg(format!("{} (and {left} more fields, which are not kept)", problem.text)),
                    };
                    call.arg(kept * 2);
                    for (name, value) in &fields[..kept] {
                        call.arg(&name[..]).arg(&value[..]);
                    }
                }
                Content::Document(text) => {
                    call.arg(&problem.text).arg(2).arg("document").arg(&text[..]);
                }
                Content::Oversize { .. } => {
                    call.arg(&problem.text).arg(0);
                }
            }
        }
        let answer: String = self.shared.link.run(&partition.stream, &call).await?;
        let Ok(dropped) = answer.parse::<u64>() else { return Err(SourceError::Lost) };
        self.at = last;
        if dropped > 0 {
            metrics::counter!(telemetry::DEAD_DISPLACED, "source" => partition.name.clone()).increment(dropped);
        }
        Ok(())
    }
}

impl Source for RedisSource {
    fn name(&self) -> &str {
        &self.partition.name
    }

    fn repeats(&self) -> bool {
        true
    }

    fn read(&mut self, most: usize, target: Target) -> BoxFuture<'_, Result<Option<Batch>, SourceError>> {
        self.next(most, target).boxed()
    }

    fn commit(&mut self, settled: Vec<Settled>) -> BoxFuture<'_, Result<(), SourceError>> {
        self.settle(settled).boxed()
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        self.lease.end().boxed()
    }
}

/// The lease of one partition in Redis.
struct Owner {
    shared: Arc<Shared>,
    key: String,
}

impl Register for Owner {
    fn claim(&self, lease: Duration) -> BoxFuture<'_, Result<Result<(), Duration>, SourceError>> {
        async move {
            let mut call = self.shared.scripts.claim.key(&self.key);
            call.arg(&self.shared.node).arg(lease.as_millis() as u64);
            let (taken, rest): (u8, u64) = self.shared.link.run(&self.key, &call).await?;
            Ok(if taken == 1 { Ok(()) } else { Err(Duration::from_millis(rest)) })
        }
        .boxed()
    }

    fn release(&self) -> BoxFuture<'_, ()> {
        async move {
            let mut call = self.shared.scripts.release.key(&self.key);
            call.arg(&self.shared.node);
            // If it cannot be said, the lease runs out.
            let _ = self.shared.link.run::<u64>(&self.key, &call).await;
        }
        .boxed()
    }
}

fn parse_page(answer: Vec<Value>, kind: Kind, most: usize) -> Option<Page> {
    let [life, at, waiting, trimmed, now, under, entries] = <[Value; 7]>::try_from(answer).ok()?;
    let number = |value: Value| String::from_redis_value(value).ok()?.parse::<u64>().ok();
    let Value::Array(entries) = entries else { return None };
    Some(Page {
        life: String::from_redis_value(life).ok()?,
        at: String::from_redis_value(at).ok()?,
        waiting: number(waiting)?,
        trimmed: number(trimmed)?,
        now: number(now)?,
        under: String::from_redis_value(under).ok()?,
        entries: entries.into_iter().map(|entry| parse_entry(entry, kind, most)).collect::<Option<_>>()?,
    })
}

pub(super) fn parse_entry(value: Value, kind: Kind, most: usize) -> Option<Entry> {
    let Value::Array(parts) = value else { return None };
    let [id, content] = <[Value; 2]>::try_from(parts).ok()?;
    let id: EntryId = parse_id(&String::from_redis_value(id).ok()?)?;
    let content = match content {
        Value::Int(bytes) => Content::Oversize { bytes: bytes as usize, most },
        Value::Array(fields) => {
            let mut texts = fields.into_iter().map(|field| match field {
                Value::BulkString(bytes) => Some(bytes.into()),
                _ => None,
            });
            let mut pairs = Vec::new();
            while let Some(name) = texts.next() {
                pairs.push((name?, texts.next()??));
            }
            match kind {
                Kind::Stream => Content::Fields(pairs),
                Kind::List => Content::Document(pairs.pop()?.1),
            }
        }
        _ => return None,
    };
    Some(Entry { id, content })
}
