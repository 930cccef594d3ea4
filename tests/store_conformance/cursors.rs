//! What whoever keeps cursors promises.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fanfare::domain::cursor::{
    CursorBounds, CursorError, CursorKey, CursorName, Cursors, Extent, First, Opened, Owner, Placed,
};
use fanfare::domain::lives::Lives;
use fanfare::domain::position::Position;
use fanfare::domain::store::{GapCause, Missing, ReadFrom, ReadLimit, Retention, Store, StoreError};

use crate::Subject;
use crate::support::*;

const ALL: ReadLimit = ReadLimit { messages: 100_000, bytes: 1 << 30 };
const SECOND: Duration = Duration::from_secs(1);

/// What every store under test is opened with.
pub const BOUNDS: CursorBounds = CursorBounds { each: 20, total: 1_000, unused: Duration::from_secs(3600) };

fn name(text: &str) -> CursorName {
    CursorName::parse(text).expect("tests write good names")
}

fn key(topic_name: &str, cursor: &str) -> CursorKey {
    CursorKey { topic: topic(topic_name), owner: Owner::anonymous(), name: name(cursor) }
}

/// Publishes so many messages and gives the position of each, with the one before the first in front.
async fn filled(store: &Arc<dyn Store>, name: &str, count: usize) -> Vec<Position> {
    let topic = topic(name);
    let answers = store.append((1..=count).map(|n| item(&topic, n.to_string())).collect()).await;
    let stored = answers.iter().map(stored);
    let before = stored.clone().next().map(Position::before);
    before.into_iter().chain(stored).collect()
}

async fn opened(cursors: &Arc<dyn Cursors>, key: &CursorKey) -> (Position, u64, bool) {
    let Opened { placed, created } = cursors.open(key, First::Newest).await.expect("it opens");
    (placed.at, placed.lag, created)
}

fn stands(placed: Result<Placed, CursorError>) -> (Position, u64) {
    placed.map(|placed| (placed.at, placed.lag)).expect("it stands somewhere")
}

pub async fn a_cursor_begins_with_its_first_use<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, cursors, guard: _guard, .. } = fresh(Retention::default()).await;
    let at = filled(&store, "news", 3).await;
    let phone = key("news", "phone");
    assert_eq!(opened(&cursors, &phone).await, (at[3], 0, true));
    store.append(vec![item(&topic("news"), "4"), item(&topic("news"), "5")]).await;
    // Nothing was committed, and nothing since the first use is lost. Using it moves nothing.
    for _ in 0..3 {
        assert_eq!(opened(&cursors, &phone).await, (at[3], 2, false));
    }
    let page = store.read(&topic("news"), ReadFrom::After(at[3]), ALL).await.unwrap();
    assert_eq!((bodies(&page), page.missing), (vec!["4".into(), "5".into()], None));
}

pub async fn a_cursor_begins_the_life_of_its_topic<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, cursors, guard: _guard, .. } = fresh(Retention::default()).await;
    let (begins, lag, created) = opened(&cursors, &key("news", "phone")).await;
    assert_eq!((begins.offset, lag, created), (0, 0, true));
    let at = filled(&store, "news", 2).await;
    assert_eq!(at[0], begins);
    assert_eq!(opened(&cursors, &key("news", "phone")).await, (begins, 2, false));
    let page = store.read(&topic("news"), ReadFrom::After(begins), ALL).await.unwrap();
    assert_eq!((offsets(&page.messages), page.missing), (vec![1, 2], None));
}

pub async fn a_new_cursor_begins_where_it_was_told<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let retention = Retention { messages: 3, ..Retention::default() };
    let Subject { store, cursors, guard: _guard, .. } = fresh(retention).await;
    let at = filled(&store, "news", 5).await;
    let head = at[5];
    for (cursor, first, begins) in [
        ("a", First::Newest, head),
        ("b", First::Oldest, at[2]),
        ("c", First::At(at[4]), at[4]),
        ("d", First::At(at[0]), at[0]),
        ("e", First::At(Position::new(foreign_epoch(), 2)), head),
        ("f", First::At(head.next()), head),
    ] {
        let Opened { placed, created } = cursors.open(&key("news", cursor), first).await.unwrap();
        assert_eq!((placed.at, placed.lag, created), (begins, head.offset - begins.offset, true), "{first:?}");
        // It counts only once.
        let Opened { placed, created } = cursors.open(&key("news", cursor), First::Oldest).await.unwrap();
        assert_eq!((placed.at, created), (begins, false), "{first:?}");
    }
    let Opened { placed, .. } = cursors.open(&key("empty", "a"), First::Oldest).await.unwrap();
    assert_eq!((placed.at.offset, placed.lag), (0, 0));
}

pub async fn cursors_move_forward_and_back_only_if_told<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, cursors, guard: _guard, .. } = fresh(Retention::default()).await;
    let at = filled(&store, "news", 5).await;
    let phone = key("news", "phone");
    cursors.open(&phone, First::Oldest).await.unwrap();
    assert_eq!(stands(cursors.commit(&phone, at[3], false).await), (at[3], 2));
    assert_eq!(stands(cursors.commit(&phone, at[3], false).await), (at[3], 2));
    let behind = CursorError::Behind { at: at[2], stands: at[3] };
    assert_eq!(cursors.commit(&phone, at[2], false).await, Err(behind));
    assert_eq!(opened(&cursors, &phone).await, (at[3], 2, false));
    assert_eq!(stands(cursors.commit(&phone, at[1], true).await), (at[1], 4));
    assert_eq!(stands(cursors.commit(&phone, at[5], true).await), (at[5], 0));
    assert_eq!(opened(&cursors, &phone).await, (at[5], 0, false));
}

pub async fn positions_that_the_topic_does_not_know_are_refused<F: Future<Output = Subject>>(
    fresh: fn(Retention) -> F,
) {
    let Subject { store, cursors, guard: _guard, .. } = fresh(Retention::default()).await;
    let at = filled(&store, "news", 2).await;
    let chat = filled(&store, "chat", 2).await;
    let (phone, head) = (key("news", "phone"), at[2]);
    for made in [false, true] {
        for unknown in [head.next(), chat[1], Position::new(foreign_epoch(), 1)] {
            for rewind in [false, true] {
                let answer = cursors.commit(&phone, unknown, rewind).await;
                assert_eq!(answer, Err(CursorError::Unknown { at: unknown, head }));
            }
        }
        assert_eq!(cursors.find(&phone).await.unwrap().map(|placed| placed.at), made.then_some(at[1]));
        assert_eq!(stands(cursors.commit(&phone, at[1], false).await), (at[1], 1));
    }
}

pub async fn a_commit_makes_a_cursor<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, cursors, guard: _guard, .. } = fresh(Retention::default()).await;
    let at = filled(&store, "news", 4).await;
    assert_eq!(stands(cursors.commit(&key("news", "phone"), at[1], false).await), (at[1], 3));
    assert_eq!(opened(&cursors, &key("news", "phone")).await, (at[1], 3, false));
}

pub async fn cursors_of_two_owners_and_two_topics_do_not_meet<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, cursors, guard: _guard, .. } = fresh(Retention::default()).await;
    let news = filled(&store, "news", 3).await;
    let chat = filled(&store, "chat", 3).await;
    let of = |topic_name, owner: &str| CursorKey { owner: Owner::user(owner), ..key(topic_name, "phone") };
    let owners = ["ann", "ben", "ann/phone", "", "앤 {t1}"];
    for (n, owner) in owners.into_iter().enumerate() {
        let (at, of) = (news[n % 4], of("news", owner));
        assert_eq!(stands(cursors.commit(&of, at, false).await).0, at, "{owner}");
    }
    assert_eq!(stands(cursors.commit(&of("chat", "ann"), chat[2], false).await), (chat[2], 1));
    for (n, owner) in owners.into_iter().enumerate() {
        assert_eq!(opened(&cursors, &of("news", owner)).await, (news[n % 4], 3 - (n as u64 % 4), false), "{owner}");
        let listed = cursors.list(&topic("news"), &Owner::user(owner), None, 10).await.unwrap();
        assert_eq!(listed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["phone"], "{owner}");
    }
    assert_eq!(opened(&cursors, &of("chat", "ann")).await, (chat[2], 1, false));
    assert_eq!(cursors.find(&of("chat", "ben")).await, Ok(None));
}

pub async fn cursors_are_listed_in_the_order_of_their_names<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, cursors, guard: _guard, .. } = fresh(Retention::default()).await;
    let at = filled(&store, "news", 3).await;
    let names = ["b", "a.b", "Z", "a", "~", "10", "9", "a-b"];
    for (n, cursor) in names.into_iter().enumerate() {
        cursors.commit(&key("news", cursor), at[n % 4], false).await.unwrap();
    }
    let mut sorted = names;
    sorted.sort_unstable();
    let (news, nobody) = (topic("news"), Owner::anonymous());
    let (mut all, mut after): (Vec<(CursorName, Placed)>, _) = (Vec::new(), None);
    loop {
        let page = cursors.list(&news, &nobody, after.as_ref(), 3).await.unwrap();
        assert!(page.len() <= 3);
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        all.extend(page);
    }
    assert_eq!(all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), sorted);
    for (name, placed) in &all {
        let n = names.iter().position(|n| *n == name.as_str()).unwrap();
        assert_eq!((placed.at, placed.lag), (at[n % 4], 3 - (n as u64 % 4)), "{name}");
    }
    assert_eq!(cursors.list(&topic("chat"), &nobody, None, 3).await, Ok(Vec::new()));
}

pub async fn a_removed_cursor_begins_anew<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, cursors, guard: _guard, .. } = fresh(Retention::default()).await;
    let at = filled(&store, "news", 3).await;
    let phone = key("news", "phone");
    assert_eq!(cursors.remove(&phone).await, Ok(false));
    cursors.commit(&phone, at[1], false).await.unwrap();
    assert_eq!(cursors.remove(&phone).await, Ok(true));
    assert_eq!(cursors.find(&phone).await, Ok(None));
    assert_eq!(cursors.remove(&phone).await, Ok(false));
    assert_eq!(opened(&cursors, &phone).await, (at[3], 0, true));
}

pub async fn looking_for_a_cursor_makes_nothing<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, cursors, guard: _guard, .. } = fresh(Retention::default()).await;
    let phone = key("news", "phone");
    assert_eq!(cursors.find(&phone).await, Ok(None));
    assert_eq!(cursors.remove(&phone).await, Ok(false));
    assert_eq!(cursors.list(&phone.topic, &phone.owner, None, 10).await, Ok(Vec::new()));
    let at = filled(&store, "news", 2).await;
    assert_eq!(cursors.find(&phone).await, Ok(None));
    cursors.commit(&phone, at[1], false).await.unwrap();
    let found = cursors.find(&phone).await.unwrap().unwrap();
    assert_eq!((found.at, found.lag), (at[1], 1));
}

pub async fn one_owner_has_so_many_cursors_in_a_topic<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, cursors, guard: _guard, .. } = fresh(Retention::default()).await;
    let at = filled(&store, "news", 2).await;
    let nth = |n: usize| key("news", &format!("c{n}"));
    for n in 0..BOUNDS.each {
        cursors.open(&nth(n), First::Newest).await.unwrap();
    }
    let full = nth(BOUNDS.each);
    assert_eq!(cursors.open(&full, First::Newest).await, Err(CursorError::TooMany(BOUNDS.each)));
    assert_eq!(cursors.commit(&full, at[1], false).await, Err(CursorError::TooMany(BOUNDS.each)));
    // The others are as before, other owners and topics have room, and so has whoever makes some.
    assert_eq!(opened(&cursors, &nth(0)).await, (at[2], 0, false));
    assert!(opened(&cursors, &CursorKey { owner: Owner::user("ann"), ..full.clone() }).await.2);
    assert!(opened(&cursors, &CursorKey { topic: topic("chat"), ..full.clone() }).await.2);
    assert_eq!(cursors.remove(&nth(7)).await, Ok(true));
    assert_eq!(opened(&cursors, &full).await, (at[2], 0, true));
    assert_eq!(cursors.open(&nth(7), First::Newest).await, Err(CursorError::TooMany(BOUNDS.each)));
}

pub async fn what_retention_took_is_unread_too<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let retention = Retention { messages: 2, ..Retention::default() };
    let Subject { store, cursors, guard: _guard, .. } = fresh(retention).await;
    let at = filled(&store, "news", 1).await;
    let phone = key("news", "phone");
    cursors.commit(&phone, at[1], false).await.unwrap();
    let more = filled(&store, "news", 6).await;
    assert_eq!(opened(&cursors, &phone).await, (at[1], 6, false));
    let page = store.read(&topic("news"), ReadFrom::After(at[1]), ALL).await.unwrap();
    let missing = Some(Missing { why: GapCause::Retention, to: Some(more[4]) });
    assert_eq!((offsets(&page.messages), page.missing), (vec![6, 7], missing));
    // What is gone can be passed over, and gone back to.
    assert_eq!(stands(cursors.commit(&phone, more[4], false).await), (more[4], 2));
    assert_eq!(stands(cursors.commit(&phone, at[0], true).await), (at[0], 7));
}

pub async fn cursor_calls_keep_their_order_among_appends<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, cursors, guard: _guard, .. } = fresh(Retention::default()).await;
    let news = topic("news");
    let head = store.read(&news, ReadFrom::Last(0), ALL).await.unwrap().head;
    let at = |offset| Position::new(head.epoch, offset);
    for n in 0..50 {
        let phone = key("news", &format!("c{}", n % 20));
        drop(cursors.remove(&phone));
        let opened = cursors.open(&phone, First::Newest);
        let appended = store.append(vec![item(&news, "x")]);
        let committed = cursors.commit(&phone, at(n + 1), false);
        let page = store.read(&news, ReadFrom::Last(0), ALL);
        let found = cursors.find(&phone);
        assert_eq!(opened.await.unwrap().placed.at, at(n));
        assert_eq!(stored(&appended.await[0]), at(n + 1));
        assert_eq!(stands(committed.await), (at(n + 1), 0));
        assert_eq!(page.await.unwrap().head, at(n + 1));
        assert_eq!(found.await.unwrap().map(|placed| placed.at), Some(at(n + 1)));
    }
}

pub async fn the_furthest_of_many_commits_stays<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, cursors, guard: _guard, .. } = fresh(Retention::default()).await;
    let at = filled(&store, "news", 200).await;
    let phone = key("news", "phone");
    let tasks: Vec<_> = (0..4)
        .map(|lane| {
            let (cursors, phone, at) = (cursors.clone(), phone.clone(), at.clone());
            tokio::spawn(async move {
                for n in (1..=200).filter(|n| n % 4 == lane) {
                    match cursors.commit(&phone, at[n], false).await {
                        Ok(placed) => assert_eq!((placed.at, placed.lag), (at[n], 200 - n as u64)),
                        Err(CursorError::Behind { at: asked, stands }) => {
                            assert!(asked == at[n] && stands.is_past(asked), "{asked} {stands}");
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(opened(&cursors, &phone).await, (at[200], 0, false));
}

/// Random uses, against the pure rules.
pub async fn random_uses_agree_with_the_rules<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let retention = Retention { messages: 8, ..Retention::default() };
    let Subject { store, cursors, guard: _guard, .. } = fresh(retention).await;
    let news = topic("news");
    let start = store.read(&news, ReadFrom::Last(0), ALL).await.unwrap().head;
    let lives = Lives::new(vec![(start.epoch, 0)]);
    let (mut head, mut model) = (0u64, HashMap::<u64, Position>::new());
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut roll = |sides: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % sides
    };
    for step in 0..600 {
        let (n, offset) = (roll(4), roll(head + 3));
        let phone = key("news", &format!("c{n}"));
        let epoch = if roll(10) == 0 { foreign_epoch() } else { start.epoch };
        let at = Position::new(epoch, offset);
        let oldest = head.saturating_sub(retention.messages) + 1;
        let extent = Extent { lives: &lives, oldest, head };
        match roll(6) {
            0 => {
                store.append(vec![item(&news, "x")]).await;
                head += 1;
            }
            1 => {
                let first = [First::Newest, First::Oldest, First::At(at)][roll(3) as usize];
                let stands = model.get(&n).copied();
                let begins = *model.entry(n).or_insert_with(|| extent.first(first));
                let Opened { placed, created } = cursors.open(&phone, first).await.unwrap();
                let expected = (begins, extent.lag(begins), stands.is_none());
                assert_eq!((placed.at, placed.lag, created), expected, "step {step}: {first:?}");
            }
            2 | 3 => {
                let rewind = roll(2) == 0;
                let judged = extent.judge(model.get(&n).copied(), at, rewind);
                let committed = cursors.commit(&phone, at, rewind).await;
                let expected = judged.map(|()| (at, extent.lag(at)));
                assert_eq!(committed.map(|p| (p.at, p.lag)), expected, "step {step}: {at} {rewind}");
                if expected.is_ok() {
                    model.insert(n, at);
                }
            }
            4 => {
                let expected = model.get(&n).map(|at| (*at, extent.lag(*at)));
                let found = cursors.find(&phone).await.unwrap();
                assert_eq!(found.map(|p| (p.at, p.lag)), expected, "step {step}");
            }
            _ => assert_eq!(cursors.remove(&phone).await.unwrap(), model.remove(&n).is_some(), "step {step}"),
        }
    }
}

pub async fn a_closed_store_refuses_cursors<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, cursors, guard: _guard, .. } = fresh(Retention::default()).await;
    let phone = key("news", "phone");
    let begun = cursors.open(&phone, First::Newest);
    store.close().await;
    assert!(begun.await.is_ok(), "what was accepted is finished");
    let refused = cursors.open(&phone, First::Newest).await;
    assert!(matches!(refused, Err(CursorError::Store(StoreError::Unavailable(_)))), "{refused:?}");
}

pub async fn a_cursor_is_kept_as_long_as_it_is_used<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store, cursors, clock, guard: _guard, .. } = fresh(Retention::default()).await;
    let clock = clock.expect("timed cases have a clock");
    let at = filled(&store, "news", 3).await;
    let (used, committed, looked_at) = (key("news", "used"), key("news", "committed"), key("news", "looked-at"));
    for key in [&used, &committed, &looked_at] {
        cursors.commit(key, at[1], false).await.unwrap();
    }
    // Never sooner than told, by whatever small steps it is used.
    for _ in 0..4 {
        clock.advance(BOUNDS.unused - SECOND);
        assert_eq!(opened(&cursors, &used).await, (at[1], 2, false));
        clock.advance(SECOND);
        assert_eq!(stands(cursors.commit(&committed, at[1], false).await), (at[1], 2));
        cursors.find(&looked_at).await.unwrap();
        cursors.list(&topic("news"), &Owner::anonymous(), None, 10).await.unwrap();
    }
    assert_eq!(cursors.find(&looked_at).await, Ok(None), "looking at it does not use it");
    clock.advance(BOUNDS.lifetime());
    for key in [&used, &committed, &looked_at] {
        assert_eq!(cursors.find(key).await, Ok(None));
        assert_eq!(opened(&cursors, key).await, (at[3], 0, true), "and that is told");
    }
}

pub async fn a_cursor_that_is_over_makes_room<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let Subject { store: _store, cursors, clock, guard: _guard, .. } = fresh(Retention::default()).await;
    let clock = clock.expect("timed cases have a clock");
    let nth = |n: usize| key("news", &format!("c{n}"));
    for n in 0..BOUNDS.each {
        cursors.open(&nth(n), First::Newest).await.unwrap();
    }
    assert_eq!(cursors.open(&nth(99), First::Newest).await, Err(CursorError::TooMany(BOUNDS.each)));
    clock.advance(BOUNDS.lifetime());
    assert!(opened(&cursors, &nth(99)).await.2);
}

pub async fn a_cursor_keeps_the_record_of_its_topic<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let retention = Retention { age: SECOND * 60, record: SECOND * 60, ..Retention::default() };
    let Subject { store, cursors, clock, guard: _guard, .. } = fresh(retention).await;
    let clock = clock.expect("timed cases have a clock");
    let at = filled(&store, "news", 3).await;
    let (read, unread) = (key("news", "read"), key("news", "unread"));
    cursors.commit(&read, at[3], false).await.unwrap();
    cursors.commit(&unread, at[1], false).await.unwrap();
    // Messages and record had their time long ago.
    clock.advance(SECOND * 3500);
    assert_eq!(opened(&cursors, &read).await, (at[3], 0, false));
    assert_eq!(opened(&cursors, &unread).await, (at[1], 2, false));
    let page = store.read(&topic("news"), ReadFrom::After(at[3]), ALL).await.unwrap();
    assert_eq!((page.head, page.missing), (at[3], None), "who has read all is resumed with proof");
    let page = store.read(&topic("news"), ReadFrom::After(at[1]), ALL).await.unwrap();
    assert_eq!(page.missing, Some(Missing { why: GapCause::Retention, to: Some(at[3]) }));
    // Without cursors the topic is over, and its next life knows nothing of them.
    clock.advance(BOUNDS.lifetime());
    assert_eq!(cursors.find(&read).await, Ok(None));
    let gone = async { while store.read(&topic("news"), ReadFrom::Last(0), ALL).await.unwrap().head == at[3] {} };
    tokio::time::timeout(SECOND * 20, gone).await.expect("the store sweeps");
    let (begins, lag, created) = opened(&cursors, &read).await;
    assert!(begins.epoch != at[3].epoch && lag == 0 && created);
}
