//! Who works on a partition: one node at a time, by a lease that its process must renew.
//!
//! The lease keeps nodes from doing the same work; it is not what keeps entries from being applied twice. That are
//! the fences, and the commit, which asks for the lease once more inside the server.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Board, SourceError};

/// How often a loop that waits for the lease shows that it is alive.
const WAITING_TURN: Duration = Duration::from_secs(1);

/// How long a lease lasts, and how often it is renewed.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub lease: Duration,
    pub renewal: Duration,
    /// Renewing stops when the loop has not turned for so long: then another node should have the partition.
    pub patience: Duration,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms { lease: Duration::from_secs(5), renewal: Duration::from_millis(1500), patience: Duration::from_secs(30) }
    }
}

/// What the place that keeps the lease can do.
pub(super) trait Register: Send + Sync + 'static {
    /// Takes or renews. `Err(rest)`: another has it for so long.
    fn claim(&self, lease: Duration) -> BoxFuture<'_, Result<Result<(), Duration>, SourceError>>;
    /// Gives it up, if it is ours.
    fn release(&self) -> BoxFuture<'_, ()>;
}

/// A partition's lease, renewed in the background while this lives.
pub(super) struct Lease {
    until: watch::Receiver<Option<Instant>>,
    beat: watch::Sender<Instant>,
    ended: CancellationToken,
    keeper: tokio::task::JoinHandle<()>,
}

impl Lease {
    pub fn keep(register: Arc<dyn Register>, terms: Terms, board: Arc<Board>) -> Lease {
        let (until_sender, until) = watch::channel(None);
        let (beat, beats) = watch::channel(Instant::now());
        let ended = CancellationToken::new();
        let keeper = tokio::spawn(keep(register, terms, board, until_sender, beats, ended.clone()));
        Lease { until, beat, ended, keeper }
    }

    /// Whether it is still ours by our own clock, counted from before it was asked for.
    pub fn is_held(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits until it is ours.
    pub async fn held(&mut self) {
        self.beat();
        while !self.is_held() {
            // Waiting is turning too.
            let _ = tokio::time::timeout(WAITING_TURN, self.until.changed()).await;
            self.beat();
        }
    }

    /// The loop turns.
    pub fn beat(&self) {
        self.beat.send_replace(Instant::now());
    }

    /// Stops renewing and gives it up.
    pub async fn end(&mut self) {
        self.ended.cancel();
        let _ = (&mut self.keeper).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

async fn keep(
    register: Arc<dyn Register>,
    terms: Terms,
    board: Arc<Board>,
    until: watch::Sender<Option<Instant>>,
    beats: watch::Receiver<Instant>,
    ended: CancellationToken,
) {
    loop {
        let asked = Instant::now();
        let turns = asked.duration_since(*beats.borrow()) < terms.patience;
        let wait = if !turns {
            if until.send_replace(None).is_some() {
                tracing::error!("the dispatcher has not turned for {:?}; its lease is left to others", terms.patience);
            }
            board.owner(false);
            terms.renewal
        } else {
            let claimed = register.claim(terms.lease).await;
            if board.no_lease(claimed.as_ref().err().map(ToString::to_string)) {
                match &claimed {
                    Err(error) => tracing::warn!(source = board.read().name, %error, "the queue is away"),
                    Ok(_) => tracing::info!(source = board.read().name, "the queue is there again"),
                }
            }
            match claimed {
                Ok(Ok(())) => {
                    if until.send_replace(Some(asked + terms.lease)).is_none() {
                        tracing::info!(source = board.read().name, "this node works on the partition");
                    }
                    board.owner(true);
                    terms.renewal
                }
                Ok(Err(rest)) => {
                    if until.send_replace(None).is_some() {
                        tracing::info!(source = board.read().name, "another node works on the partition");
                    }
                    board.owner(false);
                    // It is tried again as soon as it may be free, and often enough to see a polite release.
                    (rest + Duration::from_millis(5)).min(terms.renewal / 3)
                }
                // Ours until its time is over.
                Err(_) => (terms.renewal / 5).max(Duration::from_millis(50)),
            }
        };
        let over = until.borrow().is_some_and(|until| Instant::now() >= until);
        if over {
            until.send_replace(None);
            board.owner(false);
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = ended.cancelled() => break,
        }
    }
    until.send_replace(None);
    register.release().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A register in memory, for two nodes.
    struct Slate {
        me: u8,
        owner: Arc<Mutex<Option<(u8, Instant)>>>,
    }

    impl Register for Slate {
        fn claim(&self, lease: Duration) -> BoxFuture<'_, Result<Result<(), Duration>, SourceError>> {
            let mut owner = self.owner.lock().unwrap();
            let now = Instant::now();
            let answer = match *owner {
                Some((other, until)) if other != self.me && until > now => Err(until - now),
                _ => {
                    *owner = Some((self.me, now + lease));
                    Ok(())
                }
            };
            Box::pin(async move { Ok(answer) })
        }

        fn release(&self) -> BoxFuture<'_, ()> {
            self.owner.lock().unwrap().take_if(|(owner, _)| *owner == self.me);
            Box::pin(async {})
        }
    }

    fn node(me: u8, owner: &Arc<Mutex<Option<(u8, Instant)>>>) -> Lease {
        Lease::keep(Arc::new(Slate { me, owner: owner.clone() }), Terms::default(), Board::new("in"))
    }

    #[tokio::test(start_paused = true)]
    async fn one_holds_it_and_another_takes_over_within_the_lease_after_a_kill() {
        let owner = Arc::default();
        let mut first = node(1, &owner);
        first.held().await;
        let mut second = node(2, &owner);
        tokio::time::sleep(Duration::from_secs(8)).await;
        first.beat();
        assert!(first.is_held() && !second.is_held());
        let killed = Instant::now();
        drop(first);
        second.held().await;
        assert!(killed.elapsed() <= Duration::from_millis(5_600), "{:?}", killed.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_polite_release_is_seen_at_once() {
        let owner = Arc::default();
        let mut first = node(1, &owner);
        first.held().await;
        let mut second = node(2, &owner);
        first.end().await;
        let released = Instant::now();
        second.held().await;
        assert!(released.elapsed() <= Duration::from_millis(500), "{:?}", released.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_hangs_loses_its_lease() {
        let owner = Arc::default();
        let mut first = node(1, &owner);
        first.held().await;
        let mut second = node(2, &owner);
        let hung = Instant::now();
        second.held().await;
        assert!(!first.is_held());
        assert!(hung.elapsed() <= Duration::from_secs(40), "{:?}", hung.elapsed());
    }
}
