//! Back ends with nothing but a Redis client: plain XADD and RPUSH, pipelined, at a steady pace.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tokio::time::MissedTickBehavior;

use crate::history::{Answer, Mark, Publish};

/// Commands in one pipeline.
const PIPELINE: u64 = 25;
/// How long Redis may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
pub enum Door {
    Xadd,
    Rpush,
}

impl Door {
    pub fn name(self) -> &'static str {
        match self {
            Door::Xadd => "xadd",
            Door::Rpush => "rpush",
        }
    }

    fn add(self, pipeline: &mut redis::Pipeline, topic: &str, mark: &Mark) {
        match self {
            Door::Xadd => pipeline.cmd("XADD").arg("fanfare:in").arg("*").arg("topic").arg(topic),
            Door::Rpush => pipeline.cmd("RPUSH").arg("fanfare:list"),
        };
        match self {
            Door::Xadd => pipeline.arg("data").arg(format!("\"{mark}\"")),
            Door::Rpush => pipeline.arg(format!(r#"{{"topic":"{topic}","data":"{mark}"}}"#)),
        };
    }
}

pub async fn connect(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("a URL");
    // A machine with other work may let us wait.
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
    client.get_multiplexed_async_connection_with_config(&patient).await.expect("Redis runs")
}

/// Publishes so many messages, one topic after the other, and so many a second.
pub async fn publish(url: String, door: Door, topics: Vec<String>, count: u64, pace: u64) -> Vec<Publish> {
    let mut connection = connect(&url).await;
    let mut tick = tokio::time::interval(Duration::from_secs(1) * PIPELINE as u32 / pace as u32);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut published = Vec::with_capacity(count as usize);
    for first in (0..count).step_by(PIPELINE as usize) {
        tick.tick().await;
        let numbers = first..(first + PIPELINE).min(count);
        published.extend(send(&mut connection, door, door.name(), &topics, numbers).await);
    }
    published
}

/// One message to each topic, under a name of its own.
pub async fn probe(url: &str, door: Door, by: &str, topics: &[String]) -> Vec<Publish> {
    send(&mut connect(url).await, door, by, topics, 0..topics.len() as u64).await
}

async fn send(
    connection: &mut MultiplexedConnection,
    door: Door,
    by: &str,
    topics: &[String],
    numbers: std::ops::Range<u64>,
) -> Vec<Publish> {
    let (mut pipeline, mut published) = (redis::pipe(), Vec::new());
    for n in numbers {
        let (topic, mark) = (&topics[n as usize % topics.len()], Mark::new(by, n));
        door.add(&mut pipeline, topic, &mark);
        published.push(Publish { topic: topic.clone(), mark, answer: Answer::Yes(None), asked: Instant::now() });
    }
    pipeline.exec_async(connection).await.expect("this Redis takes everything");
    published
}
