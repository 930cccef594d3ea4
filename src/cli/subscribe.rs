//! `fanfare subscribe`: messages as they come, one JSON line each; a cut line is resumed by position.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use clap::Args;
use futures::{SinkExt, StreamExt};
use reqwest::Url;
use tokio::time::timeout;
use tungstenite::{Error, Message};

use super::commits::Commits;
use super::hub::Address;
use super::socket::{self, CONNECT_TIME, Ended, FIRST_WAIT, Socket, Waits, connect, on_close, patience};
use super::{Exit, Stop, output};
use crate::document::{self, Members, quote};
use crate::domain::error::Reason;

/// Deeper than any frame.
const DEPTH: usize = 256;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    address: Address,
    /// The topics to listen to
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Begin with the newest N messages that are kept
    #[arg(long, value_name = "N", conflicts_with_all = ["after", "since"])]
    last: Option<u32>,
    /// Begin after this position, the `at` of a message; for one topic
    #[arg(long, value_name = "AT", conflicts_with = "since")]
    after: Option<String>,
    /// Begin with what was stored since then: 90s, 15m, 1h or 2d ago, or a time like 2026-11-25T12:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = Since::parse)]
    since: Option<Since>,
    /// Begin where this cursor of the hub stands, in each topic; one that is not there begins now
    #[arg(long, value_name = "CURSOR", conflicts_with_all = ["last", "after", "since"])]
    cursor: Option<String>,
    /// Where a cursor begins that is not there: newest or oldest
    #[arg(long, value_name = "WHERE", requires = "cursor", value_parser = ["newest", "oldest"])]
    first: Option<String>,
    /// Move the cursor behind what was printed
    #[arg(long, requires = "cursor")]
    commit: bool,
    /// Stop after N messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Stop with exit code 4 as soon as messages were missed
    #[arg(long)]
    strict: bool,
}

/// Where `--since` begins: a JSON string with a time, or so long ago when the command began.
#[derive(Debug, Clone)]
enum Since {
    Time(String),
    Ago(Duration, Instant),
}

impl Since {
    fn parse(text: &str) -> Result<Since, String> {
        let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3_600.0), ("d", 86_400.0)];
        let number = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
        let number = number.and_then(|(number, seconds)| Some(number.parse::<f64>().ok()? * seconds));
        match number.or_else(|| text.parse().ok()).map(Duration::try_from_secs_f64) {
            Some(Ok(ago)) => Ok(Since::Ago(ago, Instant::now())),
            Some(Err(_)) => Err("there is no such time ago".into()),
            None => match document::since(text, 0) {
                Ok(_) => Ok(Since::Time(quote(text))),
                Err(_) => Err("write 90s, 15m, 1h or 2d ago, or a time with its zone like 2026-11-25T12:00:00Z".into()),
            },
        }
    }

    /// As a frame says it.
    fn json(&self) -> String {
        match self {
            Since::Time(time) => time.clone(),
            Since::Ago(ago, begun) => (*ago + begun.elapsed()).as_secs_f64().to_string(),
        }
    }
}

pub async fn run(arguments: Arguments) -> Result<(), Stop> {
    if arguments.after.is_some() && arguments.topics.len() > 1 {
        return Err(Stop::new(Exit::Usage, "--after is a position of one topic; subscribe to the others apart"));
    }
    let url = socket::address(&arguments.address)?;
    let mut follower = Follower::new(&arguments);
    let mut waits = Waits::new();
    let mut reached = false;
    loop {
        match follower.follow(&url).await {
            Ok(Ended::Done) => return Ok(()),
            Ok(Ended::Lost(why)) => {
                if std::mem::take(&mut follower.greeted) {
                    reached = true;
                    waits.begin_again();
                }
                output::notice(&format!("{why}; coming back"));
            }
            Err(stop) if stop.exit == Exit::Unreachable && reached => {}
            Err(stop) => return Err(stop),
        }
        tokio::time::sleep(waits.next()).await;
    }
}

/// What is known of the topics over all connections.
struct Follower<'a> {
    topics: &'a [String],
    last: Option<u32>,
    since: Option<Since>,
    /// The last position of each topic: a safe `after`.
    at: HashMap<String, String>,
    left: Option<u64>,
    strict: bool,
    cursor: Option<&'a str>,
    first: Option<&'a str>,
    /// Printed and not committed; `None`: nothing is to be committed.
    commits: Option<Commits>,
    /// Whether this connection got its `hello`.
    greeted: bool,
    /// Time without a frame after which the line is dead.
    patience: Duration,
}

impl<'a> Follower<'a> {
    fn new(arguments: &'a Arguments) -> Follower<'a> {
        let after = arguments.after.iter().map(|after| (arguments.topics[0].clone(), after.clone()));
        Follower {
            topics: &arguments.topics,
            last: arguments.last,
            since: arguments.since.clone(),
            at: after.collect(),
            left: arguments.count,
            strict: arguments.strict,
            cursor: arguments.cursor.as_deref(),
            first: arguments.first.as_deref(),
            commits: arguments.commit.then(Commits::default),
            greeted: false,
            patience: CONNECT_TIME,
        }
    }

    async fn follow(&mut self, url: &Url) -> Result<Ended, Stop> {
        let mut socket = connect(url).await?;
        for topic in self.topics {
            let start = match (self.at.get(topic), self.last, &self.since) {
                (Some(at), ..) => format!(",\"after\":{}", quote(at)),
                (None, Some(last), _) => format!(",\"last\":{last}"),
                (None, None, Some(since)) => format!(",\"since\":{}", since.json()),
                (None, None, None) => String::new(),
            };
            let cursor = match (self.cursor, self.first.filter(|_| start.is_empty())) {
                (Some(cursor), Some(first)) => format!(",\"cursor\":{},\"first\":{}", quote(cursor), quote(first)),
                (Some(cursor), None) => format!(",\"cursor\":{}", quote(cursor)),
                (None, _) => String::new(),
            };
            let frame = format!("{{\"sub\":{}{start}{cursor}}}", quote(topic));
            if let Err(error) = socket.send(Message::text(frame)).await {
                return Ok(Ended::Lost(error.to_string()));
            }
        }
        if let Some(commits) = &mut self.commits {
            commits.on_cut(Instant::now());
        }
        let mut heard = Instant::now();
        loop {
            let due = self.commits.as_ref().and_then(|commits| commits.wait(Instant::now()));
            let silent = self.patience.saturating_sub(heard.elapsed());
            let frame = match timeout(due.unwrap_or(silent).min(silent), socket.next()).await {
                Err(_) if heard.elapsed() < self.patience => {
                    if let Err(error) = self.commit(&mut socket).await {
                        return Ok(Ended::Lost(error.to_string()));
                    }
                    continue;
                }
                Err(_) => return Ok(Ended::Lost(format!("nothing came for {} s", self.patience.as_secs()))),
                Ok(None) => return Ok(Ended::Lost("the connection ended".into())),
                Ok(Some(Err(error))) => return Ok(Ended::Lost(error.to_string())),
                Ok(Some(Ok(frame))) => frame,
            };
            heard = Instant::now();
            let ended = match frame {
                Message::Text(text) => self.on_frame(&text)?,
                Message::Close(Some(close)) => Some(on_close(close.code.into(), &close.reason)?),
                _ => None,
            };
            // A flood of messages leaves no silence to commit in.
            if due.is_some_and(|due| due.is_zero())
                && ended.is_none()
                && let Err(error) = self.commit(&mut socket).await
            {
                return Ok(Ended::Lost(error.to_string()));
            }
            if let Some(Ended::Done) = ended {
                self.finish(&mut socket).await?;
            }
            if let Some(ended) = ended {
                let _ = timeout(FIRST_WAIT, socket.close(None)).await;
                return Ok(ended);
            }
        }
    }

    /// Sends what is to be committed now.
    async fn commit(&mut self, socket: &mut Socket) -> Result<(), Error> {
        let (Some(cursor), Some(commits)) = (self.cursor, &mut self.commits) else { return Ok(()) };
        for frame in commits.take(cursor, Instant::now()) {
            socket.send(Message::text(frame)).await?;
        }
        Ok(())
    }

    /// Waits until what was printed is committed.
    async fn finish(&mut self, socket: &mut Socket) -> Result<(), Stop> {
        let all = async {
            while self.commits.as_ref().is_some_and(|commits| !commits.is_done()) {
                self.commit(socket).await.ok()?;
                if let Message::Text(text) = socket.next().await?.ok()? {
                    self.on_committed(&text);
                }
            }
            Some(())
        };
        match timeout(CONNECT_TIME, all).await {
            Ok(Some(())) => Ok(()),
            _ => Err(Stop::new(Exit::Failed, "what was printed last is not known to be committed; it may come again")),
        }
    }

    /// Takes the answer to a commit; `false`: it is another frame.
    fn on_committed(&mut self, text: &str) -> bool {
        let (Some(commits), Ok(mut frame)) = (&mut self.commits, Members::read(text.as_bytes(), "a frame", DEPTH))
        else {
            return false;
        };
        let mut word = |name: &str| frame.text(name).ok().flatten().map(String::from);
        let topic = word("topic").unwrap_or_default();
        if word("ok").as_deref() == Some("commit") {
            commits.on_answer(&topic, word("committed").as_deref(), Instant::now());
            return true;
        }
        match (word("error"), word("for").as_deref()) {
            // Another reader of this cursor is further on.
            (Some(error), Some("commit")) if Reason::parse(&error).is_some_and(|reason| !reason.is_passing()) => {
                output::notice(&format!("{topic}: not committed: {}", word("text").unwrap_or_default()));
                commits.on_answer(&topic, None, Instant::now());
                true
            }
            _ => false,
        }
    }

    fn on_frame(&mut self, text: &str) -> Result<Option<Ended>, Stop> {
        if self.on_committed(text) {
            return Ok(None);
        }
        let mut frame = Members::read(text.as_bytes(), "a frame", DEPTH)
            .map_err(|problem| Stop::new(Exit::Failed, format!("not a frame of a hub: {}", problem.text)))?;
        let mut word = |name: &str| frame.text(name).ok().flatten().map(String::from);
        let (topic, at) = (word("topic"), word("at"));
        if let (Some(topic), Some(at)) = (&topic, &at) {
            self.at.insert(topic.clone(), at.clone());
        }
        if let Some(error) = word("error") {
            return self.on_error(&error, &word("text").unwrap_or_default());
        }
        if let Some(topic) = word("gap") {
            let why = word("why").unwrap_or_default();
            return self.on_missing(&topic, &why);
        }
        if frame.take("resumed").is_some_and(|raw| raw.get() == "false") {
            let why = frame.text("why").ok().flatten().map(String::from).unwrap_or_default();
            return self.on_missing(&topic.unwrap_or_default(), &why);
        }
        if frame.has("hello") {
            self.greeted = true;
            self.patience = patience(frame.take("ping").and_then(|raw| raw.get().parse().ok()));
        }
        if frame.has("data") && topic.is_some() {
            output::line(text)?;
            if let (Some(commits), Some(topic), Some(at)) = (&mut self.commits, &topic, &at) {
                commits.on_printed(topic, at, Instant::now());
            }
            self.left = self.left.map(|left| left - 1);
        }
        Ok((self.left == Some(0)).then_some(Ended::Done))
    }

    fn on_missing(&self, topic: &str, why: &str) -> Result<Option<Ended>, Stop> {
        let text = format!("{topic}: messages were missed ({why})");
        if self.strict {
            return Err(Stop::new(Exit::Gap, text));
        }
        output::notice(&text);
        Ok(None)
    }

    /// What may pass is tried again on a new connection; what will not ends the command.
    fn on_error(&self, error: &str, text: &str) -> Result<Option<Ended>, Stop> {
        let text = format!("{error}: {text}");
        match Reason::parse(error) {
            Some(reason) if reason.is_passing() => Ok(Some(Ended::Lost(text))),
            _ => Err(Stop::new(Exit::Failed, text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_since_takes_is_sent_as_seconds_ago_or_as_a_time() {
        for (text, seconds) in
            [("90s", 90.0), ("15m", 900.0), ("1h", 3600.0), ("2d", 172_800.0), ("500ms", 0.5), ("60", 60.0)]
        {
            let Ok(Since::Ago(ago, _)) = Since::parse(text) else { panic!("{text}") };
            assert_eq!(ago.as_secs_f64(), seconds, "{text}");
        }
        assert_eq!(Since::parse("2026-11-25T12:00:00+09:00").unwrap().json(), "\"2026-11-25T12:00:00+09:00\"");
        for text in ["", "h", "-1h", "yesterday", "1w", "2026-11-25"] {
            assert!(Since::parse(text).is_err(), "{text}");
        }
    }
}
