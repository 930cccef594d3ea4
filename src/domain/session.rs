//! One identified client's protocol life: counts its bad frames, holds it to its limits, and turns each request into
//! what the connection shall do. Pure; it knows neither topics' positions nor sockets.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::command::{Asking, Command, Refusal, Request, RequestId, Settlement, Subject, UseCursor};
use super::cursor::{CursorName, Owner};
use super::error::{CloseCode, Problem, Reason};
use super::event::Event;
use super::limits::Limits;
use super::message::Publication;
use super::name::Topic;
use super::position::Position;
use super::queue::{How, Put, Queue};
use super::rate::Rate;
use super::store::ReadFrom;

/// What the connection shall do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Say(Event),
    Subscribe {
        id: Option<RequestId>,
        topic: Topic,
        from: Option<ReadFrom>,
        cursor: Option<UseCursor>,
        ignored: Vec<String>,
    },
    Unsubscribe {
        id: Option<RequestId>,
        topic: Topic,
        ignored: Vec<String>,
    },
    Publish {
        id: Option<RequestId>,
        publication: Publication,
        ignored: Vec<String>,
    },
    Commit {
        id: Option<RequestId>,
        topic: Topic,
        cursor: CursorName,
        at: Position,
        rewind: bool,
        ignored: Vec<String>,
    },
    History {
        id: Option<RequestId>,
        topic: Topic,
        from: ReadFrom,
        limit: u32,
        ignored: Vec<String>,
    },
    Put {
        id: Option<RequestId>,
        put: Box<Put>,
        ignored: Vec<String>,
    },
    Take {
        id: Option<RequestId>,
        queue: Queue,
        credit: usize,
        lease: Option<Duration>,
        ignored: Vec<String>,
    },
    Untake {
        id: Option<RequestId>,
        queue: Queue,
        ignored: Vec<String>,
    },
    Settle {
        id: Option<RequestId>,
        settlement: Settlement,
        ignored: Vec<String>,
    },
    Request {
        id: Option<RequestId>,
        asking: Box<Asking>,
        ignored: Vec<String>,
    },
    Close(CloseCode),
}

/// What the connection holds at this moment.
pub struct Holds<'a> {
    pub subscriptions: usize,
    /// Whether a topic is among them.
    pub has: &'a dyn Fn(&Topic) -> bool,
    /// Commands that wait for the store, but those that end deliveries: each delivery ends once.
    pub in_flight: usize,
    pub works: &'a dyn Fn(&Queue) -> Works,
    /// Whether a tag names a job that it holds.
    pub holds: &'a dyn Fn(&str) -> bool,
}

/// What a connection takes, seen from one queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Works {
    /// Queues that it takes from.
    pub queues: usize,
    /// Whether this one is among them.
    pub has: bool,
    /// Its credit at the others.
    pub credit: usize,
}

#[derive(Debug)]
pub struct Session {
    limits: Arc<Limits>,
    rate: Rate,
    strikes: u32,
}

impl Session {
    pub fn new(limits: Arc<Limits>, now: Instant) -> Session {
        let rate = Rate::new(limits.rate, limits.burst, now);
        Session { limits, rate, strikes: 0 }
    }

    /// What is said first.
    pub fn hello(&self, connection: &str, inbox: Option<&Topic>) -> Event {
        Event::Hello {
            connection: connection.into(),
            ping: self.limits.ping,
            max_frame: self.limits.frame,
            inbox: inbox.cloned(),
        }
    }

    /// Whose cursors this client uses.
    pub fn owner(&self) -> Owner {
        // There are no tokens yet, so nobody has a name.
        Owner::anonymous()
    }

    /// One decoded request or refusal; its effects are applied before the next call.
    pub fn on_request(&mut self, now: Instant, decoded: Result<Request, Refusal>, holds: &Holds<'_>) -> Vec<Effect> {
        let request = match decoded {
            Ok(request) => request,
            Err(refusal) => return self.on_refusal(now, refusal),
        };
        self.strikes = 0;
        let Request { id, command, ignored } = request;
        if let Err(wait) = self.rate.take(cost(&command, holds), now) {
            return vec![Effect::Say(refused(id, &command, self.too_fast(wait)))];
        }
        match command {
            Command::Ping(what) => vec![Effect::Say(Event::Pong(what))],
            Command::Subscribe { topics, from, cursor } => {
                let mut room = self.limits.subscriptions.saturating_sub(holds.subscriptions);
                let mut taken = HashSet::new();
                let mut effects = Vec::with_capacity(topics.len());
                for topic in topics {
                    if topic.is_among_inboxes() && (!topic.is_inbox() || topic.is_inbox_of_node()) {
                        let text = match topic.is_inbox_of_node() {
                            true => "this is where a node waits for replies to its requests; nobody else listens there",
                            false => {
                                "inboxes are listened to by whoever knows their name: one segment of at least 22 bytes"
                            }
                        };
                        let problem = Problem::new(Reason::Forbidden, text);
                        effects.push(Effect::Say(Event::error(id.clone(), "sub", &topic, problem)));
                        continue;
                    }
                    // What replaces a subscription needs no room.
                    let is_new = !(holds.has)(&topic) && !taken.contains(&topic);
                    if is_new && room == 0 {
                        let most = self.limits.subscriptions;
                        let text =
                            format!("a connection subscribes to at most {most} topics; leave some or open another");
                        let problem = Problem::new(Reason::TooMany, text);
                        effects.push(Effect::Say(Event::error(id.clone(), "sub", &topic, problem)));
                        continue;
                    }
                    if is_new {
                        room -= 1;
                        taken.insert(topic.clone());
                    }
                    let (id, cursor, ignored) = (id.clone(), cursor.clone(), ignored.clone());
                    effects.push(Effect::Subscribe { id, topic, from, cursor, ignored });
                }
                effects
            }
            Command::Unsubscribe { topic } => vec![Effect::Unsubscribe { id, topic, ignored }],
            command @ (Command::Publish(_)
            | Command::Commit { .. }
            | Command::History { .. }
            | Command::Put(_)
            | Command::Take { .. }
            | Command::Request(_))
                if holds.in_flight >= self.limits.in_flight =>
            {
                let text =
                    format!("{} commands of this connection wait for the store; await answers first", holds.in_flight);
                let problem = Problem::new(Reason::Busy, text).retry_after(Duration::from_millis(100));
                vec![Effect::Say(refused(id, &command, problem))]
            }
            Command::Publish(publication) => vec![Effect::Publish { id, publication, ignored }],
            Command::Commit { topic, cursor, at, rewind } => {
                vec![Effect::Commit { id, topic, cursor, at, rewind, ignored }]
            }
            Command::Put(put) => vec![Effect::Put { id, put, ignored }],
            Command::Take { queue, credit, lease } => match self.judge_take(&(holds.works)(&queue), credit) {
                Ok(()) => vec![Effect::Take { id, queue, credit, lease, ignored }],
                Err(problem) => {
                    let about = Some(Subject::queue(&queue));
                    vec![Effect::Say(Event::Error { id, verb: Some("take"), about, problem })]
                }
            },
            Command::Untake { queue } => vec![Effect::Untake { id, queue, ignored }],
            Command::Settle(settlement) => vec![Effect::Settle { id, settlement, ignored }],
            Command::Request(asking) => vec![Effect::Request { id, asking, ignored }],
            Command::History { topic, from, limit } => {
                vec![Effect::History { id, topic, from, limit: limit.clamp(1, self.limits.history), ignored }]
            }
        }
    }

    fn on_refusal(&mut self, now: Instant, refusal: Refusal) -> Vec<Effect> {
        let Refusal { id, verb, about, problem } = refusal;
        // Only frames that are no commands at all count towards the close: a wrong name is an answer, not an attack.
        let is_strike = matches!(problem.reason, Reason::BadFrame | Reason::BadJson | Reason::UnknownVerb);
        self.strikes = if is_strike { self.strikes + 1 } else { 0 };
        let rate = self.rate.take(1, now);
        let problem = rate.err().map(|wait| self.too_fast(wait)).unwrap_or(problem);
        let mut effects = vec![Effect::Say(Event::Error { id, verb, about, problem })];
        if self.strikes >= self.limits.strikes {
            effects.push(Effect::Close(CloseCode::BadFrames));
        }
        effects
    }

    fn judge_take(&self, works: &Works, credit: usize) -> Result<(), Problem> {
        let Limits { takes, held, credit: most, .. } = *self.limits;
        let too_many = |text| Err(Problem::new(Reason::TooMany, text));
        if credit > most {
            return too_many(format!("credit is at most {most} (max_credit), not {credit}"));
        }
        if !works.has && works.queues >= takes {
            return too_many(format!("a connection takes from at most {takes} queues (max_takes); open another"));
        }
        if works.credit + credit > held {
            let room = held.saturating_sub(works.credit);
            return too_many(format!(
                "a connection holds at most {held} jobs (max_held); here is room for {room} more"
            ));
        }
        Ok(())
    }

    fn too_fast(&self, wait: Duration) -> Problem {
        let Limits { rate, burst, .. } = *self.limits;
        let text = format!("at most {rate} commands a second, {burst} at once; this one was not done");
        Problem::new(Reason::RateLimited, text).retry_after(wait.max(Duration::from_millis(10)))
    }
}

/// What a command costs of the rate: many topics in one frame cost more than one.
fn cost(command: &Command, holds: &Holds<'_>) -> u32 {
    match command {
        // What ends a job costs nothing: it can be said once for each job that was given.
        Command::Settle(Settlement { how, tags, .. }) => {
            let ends = !matches!(how, How::Extend { .. }) && tags.iter().all(|tag| (holds.holds)(tag));
            u32::from(!ends)
        }
        Command::Subscribe { topics, .. } => 1 + topics.len() as u32 / 10,
        _ => 1,
    }
}

fn refused(id: Option<RequestId>, command: &Command, problem: Problem) -> Event {
    let about = match command {
        Command::Subscribe { topics, .. } => topics.first().map(Subject::topic),
        Command::Unsubscribe { topic } | Command::Commit { topic, .. } | Command::History { topic, .. } => {
            Some(Subject::topic(topic))
        }
        Command::Publish(publication) => Some(Subject::topic(&publication.topic)),
        Command::Put(put) => Some(Subject::queue(&put.queue)),
        Command::Take { queue, .. } | Command::Untake { queue } => Some(Subject::queue(queue)),
        Command::Settle(settlement) => settlement.tags.first().cloned().map(Subject::Tag),
        Command::Request(asking) => Some(Subject::queue(&asking.put.queue)),
        Command::Ping(_) => None,
    };
    Event::Error { id, verb: Some(command.verb()), about, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> (Session, Instant) {
        let now = Instant::now();
        (Session::new(Arc::new(Limits::default()), now), now)
    }

    fn subscribe(names: &[&str]) -> Result<Request, Refusal> {
        let topics = names.iter().map(|n| Topic::parse(n).unwrap()).collect();
        Ok(Request { id: None, command: Command::Subscribe { topics, from: None, cursor: None }, ignored: vec![] })
    }

    /// A connection with so many subscriptions, one of them to `held`.
    fn holding(subscriptions: usize) -> Holds<'static> {
        Holds {
            subscriptions,
            has: &|topic| topic.as_str() == "held",
            in_flight: 0,
            works: &|queue| Works { queues: 2, has: queue.as_str() == "taken", credit: 1_500 },
            holds: &|tag| tag == "d1",
        }
    }

    fn bad(reason: Reason) -> Result<Request, Refusal> {
        Err(Refusal { id: None, verb: None, about: None, problem: Problem::new(reason, "x") })
    }

    #[test]
    fn three_bad_frames_in_a_row_close_and_a_good_one_between_forgives() {
        let (mut session, now) = session();
        for (i, input) in [bad(Reason::BadJson), bad(Reason::BadFrame), subscribe(&["a"]), bad(Reason::BadJson)]
            .into_iter()
            .enumerate()
        {
            assert_eq!(session.on_request(now, input, &holding(0)).len(), 1, "frame {i}");
        }
        assert_eq!(session.on_request(now, bad(Reason::BadName), &holding(0)).len(), 1);
        session.on_request(now, bad(Reason::UnknownVerb), &holding(0));
        session.on_request(now, bad(Reason::BadJson), &holding(0));
        let effects = session.on_request(now, bad(Reason::BadFrame), &holding(0));
        assert_eq!(effects.last(), Some(&Effect::Close(CloseCode::BadFrames)));
    }

    #[test]
    fn subscriptions_beyond_the_limit_are_answered_one_by_one() {
        let (mut session, now) = session();
        let effects = session.on_request(now, subscribe(&["a", "b", "c"]), &holding(999));
        assert!(matches!(&effects[0], Effect::Subscribe { .. }));
        for effect in &effects[1..] {
            assert!(matches!(effect, Effect::Say(Event::Error { problem, .. }) if problem.reason == Reason::TooMany));
        }
    }

    #[test]
    fn what_replaces_a_subscription_needs_no_room() {
        let (mut session, now) = session();
        let effects = session.on_request(now, subscribe(&["held", "a", "a", "b"]), &holding(999));
        let taken: Vec<bool> = effects.iter().map(|e| matches!(e, Effect::Subscribe { .. })).collect();
        assert_eq!(taken, [true, true, true, false]);
        assert!(matches!(
            &session.on_request(now, subscribe(&["held"]), &holding(1000))[..],
            [Effect::Subscribe { .. }]
        ));
    }

    #[test]
    fn many_topics_in_one_frame_cost_more_of_the_rate() {
        let (mut session, now) = session();
        let names: Vec<String> = (0..1000).map(|n| format!("t{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(session.on_request(now, subscribe(&names), &holding(0)).len(), 1000);
        let refused = session.on_request(now, subscribe(&names), &holding(0));
        assert!(
            matches!(&refused[..], [Effect::Say(Event::Error { problem, .. })] if problem.reason == Reason::RateLimited)
        );
    }

    #[test]
    fn too_many_commands_are_refused_with_a_wait_and_not_done() {
        let (mut session, now) = session();
        let mut refused = 0;
        for _ in 0..250 {
            match &session.on_request(now, subscribe(&["a"]), &holding(0))[..] {
                [Effect::Say(Event::Error { problem, about, .. })] => {
                    let about = about.as_ref().map(Subject::field);
                    assert_eq!((problem.reason, about), (Reason::RateLimited, Some(("topic", "a"))));
                    assert!(problem.retry_after.is_some());
                    refused += 1;
                }
                effects => assert!(matches!(effects, [Effect::Subscribe { .. }])),
            }
        }
        assert_eq!(refused, 50);
    }
}
