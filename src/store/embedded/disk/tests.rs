//! What cannot be seen through the contract: that tallies keep up with every table, that older formats are carried over
//! and newer ones are refused, that a crash between two renames is finished, that the log stays bounded.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::check::check;
use super::folder::Folder;
use super::{Count, Counter, DiskError, VERSION, back_up, counter, file, open, restore, wal};
use crate::domain::dead::{DeadLetter, DeadLetters};
use crate::domain::error::Reason;
use crate::domain::name::Topic;
use crate::domain::store::{EntryId, Fence, Page, ReadFrom, ReadLimit, Retention, Store};
use crate::store::Options;
use crate::store::embedded::tests::item;
use crate::store::embedded::{EmbeddedStore, Ends, open_on_disk};

const ALL: ReadLimit = ReadLimit { messages: 1_000_000, bytes: 1 << 30 };

async fn read(store: &EmbeddedStore, name: &str) -> Page {
    store.read(&Topic::parse(name).unwrap(), ReadFrom::Last(100_000), ALL).await.unwrap()
}

fn letter() -> DeadLetter {
    let (source, entry, text) = ("in".into(), "1-0".into(), "why".into());
    DeadLetter { id: String::new(), source, entry, time: 1, reason: Reason::BadName, text, fields: vec![] }
}

/// Checks the files of a closed store as the next opening would.
fn whole(root: &Path) -> super::check::Whole {
    let data = Folder::new(root).data();
    let count = counter::read(&data.counter()).unwrap();
    check(&file::connect(&data.database()).unwrap(), count).unwrap()
}

pub fn assert_whole(root: &Path) {
    whole(root);
}

/// Makes a closed store one of an older format, as far as the opening looks.
pub fn make_older(root: &Path, version: u32, change: impl FnOnce(&Connection)) {
    let data = Folder::new(root).data();
    let connection = file::connect(&data.database()).unwrap();
    change(&connection);
    connection.execute_batch(&format!("PRAGMA user_version = {version}")).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let count = counter::read(&data.counter()).unwrap().unwrap();
    std::fs::remove_file(data.counter()).unwrap();
    Counter::create(&data.counter(), Count { format: version, ..count }).unwrap();
}

#[tokio::test]
async fn the_tallies_keep_up_with_every_table() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention { messages: 5, idempotency_window: Duration::from_millis(1), ..Retention::default() };
    let options = Options { retention, dead_letters: 3, ..Options::default() };
    for round in 0..3u64 {
        let Ends { store, dead, .. } = open_on_disk(folder.path(), &options).unwrap();
        for n in 0..40 {
            let mut appended = item(["a", "b", "c"][n as usize % 3], vec![b'x'; n as usize * 10]);
            appended.publication.idempotency_key = (n % 4 == 0).then(|| format!("k{}", n % 8).into());
            appended.publication.ttl = (n % 5 == 0).then_some(Duration::from_millis(1));
            let id = EntryId { ms: round * 100 + n + 1, seq: 0 };
            appended.fence = (n % 3 == 0).then(|| Fence::new("in", "life", id));
            // A key used again for something else is refused; that belongs to it.
            store.append(vec![appended]).await;
        }
        for _ in 0..4 {
            dead.bury(letter()).await.unwrap();
        }
        let letters = dead.list(None, 10).await.unwrap();
        assert!(dead.retry(&letters[0].id).await.unwrap() && dead.settle(&letters[0].id).await.unwrap());
        assert!(DeadLetters::discard(&*dead, &letters[1].id).await.unwrap());
        store.close().await;
        let whole = whole(folder.path());
        assert_eq!(whole.topics, 3);
        assert!(whole.commits > round * 40, "{whole:?}");
    }
}

#[tokio::test]
async fn the_log_stays_bounded_and_a_closed_store_has_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let Ends { store, .. } = open_on_disk(folder.path(), &Options::default()).unwrap();
    let log = Folder::new(folder.path()).data().log();
    let mut most = 0;
    for n in 0..120 {
        let batch = (0..10).map(|i| item(&format!("t{i}"), vec![n as u8; 100_000])).collect();
        assert!(store.append(batch).await.iter().all(Result::is_ok));
        most = most.max(std::fs::metadata(&log).unwrap().len());
    }
    // 120 MB were written through it.
    assert!(most < 90 << 20, "{most}");
    store.close().await;
    assert_eq!(std::fs::metadata(&log).map_or(0, |found| found.len()), 0);
    assert_eq!(wal::scan(&log).unwrap(), wal::Report::default());
}

#[tokio::test]
async fn a_damaged_header_is_told_as_that_and_mended_where_a_loss_is_accepted() {
    for byte in [3, 61, 63, 70] {
        let folder = tempfile::tempdir().unwrap();
        let Ends { store, .. } = open_on_disk(folder.path(), &Options::default()).unwrap();
        let stored = store.append((0..9).map(|n| item("news", vec![n; 100])).collect()).await;
        assert!(stored.iter().all(Result::is_ok));
        let page = read(&store, "news").await;
        store.close().await;
        let database = Folder::new(folder.path()).data().database();
        let mut bytes = std::fs::read(&database).unwrap();
        bytes[byte] ^= 4;
        std::fs::write(&database, bytes).unwrap();
        match open(folder.path(), false).map(drop) {
            Err(DiskError::Damaged { faults, .. }) => assert!(faults[0].contains("header"), "byte {byte}: {faults:?}"),
            other => panic!("byte {byte}: {other:?}"),
        }
        drop(open(folder.path(), true).unwrap());
        let Ends { store, .. } = open_on_disk(folder.path(), &Options::default()).unwrap();
        assert_eq!(read(&store, "news").await, page, "byte {byte}: all the rest was whole");
    }
}

/// The tables of format 1.
const FIRST: &str = "
    CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, head INTEGER NOT NULL, touched INTEGER NOT NULL);
    CREATE TABLE lives (topic_id INTEGER NOT NULL, ordinal INTEGER NOT NULL, epoch TEXT NOT NULL, base INTEGER NOT NULL,
                        PRIMARY KEY (topic_id, ordinal)) WITHOUT ROWID;
    CREATE TABLE fences (topic_id INTEGER NOT NULL, source TEXT NOT NULL, life TEXT NOT NULL, ms INTEGER NOT NULL,
                         seq INTEGER NOT NULL, PRIMARY KEY (topic_id, source)) WITHOUT ROWID;
    CREATE TABLE messages (seq INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, offset INTEGER NOT NULL, time INTEGER NOT NULL,
                           expires INTEGER NOT NULL, body BLOB NOT NULL);
    CREATE TABLE idempotency (id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL,
                              epoch TEXT NOT NULL, offset INTEGER NOT NULL, expires INTEGER NOT NULL, UNIQUE (topic_id, key));
    CREATE TABLE dead (id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, entry TEXT NOT NULL, time INTEGER NOT NULL,
                       reason TEXT NOT NULL, text TEXT NOT NULL, fields BLOB NOT NULL, retried INTEGER);
    INSERT INTO topics VALUES (0, 'news', 3, 1795331083000);
    INSERT INTO lives VALUES (0, 0, 'abcdefg', 0);
    INSERT INTO fences VALUES (0, 'in', 'life', 9, 0);
    INSERT INTO messages VALUES (1, 0, 1, 4000000000000, 0, x'6f6e65'), (2, 0, 2, 4000000000000, 0, x'74776f'),
                                (5, 0, 3, 4000000000000, 0, x'0003');
    INSERT INTO dead (id, source, entry, time, reason, text, fields) VALUES (7, 'in', '1-0', 1, 'bad-name', 'why', x'');
    DELETE FROM dead WHERE id = 7;
    PRAGMA application_id = 0x46414e46; PRAGMA user_version = 1;";

#[tokio::test]
async fn a_store_of_an_older_format_is_carried_over() {
    let folder = tempfile::tempdir().unwrap();
    let data = Folder::new(folder.path()).data();
    std::fs::create_dir(data.folder()).unwrap();
    Connection::open(data.database()).unwrap().execute_batch(FIRST).unwrap();
    for _ in 0..2 {
        let Ends { store, dead, .. } = open_on_disk(folder.path(), &Options::default()).unwrap();
        let page = read(&store, "news").await;
        let bodies: Vec<&[u8]> = page.messages.iter().map(|m| &m.body.as_bytes()[..]).collect();
        assert_eq!(bodies, [b"one".as_slice(), b"two", &[0, 3]]);
        assert_eq!(page.head.to_string(), "abcdefg.3", "positions stay");
        let mut applied = item("news", b"again".to_vec());
        applied.fence = Some(Fence::new("in", "life", EntryId { ms: 9, seq: 0 }));
        assert_eq!(store.append(vec![applied]).await, [Ok(crate::domain::store::Appended::Skipped)]);
        let id: u64 = dead.bury(letter()).await.unwrap().parse().unwrap();
        assert!(id > 7, "numbers go on");
        store.close().await;
        assert_eq!(file::header(&data.database()).unwrap().version, VERSION);
        whole(folder.path());
    }
}

#[tokio::test]
async fn a_newer_format_and_other_files_are_refused_and_left_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let Ends { store, .. } = open_on_disk(folder.path(), &Options::default()).unwrap();
    store.append(vec![item("a", vec![b'x'])]).await;
    store.close().await;
    drop(store);
    let data = Folder::new(folder.path()).data();
    let database = data.database();
    let alter = |sql: &str| {
        let connection = Connection::open(&database).unwrap();
        connection.execute_batch(sql).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    };
    let count = counter::read(&data.counter()).unwrap().unwrap();
    let counted = |count| {
        std::fs::remove_file(data.counter()).unwrap();
        Counter::create(&data.counter(), count).unwrap();
    };
    // As a newer one leaves it.
    alter("PRAGMA user_version = 99");
    counted(Count { format: 99, ..count });
    let bytes = std::fs::read(&database).unwrap();
    let refused = open(folder.path(), true).err().unwrap();
    assert!(
        matches!(refused, DiskError::Newer { version: 99, .. }) && refused.to_string().contains("newer"),
        "{refused}"
    );
    assert_eq!(std::fs::read(&database).unwrap(), bytes);
    // Another program's has no counter of ours.
    alter("PRAGMA application_id = 5");
    std::fs::remove_file(data.counter()).unwrap();
    assert!(matches!(open(folder.path(), true), Err(DiskError::Foreign { .. })));
    // A format that says to be older than it is does not pass for it.
    alter(&format!(
        "PRAGMA application_id = 0x46414e46; PRAGMA user_version = {VERSION}; UPDATE store SET version = 7"
    ));
    Counter::create(&data.counter(), count).unwrap();
    let refused = open(folder.path(), false).err().unwrap();
    assert!(matches!(&refused, DiskError::Damaged { faults, .. } if !faults.is_empty()), "{refused}");
}

#[test]
fn a_change_that_a_crash_broke_off_is_finished_or_forgotten() {
    let root = tempfile::tempdir().unwrap();
    let folder = Folder::new(root.path());
    assert!(!folder.settle().unwrap(), "nothing is there");
    // It broke off while the new one was made.
    let next = folder.begin_next().unwrap();
    std::fs::write(next.database(), "half").unwrap();
    assert!(!folder.settle().unwrap());
    // It was whole, and the old one was put aside already.
    let next = folder.begin_next().unwrap();
    std::fs::write(next.database(), "new").unwrap();
    std::fs::write(next.folder().join("whole"), "").unwrap();
    std::fs::create_dir(root.path().join("before")).unwrap();
    assert!(folder.settle().unwrap());
    assert_eq!(std::fs::read(folder.data().database()).unwrap(), b"new");
    let left: Vec<_> = std::fs::read_dir(root.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["data"]);
}

#[tokio::test]
async fn a_backup_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (root, copy) = (folder.path().join("a"), folder.path().join("copy"));
    let Ends { store, .. } = open_on_disk(&root, &Options::default()).unwrap();
    store.append(vec![item("a", b"1".to_vec())]).await;
    // What an interrupted one has left, for all to read.
    let left = folder.path().join("copy.part");
    std::fs::write(&left, "left").unwrap();
    std::fs::set_permissions(&left, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(back_up(&root, &copy).unwrap().messages, 1);
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    store.close().await;
}

#[tokio::test]
async fn a_backup_is_one_moment_and_is_judged_before_it_is_restored() {
    let folder = tempfile::tempdir().unwrap();
    let (root, copy) = (folder.path().join("a"), folder.path().join("copy"));
    let Ends { store, .. } = open_on_disk(&root, &Options::default()).unwrap();
    let mut made = 0;
    // Beside a writer that does not rest: each batch is there whole or not at all.
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..200 {
                store.append((0..10).map(|_| item("a", vec![n; 500])).collect()).await;
            }
        }
    });
    while !writer.is_finished() {
        let (root, copy) = (root.clone(), copy.clone());
        let held = tokio::task::spawn_blocking(move || {
            let _ = std::fs::remove_file(&copy);
            back_up(&root, &copy).unwrap()
        });
        assert_eq!(held.await.unwrap().messages % 10, 0);
        made += 1;
    }
    writer.await.unwrap();
    assert!(made > 1);
    let mut bytes = std::fs::read(&copy).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = folder.path().join("damaged");
    std::fs::write(&damaged, bytes).unwrap();
    assert!(matches!(restore(&folder.path().join("b"), &damaged), Err(DiskError::Damaged { .. })));
    restore(&folder.path().join("b"), &copy).unwrap();
    store.close().await;
}
