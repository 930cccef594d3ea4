//! What operators see and do. Long changes go in portions, so that none holds Redis up.

use futures::future::{BoxFuture, FutureExt};
use redis::{Script, Value};

use super::encode::id;
use super::scripts::Known;
use super::tasks::{Changed, Task, Words};
use super::{Keeper, RedisQueues, decode};
use crate::domain::queue::{Change, JobId, Place, Queue, QueueAdmin, Seen, Stats, written};
use crate::domain::store::StoreError;
use crate::endpoint::slot_of;
use crate::store::redis::scripts::{number, odd, text_of};

/// Jobs that one look gives, and in which portions.
const MOST_SEEN: usize = 1_000;
const PORTION: usize = 100;
/// Names of queues that are read at a time.
const NAMES: usize = 500;

impl QueueAdmin for RedisQueues {
    fn stats(&self, queue: &Queue) -> BoxFuture<'static, Result<Option<Stats>, StoreError>> {
        let looked = self.look_with(queue, vec!["stats".into()]);
        async move {
            match looked.await? {
                None => Ok(None),
                Some(value) => decode::stats(&value).map(Some).ok_or_else(|| odd(&format!("{value:?}"))),
            }
        }
        .boxed()
    }

    fn list(&self, after: Option<&Queue>, limit: usize) -> BoxFuture<'static, Result<Vec<Queue>, StoreError>> {
        let (keeper, mut after) = (self.0.clone(), after.cloned());
        async move {
            let key = keeper.host.names.queues();
            let mut found = Vec::new();
            loop {
                let from = after.as_ref().map_or("-".into(), |after| format!("({after}"));
                let mut range = redis::cmd("ZRANGEBYLEX");
                range.arg(&key).arg(from).arg("+").arg("LIMIT").arg(0).arg(NAMES);
                let Value::Array(names) = keeper.say(range, slot_of(&key)).await? else { return Ok(found) };
                let names: Vec<Queue> =
                    names.iter().filter_map(text_of).filter_map(|name| Queue::parse(name).ok()).collect();
                let are_there = futures::future::try_join_all(names.iter().map(|queue| keeper.is_there(queue))).await?;
                let is_last = names.len() < NAMES;
                after = names.last().cloned();
                for (queue, is_there) in names.into_iter().zip(are_there) {
                    if is_there {
                        found.push(queue);
                    } else if let Err(error) = keeper.strike(&queue).await {
                        tracing::debug!(%queue, %error, "a queue that is gone stays in the list");
                    }
                }
                if found.len() >= limit || is_last {
                    found.truncate(limit);
                    return Ok(found);
                }
            }
        }
        .boxed()
    }

    fn look(
        &self,
        queue: &Queue,
        place: Place,
        skip: usize,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Seen>, StoreError>> {
        let (queues, queue, limit) = (RedisQueues(self.0.clone()), queue.clone(), limit.min(MOST_SEEN));
        let word = word_of(place);
        let portion = move |done: usize| {
            let words =
                vec!["jobs".into(), word.into(), (skip + done).to_string(), (limit - done).min(PORTION).to_string()];
            queues.look_with(&queue, words)
        };
        let mut looked = portion(0);
        async move {
            let mut seen: Vec<Seen> = Vec::new();
            while seen.len() < limit {
                let Some(value) = looked.await? else { break };
                let jobs = decode::seen(&value).ok_or_else(|| odd(&format!("{value:?}")))?;
                let is_last = jobs.len() < PORTION;
                seen.extend(jobs);
                if is_last {
                    break;
                }
                looked = portion(seen.len());
            }
            Ok(seen)
        }
        .boxed()
    }

    fn find(&self, queue: &Queue, job: JobId) -> BoxFuture<'static, Result<Option<Seen>, StoreError>> {
        let looked = self.look_with(queue, vec!["job".into(), id(job.number()), job.0.epoch.to_string()]);
        async move {
            let Some(value) = looked.await? else { return Ok(None) };
            Ok(decode::seen(&value).ok_or_else(|| odd(&format!("{value:?}")))?.pop())
        }
        .boxed()
    }

    fn change(&self, queue: &Queue, change: Change) -> BoxFuture<'static, Result<u64, StoreError>> {
        match change {
            Change::Settings(settings) => {
                let own = settings.map(|settings| {
                    let text = written::write(&settings);
                    (Known { digest: Script::new(&text).get_hash().to_string(), settings: *settings }, text)
                });
                let (digest, text) = own.as_ref().map_or(("", ""), |(known, text)| (&known.digest, text));
                let mut words = words(&["settings", digest, text]);
                words.begins = own.is_some();
                words.settings =
                    Some(own.as_ref().map_or_else(|| self.0.rules().of(queue), |(known, _)| &known.settings).clone());
                let (begins, done) = (words.begins, self.once(queue, words));
                let (keeper, queue) = (self.0.clone(), queue.clone());
                async move {
                    let met = done.await?;
                    if begins {
                        // It may have been deleted by another node, and taken out of the list.
                        keeper.begun(&queue);
                    }
                    Ok(met)
                }
                .boxed()
            }
            Change::Pause(is_paused) => self.once(queue, words(&["pause", if is_paused { "1" } else { "0" }])),
            Change::Edit { job, body } => {
                let mut words = words(&["edit", &id(job.number()), &job.0.epoch.to_string()]);
                words.words.push(body.as_bytes().to_vec());
                self.once(queue, words)
            }
            Change::Redrive { jobs: Some(jobs), .. } => self.redrive_these(queue, jobs),
            Change::Redrive { jobs: None, cause, limit } => {
                let cause = cause.map_or("", |cause| cause.as_str());
                self.in_portions(queue, limit as u64, move |left, further| {
                    words(&["redrive", "oldest", cause, &left.to_string(), &further.to_string()])
                })
            }
            Change::Remove(job) => self.once(queue, words(&["remove", &id(job.number()), &job.0.epoch.to_string()])),
            Change::Purge(place) => {
                let places: &'static [&'static str] = match place {
                    None => &["purge", "parked", "ready", "delayed", "leases"],
                    Some(Place::Ready | Place::Parked) => &["purge", "parked", "ready"],
                    Some(Place::Delayed) => &["purge", "delayed"],
                    Some(Place::InFlight) => &["purge", "leases"],
                    Some(Place::Dead) => &["purge", "dead"],
                };
                self.in_portions(queue, u64::MAX, move |_, _| words(places))
            }
            Change::Leave { worker } => self.once(queue, words(&["leave", &worker])),
            Change::Told(number) => self.once(queue, words(&["told", &number.to_string()])),
            Change::Delete => {
                let deleted = self.once(queue, words(&["delete"]));
                let (keeper, queue) = (self.0.clone(), queue.clone());
                async move {
                    let met = deleted.await?;
                    keeper.strike(&queue).await?;
                    Ok(met)
                }
                .boxed()
            }
        }
    }
}

fn words(words: &[&str]) -> Words {
    Words { words: words.iter().map(|word| word.as_bytes().to_vec()).collect(), settings: None, begins: false }
}

fn word_of(place: Place) -> &'static str {
    match place {
        Place::Ready => "ready",
        Place::Parked => "parked",
        Place::Delayed => "delayed",
        Place::InFlight => "leases",
        Place::Dead => "dead",
    }
}

impl RedisQueues {
    /// `None`: the queue is not there.
    fn look_with(&self, queue: &Queue, words: Vec<String>) -> BoxFuture<'static, Result<Option<Value>, StoreError>> {
        let asked = self.0.ask(queue, 0, |reply, weight| Task::Look(words, reply, weight));
        async move {
            let parts = asked.await?;
            let is_absent = parts.first().and_then(text_of) == Some("A");
            Ok((!is_absent).then_some(Value::Array(parts)))
        }
        .boxed()
    }

    fn say(&self, queue: &Queue, words: Words) -> BoxFuture<'static, Result<Changed, StoreError>> {
        let bytes = words.words.iter().map(Vec::len).sum();
        self.0.ask_kept(queue, bytes, |reply, weight| Task::Change(words, reply, weight))
    }

    fn once(&self, queue: &Queue, words: Words) -> BoxFuture<'static, Result<u64, StoreError>> {
        let said = self.say(queue, words);
        async move { Ok(said.await?.met) }.boxed()
    }

    /// Until that many are met, or there are no more.
    fn in_portions(
        &self,
        queue: &Queue,
        limit: u64,
        portion: impl Fn(u64, u64) -> Words + Send + 'static,
    ) -> BoxFuture<'static, Result<u64, StoreError>> {
        let (queues, queue) = (RedisQueues(self.0.clone()), queue.clone());
        let mut said = queues.say(&queue, portion(limit, 0));
        async move {
            let mut met = 0;
            loop {
                let changed = said.await?;
                met += changed.met;
                match changed.further {
                    Some(further) if met < limit => said = queues.say(&queue, portion(limit - met, further)),
                    _ => return Ok(met),
                }
            }
        }
        .boxed()
    }

    fn redrive_these(&self, queue: &Queue, jobs: Vec<JobId>) -> BoxFuture<'static, Result<u64, StoreError>> {
        let (queues, queue) = (RedisQueues(self.0.clone()), queue.clone());
        let portions: Vec<Words> = jobs
            .chunks(PORTION)
            .map(|jobs| {
                let mut words = words(&["redrive", "these", &jobs.len().to_string()]);
                for job in jobs {
                    words.words.push(id(job.number()).into_bytes());
                    words.words.push(job.0.epoch.to_string().into_bytes());
                }
                words
            })
            .collect();
        async move {
            let mut met = 0;
            for words in portions {
                let changed = queues.say(&queue, words).await?;
                met += changed.met;
                if changed.further.is_none() {
                    break;
                }
            }
            Ok(met)
        }
        .boxed()
    }
}

impl Keeper {
    async fn is_there(&self, queue: &Queue) -> Result<bool, StoreError> {
        let names = self.names(queue);
        let mut exists = redis::cmd("EXISTS");
        exists.arg(names.state());
        Ok(number(&self.say(exists, names.slot).await?) == Some(1))
    }

    /// Takes a queue that was deleted out of the list of all. Somebody may have begun it again meanwhile: whoever does so
    /// wrote it down before, so a look afterwards finds that.
    async fn strike(&self, queue: &Queue) -> Result<(), StoreError> {
        let key = self.host.names.queues();
        self.registered.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(queue);
        let mut remove = redis::cmd("ZREM");
        remove.arg(&key).arg(queue.as_str());
        self.say(remove, slot_of(&key)).await?;
        if self.is_there(queue).await? {
            self.register(queue).await?;
        }
        Ok(())
    }
}
