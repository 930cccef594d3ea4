//! Golden conversations: each file in `tests/transcripts` is played against a hub of its own, word for word.
//!
//! `>` is sent, `<` must be heard, in this order; `A`, `B` … before them name further connections, `connect ?sub=x`
//! opens one, `publish news {"hi":1}` publishes by HTTP, `close 4501 bad-frame` must be heard as a close.
//! `<~` lines that follow one another may be heard in any order: an answer and a message have none. What differs
//! from run to run is written `e1`, `e2` … for epochs in the order of their appearance, `T` for times.

#[path = "support/hub.rs"]
mod hub;

use std::collections::HashMap;
use std::path::PathBuf;

use hub::{Client, Heard};

#[derive(Default)]
struct Player {
    clients: HashMap<String, Client>,
    epochs: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transcript_is_heard_word_for_word() {
    let mut files: Vec<PathBuf> = std::fs::read_dir("tests/transcripts").unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8, "{files:?}");
    for file in files {
        play(&file).await;
    }
}

async fn play(file: &PathBuf) {
    let text = std::fs::read_to_string(file).unwrap();
    let flags: Vec<&str> =
        text.lines().filter_map(|l| l.strip_prefix("# flags ")).flat_map(str::split_whitespace).collect();
    let server = hub::start(&flags).await;
    let mut player = Player::default();
    let mut any_order: Vec<String> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let place = format!("{}:{}", file.display(), number + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(rest) = line.strip_prefix("publish ") {
            let (topic, body) = rest.split_once(' ').expect("publish TOPIC BODY");
            let stored = hub::publish(server.http, topic, body).await;
            player.shorten(&format!("\"{stored}\""));
            continue;
        }
        let (name, what) = match line.split_once(' ') {
            Some((name, what)) if name.len() == 1 && name.chars().all(|c| c.is_ascii_uppercase()) => (name, what),
            _ => ("A", line),
        };
        if let Some(query) = what.strip_prefix("connect") {
            let client = Client::connect(server.http, &player.lengthen(query.trim())).await;
            player.clients.insert(name.to_owned(), client);
            continue;
        }
        let lengthened = player.lengthen(what);
        let client = player.clients.get_mut(name).unwrap_or_else(|| panic!("{place}: {name} is not connected"));
        if let Some(frame) = lengthened.strip_prefix("> ") {
            client.say(frame).await;
        } else if let Some(expected) = what.strip_prefix("<~ ") {
            any_order.push(expected.to_owned());
            if text.lines().nth(number + 1).is_some_and(|next| next.trim().starts_with("<~ ")) {
                continue;
            }
            let mut heard = Vec::new();
            for _ in 0..any_order.len() {
                heard.push(player.hear(name).await);
            }
            heard.sort();
            any_order.sort();
            assert_eq!(heard, any_order, "{place}");
            any_order.clear();
        } else if let Some(expected) = what.strip_prefix("< ") {
            assert_eq!(player.hear(name).await, expected, "{place}");
        } else if let Some(expected) = what.strip_prefix("close ") {
            let heard = match client.hear().await {
                Heard::Closed(code, reason) => format!("{code} {reason}"),
                other => format!("{other:?}"),
            };
            assert_eq!(heard, expected, "{place}");
        } else {
            panic!("{place}: cannot read {line:?}");
        }
    }
    // Open sockets would be given the time of a closing handshake.
    drop(player);
    server.stop().await;
}

impl Player {
    async fn hear(&mut self, name: &str) -> String {
        match self.clients.get_mut(name).expect("it is connected").hear().await {
            Heard::Text(text) => self.shorten(&text),
            other => format!("{other:?}"),
        }
    }

    /// What was heard, with the names of the transcript.
    fn shorten(&mut self, frame: &str) -> String {
        let mut out = String::new();
        for (i, part) in frame.split('"').enumerate() {
            if i > 0 {
                out.push('"');
            }
            match part.split_once('.') {
                Some((epoch, offset))
                    if is_epoch(epoch) && offset.bytes().all(|b| b.is_ascii_digit()) && i % 2 == 1 =>
                {
                    let number = self.epochs.iter().position(|e| e == epoch).unwrap_or_else(|| {
                        self.epochs.push(epoch.to_owned());
                        self.epochs.len() - 1
                    });
                    out.push_str(&format!("e{}.{offset}", number + 1));
                }
                _ => out.push_str(part),
            }
        }
        for (i, epoch) in self.epochs.iter().enumerate() {
            out = out.replace(&format!("{epoch}."), &format!("e{}.", i + 1));
        }
        // The inbox that each client is offered is random.
        if let Some(at) = out.find(",\"inbox\":\"") {
            let end = at + 11 + out[at + 11..].find('"').expect("it is a string") + 1;
            out.replace_range(at..end, "");
        }
        let mut rest = out.as_str();
        let mut timeless = String::new();
        while let Some(at) = rest.find("\"time\":") {
            timeless.push_str(&rest[..at + 7]);
            timeless.push('T');
            rest = rest[at + 7..].trim_start_matches(|c: char| c.is_ascii_digit());
        }
        timeless + rest
    }

    /// What is sent, with the epochs of this run.
    fn lengthen(&self, frame: &str) -> String {
        self.epochs
            .iter()
            .enumerate()
            .fold(frame.to_owned(), |frame, (i, epoch)| frame.replace(&format!("e{}.", i + 1), &format!("{epoch}.")))
    }
}

fn is_epoch(text: &str) -> bool {
    (5..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}
