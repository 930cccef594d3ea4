//! One script of commands, run against a real Redis with a dispatcher behind it and against the hub's door.

use std::net::SocketAddr;

use fanfare::dispatcher::Dispatcher;

use crate::ingest::{House, data, letters, until};
use crate::raw::Raw;
use crate::server::RedisServer;

/// Arguments as a shell would take them apart.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut chars) = (Vec::new(), None::<String>, false, line.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' if quoted => word.get_or_insert_default().push(chars.next().unwrap()),
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Whether a reply is the expected one, with its placeholders.
fn fits(reply: &str, expected: &str) -> bool {
    let Some(at) =
        expected.find('<').filter(|at| ["<id>", "<n>", "<*>"].iter().any(|p| expected[*at..].starts_with(p)))
    else {
        return reply == expected;
    };
    let (before, rest) = expected.split_at(at);
    let (mark, after) = rest.split_at(rest.find('>').unwrap() + 1);
    let Some(reply) = reply.strip_prefix(before) else { return false };
    let fitting = |c: char| match mark {
        "<n>" => c.is_ascii_digit(),
        "<id>" => c.is_ascii_digit() || c == '-',
        _ => true,
    };
    let end = reply.find(|c| !fitting(c)).unwrap_or(reply.len());
    end > 0 && (1..=end).rev().any(|end| fits(&reply[end..], after))
}

async fn run(address: SocketAddr, dispatcher: &Dispatcher, door: &str) -> Vec<String> {
    let mut client = Raw::connect(address).await;
    let mut wrong = Vec::new();
    let mut lines = include_str!("commands.txt").lines().filter(|line| !line.is_empty());
    while let Some(line) = lines.next() {
        if line == "# settle" {
            let mut watcher = Raw::connect(address).await;
            until("the list is empty", || async { dispatcher.status().iter().all(|s| s.lag_entries == 0) }).await;
            while watcher.ask(&["LLEN", "fanfare:list"]).await != "(integer) 0" {
                tokio::task::yield_now().await;
            }
        } else if !line.starts_with('#') {
            let expected = lines.next().unwrap();
            let words = words(line);
            let reply = client.ask(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
            if !fits(&reply, expected) {
                wrong.push(format!("{door}: {line}\n  expected {expected}\n  replied  {reply}"));
            }
        }
    }
    assert_eq!(client.reply().await, None, "QUIT closes");
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_doors_give_the_same_replies_and_the_same_messages() {
    let server = RedisServer::start();
    let behind = House::memory().await;
    let bridge = behind.bridge(&server.url()).await;
    until("it is owned", || async { bridge.status().iter().all(|s| s.owner) }).await;
    let mut wrong = run(SocketAddr::from(([127, 0, 0, 1], server.port())), &bridge, "Redis").await;
    let (house, door) = House::with_door(|_| {}).await;
    wrong.extend(run(door.door().unwrap(), &door, "the door").await);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    behind.wait_for("user.ann", &[&data("\"안녕!\"")]).await;
    let all: Vec<String> = (1..=11).map(|n| if n == 1 { data(r#"{"hi":1}"#) } else { data(&n.to_string()) }).collect();
    for (house, dispatcher) in [(&behind, &bridge), (&house, &door)] {
        house.wait_for_count("news", 11).await;
        // Order is promised per topic and door, and the stream and the list are two doors.
        let mut found = house.bodies("news").await;
        found.sort_by_key(|body| all.iter().position(|other| other == body));
        assert_eq!(found, all);
        until("three letters", || async { dispatcher.dead().count().await == Ok(3) }).await;
        let mut kept: Vec<_> = letters(dispatcher)
            .await
            .into_values()
            .map(|letter| (letter.source, letter.reason, letter.text, letter.fields))
            .collect();
        kept.sort_by_key(|letter| letter.2.clone());
        assert_eq!(kept.len(), 3);
    }
    let texts = |map: std::collections::HashMap<String, fanfare::domain::dead::DeadLetter>| {
        let mut texts: Vec<_> = map.into_values().map(|l| (l.source, l.text, l.fields)).collect();
        texts.sort();
        texts
    };
    assert_eq!(texts(letters(&bridge).await), texts(letters(&door).await));
    bridge.stop().await;
    door.stop().await;
}
