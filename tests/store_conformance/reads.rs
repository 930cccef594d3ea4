//! What `read` promises, and what retention may take.

use fanfare::domain::position::Position;
use fanfare::domain::store::{GapCause, Missing, ReadFrom, ReadLimit, Retention};

use crate::Subject;
use crate::support::*;

const ALL: ReadLimit = ReadLimit { messages: 100_000, bytes: 1 << 30 };

pub async fn a_topic_begins_with_its_first_read<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let news = topic("news");
    let page = subject.store.read(&news, ReadFrom::Last(10), ALL).await.unwrap();
    assert_eq!((page.head.offset, page.start, page.end), (0, page.head, page.head));
    assert!(page.is_last() && page.messages.is_empty() && page.missing.is_none());
    // The life that it began is the one that the first message is stored in.
    let answers = subject.store.append(vec![item(&news, "a")]).await;
    assert_eq!(stored(&answers[0]), page.head.next());
}

pub async fn an_empty_topic_is_resumed_from_its_head<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let news = topic("news");
    let head = subject.store.read(&news, ReadFrom::Last(0), ALL).await.unwrap().head;
    let empty = subject.store.read(&news, ReadFrom::After(head), ALL).await.unwrap();
    assert_eq!((empty.start, empty.end, empty.head, empty.missing), (head, head, head, None));
    subject.store.append(vec![item(&news, "a"), item(&news, "b")]).await;
    let page = subject.store.read(&news, ReadFrom::After(head), ALL).await.unwrap();
    assert_eq!((bodies(&page), page.start, page.missing), (vec!["a".into(), "b".into()], head, None));
}

pub async fn a_topic_is_resumed_after_each_of_its_positions<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let news = topic("news");
    let answers = subject.store.append((1..=20).map(|n| item(&news, n.to_string())).collect()).await;
    let head = stored(&answers[19]);
    for offset in 0..=20 {
        let after = Position::new(head.epoch, offset);
        let page = subject.store.read(&news, ReadFrom::After(after), ALL).await.unwrap();
        assert_eq!(offsets(&page.messages), (offset + 1..=20).collect::<Vec<_>>());
        assert_eq!((page.start, page.end, page.head, page.missing), (after, head, head, None));
    }
}

pub async fn pages_hold_so_many_messages<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let news = topic("news");
    let answers = subject.store.append((1..=10).map(|n| item(&news, n.to_string())).collect()).await;
    let head = stored(&answers[9]);
    let limit = ReadLimit { messages: 4, ..ALL };
    let mut after = Position::new(head.epoch, 0);
    for expected in [vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![9, 10]] {
        let page = subject.store.read(&news, ReadFrom::After(after), limit).await.unwrap();
        assert_eq!(offsets(&page.messages), expected);
        assert_eq!((page.start, page.end.offset, page.head), (after, expected[expected.len() - 1], head));
        assert_eq!(page.is_last(), expected.contains(&10));
        after = page.end;
    }
    // The newest messages, more than a page of them: oldest first.
    let page = subject.store.read(&news, ReadFrom::Last(6), limit).await.unwrap();
    assert_eq!((offsets(&page.messages), page.end.offset), (vec![5, 6, 7, 8], 8));
}

pub async fn pages_hold_so_many_bytes_and_at_least_one_message<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let news = topic("news");
    let sizes = [10, 10, 50, 5, 5, 200, 200];
    let answers = subject.store.append(sizes.iter().map(|&size| item(&news, vec![b'x'; size])).collect()).await;
    let mut after = stored(&answers[0]).before();
    let limit = ReadLimit { bytes: 60, ..ALL };
    for expected in [vec![1, 2], vec![3, 4, 5], vec![6], vec![7]] {
        let page = subject.store.read(&news, ReadFrom::After(after), limit).await.unwrap();
        assert_eq!(offsets(&page.messages), expected);
        after = page.end;
    }
    assert_eq!(after, stored(&answers[6]));
}

pub async fn the_newest_messages_are_read_by_their_number<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let news = topic("news");
    let answers = subject.store.append((1..=5).map(|n| item(&news, n.to_string())).collect()).await;
    let head = stored(&answers[4]);
    for (count, first) in [(0, 6), (1, 5), (3, 3), (5, 1), (100, 1)] {
        let page = subject.store.read(&news, ReadFrom::Last(count), ALL).await.unwrap();
        assert_eq!(offsets(&page.messages), (first..=5).collect::<Vec<_>>(), "the last {count}");
        assert_eq!(page.start, Position::new(head.epoch, first - 1));
        assert_eq!((page.end, page.head, page.missing), (head, head, None));
    }
}

pub async fn a_position_of_an_unknown_life_is_told<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let news = topic("news");
    subject.store.append(vec![item(&news, "a"), item(&news, "b")]).await;
    let after = Position::new(foreign_epoch(), 1);
    let page = subject.store.read(&news, ReadFrom::After(after), ALL).await.unwrap();
    assert_eq!(page.missing.map(|m| m.why), Some(GapCause::Epoch));
    assert_eq!(bodies(&page), ["a", "b"], "all that is there follows");
}

pub async fn a_position_beyond_the_end_is_told<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let news = topic("news");
    let answers = subject.store.append(vec![item(&news, "a")]).await;
    let beyond = stored(&answers[0]).next();
    let page = subject.store.read(&news, ReadFrom::After(beyond), ALL).await.unwrap();
    assert_eq!(page.missing.map(|m| m.why), Some(GapCause::Epoch));
    assert_eq!((page.end, page.head), (stored(&answers[0]), stored(&answers[0])));
}

pub async fn the_epochs_of_topics_differ<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention::default()).await;
    let mut epochs = std::collections::HashSet::new();
    for n in 0..100 {
        let page = subject.store.read(&topic(&format!("t{n}")), ReadFrom::Last(0), ALL).await.unwrap();
        assert!(epochs.insert(page.head.epoch), "{} was drawn twice in {n}", page.head.epoch);
    }
}

pub async fn retention_by_number_tells_exactly_what_is_missing<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention { messages: 5, ..Retention::default() }).await;
    let news = topic("news");
    let answers = subject.store.append((1..=12).map(|n| item(&news, n.to_string())).collect()).await;
    let epoch = stored(&answers[0]).epoch;
    let at = |offset| Position::new(epoch, offset);
    for offset in 0..=12 {
        let page = subject.store.read(&news, ReadFrom::After(at(offset)), ALL).await.unwrap();
        let missing = (offset < 7).then(|| Missing { why: GapCause::Retention, to: Some(at(7)) });
        assert_eq!((page.start, page.missing), (at(offset.max(7)), missing), "after {offset}");
        assert_eq!(offsets(&page.messages), (offset.max(7) + 1..=12).collect::<Vec<_>>());
        assert_eq!((page.end, page.head), (at(12), at(12)));
    }
    let page = subject.store.read(&news, ReadFrom::Last(100), ALL).await.unwrap();
    assert_eq!((page.start, page.messages.len(), page.missing), (at(7), 5, None));
}

pub async fn retention_by_bytes_keeps_the_newest<F: Future<Output = Subject>>(fresh: fn(Retention) -> F) {
    let subject = fresh(Retention { bytes: 1_000, ..Retention::default() }).await;
    let news = topic("news");
    let answers = subject.store.append((1..=30).map(|_| item(&news, vec![b'x'; 100])).collect()).await;
    let page = subject.store.read(&news, ReadFrom::After(stored(&answers[0])), ALL).await.unwrap();
    assert_eq!(page.missing.map(|m| m.why), Some(GapCause::Retention));
    assert_eq!((page.end.offset, page.start.offset + page.messages.len() as u64), (30, 30), "the newest in a row");
    let kept = page.messages.len();
    assert!((1..=10).contains(&kept), "{kept} of 100 bytes each");
}
