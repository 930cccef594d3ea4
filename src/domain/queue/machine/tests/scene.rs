use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use crate::domain::message::Body;
use crate::domain::position::Epoch;
use crate::domain::queue::*;
use crate::domain::store::StoreError;

pub const ROOM: Room = Room { keys: u64::MAX, bytes: u64::MAX, window: Duration::from_secs(300) };

pub fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Settings whose lease is 1,000 ms and that retry at once.
pub fn plain() -> QueueSettings {
    QueueSettings { lease: ms(1000), backoff: vec![], max_deliveries: 3, ..QueueSettings::default() }
}

pub struct Scene {
    pub machine: Machine,
    pub now: u64,
    token: u64,
    /// What a store would have written.
    pub rows: BTreeMap<u64, Row>,
    pub attempts: BTreeMap<u64, Vec<Attempt>>,
    pub keys: BTreeMap<KeyId, KeyRow>,
    pub marks: BTreeMap<Box<str>, Mark>,
    pub header: Option<Header>,
    pub woken: usize,
    pub fired: usize,
}

impl Scene {
    pub fn new(settings: QueueSettings) -> Scene {
        let lives = Lives::new(vec![(Epoch::from_random(7), 0)]);
        let machine = Machine::new(Queue::parse("jobs").unwrap(), settings, lives);
        Scene {
            machine,
            now: 10_000,
            token: 0,
            rows: BTreeMap::new(),
            attempts: BTreeMap::new(),
            keys: BTreeMap::new(),
            marks: BTreeMap::new(),
            header: None,
            woken: 0,
            fired: 0,
        }
    }

    /// Writes what has changed, as a store does with each commit.
    pub fn write(&mut self) {
        let changes = self.machine.changes();
        for row in changes.jobs {
            assert!(self.rows.insert(row.number, row).is_some(), "only rows that were written change");
        }
        for NewAttempt { number, attempt, .. } in changes.attempts {
            let all = self.attempts.entry(number).or_default();
            all.push(attempt);
            if all.len() > MOST_ATTEMPTS {
                all.remove(0);
            }
        }
        for gone in changes.gone {
            self.rows.remove(&gone.number);
            let had = self.attempts.remove(&gone.number).is_some();
            assert!(gone.has_failed || !had, "attempts go with their job");
        }
        self.keys.extend(changes.keys.into_iter().map(|key| (key.id, key)));
        for id in changes.keys_gone {
            self.keys.remove(&id);
        }
        self.marks.extend(changes.marks);
        if changes.has_header {
            self.header = Some(self.machine.header().clone());
        }
        self.woken += usize::from(changes.wakes_takers);
        self.fired += usize::from(changes.has_fired);
    }

    /// The same queue, opened again.
    pub fn restart(&mut self) {
        self.write();
        let settings = self.machine.settings().clone();
        let header = self.header.clone().unwrap_or_else(|| self.machine.header().clone());
        let rows = self.rows.values().cloned();
        let keys = self.keys.values().copied();
        let queue = self.machine.queue().clone();
        self.machine = Machine::restore(queue, settings, header, rows, keys, self.marks.clone(), self.now);
        self.write();
    }

    pub fn pass(&mut self, time: u64) -> &mut Scene {
        self.now += time;
        self
    }

    pub fn try_put(&mut self, put: Put) -> Result<PutDone, StoreError> {
        let done = self.machine.put(&put, self.now, ROOM);
        if let Ok(PutDone::Stored(job)) = done {
            let row = self.machine.row(job.number()).expect("it is there");
            self.rows.insert(job.number(), row);
        }
        self.write();
        done
    }

    /// The number of a job that is new.
    pub fn put(&mut self, put: Put) -> u64 {
        match self.try_put(put) {
            Ok(PutDone::Stored(job)) => job.number(),
            other => panic!("{other:?}"),
        }
    }

    pub fn put_many<const N: usize>(&mut self, puts: [Put; N]) -> [u64; N] {
        puts.map(|put| self.put(put))
    }

    pub fn take_as(&mut self, worker: &str, count: usize) -> Took {
        self.token += 1;
        let take = Take { worker: worker.into(), count, bytes: 1 << 20, lease: None, token: self.token };
        let took = self.machine.take(&take, self.now);
        self.write();
        took
    }

    pub fn took(&mut self, count: usize) -> Took {
        self.take_as("w", count)
    }

    /// Numbers of jobs.
    pub fn take(&mut self, count: usize) -> Vec<u64> {
        self.took(count).lent.iter().map(|lent| lent.id.number()).collect()
    }

    /// The next job.
    pub fn take_one(&mut self) -> Lent {
        self.took(1).lent.pop().expect("there is one")
    }

    pub fn settle(&mut self, lent: &Lent, how: How) -> Settled {
        let settled = self.machine.settle(&Settle { job: lent.id, token: lent.token, how }, self.now);
        self.write();
        settled
    }

    pub fn ack(&mut self, lent: &Lent) -> Settled {
        self.settle(lent, How::Ack)
    }

    pub fn nack(&mut self, lent: &Lent) -> Settled {
        self.settle(lent, How::Nack { delay: None, error: Some("no".into()) })
    }

    pub fn sweep(&mut self) -> Swept {
        let swept = self.machine.sweep(self.now);
        self.write();
        swept
    }

    pub fn stats(&mut self) -> Stats {
        self.sweep();
        self.machine.stats(self.now)
    }

    /// Ready, parked, delayed, in flight, dead.
    pub fn places(&mut self) -> [u64; 5] {
        let stats = self.stats();
        let waiting: u64 = stats.waiting.iter().sum();
        [waiting - stats.parked, stats.parked, stats.delayed, stats.in_flight, stats.dead]
    }

    pub fn deaths(&self) -> Vec<(u64, Death)> {
        let numbers = self.machine.look(Place::Dead, 0, 1000);
        numbers.into_iter().map(|n| (n, self.rows[&n].death.expect("it is dead"))).collect()
    }

    pub fn id(&self, number: u64) -> JobId {
        self.machine.id_of(number)
    }
}

pub fn job(text: &str) -> Put {
    Put::new(Queue::parse("jobs").unwrap(), Body::from_canonical(Bytes::copy_from_slice(text.as_bytes())))
}

pub fn urgent(level: u8) -> Put {
    Put { priority: Priority::new(level).unwrap(), ..job("x") }
}

pub fn grouped(group: &str) -> Put {
    Put { group: Some(group.into()), ..job("x") }
}

pub fn delayed(delay: u64) -> Put {
    Put { due: Due::After(ms(delay)), ..job("x") }
}
