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
#[path = "store_conformance/queues/mod.rs"]
mod queues;
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

macro_rules! each_queue {
    ($fresh:path: $($file:ident: $($case:ident)+;)+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::queues::$file::$case($fresh).await;
            }
        )+)+
    };
}

/// The cases of queues, for every store that keeps any.
macro_rules! queue_cases {
    ($fresh:path) => {
        each_queue! { $fresh:
            taking:
                jobs_come_back_as_they_were_put
                the_highest_priority_comes_first_and_in_it_the_lowest_number
                each_so_many_th_job_is_the_oldest
                a_queue_that_is_not_there_is_empty_and_does_not_begin
                a_take_ends_with_its_count_and_its_bytes
                calls_about_one_queue_are_applied_in_their_order
                each_job_goes_to_one_of_many_takers
                a_group_is_taken_one_at_a_time_in_its_order
                a_job_that_comes_back_comes_back_to_its_place
                a_dead_head_lets_its_group_go_on
                a_dead_head_holds_its_group_where_that_is_wanted
                the_last_try_is_the_last
                the_newest_attempts_are_remembered
                what_is_released_was_not_delivered
                a_delivery_is_settled_once_and_by_its_token
                settlements_are_answered_one_by_one_in_their_order
                a_full_queue_refuses_or_makes_room
                bytes_make_a_queue_full_too
                dead_letters_are_bounded_and_the_forgotten_are_counted
                where_no_dead_letters_are_kept_they_are_counted_alone
                workers_beyond_the_seats_stand_by
                no_counter_differs_from_what_is_there;
            keys:
                one_key_in_its_window_is_one_job_whatever_it_holds
                what_it_holds_can_be_the_key
                an_idempotency_key_stands_for_one_content
                a_put_that_failed_is_not_remembered
                an_entry_of_a_source_is_applied_once
                a_repeated_put_moves_the_mark
                what_follows_a_fenced_job_that_failed_is_not_put
                a_batch_over_many_queues_is_answered_item_by_item
                a_level_that_is_not_given_is_refused
                a_closed_store_refuses_jobs;
            looking:
                jobs_are_seen_in_the_order_of_their_place
                queues_are_listed_by_their_names
                a_paused_queue_takes_in_and_gives_nothing_out
                settings_of_its_own_come_and_go
                what_is_purged_is_gone_and_numbers_go_on
                each_place_is_purged_by_itself
                one_job_is_removed_but_not_while_it_is_in_flight
                dead_letters_come_back_with_all_their_tries
                a_dead_letter_that_comes_back_stands_behind_the_head_of_its_group
                a_dead_letter_can_be_edited_and_nothing_else
                a_deleted_queue_is_gone_with_all_that_it_holds
                it_is_told_how_long_the_oldest_has_been_takeable;
            starting:
                the_tenth_job_opens_the_gate
                ten_urgent_ones_among_ten_of_any_fire_once
                a_gate_stays_open_while_anything_waits
                a_purge_closes_the_gate
                a_batch_closes_the_gate
                a_firing_is_one_teller_s_until_it_is_told;
            waking:
                takers_are_woken_of_the_queues_that_they_watch
                whoever_comes_back_wakes_takers
                what_is_due_wakes_takers_when_somebody_sweeps
                a_firing_wakes_whoever_tells_it;
        }
    };
}

/// Those for which time must go by: quickly where the clock can be moved.
macro_rules! timed_queue_cases {
    ($fresh:path) => {
        each_queue! { $fresh:
            taking:
                a_head_that_waits_for_its_retry_holds_its_group
                waits_grow_with_the_number_of_the_delivery
                a_lease_that_ends_gives_the_job_back_and_counts
                a_lease_is_as_long_as_was_asked_and_extended_no_further_than_allowed
                delays_hold_jobs_back
                what_waits_beyond_its_time_to_live_dies
                a_seat_is_kept_by_taking_and_ends_without;
            keys:
                a_window_ends_and_is_that_of_the_first_put;
            starting:
                what_is_parked_counts_and_what_is_delayed_does_when_it_is_due
                age_opens_the_gate_for_a_remainder
                a_firing_that_nobody_told_is_given_out_again;
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

    mod queues {
        use fanfare::domain::queue::{QueueRules, QueueSettings};
        use fanfare::store::{Options, open};

        use crate::{queues::Subject, support::MovedClock};

        async fn fresh(defaults: QueueSettings) -> Subject {
            let clock = MovedClock::default();
            let queues = QueueRules { defaults, rules: vec![] };
            let opened = open("memory", Options { queues, clock: clock.reader(), ..Options::default() }).await;
            let opened = opened.expect("a store in memory opens");
            let keeper = opened.queues.expect("it keeps queues");
            Subject { store: opened.store, keeper, clock: Some(clock), _guard: Box::new(()) }
        }

        queue_cases!(fresh);
        timed_queue_cases!(fresh);
    }
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

    mod queues {
        use fanfare::domain::queue::{QueueRules, QueueSettings};
        use fanfare::store::{Options, open};

        use crate::{queues::Subject, support::MovedClock};

        async fn fresh(defaults: QueueSettings) -> Subject {
            let folder = tempfile::tempdir().unwrap();
            let clock = MovedClock::default();
            let queues = QueueRules { defaults, rules: vec![] };
            let url = format!("disk:{}", folder.path().display());
            let opened = open(&url, Options { queues, clock: clock.reader(), ..Options::default() }).await;
            let opened = opened.expect("a store on disk opens");
            let keeper = opened.queues.expect("it keeps queues");
            Subject { store: opened.store, keeper, clock: Some(clock), _guard: Box::new(folder) }
        }

        queue_cases!(fresh);
        timed_queue_cases!(fresh);
    }
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

    mod queues {
        use fanfare::domain::queue::{QueueRules, QueueSettings};
        use fanfare::store::{Options, open};

        use crate::{queues::Subject, server::RedisServer};

        async fn fresh(defaults: QueueSettings) -> Subject {
            let server = RedisServer::start();
            let queues = QueueRules { defaults, rules: vec![] };
            let opened = open(&server.url(), Options { queues, ..Options::default() }).await;
            let opened = opened.expect("a store on Redis opens");
            let keeper = opened.queues.expect("it keeps queues");
            Subject { store: opened.store, keeper, clock: None, _guard: Box::new(server) }
        }

        queue_cases!(fresh);
        timed_queue_cases!(fresh);
    }
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

    mod queues {
        use fanfare::domain::queue::{QueueRules, QueueSettings};
        use fanfare::store::{Options, open};

        use super::{CASES, Ordering, shared};
        use crate::queues::Subject;

        async fn fresh(defaults: QueueSettings) -> Subject {
            let set = tokio::task::block_in_place(shared);
            let prefix = format!("case{}", CASES.fetch_add(1, Ordering::SeqCst));
            let queues = QueueRules { defaults, rules: vec![] };
            let opened = open(&set.url(), Options { queues, prefix, replicas: 0, ..Options::default() }).await;
            let opened = opened.expect("a store on Redis opens");
            let keeper = opened.queues.expect("it keeps queues");
            Subject { store: opened.store, keeper, clock: None, _guard: Box::new(set) }
        }

        queue_cases!(fresh);
    }
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

    mod queues {
        use fanfare::domain::queue::{QueueRules, QueueSettings};
        use fanfare::store::{Options, open};

        use super::{CASES, CLUSTER, Cluster, NODE_TIMEOUT, Ordering};
        use crate::queues::Subject;

        async fn fresh(defaults: QueueSettings) -> Subject {
            let cluster = CLUSTER.get_or_init(|| Cluster::start(NODE_TIMEOUT));
            let prefix = format!("case{}", CASES.fetch_add(1, Ordering::Relaxed));
            let queues = QueueRules { defaults, rules: vec![] };
            let opened = open(&cluster.url(), Options { queues, prefix, replicas: 0, ..Options::default() }).await;
            let opened = opened.expect("a store on a cluster opens");
            let keeper = opened.queues.expect("it keeps queues");
            Subject { store: opened.store, keeper, clock: None, _guard: Box::new(()) }
        }

        queue_cases!(fresh);
    }
}
