//! How an embedded store tells the time: by the clock on the wall, and for queues by one that does not jump when that one is
//! set.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// By so much at the most a steady clock is faster or slower than time goes by, while it follows the clock on the wall.
const SLEW: u64 = 100;
/// How often it looks at the clock on the wall, in milliseconds.
const LOOK: u64 = 1_000;
/// A clock that is further away than this was not set before: it is followed at once.
const UNSET: u64 = 24 * 3_600 * 1_000;

type Tell = Arc<dyn Fn() -> u64 + Send + Sync>;

#[derive(Clone)]
pub struct Clock {
    wall: Tell,
    /// `None`: the other one never jumps by mistake.
    pace: Option<Arc<Mutex<Pace>>>,
}

impl Clock {
    /// That of this machine.
    pub fn of_machine() -> Clock {
        let pace = Pace::begin(wall(), passed());
        Clock { wall: Arc::new(wall), pace: Some(Arc::new(Mutex::new(pace))) }
    }

    /// One that a test moves. All that it jumps has gone by.
    pub fn by_hand(tell: impl Fn() -> u64 + Send + Sync + 'static) -> Clock {
        Clock { wall: Arc::new(tell), pace: None }
    }

    /// That of this machine, but that the one on the wall is wrong by what a test says.
    #[cfg(test)]
    pub fn wrong_by(ahead: Arc<std::sync::atomic::AtomicI64>) -> Clock {
        let wrong = move || wall().saturating_add_signed(ahead.load(std::sync::atomic::Ordering::SeqCst));
        Clock { wall: Arc::new(wrong), ..Clock::of_machine() }
    }

    /// Milliseconds since 1970, as the machine says.
    pub fn now(&self) -> u64 {
        (self.wall)()
    }

    /// The same, but that a step of the clock on the wall is no step here: leases, delays and windows last as long as they
    /// should. What is off is made up for, one second in a hundred.
    pub fn steady(&self) -> u64 {
        let Some(pace) = &self.pace else { return self.now() };
        pace.lock().unwrap_or_else(PoisonError::into_inner).tell(self.now(), passed())
    }
}

/// A steady clock, given both others. It never goes back, but where it follows at once.
#[derive(Debug)]
struct Pace {
    /// What it said at its last look, when that was, and by how much the clock on the wall was ahead.
    told: u64,
    at: u64,
    ahead: i64,
}

impl Pace {
    fn begin(wall: u64, passed: u64) -> Pace {
        Pace { told: wall, at: passed, ahead: 0 }
    }

    fn tell(&mut self, wall: u64, passed: u64) -> u64 {
        let since = passed.saturating_sub(self.at);
        let most = (since / SLEW) as i64;
        let mut now = (self.told + since).saturating_add_signed(self.ahead.clamp(-most, most));
        if since >= LOOK {
            if now.abs_diff(wall) > UNSET {
                now = wall;
            }
            *self = Pace { told: now, at: passed, ahead: wall as i64 - now as i64 };
        }
        now
    }
}

fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as u64)
}

/// Milliseconds since the machine started, its sleep counted.
#[cfg(target_os = "linux")]
fn passed() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let time = Duration::new(time.tv_sec as u64, time.tv_nsec as u32);
    time.as_millis() as u64
}

/// Milliseconds since this was asked first.
#[cfg(not(target_os = "linux"))]
fn passed() -> u64 {
    static FIRST: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    FIRST.get_or_init(std::time::Instant::now).elapsed().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_331_083_000;
    const HOUR: i64 = 3_600_000;

    /// Told each so many milliseconds, with the wall so far ahead.
    fn run(pace: &mut Pace, from: u64, to: u64, step: u64, ahead: i64) -> Vec<u64> {
        (from..to).step_by(step as usize).map(|t| pace.tell((NOW + t).saturating_add_signed(ahead), t)).collect()
    }

    #[test]
    fn a_step_of_the_clock_on_the_wall_is_none_here() {
        for ahead in [HOUR, -HOUR] {
            let mut pace = Pace::begin(NOW, 0);
            run(&mut pace, 0, 10_000, 7, 0);
            let told = run(&mut pace, 10_000, 70_000, 7, ahead);
            assert!(told.is_sorted());
            let off = told.last().unwrap().abs_diff(NOW + 69_998);
            assert!((300..=600).contains(&off), "a minute is off by {off} ms");
            // The wall is right again.
            let told = run(&mut pace, 70_000, 140_000, 7, 0);
            assert!(told.is_sorted() && told.last().unwrap().abs_diff(NOW + 140_000) < 20);
        }
    }

    #[test]
    fn a_clock_that_runs_a_little_fast_is_followed() {
        let mut pace = Pace::begin(NOW, 0);
        for t in (0..3_600_000).step_by(50) {
            let wall = NOW + t + t / 2_000;
            assert!(pace.tell(wall, t).abs_diff(wall) <= 2);
        }
    }

    #[test]
    fn a_clock_that_was_never_set_is_followed_at_once_when_it_is() {
        let mut pace = Pace::begin(1_000, 0);
        assert_eq!(pace.tell(2_500, 1_500), 2_500);
        pace.tell(NOW, 3_000);
        assert_eq!(pace.tell(NOW + 100, 3_100), NOW + 100);
    }

    #[test]
    fn that_of_this_machine_tells_the_time() {
        let clock = Clock::of_machine();
        assert!(clock.steady().abs_diff(clock.now()) < 1_000);
    }
}
