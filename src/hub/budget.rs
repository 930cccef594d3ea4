//! The memory of a node that may wait for its connections, all together. Each outbox counts what it holds, frames that it
//! shares with others whole, so the sum is never too low.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub struct Budget {
    most: usize,
    used: AtomicUsize,
}

/// So many bytes are as good as used while this lives.
#[derive(Debug)]
pub struct Reserved {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub fn new(most: usize) -> Arc<Budget> {
        Arc::new(Budget { most, used: AtomicUsize::new(0) })
    }

    pub fn most(&self) -> usize {
        self.most
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Nothing more should wait: streams go on from the store later, and nobody new is let in.
    pub fn is_spent(&self) -> bool {
        self.used() >= self.most
    }

    /// How far it is exceeded beyond the eighth that answers and frames on their way may take on top.
    pub fn excess(&self) -> usize {
        self.used().saturating_sub(self.most.saturating_add(self.most / 8))
    }

    pub fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub fn reserve(self: &Arc<Budget>, bytes: usize) -> Reserved {
        self.add(bytes);
        Reserved { budget: self.clone(), bytes }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}
