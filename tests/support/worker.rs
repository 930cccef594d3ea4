//! Workers over a WebSocket: each takes from some queues, works on a job for a moment and acknowledges it, or fails the
//! first time. It comes back when its connection ends, and asks again where an answer leaves open what became of a job.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use crate::checker::{Answer, Clock, Delivery, Ended, Mark};
use crate::listener::{Nodes, Socket};

/// The wait before what was refused for now is asked again.
const AGAIN: Duration = Duration::from_millis(200);
/// The wait before it connects again.
const BACK: Duration = Duration::from_millis(20);
const CONNECTED: Duration = Duration::from_secs(5);
/// Each so-manieth job fails at its first try.
const FAILS: u64 = 23;

#[derive(Clone)]
pub struct Plan {
    pub clock: Clock,
    pub nodes: Nodes,
    /// The node that it goes to while that one lives.
    pub first: usize,
    pub queues: Vec<&'static str>,
    pub credit: usize,
    /// How long it works on a job, and up to as long again.
    pub moment: Duration,
}

/// What a worker has to tell.
#[derive(Debug, Default)]
pub struct Notes {
    pub deliveries: Vec<Delivery>,
    pub ends: Vec<Ended>,
    /// When its connections ended, and how many jobs it held then.
    pub cuts: Vec<(Duration, usize)>,
}

pub struct Worker {
    pub name: String,
    /// Jobs that it holds, and those that it has got in all.
    pub holds: watch::Receiver<(usize, u64)>,
    cut: Arc<Notify>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Notes>,
}

impl Worker {
    pub fn start(name: String, plan: Plan) -> Worker {
        let (stop, stopped) = watch::channel(false);
        let (holding, holds) = watch::channel((0, 0));
        let cut = Arc::<Notify>::default();
        let hand = Hand { plan, notes: Notes::default(), holding, held: HashMap::new(), asked: HashMap::new() };
        let task = tokio::spawn(hand.run(cut.clone(), stopped));
        Worker { name, holds, cut, stop, task }
    }

    /// It dies as far as the hub can see: its line ends without a word, and what it held it forgets.
    pub fn cut(&self) {
        self.cut.notify_one();
    }

    pub async fn until(&mut self, what: &str, patience: Duration, met: impl FnMut(&(usize, u64)) -> bool) {
        let is_met = matches!(timeout(patience, self.holds.wait_for(met)).await, Ok(Ok(_)));
        assert!(is_met, "{}: {what}, not within {patience:?}", self.name);
    }

    pub async fn stop(self) -> Notes {
        self.stop.send_replace(true);
        self.task.await.expect("a worker hears what it understands")
    }
}

struct Hand {
    plan: Plan,
    notes: Notes,
    holding: watch::Sender<(usize, u64)>,
    /// By their tags on this connection.
    held: HashMap<String, Held>,
    /// What it asked, by id, and waits for.
    asked: HashMap<u64, (String, Duration)>,
}

#[derive(Clone)]
struct Held {
    queue: String,
    delivery: usize,
    /// When it is through with it. `None`: it has said so.
    due: Option<Instant>,
    fails: bool,
}

impl Hand {
    async fn run(mut self, cut: Arc<Notify>, mut stopped: watch::Receiver<bool>) -> Notes {
        while !*stopped.borrow() {
            let Some(node) = self.plan.nodes.pick(self.plan.first) else {
                sleep(BACK).await;
                continue;
            };
            if let Ok(Ok((socket, _))) = timeout(CONNECTED, connect_async(format!("ws://{node}/ws"))).await {
                tokio::select! {
                    _ = self.work(socket) => {}
                    () = cut.notified() => {}
                    _ = stopped.wait_for(|stopped| *stopped) => {}
                }
                self.on_cut();
            }
            sleep(BACK).await;
        }
        self.notes
    }

    /// Until the connection ends.
    async fn work(&mut self, mut socket: Socket) -> Option<()> {
        let mut takes: Vec<(Instant, &'static str)> = self.plan.queues.iter().map(|q| (Instant::now(), *q)).collect();
        for id in 1u64.. {
            let due = self.held.iter().filter_map(|(tag, held)| Some((held.due?, tag.clone()))).min();
            let take = takes.iter().copied().min();
            let wake = due.iter().map(|(at, _)| *at).chain(take.map(|(at, _)| at)).min();
            let wait = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = socket.next() => match message?.ok()? {
                    Message::Text(text) => {
                        let frame = serde_json::from_str(&text).expect("JSON");
                        if let Some(queue) = self.hear(&frame) {
                            takes.push((Instant::now() + AGAIN, queue));
                        }
                    }
                    Message::Close(_) => return None,
                    _ => {}
                },
                () = wait => {
                    let now = Instant::now();
                    if let Some((at, queue)) = take && at <= now {
                        takes.retain(|(_, other)| *other != queue);
                        let frame = json!({ "take": queue, "credit": self.plan.credit });
                        socket.send(Message::text(frame.to_string())).await.ok()?;
                    }
                    if let Some((at, tag)) = due && at <= now {
                        let frame = self.settle(id, tag);
                        socket.send(Message::text(frame.to_string())).await.ok()?;
                    }
                }
            }
        }
        None
    }

    fn settle(&mut self, id: u64, tag: String) -> Value {
        let held = self.held.get_mut(&tag).expect("it is held");
        held.due = None;
        self.asked.insert(id, (tag.clone(), self.plan.clock.now()));
        match held.fails {
            true => json!({ "id": id, "nack": tag, "delay": 0.05 }),
            false => json!({ "id": id, "ack": tag }),
        }
    }

    /// Gives a queue whose take was refused for now.
    fn hear(&mut self, frame: &Value) -> Option<&'static str> {
        let word = |name: &str| frame[name].as_str();
        if let (Some(queue), Some(job), Some(tag)) = (word("queue"), word("job"), word("tag")) {
            let mark = Mark::parse(queue, word("data").expect("text"));
            let tries = frame["try"].as_u64().expect("a number") as u32;
            let moment = self.plan.moment + self.plan.moment * (mark.n % 8) as u32 / 8;
            let fails = tries == 1 && mark.n % FAILS == FAILS - 1;
            self.notes.deliveries.push(Delivery {
                queue: queue.to_owned(),
                job: job.parse().expect("the id of a job"),
                mark,
                group: word("group").map(str::to_owned),
                tries,
                got: self.plan.clock.now(),
            });
            let delivery = self.notes.deliveries.len() - 1;
            let due = Some(Instant::now() + moment);
            self.held.insert(tag.to_owned(), Held { queue: queue.to_owned(), delivery, due, fails });
            let count = self.held.len();
            self.holding.send_modify(|(holds, all)| (*holds, *all) = (count, *all + 1));
        } else if let Some(tag) = word("lost") {
            // What was asked of it is still answered.
            if self.held.get(tag).is_some_and(|held| held.due.is_some()) {
                self.let_go(tag);
            }
        } else if let Some((tag, asked)) = frame["id"].as_u64().and_then(|id| self.asked.remove(&id)) {
            let failed = if word("error").is_some() { &frame["error"] } else { &frame["failed"][&tag] };
            match failed.as_str() {
                None => self.end(&tag, asked, Answer::Yes(None)),
                Some("no-lease") => self.end(&tag, asked, Answer::No),
                Some("unavailable" | "unconfirmed") => {
                    self.note_end(&tag, asked, Answer::Unknown);
                    if let Some(held) = self.held.get_mut(&tag) {
                        held.due = Some(Instant::now() + AGAIN);
                    }
                }
                Some(_) => panic!("no worker can do anything with this: {frame}"),
            }
        } else if word("error").is_some() {
            let is_known = word("for") == Some("take") && word("error") == Some("unavailable");
            assert!(is_known, "no worker can do anything with this: {frame}");
            let queue = word("queue").expect("a take is of a queue");
            return self.plan.queues.iter().copied().find(|name| *name == queue);
        }
        None
    }

    fn end(&mut self, tag: &str, asked: Duration, answer: Answer) {
        self.note_end(tag, asked, answer);
        self.let_go(tag);
    }

    fn note_end(&mut self, tag: &str, asked: Duration, answer: Answer) {
        let Some(Held { queue, delivery, fails, .. }) = self.held.get(tag).cloned() else { return };
        let Delivery { job, tries, .. } = self.notes.deliveries[delivery];
        let answered = self.plan.clock.now();
        self.notes.ends.push(Ended { queue, job, tries, is_ack: !fails, asked, answered, answer });
    }

    fn let_go(&mut self, tag: &str) {
        self.held.remove(tag);
        let count = self.held.len();
        self.holding.send_modify(|(holds, _)| *holds = count);
    }

    fn on_cut(&mut self) {
        self.notes.cuts.push((self.plan.clock.now(), self.held.len()));
        for (_, (tag, asked)) in std::mem::take(&mut self.asked) {
            self.note_end(&tag, asked, Answer::Unknown);
        }
        self.held.clear();
        self.holding.send_modify(|(holds, _)| *holds = 0);
    }
}
