//! Those who put jobs: by HTTP under idempotency keys, repeated until they are told where the job is, and by WebSocket,
//! each once. Each writes down what it asks and what it is told.

use std::time::Duration;

use fanfare::domain::position::Position;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use crate::checker::{Answer, Clock, JobPut, Mark};
use crate::listener::{Nodes, Socket};
use crate::publisher::Tally;

/// How a producer puts one job.
pub enum Way {
    Http(reqwest::Client),
    WebSocket(Option<Box<Socket>>),
}

/// What it puts, and where.
#[derive(Clone)]
pub struct Plan {
    pub clock: Clock,
    pub nodes: Nodes,
    /// The node that it goes to while that one lives.
    pub first: usize,
    /// One after the other; where a number stands beside it, its jobs are in so many groups.
    pub queues: Vec<(&'static str, u64)>,
    pub pace: Duration,
    /// How long an answer may take until it counts as none.
    pub patience: Duration,
    /// Bytes beside the mark.
    pub padding: usize,
    /// The level that is asked for, if any.
    pub durability: Option<&'static str>,
}

pub struct Producer {
    pub name: String,
    pub tally: watch::Receiver<Tally>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<JobPut>>,
}

impl Producer {
    pub fn by_http(name: &str, plan: Plan) -> Producer {
        let client = reqwest::Client::builder().no_proxy().timeout(plan.patience).build().expect("a client");
        Producer::start(name, Way::Http(client), plan)
    }

    pub fn by_websocket(name: &str, plan: Plan) -> Producer {
        Producer::start(name, Way::WebSocket(None), plan)
    }

    fn start(name: &str, mut way: Way, plan: Plan) -> Producer {
        let (stop, stopped) = watch::channel(false);
        let (sender, tally) = watch::channel(Tally::default());
        let by = name.to_owned();
        let task = tokio::spawn(async move {
            let (mut puts, clock) = (Vec::new(), plan.clock);
            let mut tick = tokio::time::interval(plan.pace);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for n in 0.. {
                let mark = Mark::new(&by, n);
                let (queue, groups) = plan.queues[n as usize % plan.queues.len()];
                let group = (groups > 0).then(|| format!("g{}", (n / plan.queues.len() as u64) % groups));
                let repeats = matches!(way, Way::Http(_));
                loop {
                    tick.tick().await;
                    let asked = clock.now();
                    let answer = way.put(&plan, queue, group.as_deref(), &mark).await;
                    let answered = clock.now();
                    sender.send_modify(|tally| {
                        match answer {
                            Answer::Yes(_) => tally.yes += 1,
                            Answer::No => tally.no += 1,
                            Answer::Unknown => tally.unknown += 1,
                        }
                        tally.slowest = tally.slowest.max(answered - asked);
                    });
                    let key = repeats.then(|| format!("key {mark}"));
                    let (queue, mark, group) = (queue.to_owned(), mark.clone(), group.clone());
                    puts.push(JobPut { queue, mark, group, key, asked, answered, answer });
                    if matches!(answer, Answer::Yes(_)) || !repeats || *stopped.borrow() {
                        break;
                    }
                }
                if *stopped.borrow() {
                    break;
                }
            }
            puts
        });
        Producer { name: name.to_owned(), tally, stop, task }
    }

    /// Waits until so many more jobs were put.
    pub async fn until_more(&mut self, more: u64, patience: Duration) {
        let enough = self.tally.borrow().yes + more;
        let waiting = self.tally.wait_for(|tally| tally.yes >= enough);
        let has_more = matches!(timeout(patience, waiting).await, Ok(Ok(_)));
        assert!(has_more, "{} gets no yes within {patience:?}: {:?}", self.name, self.tally());
    }

    pub fn tally(&self) -> Tally {
        *self.tally.borrow()
    }

    pub async fn stop(self) -> Vec<JobPut> {
        self.stop.send_replace(true);
        self.task.await.expect("a producer gets answers that it understands")
    }
}

impl Way {
    async fn put(&mut self, plan: &Plan, queue: &str, group: Option<&str>, mark: &Mark) -> Answer {
        let Some(node) = plan.nodes.pick(plan.first) else { return Answer::No };
        let mut payload = mark.payload(queue);
        if plan.padding > 0 {
            payload = format!("{payload} {}", "x".repeat(plan.padding));
        }
        match self {
            Way::Http(client) => {
                let url = format!("http://{node}/v1/queues/{queue}/messages");
                let options = [("group", group), ("durability", plan.durability)];
                let options: Vec<_> = options.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
                let query = options.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
                let request = client.post(format!("{url}?{query}")).json(&payload);
                let request = request.header("idempotency-key", mark.to_string());
                let answer = match request.send().await {
                    Ok(answer) => answer,
                    // Nobody took it.
                    Err(error) if error.is_connect() => return Answer::No,
                    Err(_) => return Answer::Unknown,
                };
                let status = answer.status().as_u16();
                let Ok(body) = answer.json::<Value>().await else { return Answer::Unknown };
                match (status, body["reason"].as_str()) {
                    (200 | 201, _) => Answer::Yes(Some(job(&body["job"]))),
                    (_, Some(word)) => refused(word, &body),
                    _ => panic!("{status}: {body}"),
                }
            }
            Way::WebSocket(socket) => {
                if socket.is_none() {
                    match timeout(plan.patience, connect_async(format!("ws://{node}/ws"))).await {
                        Ok(Ok((fresh, _))) => *socket = Some(Box::new(fresh)),
                        _ => return Answer::No,
                    }
                }
                let mut open = socket.take().expect("it was opened");
                let mut frame = json!({ "id": mark.n, "put": queue, "data": payload });
                if let Some(group) = group {
                    frame["group"] = group.into();
                }
                if let Some(level) = plan.durability {
                    frame["durability"] = level.into();
                }
                let asking = async {
                    open.send(Message::text(frame.to_string())).await.ok()?;
                    loop {
                        match open.next().await?.ok()? {
                            Message::Text(text) => {
                                let answer: Value = serde_json::from_str(&text).expect("JSON");
                                if answer["hello"].is_null() {
                                    return Some(answer);
                                }
                            }
                            Message::Close(_) => return None,
                            _ => {}
                        }
                    }
                };
                let Ok(Some(answer)) = timeout(plan.patience, asking).await else { return Answer::Unknown };
                *socket = Some(open);
                assert_eq!(answer["id"], mark.n, "{answer}");
                match answer["error"].as_str() {
                    None => Answer::Yes(Some(job(&answer["job"]))),
                    Some(word) => refused(word, &answer),
                }
            }
        }
    }
}

fn refused(word: &str, answer: &Value) -> Answer {
    match word {
        "unavailable" | "storage-full" => Answer::No,
        "unconfirmed" => Answer::Unknown,
        _ => panic!("no producer can do anything with this: {answer}"),
    }
}

fn job(value: &Value) -> Position {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("the id of a job: {value}"))
}
