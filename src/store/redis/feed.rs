//! The feed: one connection with a subscription for each watched topic, kept up over outages of any length.
//!
//! Whether it lives is found out by asking: a connection that only listens learns nothing from silence. After a
//! loss it connects again for ever, subscribes everything in portions and believes only the server's own confirmations.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use redis::{PushInfo, PushKind, Value};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::greeting::Host;
use super::keys::{self, Keys, Kind};
use super::queue::State;
use super::scripts::{Dice, millis, text_of};
use super::watched::{Fed, Line, ONLY, Watched};
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::domain::store::{FeedEvent, Watch};
use crate::endpoint::{Link, Use};

/// Topics in one SUBSCRIBE.
pub(super) const PORTION: usize = 500;
/// How often the record of a watched topic is renewed within the time that it is kept.
pub(super) const RENEWALS: u32 = 4;
/// What append.lua begins a message with.
const FORM: &str = "1";

/// The side of the feed that says what is wanted.
pub(super) struct Feed {
    watched: Arc<Watched>,
    supervisor: AbortHandle,
}

/// The side of the feed that events come out of. The feed ends when this is dropped.
pub(super) struct Events {
    feed: Feed,
}

impl Feed {
    pub fn open(kind: Kind, host: Arc<Host>, state: Arc<State>, runtime: &Handle) -> Feed {
        let watched = Arc::new(Watched::new(host.options.feed_messages, host.options.feed_bytes));
        let supervisor = runtime.spawn(supervise(kind, watched.clone(), host, state)).abort_handle();
        Feed { watched, supervisor }
    }

    /// A feed that another task keeps up.
    pub fn of(watched: Arc<Watched>, supervisor: AbortHandle) -> Feed {
        Feed { watched, supervisor }
    }

    pub fn share(&self) -> Feed {
        Feed { watched: self.watched.clone(), supervisor: self.supervisor.clone() }
    }

    pub fn events(&self) -> Events {
        Events { feed: self.share() }
    }

    pub fn end(&self) {
        self.supervisor.abort();
        self.watched.end();
    }
}

impl Watch for Feed {
    fn watch(&self, topic: &Topic) {
        self.watched.watch(topic);
    }

    fn unwatch(&self, topic: &Topic) {
        self.watched.unwatch(topic);
    }
}

impl Stream for Events {
    type Item = FeedEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<FeedEvent>> {
        self.feed.watched.poll_next(cx)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.feed.end();
    }
}

/// There is no limit of tries, so it does not matter how long an outage lasts.
async fn supervise(kind: Kind, watched: Arc<Watched>, host: Arc<Host>, state: Arc<State>) {
    let mut dice = Dice::default();
    let mut wait = host.options.retry_min;
    loop {
        let (connection, wanted) = watched.begin(ONLY);
        let push = {
            let watched = watched.clone();
            move |info: PushInfo| {
                on_push(kind, &watched, connection, info);
                Ok(())
            }
        };
        let why = match host.endpoint.connect(Use::Pushes(push), host.options.patience()).await {
            Ok(mut link) => {
                let why = follow(kind, &watched, &host, &state, &mut link, wanted).await;
                link.cut().await;
                if let Followed::Restored(_) = why {
                    wait = host.options.retry_min;
                }
                why.text()
            }
            Err(why) => why,
        };
        watched.cut();
        if state.condition().feed.replace(why.clone()).is_none() {
            tracing::warn!(%why, "feed from Redis lost; trying again until it is back");
        }
        sleep(wait.mul_f64(0.75 + 0.5 * dice.fraction())).await;
        wait = (wait * 2).min(host.options.retry_max);
    }
}

/// How the following of a connection ended: after it was whole, or before.
enum Followed {
    Restored(String),
    Failed(String),
}

impl Followed {
    fn text(self) -> String {
        match self {
            Followed::Restored(text) | Followed::Failed(text) => text,
        }
    }
}

async fn follow(
    kind: Kind,
    watched: &Watched,
    host: &Host,
    state: &State,
    link: &mut Link,
    mut wanted: usize,
) -> Followed {
    let mut ping = interval(host.options.ping);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let shortest = host.scripts.rules.all().map(|settings| settings.record).min().unwrap_or_default();
    let mut keep = interval((shortest / RENEWALS).max(Duration::from_millis(100)));
    keep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changes = watched.changes();
    changes.mark_changed();
    let mut whole = false;
    let ended = |whole: bool, why: String| if whole { Followed::Restored(why) } else { Followed::Failed(why) };
    loop {
        let todo = watched.take(ONLY, PORTION);
        let channel = |topic: &Topic| host.names.channel_of(kind, topic);
        let channels = |topics: &[Topic]| topics.iter().map(channel).collect::<Vec<_>>();
        if !todo.unsubscribe.is_empty()
            && let Err(error) = link.connection.unsubscribe(channels(&todo.unsubscribe)).await
        {
            return ended(whole, error.to_string());
        }
        if !todo.subscribe.is_empty() {
            if let Err(error) = link.connection.subscribe(channels(&todo.subscribe)).await {
                return ended(whole, error.to_string());
            }
            if !watched.are_confirmed(&todo.subscribe) {
                return ended(whole, "Redis did not confirm a subscription".into());
            }
        }
        wanted = wanted.saturating_sub(todo.taken);
        if wanted == 0 && !whole {
            whole = true;
            watched.restore();
            state.condition().feed = None;
        }
        if todo.taken > 0 {
            continue;
        }
        tokio::select! {
            _ = changes.changed() => {}
            why = link.ended() => return ended(whole, why),
            _ = keep.tick(), if kind == Kind::Topics => {
                if let Err(error) = keep_records(watched, host, link).await {
                    return ended(whole, error.to_string());
                }
            }
            _ = ping.tick() => {
                if let Err(error) = redis::cmd("PING").exec_async(&mut link.connection).await {
                    return ended(whole, error.to_string());
                }
            }
        }
    }
}

/// Puts the end of the records of watched topics off, so that a quiet topic that somebody listens to stays the same one.
async fn keep_records(watched: &Watched, host: &Host, link: &mut Link) -> redis::RedisResult<()> {
    for topics in watched.wanted(ONLY).chunks(PORTION) {
        let mut pipeline = redis::pipe();
        for topic in topics {
            let meta = keys::meta(&host.names.base(host.names.group_of(topic)), topic);
            let settings = host.scripts.rules.of(topic);
            let time = millis(settings.age.saturating_add(settings.record));
            pipeline.cmd("PEXPIRE").arg(meta).arg(time).arg("GT");
        }
        // A refusal (while it loads, or as a replica) harms nothing: it is tried again.
        pipeline.ignore_errors();
        let _: Vec<redis::RedisResult<Value>> = pipeline.query_async(&mut link.connection).await?;
    }
    Ok(())
}

/// Runs on the connection's own task: it must not wait.
fn on_push(kind: Kind, watched: &Watched, connection: u64, info: PushInfo) {
    match (info.kind, <[Value; 2]>::try_from(info.data)) {
        (PushKind::Message, Ok([channel, Value::BulkString(payload)])) => {
            hear(kind, watched, ONLY, connection, &channel, payload.into());
        }
        (PushKind::Subscribe, Ok([channel, _])) => {
            if let Some(name) = text_of(&channel).and_then(Keys::topic_of) {
                watched.confirm(ONLY, connection, name);
            }
        }
        _ => {}
    }
}

/// Takes in what came over a channel.
pub(super) fn hear(kind: Kind, watched: &Watched, line: Line, connection: u64, channel: &Value, payload: Bytes) {
    if kind == Kind::Queues {
        if let Some(name) = text_of(channel).and_then(Keys::topic_of) {
            watched.message(line, connection, name, Fed { at: Position::NOWHERE, time: 0, expires: None }, payload);
        }
    } else if let Some((fed, name, body)) = decode(&payload) {
        watched.message(line, connection, name, fed, payload.slice(body..));
    }
}

/// Reads `1 epoch offset time expires topic body`; answers where the body begins.
fn decode(payload: &[u8]) -> Option<(Fed, &str, usize)> {
    let mut parts = payload.splitn(7, |byte| *byte == b' ').map(|part| std::str::from_utf8(part).ok());
    if parts.next()?? != FORM {
        return None;
    }
    let (epoch, offset, time) = (parts.next()??, parts.next()??, parts.next()??);
    let (expires, name) = (parts.next()??, parts.next()??);
    let at = Position::new(epoch.parse().ok()?, offset.parse().ok()?);
    // The body may be any bytes, so its place is counted, not read.
    let before = [FORM, epoch, offset, time, expires, name].iter().map(|part| part.len() + 1).sum();
    let expires = Some(expires.parse().ok()?).filter(|expires| *expires != 0);
    Some((Fed { at, time: time.parse().ok()?, expires }, name, before))
}
