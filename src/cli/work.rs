//! `fanfare work`: takes jobs of a queue and has a program do them.
//!
//! Jobs come over a WebSocket within a credit. Each run of the program gets up to `--batch` of them, one JSON line each; its
//! exit code answers those that it has not answered itself. What runs is held by extending its leases. A line that is cut
//! gives the jobs of its connection back; what runs then goes on, and its answers are told to be too late.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use clap::Args;
use futures::{SinkExt, StreamExt};
use reqwest::Url;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tungstenite::{Error, Message};

use super::answers::{ANSWERS, Answer, Said, answer, settle};
use super::hub::Address;
use super::program::{self, About, End};
use super::signals::Signals;
use super::socket::{self, Ended, Socket, Waits, connect, on_close, patience};
use super::{Exit, Stop, output};
use crate::document::quote;
use crate::domain::error::Reason;

/// How long the first job of a batch waits for others.
const GATHER: Duration = Duration::from_millis(50);
/// Answers of programs that wait to be sent.
const AHEAD: usize = 1_000;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    address: Address,
    /// The queue to work on
    queue: String,
    /// What the shell is to run; jobs come as JSON lines on its standard input
    #[arg(long, value_name = "CMD")]
    exec: String,
    /// Jobs that one run gets at most
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    batch: u16,
    /// Jobs held at once; as many programs run as batches fit in [default: one batch]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    credit: Option<u16>,
    /// How long a job is held without being extended, in seconds
    #[arg(long, value_name = "SECONDS")]
    lease: Option<f64>,
}

pub async fn run(arguments: Arguments) -> Result<(), Stop> {
    let url = socket::address(&arguments.address)?;
    let wrong = |error: std::io::Error| Stop::new(Exit::Failed, format!("signals: {error}"));
    let signals = Signals::listen().map_err(wrong)?;
    let mut worker = Worker::new(&arguments, arguments.address.url()?.to_string(), signals);
    let mut waits = Waits::new();
    let mut reached = false;
    loop {
        match worker.work(&url).await {
            Ok(Ended::Done) => return Ok(()),
            Ok(Ended::Lost(why)) => {
                if std::mem::take(&mut worker.greeted) {
                    reached = true;
                    waits.begin_again();
                }
                worker.forget();
                output::notice(&format!("{why}; coming back"));
            }
            Err(stop) if stop.exit == Exit::Unreachable && reached => {}
            Err(stop) => return Err(stop),
        }
        if worker.pass_away(waits.next()).await {
            return Ok(());
        }
    }
}

/// A job that was taken, as its frame says.
struct Held {
    tag: String,
    job: String,
    tries: u64,
    lease: Duration,
    extend_at: Instant,
    line: String,
}

/// A run of the program.
struct Run {
    /// The tags that are still to be answered.
    open: Vec<String>,
    lease: Duration,
    extend_at: Instant,
    group: Option<u32>,
}

enum News {
    Line(String),
    End(End),
}

struct Worker<'a> {
    arguments: &'a Arguments,
    url: String,
    signals: Signals,
    /// Taken, and not begun.
    waiting: VecDeque<Held>,
    gather_until: Instant,
    runs: HashMap<u64, Run>,
    said: Said,
    number: u64,
    news: mpsc::Receiver<(u64, News)>,
    tell: mpsc::Sender<(u64, News)>,
    /// It takes no more, and ends when all that runs has ended.
    ending: bool,
    greeted: bool,
    patience: Duration,
    /// Bytes of a frame that the hub takes.
    most: usize,
}

impl<'a> Worker<'a> {
    fn new(arguments: &'a Arguments, url: String, signals: Signals) -> Worker<'a> {
        let (tell, news) = mpsc::channel(AHEAD);
        Worker {
            arguments,
            url,
            signals,
            waiting: VecDeque::new(),
            gather_until: Instant::now(),
            runs: HashMap::new(),
            said: Said::new(Instant::now()),
            number: 0,
            news,
            tell,
            ending: false,
            greeted: false,
            patience: socket::CONNECT_TIME,
            most: 64 * 1024,
        }
    }

    fn batch(&self) -> usize {
        self.arguments.batch.into()
    }

    fn credit(&self) -> usize {
        self.arguments.credit.unwrap_or(self.arguments.batch).into()
    }

    async fn work(&mut self, url: &Url) -> Result<Ended, Stop> {
        let mut socket = connect(url).await?;
        let queue = quote(&self.arguments.queue);
        let lease = self.arguments.lease.map(|lease| format!(",\"lease\":{lease}")).unwrap_or_default();
        let take = format!("{{\"id\":\"take\",\"take\":{queue},\"credit\":{}{lease}}}", self.credit());
        if let Err(error) = send(&mut socket, take).await {
            return Ok(Ended::Lost(error.to_string()));
        }
        let mut heard = Instant::now();
        loop {
            self.begin_runs();
            if let Err(error) = self.speak(&mut socket).await {
                return Ok(Ended::Lost(error.to_string()));
            }
            if self.ending && self.runs.is_empty() && self.said.is_empty() {
                return Ok(self.untake(&mut socket).await);
            }
            let silent_at = heard + self.patience;
            let wake = self.next_wake().map_or(silent_at, |at| at.min(silent_at));
            tokio::select! {
                frame = socket.next() => {
                    heard = Instant::now();
                    match frame {
                        None => return Ok(Ended::Lost("the connection ended".into())),
                        Some(Err(error)) => return Ok(Ended::Lost(error.to_string())),
                        Some(Ok(Message::Text(text))) => if let Some(ended) = self.on_frame(&text)? {
                            return Ok(ended);
                        },
                        Some(Ok(Message::Close(Some(close)))) => return on_close(close.code.into(), &close.reason),
                        Some(Ok(_)) => {}
                    }
                }
                Some((number, news)) = self.news.recv() => self.on_news(number, news),
                () = self.signals.next() => {
                    if self.on_signal() {
                        return Ok(Ended::Done);
                    }
                    self.said.frames([format!("{{\"take\":{queue},\"credit\":0}}")]);
                }
                () = tokio::time::sleep_until(wake) => {
                    if Instant::now() >= silent_at {
                        return Ok(Ended::Lost(format!("nothing came for {} s", self.patience.as_secs())));
                    }
                    self.extend(Instant::now());
                }
            }
        }
    }

    async fn speak(&mut self, socket: &mut Socket) -> Result<(), Error> {
        for frame in self.said.take(Instant::now()) {
            send(socket, frame).await?;
        }
        Ok(())
    }

    /// Gives back what was not begun, and goes.
    async fn untake(&mut self, socket: &mut Socket) -> Ended {
        let untake = format!("{{\"id\":\"untake\",\"untake\":{}}}", quote(&self.arguments.queue));
        let answered = async {
            send(socket, untake).await.ok()?;
            loop {
                let Message::Text(text) = socket.next().await?.ok()? else { continue };
                let frame: Value = serde_json::from_str(&text).unwrap_or_default();
                if frame["id"] == "untake" {
                    return Some(());
                }
            }
        };
        if timeout(socket::CONNECT_TIME, answered).await.ok().flatten().is_none() {
            output::notice("what was not begun is not known to be given back; it comes back by itself");
        }
        let _ = timeout(socket::FIRST_WAIT, socket.close(None)).await;
        Ended::Done
    }

    /// Starts programs while there are jobs for them and room.
    fn begin_runs(&mut self) {
        let most = (self.credit() / self.batch()).max(1);
        while !self.ending && self.runs.len() < most && !self.waiting.is_empty() {
            if self.waiting.len() < self.batch() && Instant::now() < self.gather_until {
                return;
            }
            let count = self.waiting.len().min(self.batch());
            let jobs: Vec<Held> = self.waiting.drain(..count).collect();
            self.begin(jobs);
        }
    }

    fn begin(&mut self, jobs: Vec<Held>) {
        let Some(first) = jobs.first() else { return };
        let about = About {
            queue: self.arguments.queue.clone(),
            url: self.url.clone(),
            job: first.job.clone(),
            tries: first.tries,
        };
        self.number += 1;
        let (number, tell) = (self.number, self.tell.clone());
        let lease = jobs.iter().map(|job| job.lease).min().unwrap_or_default();
        let lines: String = jobs.iter().map(|job| format!("{}\n", job.line)).collect();
        let child = program::start(&self.arguments.exec, &about);
        let group = child.as_ref().ok().and_then(|child| child.id());
        let extend_at = jobs.iter().map(|job| job.extend_at).min().unwrap_or_else(Instant::now);
        let open = jobs.into_iter().map(|job| job.tag).collect();
        self.runs.insert(number, Run { open, lease, extend_at, group });
        tokio::spawn(async move {
            let end = match child {
                Err(error) => End::Failed(format!("the program was not started: {error}")),
                Ok(child) => {
                    let (lines_out, mut lines_in) = mpsc::channel(AHEAD);
                    let attend = program::attend(child, lines, lines_out);
                    let hand_on = async {
                        while let Some(line) = lines_in.recv().await {
                            let _ = tell.send((number, News::Line(line))).await;
                        }
                    };
                    tokio::join!(attend, hand_on).0
                }
            };
            let _ = tell.send((number, News::End(end))).await;
        });
    }

    fn next_wake(&self) -> Option<Instant> {
        let runs = self.runs.values().filter(|run| !run.open.is_empty()).map(|run| run.extend_at);
        let extend = runs.chain(self.waiting.iter().map(|held| held.extend_at)).min();
        let gather = Some(self.gather_until).filter(|_| !self.waiting.is_empty() && !self.ending);
        let gather = gather.filter(|at| *at > Instant::now());
        [extend, gather, self.said.next()].into_iter().flatten().min()
    }

    /// Holds on to what runs, and to what waits to be run.
    fn extend(&mut self, now: Instant) {
        for run in self.runs.values_mut().filter(|run| run.extend_at <= now && !run.open.is_empty()) {
            run.extend_at = now + run.lease / 3;
            self.said.frames(settle("extend", &run.open, json!({ "by": run.lease.as_secs_f64() })));
        }
        for held in self.waiting.iter_mut().filter(|held| held.extend_at <= now) {
            held.extend_at = now + held.lease / 3;
            let by = json!({ "by": held.lease.as_secs_f64() });
            self.said.frames(settle("extend", std::slice::from_ref(&held.tag), by));
        }
    }

    fn on_frame(&mut self, text: &str) -> Result<Option<Ended>, Stop> {
        let frame: Value = serde_json::from_str(text)
            .map_err(|error| Stop::new(Exit::Failed, format!("not a frame of a hub: {error}")))?;
        let word = |name: &str| frame[name].as_str().unwrap_or_default().to_owned();
        if frame["hello"].is_string() {
            self.greeted = true;
            self.patience = patience(frame["ping"].as_f64());
            self.most = frame["max"].as_u64().map_or(self.most, |most| most as usize);
        } else if let Some(tag) = frame["lost"].as_str() {
            output::notice(&format!("{tag}: its lease has ended; another worker may have it"));
            self.waiting.retain(|held| held.tag != tag);
            self.runs.values_mut().for_each(|run| run.open.retain(|open| open != tag));
        } else if frame["error"].is_string() {
            let text = format!("{}: {}", word("error"), word("text"));
            let of_a_job = frame["tag"].is_string() || ANSWERS.contains(&word("for").as_str());
            return match Reason::parse(&word("error")) {
                _ if of_a_job => {
                    output::notice(&format!("{} {}: {text}", word("for"), word("tag")));
                    Ok(None)
                }
                Some(reason) if reason.is_passing() => Ok(Some(Ended::Lost(text))),
                _ => Err(Stop::new(Exit::Failed, text)),
            };
        } else if frame["queue"].is_string() && frame.get("data").is_some() {
            if self.waiting.is_empty() {
                self.gather_until = Instant::now() + GATHER;
            }
            let lease = Duration::try_from_secs_f64(frame["lease"].as_f64().unwrap_or(30.0)).unwrap_or_default();
            let lease = lease.max(Duration::from_millis(100));
            self.waiting.push_back(Held {
                tag: word("tag"),
                job: word("job"),
                tries: frame["try"].as_u64().unwrap_or(1),
                lease,
                extend_at: Instant::now() + lease / 3,
                line: text.to_owned(),
            });
        }
        Ok(None)
    }

    fn on_news(&mut self, number: u64, news: News) {
        match news {
            News::Line(line) => {
                let Some(run) = self.runs.get_mut(&number) else { return };
                match answer(&line, &mut run.open, self.most) {
                    Answer::Frame => self.said.frames([line]),
                    Answer::Wrong(why) => output::notice(&format!("{why}: {line:.200}")),
                    // Whoever reads it may have gone; the jobs are no worse for it.
                    Answer::None => drop(output::line(&line)),
                }
            }
            News::End(end) => {
                let Some(run) = self.runs.remove(&number) else { return };
                match end {
                    End::Done => self.said.done(run.open),
                    End::Failed(why) => self.said.frames(settle("nack", &run.open, json!({ "text": why }))),
                }
            }
        }
    }

    /// The first signal ends the taking, the second all. Answers whether it is over.
    fn on_signal(&mut self) -> bool {
        if std::mem::replace(&mut self.ending, true) {
            self.runs.values().filter_map(|run| run.group).for_each(program::kill);
            return true;
        }
        if !self.runs.is_empty() {
            output::notice("finishing what runs; once more ends it at once");
        }
        false
    }

    /// The connection is gone: so are its deliveries.
    fn forget(&mut self) {
        self.waiting.clear();
        self.said.clear();
        self.runs.values_mut().for_each(|run| run.open.clear());
    }

    /// Waits before coming back, with an ear for signals and for what ends; answers whether it is over.
    async fn pass_away(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            if self.ending && self.runs.is_empty() {
                return true;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until), if !self.ending => return false,
                Some((number, news)) = self.news.recv() => self.on_news(number, news),
                () = self.signals.next() => if self.on_signal() {
                    return true;
                },
            }
        }
    }
}

async fn send(socket: &mut Socket, frame: String) -> Result<(), Error> {
    socket.send(Message::text(frame)).await
}
