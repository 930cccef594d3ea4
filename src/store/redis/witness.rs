//! Proves that replicas, or the disk, have what was stored.
//!
//! `WAIT` holds its connection up, so it has one of its own, and messages that need no proof wait for none. It tells of
//! what its own connection has written last: a small write goes before it, which comes after everything that the master
//! has carried out so far. One question proves all that was stored until then. What it proves holds for one life of the
//! data: messages of another life were stored by another master.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use redis::Value;

use super::calls::Doubt;
use super::facts::Facts;
use super::greeting::Host;
use super::queue::Batch;
use super::scripts::{millis, number};
use crate::domain::message::Durability;
use crate::domain::store::StoreError;
use crate::endpoint::{Link, Patience, Use};

/// What is to be proven.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Question {
    pub disk: bool,
    pub replica: bool,
}

/// What was proven of everything that was stored before the question, in one life of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    life: Arc<str>,
    disk: Result<(), String>,
    replica: Result<(), String>,
}

impl Question {
    pub fn add(&mut self, level: Durability) {
        match level {
            Durability::Memory => {}
            Durability::Disk => self.disk = true,
            Durability::Replica => self.replica = true,
        }
    }

    fn merge(&mut self, other: Question) {
        self.disk |= other.disk;
        self.replica |= other.replica;
    }
}

impl Proof {
    /// Nothing was proven.
    pub fn none(why: &str) -> Proof {
        Proof { life: "".into(), disk: Err(why.into()), replica: Err(why.into()) }
    }

    /// Whether messages stored in a life have a level.
    pub fn shows(&self, level: Durability, life: &str) -> Result<(), String> {
        match level {
            Durability::Memory => Ok(()),
            Durability::Disk => self.disk.clone(),
            Durability::Replica => self.replica.clone(),
        }?;
        if *self.life == *life { Ok(()) } else { Err("another Redis is the master now".into()) }
    }
}

/// What was stored and waits for its proof. One question is on its way at a time, for all that waited when it was asked.
pub(super) struct Unproven {
    host: Arc<Host>,
    link: Option<Link>,
    waiting: Vec<Stored>,
    asked: Vec<Stored>,
    asking: Option<BoxFuture<'static, (Option<Link>, Proof)>>,
}

enum Stored {
    /// With the life that it was stored in.
    Batch(Batch, Arc<str>),
    Foreign(Doubt),
}

impl Stored {
    fn question(&self) -> Question {
        match self {
            Stored::Batch(batch, _) => batch.question(),
            Stored::Foreign(doubt) => doubt.question,
        }
    }

    /// What is written before the question; any key will do that is on this server.
    fn key(&self, host: &Host) -> String {
        match self {
            Stored::Batch(batch, _) => host.names.witness(batch.group),
            Stored::Foreign(doubt) => doubt.key.clone(),
        }
    }

    fn settle(self, proof: &Proof) {
        match self {
            Stored::Batch(mut batch, life) => {
                batch.prove(proof, &life);
                batch.finish_with(&no_outcome());
            }
            Stored::Foreign(doubt) => drop(doubt.answer.send(proof.clone())),
        }
    }
}

impl Unproven {
    pub fn new(host: Arc<Host>) -> Unproven {
        Unproven { host, link: None, waiting: Vec::new(), asked: Vec::new(), asking: None }
    }

    /// Takes a batch whose outcomes are all known, in which life of the data; one that needs no proof is answered at once.
    pub fn add(&mut self, batch: Batch, life: &Arc<str>) {
        if batch.question() == Question::default() {
            batch.finish_with(&no_outcome());
        } else {
            self.waiting.push(Stored::Batch(batch, life.clone()));
            self.ask();
        }
    }

    /// Takes a question about something that is stored already.
    pub fn doubt(&mut self, doubt: Doubt) {
        self.waiting.push(Stored::Foreign(doubt));
        self.ask();
    }

    /// Waits for the answer to a question and hands it on; for ever where none is asked.
    pub async fn turn(&mut self) {
        let Some(asking) = &mut self.asking else { return pending().await };
        let (link, proof) = asking.await;
        (self.link, self.asking) = (link, None);
        self.asked.drain(..).for_each(|stored| stored.settle(&proof));
        self.ask();
    }

    /// Nothing of it will be proven.
    pub fn give_up(&mut self, why: &str) {
        (self.link, self.asking) = (None, None);
        let none = Proof::none(why);
        self.asked.drain(..).chain(self.waiting.drain(..)).for_each(|stored| stored.settle(&none));
    }

    pub fn is_empty(&self) -> bool {
        self.asking.is_none()
    }

    fn ask(&mut self) {
        if self.asking.is_some() || self.waiting.is_empty() {
            return;
        }
        self.asked = std::mem::take(&mut self.waiting);
        let mut question = Question::default();
        self.asked.iter().for_each(|stored| question.merge(stored.question()));
        let key = self.asked.last().map(|stored| stored.key(&self.host)).unwrap_or_default();
        self.asking = Some(ask(self.host.clone(), self.link.take(), key, question).boxed());
    }
}

fn no_outcome() -> StoreError {
    StoreError::Broken("no outcome".into())
}

/// Asks over the link, or over a fresh one; gives the link back if it can be used again.
async fn ask(host: Arc<Host>, link: Option<Link>, key: String, question: Question) -> (Option<Link>, Proof) {
    let patience = host.options.replica_wait;
    let mut link = match link.filter(|link| !link.has_ended()) {
        Some(link) => link,
        None => {
            let response = host.options.response_timeout + 2 * patience;
            let patiences = Patience { response, ..host.options.patience() };
            match host.endpoint.connect(Use::commands(), patiences).await {
                Ok(link) => link,
                Err(why) => return (None, Proof::none(&why)),
            }
        }
    };
    let mut pipeline = redis::pipe();
    pipeline.cmd("SET").arg(key).arg(1);
    if question.replica {
        pipeline.cmd("WAIT").arg(host.options.replicas).arg(millis(patience));
    }
    if question.disk {
        pipeline.cmd("WAITAOF").arg(1).arg(0).arg(millis(patience));
    }
    pipeline.cmd("INFO").arg("replication");
    let count = pipeline.len();
    match link.connection.send_packed_commands(&pipeline, 0, count).await {
        Ok(answers) => (Some(link), read(&answers, question, host.options.replicas, patience)),
        Err(error) => (None, Proof::none(&error.to_string())),
    }
}

fn read(answers: &[Value], question: Question, replicas: usize, patience: Duration) -> Proof {
    let mut answers = answers.iter();
    if let Some(Value::ServerError(error)) = answers.next() {
        return Proof::none(&error.to_string());
    }
    let not_asked = || Err("it was not asked for".to_string());
    let mut replica = not_asked();
    if question.replica {
        replica = match answers.next().map(|answer| (number(answer), answer)) {
            Some((Some(had), _)) if had >= replicas as u64 => Ok(()),
            Some((Some(had), _)) => Err(format!("{had} of {replicas} replicas had it within {patience:?}")),
            Some((None, Value::ServerError(error))) => Err(error.to_string()),
            _ => Err("WAIT is not answered".into()),
        };
    }
    let mut disk = not_asked();
    if question.disk {
        disk = match answers.next() {
            Some(Value::Array(counts)) if counts.first().and_then(number).is_some_and(|synced| synced >= 1) => Ok(()),
            Some(Value::ServerError(error)) => Err(error.to_string()),
            _ => Err(format!("it was not on disk within {patience:?}")),
        };
    }
    match answers.next().map(Facts::life_of) {
        Some(Some(life)) => Proof { life, disk, replica },
        _ => Proof::none("Redis does not tell its master_replid"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(1);

    fn info(life: &str) -> Value {
        Value::BulkString(format!("role:master\r\nmaster_replid:{life}\r\n").into_bytes())
    }

    #[test]
    fn a_proof_counts_what_was_asked_for_and_for_one_life() {
        let question = Question { replica: true, disk: true };
        let synced = Value::Array(vec![Value::Int(1), Value::Int(0)]);
        let answers = |replicas, synced, life| [Value::Okay, Value::Int(replicas), synced, info(life)];
        let proof = read(&answers(2, synced.clone(), "a"), question, 2, LONG);
        assert_eq!(proof.shows(Durability::Replica, "a"), Ok(()));
        assert_eq!(proof.shows(Durability::Disk, "a"), Ok(()));
        assert!(proof.shows(Durability::Replica, "b").unwrap_err().contains("another Redis"));
        let proof = read(&answers(1, Value::Array(vec![Value::Int(0), Value::Int(1)]), "a"), question, 2, LONG);
        assert!(proof.shows(Durability::Replica, "a").unwrap_err().contains("1 of 2"));
        assert!(proof.shows(Durability::Disk, "a").unwrap_err().contains("disk"));
        let proof = read(&[Value::Okay, synced, info("a")], Question { disk: true, replica: false }, 2, LONG);
        assert_eq!(proof.shows(Durability::Disk, "a"), Ok(()));
        assert!(proof.shows(Durability::Replica, "a").is_err(), "it was not asked for");
    }
}
