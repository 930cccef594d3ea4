//! The feed of a cluster: a connection to each master, with a sharded subscription for each watched topic of its slots.
//!
//! A server that loses a slot gives its subscriptions up and says so; one that dies says nothing. Either way the chart is
//! looked at again, and the topics concerned are subscribed where their slot is now and told `Watching` again. The others
//! notice nothing.
//!
//! What a server says unasked looks like an answer to the crate, which would give it to the command that waits for one. So
//! nothing waits for an answer here: commands go without one, everything comes in as a push, and a mark that the server
//! throws back tells how far it is.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, PushInfo, PushKind, Value};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::domain::name::Topic;
use crate::endpoint::{Chart, Link, Place, Use};
use crate::store::redis::feed::{Feed, PORTION, RENEWALS, hear};
use crate::store::redis::greeting::Host;
use crate::store::redis::keys::{self, Keys, Kind};
use crate::store::redis::queue::State;
use crate::store::redis::scripts::{Dice, millis, text_of};
use crate::store::redis::watched::{Line, Watched};

/// The line of topics whose slot nobody serves: no one takes from it.
const NOWHERE: Line = Line::MAX;
/// Before a subscription that was refused is asked for again.
const REFUSED: Duration = Duration::from_millis(50);

/// What all lines share.
struct Lines {
    kind: Kind,
    host: Arc<Host>,
    chart: Chart,
    watched: Arc<Watched>,
    /// The line of each group.
    deal: Arc<Mutex<Vec<Line>>>,
    troubles: Mutex<BTreeMap<Line, String>>,
    state: Arc<State>,
}

/// One line; it ends when this is dropped.
struct Running {
    line: Line,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn open(kind: Kind, host: Arc<Host>, chart: Chart, state: Arc<State>, runtime: &Handle) -> Feed {
    let deal = Arc::new(Mutex::new(vec![NOWHERE; usize::from(host.names.places(kind))]));
    let (dealt, names) = (deal.clone(), host.names.clone());
    let line_of = move |topic: &Topic| {
        let lines = dealt.lock().unwrap_or_else(PoisonError::into_inner);
        lines[usize::from(names.place_of(kind, topic))]
    };
    let watched = Arc::new(Watched::dealt(host.options.feed_messages, host.options.feed_bytes, line_of));
    let lines = Lines { kind, host, chart, watched: watched.clone(), deal, troubles: Mutex::default(), state };
    Feed::of(watched, runtime.spawn(supervise(Arc::new(lines))).abort_handle())
}

/// Keeps a line to each server that has slots of ours.
async fn supervise(lines: Arc<Lines>) {
    let mut running: HashMap<Place, Running> = HashMap::new();
    let mut count: Line = 0;
    let mut chart = lines.chart.clone();
    loop {
        let slots = chart.slots();
        let (kind, names) = (lines.kind, &lines.host.names);
        let owners: Vec<Option<&Place>> =
            (0..names.places(kind)).map(|place| slots.owner(names.slot_of_place(kind, place))).collect();
        for place in owners.iter().flatten() {
            running.entry((*place).clone()).or_insert_with(|| {
                count += 1;
                let task = tokio::spawn(keep(lines.clone(), count, (*place).clone())).abort_handle();
                Running { line: count, task }
            });
        }
        let deal: Vec<Line> = owners.iter().map(|owner| owner.map_or(NOWHERE, |place| running[place].line)).collect();
        if lines.change(deal) {
            lines.watched.deal_again();
        }
        running.retain(|place, running| {
            let is_needed = owners.contains(&Some(place));
            if !is_needed {
                lines.well(running.line);
            }
            is_needed
        });
        chart.looked().await;
    }
}

/// There is no limit of tries: the line ends when the server has no slots of ours any more.
async fn keep(lines: Arc<Lines>, line: Line, place: Place) {
    let (mut dice, options) = (Dice::default(), &lines.host.options);
    let mut wait = options.retry_min;
    loop {
        let (connection, _) = lines.watched.begin(line);
        let (thrown, echo) = watch::channel(0);
        let push = {
            let lines = lines.clone();
            move |info: PushInfo| {
                on_push(&lines, line, connection, &thrown, info);
                Ok(())
            }
        };
        let why = match lines.host.endpoint.connect_to(&place, Use::Pushes(push), options.patience()).await {
            Ok(link) => {
                let mut following = Following { lines: &lines, line, link, echo, thrown: 0 };
                let why = following.follow(&mut wait).await;
                following.link.cut().await;
                why
            }
            Err(why) => why,
        };
        lines.watched.break_line(line);
        lines.ill(line, why);
        lines.chart.doubt();
        sleep(wait.mul_f64(0.75 + 0.5 * dice.fraction())).await;
        wait = (wait * 2).min(options.retry_max);
    }
}

struct Following<'a> {
    lines: &'a Lines,
    line: Line,
    link: Link,
    /// The last mark that the server threw back.
    echo: watch::Receiver<u64>,
    thrown: u64,
}

impl Following<'_> {
    /// Until the connection breaks; answers why.
    async fn follow(&mut self, wait: &mut Duration) -> String {
        let (watched, options) = (&self.lines.watched, &self.lines.host.options);
        let mut ping = interval(options.ping);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let rules = &self.lines.host.scripts.rules;
        let shortest = rules.all().map(|settings| settings.record).min().unwrap_or_default();
        let mut keep = interval((shortest / RENEWALS).max(Duration::from_millis(100)));
        keep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = watched.changes();
        changes.mark_changed();
        loop {
            let todo = watched.take(self.line, PORTION);
            let done = tokio::select! {
                done = self.ask_for(&todo.subscribe, &todo.unsubscribe), if todo.taken > 0 => done,
                _ = changes.changed(), if todo.taken == 0 => Ok(()),
                _ = keep.tick(), if todo.taken == 0 && self.lines.kind == Kind::Topics => self.keep_records().await,
                _ = ping.tick(), if todo.taken == 0 => self.throw().await,
            };
            match done {
                Ok(()) => {
                    *wait = options.retry_min;
                    self.lines.well(self.line);
                }
                Err(why) => return why,
            }
        }
    }

    async fn ask_for(&mut self, subscribe: &[Topic], unsubscribe: &[Topic]) -> Result<(), String> {
        for (word, topics) in [("SUNSUBSCRIBE", unsubscribe), ("SSUBSCRIBE", subscribe)] {
            // One command takes channels of one slot only.
            let mut groups: HashMap<u16, Cmd> = HashMap::new();
            for topic in topics {
                let (kind, names) = (self.lines.kind, &self.lines.host.names);
                let command = groups.entry(names.place_of(kind, topic)).or_insert_with(|| redis::cmd(word));
                command.arg(names.channel_of(kind, topic));
            }
            for command in groups.into_values() {
                self.say(command).await?;
            }
        }
        self.throw().await?;
        let refused = self.lines.watched.unconfirmed(subscribe);
        if !refused.is_empty() {
            // The slot moved, or nobody has it for a moment.
            self.lines.chart.doubt();
            sleep(REFUSED).await;
            self.lines.watched.retry(refused);
        }
        Ok(())
    }

    /// Puts the end of the records of watched topics off, so that a quiet topic stays the same one.
    async fn keep_records(&mut self) -> Result<(), String> {
        let host = &self.lines.host;
        for topics in self.lines.watched.wanted(self.line).chunks(PORTION) {
            for topic in topics {
                let settings = host.scripts.rules.of(topic);
                let time = millis(settings.age.saturating_add(settings.record));
                let mut expire = redis::cmd("PEXPIRE");
                expire.arg(keys::meta(&host.names.base(host.names.group_of(topic)), topic)).arg(time).arg("GT");
                self.say(expire).await?;
            }
            self.throw().await?;
        }
        Ok(())
    }

    async fn say(&mut self, mut command: Cmd) -> Result<(), String> {
        command.set_no_response(true);
        self.link.connection.send_packed_command(&command).await.map(drop).map_err(|error| error.to_string())
    }

    /// Throws a mark and waits until it comes back: by then everything asked before has been dealt with.
    async fn throw(&mut self) -> Result<(), String> {
        self.thrown += 1;
        let (mark, patience) = (self.thrown, self.lines.host.options.response_timeout);
        let mut command = redis::cmd("UNSUBSCRIBE");
        command.arg(mark);
        self.say(command).await?;
        let back = async {
            tokio::select! {
                back = self.echo.wait_for(|echo| *echo >= mark) => back.map(drop).map_err(|_| "it is gone".to_string()),
                why = self.link.ended() => Err(why),
            }
        };
        timeout(patience, back).await.unwrap_or_else(|_| Err(format!("no answer within {patience:?}")))
    }
}

impl Lines {
    /// Whether it is another deal.
    fn change(&self, deal: Vec<Line>) -> bool {
        let mut dealt = self.deal.lock().unwrap_or_else(PoisonError::into_inner);
        let is_other = *dealt != deal;
        *dealt = deal;
        is_other
    }

    fn well(&self, line: Line) {
        self.tell(line, None);
    }

    fn ill(&self, line: Line, why: String) {
        if self.tell(line, Some(why.clone())) {
            tracing::warn!(%why, "feed from a server of the cluster lost; trying again until it is back");
        }
    }

    /// Whether it is news.
    fn tell(&self, line: Line, why: Option<String>) -> bool {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let was_well = match why {
            Some(why) => troubles.insert(line, why).is_none(),
            None => troubles.remove(&line).is_none(),
        };
        self.state.condition().feed = troubles.values().next().cloned();
        was_well
    }
}

/// Runs on the connection's own task: it must not wait.
fn on_push(lines: &Lines, line: Line, connection: u64, thrown: &watch::Sender<u64>, info: PushInfo) {
    let watched = &lines.watched;
    match (info.kind, <[Value; 2]>::try_from(info.data)) {
        (PushKind::SMessage, Ok([channel, Value::BulkString(payload)])) => {
            hear(lines.kind, watched, line, connection, &channel, payload.into());
        }
        (PushKind::SSubscribe, Ok([channel, _])) => {
            if let Some(name) = text_of(&channel).and_then(Keys::topic_of) {
                watched.confirm(line, connection, name);
            }
        }
        (PushKind::SUnsubscribe, Ok([channel, _])) => {
            if let Some(name) = text_of(&channel).and_then(Keys::topic_of)
                && watched.lose(line, connection, name)
            {
                lines.chart.doubt();
            }
        }
        (PushKind::Unsubscribe, Ok([mark, _])) => {
            if let Some(mark) = text_of(&mark).and_then(|mark| mark.parse().ok()) {
                thrown.send_replace(mark);
            }
        }
        _ => {}
    }
}
