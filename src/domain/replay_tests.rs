//! Every order of appends, feed, reads, pages, retention, refusals and losses up to a bound, checked against what the
//! subscriber must have seen.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::*;
use crate::domain::message::Body;
use crate::domain::name::Topic;
use crate::domain::position::Epoch;
use crate::domain::store::{Kept, Lives, Missing};

/// A world small enough to try every schedule: a topic that grows, a live stream that lags behind it, one subscriber.
#[derive(Clone, Debug)]
struct World {
    lives: Vec<(u64, u64)>,
    /// Messages stored, and how far the live stream has carried them.
    stored: u64,
    fed: Position,
    /// How far the stream has come to the subscriber's shard.
    shard: Position,
    page_size: u64,
    oldest: u64,
    capacity: usize,
    mode: Mode,
    replay: Option<Replay<Item>>,
    wanted: bool,
    asked: Option<ReadFrom>,
    page: Option<Page>,
    seen: Vec<Item>,
    answer: Option<Answer>,
    /// Whether the subscriber was ever too slow.
    refused: bool,
    /// With how many of the newest a slow one goes on.
    keeps: Option<u32>,
    trimmed: bool,
    left: Budget,
}

/// What may still happen.
#[derive(Clone, Copy, Debug, Default)]
struct Budget {
    appends: u8,
    refusals: u8,
    losses: u8,
    trims: u8,
}

fn epoch(n: u64) -> Epoch {
    Epoch::from_random(n)
}

fn message(at: Position) -> Message {
    let body = Body::from_canonical(at.to_string().into());
    Message { topic: Topic::parse("t").unwrap(), at, time: 0, expires: None, body }
}

impl World {
    fn new(lives: &[(u64, u64)], stored: u64, oldest: u64, fed: u64, page_size: u64, capacity: usize) -> World {
        let known = Lives::new(lives.iter().map(|&(e, b)| (epoch(e), b)).collect());
        let fed = Position::new(known.epoch_of(fed), fed);
        World {
            lives: lives.to_vec(),
            stored,
            fed,
            shard: fed,
            page_size,
            oldest,
            capacity,
            mode: Mode::Log,
            replay: None,
            wanted: false,
            asked: None,
            page: None,
            seen: vec![],
            answer: None,
            refused: false,
            keeps: None,
            trimmed: false,
            left: Budget::default(),
        }
    }

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

    /// Carries out what the machine wants; item number `refuse` of them is refused, and the rest is void.
    /// `false`: there was no such item.
    fn apply(&mut self, steps: Vec<Step<Item>>, mut refuse: Option<usize>) -> bool {
        for step in steps {
            if let (Some(left), Some(before)) = (&mut refuse, step.before()) {
                if *left == 0 {
                    self.fall_behind(before, Lag::Slow);
                    return true;
                }
                *left -= 1;
            }
            match step {
                Step::Answer(answer) => assert!(self.answer.replace(answer).is_none(), "answered twice"),
                Step::Give(item) => self.seen.push(item),
                Step::Live(live) => self.seen.push(live.item),
                Step::Read => assert!(!std::mem::replace(&mut self.wanted, true), "two reads at once"),
                Step::Joined => self.replay = None,
            }
        }
        refuse.is_none()
    }

    fn fall_behind(&mut self, before: Position, lag: Lag) {
        self.refused |= lag == Lag::Slow;
        let keeps = self.keeps.filter(|_| lag == Lag::Slow);
        self.replay = Some(Replay::behind(before, lag, self.capacity).keeping(keeps));
        // A page that is under way is of the replay before.
        (self.wanted, self.asked, self.page) = (true, None, None);
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
                return Some(Live {
                    before: self.fed,
                    at: resume,
                    item: Item::Gap(gap),
                    size: 1,
                    is_gap: true,
                    ends: None,
                });
            }
        }
        (self.fed.offset < self.stored).then(|| {
            let at = self.fed.next();
            Live { before: self.fed, at, item: Item::Message(message(at)), size: 1, is_gap: false, ends: None }
        })
    }

    /// The next one as a sequencer sends it that reads a hole of its feed from the store.
    fn next_repaired(&self) -> Option<Live<Item>> {
        let next = (self.fed.offset + 1..=self.stored).find(|o| self.is_kept(*o))?;
        let at = Position::new(self.fed.epoch, next);
        let item = Item::Message(message(at));
        (at != self.fed.next()).then(|| Live { before: self.fed, at, item, size: 1, is_gap: false, ends: None })
    }

    fn feed(&mut self, live: Option<Live<Item>>, refuse: Option<usize>) -> bool {
        let live = live.expect("asked only when there is one");
        self.fed = live.at;
        if live.before != self.shard {
            let stood = std::mem::replace(&mut self.shard, live.before);
            match &mut self.replay {
                Some(replay) => {
                    let steps = replay.on_hole();
                    self.apply(steps, None);
                }
                None => self.fall_behind(stood, Lag::Lost),
            }
        }
        self.shard = live.at;
        let steps = match &mut self.replay {
            Some(replay) => replay.on_live(live),
            None => vec![Step::Live(live)],
        };
        self.apply(steps, refuse)
    }

    /// The next live item is lost on its way to the shard.
    fn lose(&mut self) {
        self.fed = self.next_live().expect("asked only when there is one").at;
    }

    fn issue(&mut self) {
        self.wanted = false;
        self.asked = Some(self.replay.as_mut().expect("only a replay reads").issue());
    }

    fn arrive(&mut self, refuse: Option<usize>) -> bool {
        let page = self.page.take().expect("asked only when there is one");
        let live = self.shard;
        let steps = self.replay.as_mut().expect("only a replay reads").on_page(page, live);
        self.apply(steps, refuse)
    }

    /// Goes on from here in every way. Many ways lead to the same world, which is looked at once.
    fn explore(&self, visited: &mut HashSet<u64>) {
        let mut hasher = DefaultHasher::new();
        format!("{self:?}").hash(&mut hasher);
        if !visited.insert(hasher.finish()) {
            return;
        }
        let mut moves = 0;
        let mut go = |change: &dyn Fn(&mut World) -> bool| {
            let mut next = self.clone();
            // A refusal of an item that there is not is no other world.
            if change(&mut next) {
                moves += 1;
                next.explore(visited);
            }
        };
        let refusals = if self.left.refusals > 0 { 0..3 } else { 0..0 };
        if self.left.appends > 0 {
            go(&|w| {
                w.left.appends -= 1;
                w.stored += 1;
                true
            });
        }
        if self.left.trims > 0 && self.oldest <= self.stored {
            go(&|w| {
                w.left.trims -= 1;
                w.oldest += 1;
                w.trimmed = true;
                true
            });
        }
        if self.next_live().is_some() {
            go(&|w| w.feed(w.next_live(), None));
            for nth in refusals.clone() {
                go(&|w| {
                    w.left.refusals -= 1;
                    w.feed(w.next_live(), Some(nth))
                });
            }
            if self.left.losses > 0 {
                go(&|w| {
                    w.left.losses -= 1;
                    w.lose();
                    true
                });
            }
        }
        if self.next_repaired().is_some() {
            go(&|w| w.feed(w.next_repaired(), None));
        }
        if self.wanted {
            go(&|w| {
                w.issue();
                true
            });
        }
        if self.asked.is_some() && self.page.is_none() {
            go(&|w| {
                let from = w.asked.take().unwrap();
                w.page = Some(w.read(from));
                true
            });
        }
        if self.page.is_some() {
            go(&|w| w.arrive(None));
            for nth in refusals {
                go(&|w| {
                    w.left.refusals -= 1;
                    w.arrive(Some(nth))
                });
            }
        }
        if moves == 0 {
            self.check();
        }
    }

    /// At rest the subscriber is in the live stream and has seen, in order, all that follows its answer, or was told
    /// exactly what it has not.
    fn check(&self) {
        // The last item was lost, and nothing followed that would show it.
        if self.shard != self.fed {
            return;
        }
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
                Item::Gap(gap) if gap.why == GapCause::Failover => {
                    assert_eq!(gap.after, at, "{:?}", self.seen);
                    assert_ne!(gap.resume.epoch, at.epoch);
                    at = gap.resume;
                }
                Item::Gap(gap) if gap.kept => {
                    assert!(self.keeps.is_some() && self.refused && gap.why == GapCause::Slow, "{gap:?}");
                    assert_eq!((gap.after, gap.to), (at, Some(gap.resume)), "{:?}", self.seen);
                    assert!(gap.resume.is_past(at) && gap.resume.offset < self.stored, "the newest is given");
                    at = gap.resume;
                }
                Item::Gap(gap) => {
                    assert_eq!((gap.after, gap.to), (at, Some(gap.resume)), "{:?}", self.seen);
                    assert!(gap.resume.is_past(at) && !gap.kept);
                    let is_gone = |gap: &Gap| self.trimmed && gap.after.offset + 1 < self.oldest;
                    let skips = self.keeps.is_some() && gap.why == GapCause::Slow && is_gone(gap);
                    assert!(self.mode == Mode::Live || self.trimmed && gap.resume.offset < self.oldest || skips);
                    match gap.why {
                        GapCause::Slow => assert!(self.refused),
                        GapCause::Retention => assert_eq!(self.mode, Mode::Log),
                        GapCause::Live => assert_eq!(self.mode, Mode::Live),
                        why => panic!("{why:?}"),
                    }
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

fn explore(
    lives: &[(u64, u64)],
    stored: u64,
    oldest: u64,
    left: Budget,
    asked: &dyn Fn(u64) -> Vec<ReadFrom>,
) -> usize {
    explore_in(Mode::Log, lives, stored, oldest, left, asked)
}

/// Every schedule of a subscriber that asks to be brought up to date.
fn explore_in(
    mode: Mode,
    lives: &[(u64, u64)],
    stored: u64,
    oldest: u64,
    left: Budget,
    asked: &dyn Fn(u64) -> Vec<ReadFrom>,
) -> usize {
    let mut visited = HashSet::new();
    for fed in 0..=stored {
        for page_size in [1, 2, 9] {
            for capacity in 0..3 {
                for from in asked(fed) {
                    let mut world = World::new(lives, stored, oldest, fed, page_size, capacity);
                    (world.left, world.mode) = (left, mode);
                    let (replay, steps) = Replay::start(from, world.fed, capacity);
                    world.replay = replay;
                    world.apply(steps, None);
                    world.explore(&mut visited);
                }
            }
        }
    }
    visited.len()
}

/// Every schedule of a subscriber that is live.
fn explore_live(lives: &[(u64, u64)], stored: u64, mode: Mode, left: Budget) -> usize {
    let mut visited = HashSet::new();
    for page_size in [1, 2, 9] {
        for capacity in 0..3 {
            let mut world = World::new(lives, stored, 1, stored, page_size, capacity);
            (world.left, world.mode) = (left, mode);
            world.answer = Some(Answer { at: world.fed, resumed: None });
            world.explore(&mut visited);
        }
    }
    visited.len()
}

#[test]
fn every_schedule_in_one_life_gives_all_in_order() {
    let visited = explore(&[(1, 0)], 2, 1, Budget { appends: 2, ..Budget::default() }, &|_| {
        let after = (0..=2).map(|o| ReadFrom::After(Position::new(epoch(1), o)));
        after.chain([ReadFrom::Last(1), ReadFrom::Last(9)]).collect()
    });
    assert!(visited > 5_000, "{visited}");
}

#[test]
fn every_schedule_over_a_change_of_life_tells_it_once_and_gives_all() {
    // The third message begins another life.
    let (one, two) = (Budget { appends: 1, ..Budget::default() }, Budget { appends: 2, ..Budget::default() });
    explore(&[(1, 0), (2, 2)], 1, 1, two, &|_| (0..=1).map(|o| ReadFrom::After(Position::new(epoch(1), o))).collect());
    explore(&[(1, 0), (2, 2)], 3, 1, one, &|_| {
        vec![ReadFrom::After(Position::new(epoch(1), 0)), ReadFrom::After(Position::new(epoch(1), 2))]
    });
}

#[test]
fn a_replay_that_is_refused_room_at_any_item_goes_on_whole_or_tells_what_retention_took() {
    let visited = explore(&[(1, 0)], 2, 1, Budget { appends: 1, refusals: 2, trims: 1, losses: 0 }, &|_| {
        vec![ReadFrom::After(Position::new(epoch(1), 0)), ReadFrom::Last(1)]
    });
    assert!(visited > 5_000, "{visited}");
}

#[test]
fn a_live_subscriber_that_falls_behind_or_loses_items_comes_back_whole_or_is_told_the_exact_range() {
    for lives in [&[(1, 0)][..], &[(1, 0), (2, 2)]] {
        let visited = explore_live(lives, 1, Mode::Log, Budget { appends: 3, refusals: 2, losses: 1, trims: 0 });
        assert!(visited > 4_000, "{visited}");
    }
    explore_live(&[(1, 0)], 1, Mode::Log, Budget { appends: 3, refusals: 2, losses: 1, trims: 2 });
}

#[test]
fn a_slow_reader_that_goes_on_with_the_newest_is_told_exactly_what_it_is_not_given() {
    for keeps in [1, 2] {
        for lives in [&[(1, 0)][..], &[(1, 0), (2, 2)]] {
            let mut visited = HashSet::new();
            for page_size in [1, 2, 9] {
                for capacity in 0..3 {
                    let mut world = World::new(lives, 1, 1, 1, page_size, capacity);
                    world.left = Budget { appends: 3, refusals: 2, losses: 1, trims: u8::from(lives.len() == 1) };
                    world.keeps = Some(keeps);
                    world.answer = Some(Answer { at: world.fed, resumed: None });
                    world.explore(&mut visited);
                }
            }
            assert!(visited.len() > 4_000, "{}", visited.len());
        }
    }
}

#[test]
fn a_slow_reader_of_the_latest_has_the_newest_of_each_key_in_the_end_and_is_told_of_no_gap() {
    let left = Budget { appends: 3, refusals: 2, losses: 1, trims: 0 };
    let visited = explore_live(&[(1, 0)], 1, Mode::Latest, left);
    assert!(visited > 4_000, "{visited}");
}

#[test]
fn a_slow_reader_of_a_topic_that_keeps_nothing_is_told_the_exact_range() {
    let left = Budget { appends: 3, refusals: 2, losses: 1, trims: 0 };
    let visited = explore_live(&[(1, 0)], 1, Mode::Live, left);
    assert!(visited > 2_000, "{visited}");
}

#[test]
fn a_page_that_is_older_than_its_question_is_not_taken_for_the_newest() {
    let at = |o| Position::new(epoch(1), o);
    let mut replay = Replay::<Item>::behind(at(1), Lag::Slow, 8);
    assert_eq!(replay.issue(), ReadFrom::After(at(1)));
    let old =
        Page { mode: Mode::Log, start: at(1), messages: vec![message(at(2))], end: at(2), head: at(2), missing: None };
    let steps = replay.on_page(old, at(4));
    assert_eq!(steps, [Step::Give(Item::Message(message(at(2)))), Step::Read]);
    assert_eq!(replay.issue(), ReadFrom::After(at(2)));
}

#[test]
fn a_page_of_the_old_life_that_comes_behind_the_new_one_is_followed_by_another_read() {
    let (at, new) = (|o| Position::new(epoch(1), o), |o| Position::new(epoch(2), o));
    let mut replay = Replay::<Item>::behind(at(100), Lag::Slow, 8);
    assert_eq!(replay.issue(), ReadFrom::After(at(100)));
    // The master was replaced by one that had less, and the stream goes on there.
    let gap = Gap { after: at(100), resume: new(100), to: None, why: GapCause::Failover, kept: false };
    let item = Item::Gap(gap);
    assert_eq!(replay.on_live(Live { before: at(100), at: new(100), item, size: 1, is_gap: true, ends: None }), []);
    let item = Item::Message(message(new(101)));
    assert_eq!(replay.on_live(Live { before: new(100), at: new(101), item, size: 1, is_gap: false, ends: None }), []);
    // Then comes what the old one still answered.
    let messages: Vec<Message> = (101..=105).map(|o| message(at(o))).collect();
    let page = Page { mode: Mode::Log, start: at(100), messages, end: at(105), head: at(105), missing: None };
    let steps = replay.on_page(page, new(101));
    assert_eq!((steps.len(), steps.last()), (6, Some(&Step::Read)));
    assert_eq!(replay.issue(), ReadFrom::After(at(105)));
    let missing = Some(Missing { why: GapCause::Failover, to: None });
    let messages = vec![message(new(101))];
    let page = Page { mode: Mode::Log, start: new(100), messages, end: new(101), head: new(101), missing };
    let steps = replay.on_page(page, new(101));
    let told = Gap { after: at(105), resume: new(100), to: None, why: GapCause::Failover, kept: false };
    assert_eq!(steps, [Step::Give(Item::Gap(told)), Step::Give(Item::Message(message(new(101)))), Step::Joined]);
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
        let world = World::new(&[(1, 0)], 5, 4, 5, 9, 8);
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
    let two = Budget { appends: 2, ..Budget::default() };
    let visited = explore_in(Mode::Latest, &[(1, 0)], 2, 1, two, &asked);
    assert!(visited > 4_000, "{visited}");
}

#[test]
fn every_schedule_of_a_topic_that_keeps_nothing_gives_what_follows_the_answer_or_tells_that_it_is_gone() {
    let three = Budget { appends: 3, ..Budget::default() };
    let visited = explore_in(Mode::Live, &[(1, 0)], 2, 1, three, &|_| {
        (0..=2).map(|o| ReadFrom::After(Position::new(epoch(1), o))).collect()
    });
    assert!(visited > 500, "{visited}");
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
