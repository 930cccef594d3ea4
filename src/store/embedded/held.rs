//! The topics and sources of which a fenced item of a batch failed: later ones of them must not be stored, or the fence
//! would skip the first for ever.

use std::collections::HashMap;

use super::log::Failure;
use crate::domain::name::Topic;
use crate::domain::store::{Append, StoreError};

/// What failed so far in one batch, and how.
#[derive(Default)]
pub struct Held<'b>(HashMap<(&'b Topic, &'b str), StoreError>);

impl<'b> Held<'b> {
    pub fn check(&self, item: &Append) -> Result<(), Failure> {
        match &item.fence {
            Some(fence) if !self.0.is_empty() => match self.0.get(&(&item.publication.topic, &*fence.source)) {
                Some(error) => Err(error.clone().into()),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    pub fn note(&mut self, item: &'b Append, error: &StoreError) {
        let passes = !matches!(error, StoreError::Conflict { .. } | StoreError::Durability { .. });
        if let Some(fence) = item.fence.as_ref().filter(|_| passes) {
            self.0.insert((&item.publication.topic, &fence.source), error.clone());
        }
    }
}
