//! The contract of a store, as tests: one suite, run on every store.
//!
//! A store joins with one module below: a function that opens a fresh, empty store with the retention that a case
//! asks for, and the lists of cases it takes part in. `timed_cases!` are for those whose clock can be moved.

#[path = "store_conformance/appends.rs"]
mod appends;
#[path = "support/cluster.rs"]
mod cluster_servers;
#[path = "store_conformance/cursors.rs"]
mod cursors;
#[path = "store_conformance/feeds.rs"]
mod feeds;
#[path = "store_conformance/model.rs"]
mod model;
#[path = "store_conformance/modes.rs"]
mod modes;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "store_conformance/reads.rs"]
mod reads;
#[path = "support/sentinel.rs"]
mod sentinels;
#[path = "support/redis.rs"]
mod server;
mod support;
#[path = "store_conformance/times.rs"]
mod times;

use std::any::Any;
use std::sync::Arc;

use fanfare::domain::cursor::Cursors;
use fanfare::domain::store::{Append, Store};
use support::MovedClock;

/// A store under test.
pub struct Subject {
    pub store: Arc<dyn Store>,
    pub cursors: Arc<dyn Cursors>,
    /// Moves the store's clock, if it can be moved.
    pub clock: Option<MovedClock>,
    /// A message to the topic `news` that this store refuses, for a reason that passes.
    pub refused: Append,
    /// What must live as long as the store, like a server.
    pub guard: Box<dyn Any + Send>,
}

macro_rules! each {
    ($fresh:path: $($file:ident: $($case:ident)+;)+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::$file::$case($fresh).await;
            }
        )+)+
    };
}

/// The cases for every store.
macro_rules! cases {
    ($fresh:path) => {
        each! { $fresh:
            appends:
                offsets_count_from_one_in_the_order_of_the_batch
                a_batch_over_many_topics_is_answered_item_by_item
                calls_are_applied_in_the_order_in_which_they_were_made
                a_call_does_its_work_though_nobody_waits_for_it
                concurrent_appenders_each_keep_their_order
                an_empty_batch_has_an_empty_answer
                bodies_come_back_byte_for_byte
                large_bodies_come_back_whole
                the_same_publish_under_the_same_key_answers_the_first_position
                a_key_used_for_other_content_is_a_conflict
                a_key_counts_within_one_topic
                an_ingest_entry_is_applied_once
                fences_of_another_life_are_not_compared
                fences_of_two_sources_and_two_topics_do_not_meet
                what_follows_a_fenced_item_that_failed_is_not_stored
                a_refusal_that_does_not_pass_holds_no_later_item_up
                a_level_that_the_store_does_not_give_is_refused
                closing_finishes_what_was_accepted_and_refuses_the_rest;
            reads:
                a_topic_begins_with_its_first_read
                an_empty_topic_is_resumed_from_its_head
                a_topic_is_resumed_after_each_of_its_positions
                pages_hold_so_many_messages
                pages_hold_so_many_bytes_and_at_least_one_message
                the_newest_messages_are_read_by_their_number
                a_position_of_an_unknown_life_is_told
                a_position_beyond_the_end_is_told
                the_epochs_of_topics_differ
                retention_by_number_tells_exactly_what_is_missing
                retention_by_bytes_keeps_the_newest;
            modes:
                the_first_rule_that_a_topic_meets_sets_its_bounds
                a_live_topic_counts_and_keeps_nothing
                keys_and_fences_work_on_a_live_topic
                a_live_topic_is_fed
                the_latest_message_of_each_key_is_kept
                of_too_many_keys_the_oldest_go_and_are_told
                bytes_are_counted_for_what_is_latest
                what_was_stored_since_a_time_is_given
                what_bounds_took_since_a_time_is_told;
            cursors:
                a_cursor_begins_with_its_first_use
                a_cursor_begins_the_life_of_its_topic
                a_new_cursor_begins_where_it_was_told
                cursors_move_forward_and_back_only_if_told
                positions_that_the_topic_does_not_know_are_refused
                a_commit_makes_a_cursor
                cursors_of_two_owners_and_two_topics_do_not_meet
                cursors_are_listed_in_the_order_of_their_names
                a_removed_cursor_begins_anew
                looking_for_a_cursor_makes_nothing
                one_owner_has_so_many_cursors_in_a_topic
                what_retention_took_is_unread_too
                cursor_calls_keep_their_order_among_appends
                the_furthest_of_many_commits_stays
                random_uses_agree_with_the_rules
                a_closed_store_refuses_cursors;
            feeds:
                only_watched_topics_are_fed
                messages_are_fed_in_order_once_watching_is_said
                a_topic_may_be_watched_twice
                a_topic_no_longer_watched_is_silent
                a_second_feed_takes_the_place_of_the_first
                a_reader_that_races_writers_sees_whole_pages
                pages_and_feed_together_have_no_hole;
            model:
                random_operations_agree_with_the_model;
        }
    };
}

/// The cases for stores whose clock can be moved.
macro_rules! timed_cases {
    ($fresh:path) => {
        each! { $fresh:
            times:
                an_expired_message_leaves_a_hole_and_nothing_missing
                expired_messages_at_both_ends_are_told_by_the_page
                retention_by_age_tells_what_is_missing
                an_idempotency_key_is_forgotten_after_its_window
                a_topic_outlives_its_messages_and_begins_anew_after_that
                a_watched_topic_keeps_its_record
                times_never_descend_though_the_clock_goes_back
                what_ends_by_time_ends_by_the_clock_though_it_went_back;
            cursors:
                a_cursor_is_kept_as_long_as_it_is_used
                a_cursor_that_is_over_makes_room
                a_cursor_keeps_the_record_of_its_topic;
            modes:
                the_latest_message_may_expire_and_leaves_its_place_empty
                what_is_latest_grows_too_old_and_is_told;
            model:
                random_operations_in_time_agree_with_the_model
                random_operations_with_times_to_live_agree_with_the_model;
        }
    };
}

mod memory {
    use super::{Subject, support};
    use fanfare::domain::store::Retention;
    use fanfare::store::{Options, open};

    const ROOM: usize = 16 * 1024 * 1024;

    async fn fresh(retention: Retention) -> Subject {
        let clock = support::MovedClock::default();
        let options = Options {
            retention,
            cursors: super::cursors::BOUNDS,
            rules: support::rules(),
            clock: clock.reader(),
            total_bytes: ROOM as u64,
            ..Options::default()
        };
        let opened = open("memory", options).await.expect("a store in memory opens");
        let refused = support::item(&support::topic("news"), vec![b'x'; ROOM + 1]);
        Subject { store: opened.store, cursors: opened.cursors, clock: Some(clock), refused, guard: Box::new(()) }
    }

    cases!(fresh);
    timed_cases!(fresh);
}

mod disk {
    use super::{Subject, support};
    use fanfare::domain::store::Retention;
    use fanfare::store::{Options, open};

    const ROOM: usize = 16 * 1024 * 1024;

    async fn fresh(retention: Retention) -> Subject {
        let folder = tempfile::tempdir().unwrap();
        let clock = support::MovedClock::default();
        let options = Options {
            retention,
            rules: support::rules(),
            cursors: super::cursors::BOUNDS,
            clock: clock.reader(),
            total_bytes: ROOM as u64,
            ..Options::default()
        };
        let url = format!("disk:{}", folder.path().display());
        let opened = open(&url, options).await.expect("a store on disk opens");
        let refused = support::item(&support::topic("news"), vec![b'x'; ROOM + 1]);
        Subject { store: opened.store, cursors: opened.cursors, clock: Some(clock), refused, guard: Box::new(folder) }
    }

    cases!(fresh);
    timed_cases!(fresh);
}

mod redis {
    use super::{Subject, server::RedisServer, support};
    use fanfare::domain::store::Retention;
    use fanfare::store::{Options, open};

    async fn fresh(retention: Retention) -> Subject {
        let server = RedisServer::start();
        let options =
            Options { retention, cursors: super::cursors::BOUNDS, rules: support::rules(), ..Options::default() };
        let opened = open(&server.url(), options).await.expect("a store on Redis opens");
        // Somebody else's list lies where this idempotency key belongs.
        let refused = support::item_with_key(&support::topic("news"), "refused", "taken");
        redis::cmd("RPUSH").arg(&["fanfare:{t41}:idem:news/taken", "x"]).exec(&mut server.connection()).unwrap();
        Subject { store: opened.store, cursors: opened.cursors, clock: None, refused, guard: Box::new(server) }
    }

    cases!(fresh);
}

mod sentinel {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex, Weak};

    use super::{Subject, sentinels::Replicated, support};
    use fanfare::domain::store::Retention;
    use fanfare::store::{Options, open};

    /// Many processes, so all cases share them, each with keys of its own. They end with the last case.
    static SHARED: Mutex<Weak<Replicated>> = Mutex::new(Weak::new());
    static CASES: AtomicU32 = AtomicU32::new(0);

    fn shared() -> Arc<Replicated> {
        let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        shared.upgrade().unwrap_or_else(|| {
            let set = Arc::new(Replicated::start(1, &["--appendonly", "no"]));
            *shared = Arc::downgrade(&set);
            set
        })
    }

    async fn fresh(retention: Retention) -> Subject {
        let set = tokio::task::block_in_place(shared);
        let prefix = format!("case{}", CASES.fetch_add(1, Ordering::SeqCst));
        // The cases hold a store to what it gives without replicas; the level has tests of its own.
        let options = Options {
            retention,
            cursors: super::cursors::BOUNDS,
            rules: support::rules(),
            prefix: prefix.clone(),
            replicas: 0,
            ..Options::default()
        };
        let opened = open(&set.url(), options).await.expect("a store on Redis opens");
        // Somebody else's list lies where this idempotency key belongs.
        let refused = support::item_with_key(&support::topic("news"), "refused", "taken");
        let taken = format!("{prefix}:{{t41}}:idem:news/taken");
        redis::cmd("RPUSH").arg(taken).arg("x").exec(&mut set.servers[0].redis.connection()).unwrap();
        Subject { store: opened.store, cursors: opened.cursors, clock: None, refused, guard: Box::new(set) }
    }

    cases!(fresh);
}

mod cluster {
    use super::{Subject, cluster_servers::Cluster, support};
    use fanfare::domain::store::Retention;
    use fanfare::store::{Options, open};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// One for all cases, which keep apart by their prefixes.
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    static CASES: AtomicUsize = AtomicUsize::new(0);
    /// So long that no server is given up because the machine is busy.
    const NODE_TIMEOUT: Duration = Duration::from_secs(60);

    async fn fresh(retention: Retention) -> Subject {
        let cluster = CLUSTER.get_or_init(|| Cluster::start(NODE_TIMEOUT));
        let prefix = format!("case{}", CASES.fetch_add(1, Ordering::Relaxed));
        let taken = format!("{prefix}:{{t41}}:idem:news/taken");
        // As with sentinels: the level that replicas give has tests of its own.
        let options = Options {
            prefix,
            retention,
            rules: support::rules(),
            cursors: super::cursors::BOUNDS,
            replicas: 0,
            ..Options::default()
        };
        let opened = open(&cluster.url(), options).await.expect("a store on a cluster opens");
        // Somebody else's list lies where this idempotency key belongs.
        let refused = support::item_with_key(&support::topic("news"), "refused", "taken");
        redis::cmd("RPUSH").arg(&[&taken, "x"]).exec(&mut cluster.connection_for(&taken)).unwrap();
        Subject { store: opened.store, cursors: opened.cursors, clock: None, refused, guard: Box::new(()) }
    }

    cases!(fresh);
}
