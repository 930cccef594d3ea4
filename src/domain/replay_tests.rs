//! Every order of appends, feed, reads and pages up to a bound, checked against what the subscriber must have seen.

use super::*;
use crate::domain::message::Body;
use crate::domain::name::Topic;
use crate::domain::position::Epoch;
use crate::domain::store::{Kept, Lives, Missing};

/// A world small enough to try every schedule: a topic that grows, a live stream that lags behind it, one subscriber.
#[derive(Debug, Clone)]
struct World {
    lives: Vec<(u64, u64)>,
    /// Messages stored, and how many of them the live stream has carried.
    stored: u64,
    fed: Position,
    page_size: u64,
    oldest: u64,
    mode: Mode,
    replay: Option<Replay<Item>>,
    asked: Option<ReadFrom>,
    page: Option<Page>,
    seen: Vec<Item>,
    answer: Option<Answer>,
}

fn epoch(n: u64) -> Epoch {
    Epoch::from_random(n)
}

fn message(at: Position) -> Message {
    let body = Body::from_canonical(at.to_string().into());
    Message { topic: Topic::parse("t").unwrap(), at, time: 0, expires: None, body }
}

impl World {
    fn lives(&self) -> Lives {
        let known = self.lives.iter().filter(|l| l.1 <= self.stored).map(|&(e, base)| (epoch(e), base));
        Lives::new(known.collect())
    }

    fn read(&self, from: ReadFrom) -> Page {
        let lives = self.lives();
        let oldest = if self.mode == Mode::Live { self.stored + 1 } else { self.oldest };
        let kept = Kept { mode: self.mode, oldest, head: self.stored, first: 1, cut: false };
        let plan = lives.plan(from, &kept);
        let at = |offset| Position::new(plan.start.epoch, offset);
        let offsets: Vec<u64> = (plan.start.offset + 1..=plan.to).filter(|o| self.is_kept(*o)).collect();
        let given = &offsets[..offsets.len().min(self.page_size as usize)];
        let end = if given.len() < offsets.len() { given[given.len() - 1] } else { plan.to };
        Page {
            mode: self.mode,
            start: plan.start,
            messages: given.iter().map(|o| message(at(*o))).collect(),
            end: at(end),
            head: if self.stored == lives.newest_base().offset {
                lives.newest_base()
            } else {
                Position::new(lives.epoch_of(self.stored), self.stored)
            },
            missing: plan.missing,
        }
    }

    /// In mode `latest` odd and even offsets are of two keys.
    fn is_kept(&self, offset: u64) -> bool {
        self.mode != Mode::Latest || offset + 2 > self.stored
    }

    fn apply(&mut self, steps: Vec<Step<Item>>) {
        for step in steps {
            match step {
                Step::Answer(answer) => assert!(self.answer.replace(answer).is_none(), "answered twice"),
                Step::Give(item) | Step::Live(item) => self.seen.push(item),
                Step::Read(from) => assert!(self.asked.replace(from).is_none(), "two reads at once"),
                Step::Joined => self.replay = None,
            }
        }
    }

    /// The next live item, as the sequencer would send it.
    fn next_live(&self) -> Option<Live<Item>> {
        let known: Vec<_> = self.lives.iter().filter(|l| l.1 < self.stored).collect();
        if let Some(&&(e, base)) =
            known.iter().find(|l| l.1 == self.fed.offset && epoch(l.0) != self.fed.epoch && l.1 > 0)
        {
            let resume = Position::new(epoch(e), base);
            if resume != self.fed {
                let gap = Gap { after: self.fed, resume, to: None, why: GapCause::Failover, kept: false };
                return Some(Live { before: self.fed, at: resume, item: Item::Gap(gap), is_gap: true });
            }
        }
        (self.fed.offset < self.stored).then(|| {
            let at = self.fed.next();
            Live { before: self.fed, at, item: Item::Message(message(at)), is_gap: false }
        })
    }

    /// The next one as a sequencer sends it that reads a hole of its feed from the store.
    fn next_repaired(&self) -> Option<Live<Item>> {
        let next = (self.fed.offset + 1..=self.stored).find(|o| self.is_kept(*o))?;
        let at = Position::new(self.fed.epoch, next);
        (at != self.fed.next()).then(|| Live { before: self.fed, at, item: Item::Message(message(at)), is_gap: false })
    }

    fn feed(&mut self, live: Option<Live<Item>>) {
        let live = live.expect("asked only when there is one");
        self.fed = live.at;
        match &mut self.replay {
            Some(replay) => {
                let steps = replay.on_live(live);
                self.apply(steps);
            }
            None => self.seen.push(live.item),
        }
    }

    fn arrive(&mut self) {
        let page = self.page.take().expect("asked only when there is one");
        let live = self.fed;
        let steps = self.replay.as_mut().expect("only a replay reads").on_page(page, live);
        self.apply(steps);
    }

    fn explore(&self, appends: u64, visited: &mut u64) {
        *visited += 1;
        let mut moves = 0;
        let mut go = |change: &dyn Fn(&mut World), appends| {
            moves += 1;
            let mut next = self.clone();
            change(&mut next);
            next.explore(appends, visited);
        };
        if appends > 0 {
            go(&|w| w.stored += 1, appends - 1);
        }
        if self.next_live().is_some() {
            go(&|w| w.feed(w.next_live()), appends);
        }
        if self.next_repaired().is_some() {
            go(&|w| w.feed(w.next_repaired()), appends);
        }
        if self.asked.is_some() && self.page.is_none() {
            go(
                &|w| {
                    let from = w.asked.take().unwrap();
                    w.page = Some(w.read(from));
                },
                appends,
            );
        }
        if self.page.is_some() {
            go(&|w| w.arrive(), appends);
        }
        if moves == 0 {
            self.check();
        }
    }

    /// At rest the subscriber is in the live stream and has seen, in order, all that follows its answer.
    fn check(&self) {
        assert!(self.replay.is_none(), "never joined");
        let answer = self.answer.as_ref().expect("always answered");
        if self.mode == Mode::Latest {
            return self.check_latest(answer);
        }
        let mut at = answer.at;
        for item in &self.seen {
            match item {
                Item::Message(m) => {
                    assert_eq!(m.at, at.next(), "lost, repeated or out of order: {:?}", self.seen);
                    at = m.at;
                }
                Item::Gap(gap) => {
                    let why = if self.mode == Mode::Live { GapCause::Live } else { GapCause::Failover };
                    assert_eq!((gap.after, gap.why), (at, why), "{:?}", self.seen);
                    assert_eq!(gap.resume.epoch == at.epoch, self.mode == Mode::Live);
                    at = gap.resume;
                }
            }
        }
        assert_eq!(at.offset, self.stored, "the end is missing: {:?} of {}", self.seen, self.stored);
    }
}

impl World {
    /// In mode `latest` it has, in order and without a word of what is missing, the newest of each key.
    fn check_latest(&self, answer: &Answer) {
        let offsets: Vec<u64> = self
            .seen
            .iter()
            .map(|item| match item {
                Item::Message(m) => m.at.offset,
                Item::Gap(gap) => panic!("{gap:?} was told"),
            })
            .collect();
        assert!(offsets.is_sorted_by(|a, b| a < b), "repeated or out of order: {offsets:?}");
        for newest in self.stored.saturating_sub(1)..=self.stored {
            assert!(newest <= answer.at.offset || offsets.contains(&newest), "{newest} is missing: {self:?}");
        }
    }
}

fn explore(lives: &[(u64, u64)], stored: u64, oldest: u64, appends: u64, asked: &dyn Fn(u64) -> Vec<ReadFrom>) -> u64 {
    explore_in(Mode::Log, lives, stored, oldest, appends, asked)
}

fn explore_in(
    mode: Mode,
    lives: &[(u64, u64)],
    stored: u64,
    oldest: u64,
    appends: u64,
    asked: &dyn Fn(u64) -> Vec<ReadFrom>,
) -> u64 {
    let mut visited = 0;
    for fed in 0..=stored {
        for page_size in [1, 2, 9] {
            for capacity in 0..3 {
                for from in asked(fed) {
                    let world = Lives::new(lives.iter().map(|&(e, b)| (epoch(e), b)).collect());
                    let fed = Position::new(world.epoch_of(fed), fed);
                    let (replay, steps) = Replay::start(from, fed, capacity);
                    let mut world = World {
                        lives: lives.to_vec(),
                        stored,
                        fed,
                        page_size,
                        oldest,
                        mode,
                        replay,
                        asked: None,
                        page: None,
                        seen: vec![],
                        answer: None,
                    };
                    world.apply(steps);
                    world.explore(appends, &mut visited);
                }
            }
        }
    }
    visited
}

#[test]
fn every_schedule_in_one_life_gives_all_in_order() {
    let visited = explore(&[(1, 0)], 2, 1, 2, &|_| {
        let after = (0..=2).map(|o| ReadFrom::After(Position::new(epoch(1), o)));
        after.chain([ReadFrom::Last(1), ReadFrom::Last(9)]).collect()
    });
    assert!(visited > 10_000, "{visited}");
}

#[test]
fn every_schedule_over_a_change_of_life_tells_it_once_and_gives_all() {
    // The third message begins another life.
    explore(&[(1, 0), (2, 2)], 1, 1, 2, &|_| (0..=1).map(|o| ReadFrom::After(Position::new(epoch(1), o))).collect());
    explore(&[(1, 0), (2, 2)], 3, 1, 1, &|_| {
        vec![ReadFrom::After(Position::new(epoch(1), 0)), ReadFrom::After(Position::new(epoch(1), 2))]
    });
}

#[test]
fn what_history_no_longer_has_is_never_passed_off_as_whole() {
    for (from, why) in [
        (ReadFrom::After(Position::new(epoch(1), 1)), GapCause::Retention),
        (ReadFrom::After(Position::new(epoch(7), 1)), GapCause::Epoch),
        (ReadFrom::After(Position::new(epoch(1), 9)), GapCause::Epoch),
    ] {
        let live = Position::new(epoch(1), 5);
        let (replay, _) = Replay::<Item>::start(from, live, 8);
        let world = World {
            lives: vec![(1, 0)],
            stored: 5,
            fed: live,
            page_size: 9,
            oldest: 4,
            mode: Mode::Log,
            replay: None,
            asked: None,
            page: None,
            seen: vec![],
            answer: None,
        };
        let steps = replay.unwrap().on_page(world.read(from), live);
        let [Step::Answer(Answer { at, resumed: Some(Err(Missing { why: told, .. })) }), Step::Joined] = &steps[..]
        else {
            panic!("{steps:?}");
        };
        assert_eq!((*at, *told), (live, why));
    }
}

#[test]
fn every_schedule_of_a_topic_that_keeps_the_latest_gives_the_newest_of_each_key() {
    let asked = |_| {
        let after = (0..=2).map(|o| ReadFrom::After(Position::new(epoch(1), o)));
        after.chain([ReadFrom::Last(9)]).collect()
    };
    let visited = explore_in(Mode::Latest, &[(1, 0)], 2, 1, 2, &asked);
    assert!(visited > 10_000, "{visited}");
}

#[test]
fn every_schedule_of_a_topic_that_keeps_nothing_gives_what_follows_the_answer_or_tells_that_it_is_gone() {
    let visited = explore_in(Mode::Live, &[(1, 0)], 2, 1, 3, &|_| {
        (0..=2).map(|o| ReadFrom::After(Position::new(epoch(1), o))).collect()
    });
    assert!(visited > 1_000, "{visited}");
}

#[test]
fn the_newest_message_that_is_gone_is_told_in_mode_latest_too() {
    let at = |o| Position::new(epoch(1), o);
    let page = |end, head| Page {
        mode: Mode::Latest,
        start: at(1),
        messages: vec![message(at(5))],
        end: at(end),
        head: at(head),
        missing: None,
    };
    let told = |page| -> Vec<(u64, GapCause)> {
        let gaps = walk(at(1), page).into_iter().filter_map(|i| if let Item::Gap(g) = i { Some(g) } else { None });
        gaps.filter(Gap::is_told).map(|g| (g.after.offset, g.why)).collect()
    };
    assert_eq!(told(page(7, 7)), [(5, GapCause::Expired)]);
    assert_eq!(told(page(7, 9)), [], "it may have been replaced");
    assert_eq!(told(page(5, 5)), []);
}

#[test]
fn a_hole_inside_a_page_is_told_as_expired() {
    let at = |o| Position::new(epoch(1), o);
    let messages = vec![message(at(2)), message(at(5))];
    let page = Page { mode: Mode::Log, start: at(1), messages, end: at(7), head: at(7), missing: None };
    let gaps: Vec<_> = walk(at(1), page)
        .into_iter()
        .filter_map(|i| if let Item::Gap(g) = i { Some((g.after.offset, g.to.unwrap().offset, g.why)) } else { None })
        .collect();
    assert_eq!(gaps, [(2, 4, GapCause::Expired), (5, 7, GapCause::Expired)]);
}
