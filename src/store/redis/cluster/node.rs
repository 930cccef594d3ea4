//! One master of a cluster, with a connection and a writer of its own, as the router sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use crate::domain::store::StoreError;
use crate::store::redis::OpenError;
use crate::store::redis::greeting::Host;
use crate::store::redis::queue::{CALLS, Job, State};
use crate::store::redis::scripts::Dice;
use crate::store::redis::writer::Writer;

/// It finishes what it was given when this is dropped.
pub struct Node {
    jobs: mpsc::Sender<Job>,
    pub state: Arc<State>,
    is_new: Arc<AtomicBool>,
}

impl Node {
    /// Connects and works from now on; `changed` is told whenever the connection is lost or there.
    pub fn open(host: Arc<Host>, changed: Arc<Notify>) -> Node {
        let (jobs, exit) = mpsc::channel(CALLS);
        let (state, is_new) = (Arc::new(State::told(changed)), Arc::new(AtomicBool::new(true)));
        tokio::spawn(work(host, state.clone(), exit, is_new.clone()));
        Node { jobs, state, is_new }
    }

    /// The first attempt to connect is not over yet.
    pub fn is_new(&self) -> bool {
        self.is_new.load(Ordering::Relaxed)
    }

    /// Hands a job over, or says why that cannot be.
    pub fn put(&self, job: Job) {
        match self.state.away() {
            Some(away) => job.refuse(&away),
            None => {
                if let Err(error) = self.jobs.try_send(job) {
                    let full = StoreError::Unavailable("too many calls wait for this server already".into());
                    error.into_inner().refuse(&self.state.away().unwrap_or(full));
                }
            }
        }
    }
}

async fn work(host: Arc<Host>, state: Arc<State>, mut jobs: mpsc::Receiver<Job>, is_new: Arc<AtomicBool>) {
    let (mut dice, mut wait) = (Dice::default(), host.options.retry_min);
    loop {
        let greeted = host.greet(host.options.connect_timeout, None).await;
        is_new.store(false, Ordering::Relaxed);
        match greeted {
            Ok((link, greeting)) => {
                let life = greeting.facts.life.clone();
                let writer = Writer::new(host, greeting, state.clone(), jobs);
                state.arrived(&life);
                return writer.run(link).await;
            }
            Err(error) => {
                if let OpenError::Groups { .. } | OpenError::Unfit(_) = error {
                    tracing::error!(%error, "a server of the cluster cannot be used");
                }
                state.left(error.to_string());
            }
        }
        let away = state.away().unwrap_or_else(|| StoreError::Unavailable("not connected".into()));
        while let Ok(job) = jobs.try_recv() {
            job.refuse(&away);
        }
        if jobs.is_closed() {
            return;
        }
        sleep(wait.mul_f64(0.75 + 0.5 * dice.fraction())).await;
        wait = (wait * 2).min(host.options.retry_max);
    }
}
