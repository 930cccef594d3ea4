//! Stores: where topics are kept. One folder each; `open` chooses one by its URL.

pub mod redis;
