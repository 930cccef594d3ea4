//! The topics or queues, and sources, of which a fenced item of a batch failed: later ones of them must not be stored, or the
//! fence would skip the first for ever.

use std::collections::HashMap;

use super::log::Failure;
use crate::domain::store::{Fence, StoreError};

/// What failed so far in one batch, and how: by the name of the topic or queue, and the source.
#[derive(Default)]
pub struct Held<'b>(HashMap<(&'b str, &'b str), StoreError>);

impl<'b> Held<'b> {
    pub fn check(&self, name: &str, fence: Option<&Fence>) -> Result<(), Failure> {
        match fence {
            Some(fence) if !self.0.is_empty() => match self.0.get(&(name, &*fence.source)) {
                Some(error) => Err(error.clone().into()),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    pub fn note(&mut self, name: &'b str, fence: Option<&'b Fence>, error: &StoreError) {
        if let Some(fence) = fence.filter(|_| error.passes()) {
            self.0.insert((name, &fence.source), error.clone());
        }
    }
}
