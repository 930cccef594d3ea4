//! Faults: built hubs on real Redis servers are killed, stalled, cut off and filled up while messages flow, and the
//! checker judges what every client was told. `docs/testing.md` has the list with the figures that each must reach.
//!
//! They are heavy and run one after the other. `cargo test --test faults` takes the short forms; `./dev faults [NAME]`
//! the long ones.

#[path = "../support/bad_entries.rs"]
mod bad_entries;
#[path = "../support/checker/mod.rs"]
mod checker;
#[path = "../support/cluster.rs"]
mod cluster;
#[path = "../support/listener.rs"]
mod listener;
#[path = "../support/node.rs"]
mod node;
#[path = "../support/producer.rs"]
mod producer;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/publisher.rs"]
mod publisher;
#[path = "../support/sentinel.rs"]
mod sentinel;
#[path = "../support/redis.rs"]
mod server;
#[path = "../support/worker.rs"]
mod worker;

mod fleet;
mod form;
mod scene;
mod timepiece;
mod trouble;
mod workshop;

mod clocks;
mod clusters;
mod disturbed;
mod entries;
mod failover;
mod full;
mod kills;
mod outage;
mod owners;
mod partitions;
mod poison;
mod queue_failover;
mod queues;
mod retention;
mod slow;
mod stalls;
