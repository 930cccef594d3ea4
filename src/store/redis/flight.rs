//! One pipeline on its way to Redis: commands, and what is to be done with the answer to each.

use std::collections::HashMap;

use futures::future::{BoxFuture, FutureExt};
use redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::sync::oneshot;
use tokio::task::unconstrained;

use super::calls::{ForeignCall, Told};
use super::cursors::{CursorCall, Use};
use super::facts;
use super::greeting::Host;
use super::lives::Known;
use super::pages::{Ask, Stretch};
use super::queue::Weight;
use super::scripts::Dice;
use super::topics::{Asked, Call, Mark, Place, mark_of};
use crate::domain::name::Topic;
use crate::domain::store::{Append, Fence, StoreError};
use crate::endpoint::Link;

#[derive(Default)]
pub(super) struct Flight {
    pub errands: Vec<Errand>,
    pub pipeline: Pipeline,
}

/// What a command was sent for.
pub(super) enum Errand {
    Append {
        lane: u16,
        asked: Asked,
    },
    Read {
        answer: oneshot::Sender<Result<Stretch, StoreError>>,
        _weight: Weight,
    },
    Cursors(CursorCall),
    Call {
        lane: u32,
        answer: oneshot::Sender<Told>,
        _weight: Weight,
    },
    /// To see whether Redis answers, and whether its settings are still good.
    Probe,
    /// To make a script known, or to be let in; whether that worked, the calls tell.
    Load,
}

impl Errand {
    /// The lane in which it must not be overtaken.
    pub fn lane(&self) -> Option<u32> {
        match self {
            Errand::Append { lane, .. } => Some(u32::from(*lane)),
            Errand::Cursors(call) => Some(u32::from(call.lane)),
            Errand::Call { lane, .. } => Some(*lane),
            Errand::Read { .. } | Errand::Probe | Errand::Load => None,
        }
    }
}

impl Flight {
    pub fn probe() -> Flight {
        let mut flight = Flight::default();
        flight.add(Errand::Probe, facts::ask_settings());
        flight.add(Errand::Probe, facts::ask_replication());
        flight
    }

    pub fn add(&mut self, errand: Errand, command: Cmd) {
        self.errands.push(errand);
        self.pipeline.add_command(command);
    }

    /// Says that the next command is for keys whose slot is only on its way to the server.
    fn announce(&mut self, asking: bool) {
        if asking {
            self.add(Errand::Load, redis::cmd("ASKING"));
        }
    }

    /// Sorts what was answered: each errand with its answer, and with its command if Redis did not know the script.
    pub fn answered(self, answers: Vec<Value>) -> Vec<(Errand, Value, Option<Cmd>)> {
        let Flight { errands, pipeline } = self;
        let commands = pipeline.cmd_iter().zip(&answers).map(|(command, answer)| match answer {
            Value::ServerError(error) if error.code() == "NOSCRIPT" => Some(command.clone()),
            _ => None,
        });
        let commands: Vec<Option<Cmd>> = commands.collect();
        errands.into_iter().zip(answers).zip(commands).map(|((errand, answer), cmd)| (errand, answer, cmd)).collect()
    }
}

/// Puts messages and reads together into calls, in an order in which none overtakes another that it must not.
#[derive(Default)]
pub(super) struct Packer {
    steps: Vec<Step>,
    /// Steps before this one take nothing more in, since a read stands between.
    sealed: usize,
    /// With which step the last fenced item of each batch, topic and source goes.
    fenced: HashMap<(usize, Topic, Box<str>), (usize, Fence)>,
    messages: usize,
    bytes: usize,
}

enum Step {
    Append(Call),
    Cursors(CursorCall),
    Call(ForeignCall),
    Read(Ask, oneshot::Sender<Result<Stretch, StoreError>>, Weight),
}

impl Packer {
    pub fn messages(&self) -> usize {
        self.messages
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn append(&mut self, lane: u16, asking: bool, group: u16, place: Place, append: Append) {
        self.messages += 1;
        self.bytes += append.publication.body.as_bytes().len();
        let open = self.steps[self.sealed..].iter().rposition(|step| match step {
            Step::Append(call) => call.lane == lane && call.asking == asking,
            Step::Read(..) | Step::Cursors(_) | Step::Call(_) => false,
        });
        let open = open.map(|step| self.sealed + step).filter(|&step| match &self.steps[step] {
            Step::Append(call) => call.has_room(&append),
            Step::Read(..) | Step::Cursors(_) | Step::Call(_) => false,
        });
        let step = open.unwrap_or_else(|| {
            self.steps.push(Step::Append(Call::new(lane, asking)));
            self.steps.len() - 1
        });
        let after = self.fenced_before(step, place.batch, &append);
        if let Step::Append(call) = &mut self.steps[step] {
            call.add(group, place, append, after);
        }
    }

    /// Notes that a fenced item goes with this step. If the one of its topic and source before it in the batch went
    /// with an earlier step, the mark of that one; within a call the script itself sees what failed.
    fn fenced_before(&mut self, step: usize, batch: usize, append: &Append) -> Option<Mark> {
        let fence = append.fence.as_ref()?;
        let key = (batch, append.publication.topic.clone(), fence.source.clone());
        let (earlier, before) = self.fenced.insert(key, (step, fence.clone()))?;
        (earlier != step).then(|| mark_of(&before))
    }

    /// Uses of cursors that follow one another go together; appends after them go in calls of their own.
    pub fn cursor(&mut self, lane: u16, one: Use) {
        self.messages += 1;
        match self.steps.last_mut() {
            Some(Step::Cursors(call)) if call.takes(lane, one.asking) => call.add(one),
            _ => self.steps.push(Step::Cursors(CursorCall::new(lane, one))),
        }
        self.sealed = self.steps.len();
    }

    /// A call of other keys than appends, cursors and reads have: nothing needs to wait behind it.
    pub fn call(&mut self, call: ForeignCall) {
        self.messages += call.weight.messages();
        self.bytes += call.weight.bytes();
        self.steps.push(Step::Call(call));
    }

    pub fn read(&mut self, ask: Ask, answer: oneshot::Sender<Result<Stretch, StoreError>>, weight: Weight) {
        self.messages += 1;
        self.bytes += ask.limit.bytes / READ_SHARE;
        self.steps.push(Step::Read(ask, answer, weight));
        self.sealed = self.steps.len();
    }

    pub fn finish(self, host: &Host, lives: &Known, dice: &mut Dice) -> Flight {
        let mut flight = Flight::default();
        for step in self.steps {
            match step {
                Step::Append(call) => {
                    flight.announce(call.asking);
                    let (command, asked) = call.encode(&host.names, &host.scripts, lives, dice);
                    flight.add(Errand::Append { lane: call.lane, asked }, command);
                }
                Step::Cursors(call) => {
                    flight.announce(call.asking);
                    let command = call.encode(&host.names, &host.scripts, dice);
                    flight.add(Errand::Cursors(call), command);
                }
                Step::Call(call) => {
                    flight.announce(call.asking);
                    let errand = Errand::Call { lane: call.lane(), answer: call.answer, _weight: call.weight };
                    flight.add(errand, call.command);
                }
                Step::Read(ask, answer, weight) => {
                    flight.announce(ask.asking);
                    let command = ask.encode(&host.names, &host.scripts, dice);
                    flight.add(Errand::Read { answer, _weight: weight }, command);
                }
            }
        }
        flight
    }
}

/// A read counts for this part of the bytes that it may bring: most bring less.
const READ_SHARE: usize = 16;

/// A flight that has come back, with its answers, and whether it was sent at all.
pub(super) type Answered = (Flight, RedisResult<Vec<Value>>, bool);

/// Sends a flight; when this returns it is in the hands of the connection, behind everything sent before.
pub(super) async fn launch(link: &Link, flight: Flight) -> BoxFuture<'static, Answered> {
    let mut connection = link.connection.clone();
    // Unconstrained: the first poll must hand the flight over, even at the end of the task's budget.
    let mut answered = unconstrained(async move {
        let count = flight.pipeline.len();
        let answers = connection.send_packed_commands(&flight.pipeline, 0, count).await;
        (flight, answers)
    })
    .boxed();
    match futures::poll!(&mut answered) {
        // Not even taken by the connection: it was never sent.
        std::task::Poll::Ready((flight, answers)) => {
            let sent = answers.is_ok();
            futures::future::ready((flight, answers, sent)).boxed()
        }
        std::task::Poll::Pending => answered.map(|(flight, answers)| (flight, answers, true)).boxed(),
    }
}
