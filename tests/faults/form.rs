//! The form in which the faults run, the lock that lets one run at a time, and the place where their figures are kept.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};

/// `./dev` shows this file when all is over.
const FIGURES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/faults.txt");

static ALONE: Mutex<()> = Mutex::const_new(());

/// Whether this is the long form.
pub fn is_long() -> bool {
    std::env::var("FAULTS").is_ok_and(|form| form == "long")
}

pub fn pick<T>(short: T, long: T) -> T {
    if is_long() { long } else { short }
}

/// One fault that runs, and no other beside it.
pub struct Running {
    name: &'static str,
    begun: Instant,
    _alone: MutexGuard<'static, ()>,
}

/// Waits for its turn.
pub async fn begin(name: &'static str) -> Running {
    let alone = ALONE.lock().await;
    Running { name, begun: Instant::now(), _alone: alone }
}

impl Running {
    /// Tells a figure of this run.
    pub fn tell(&self, text: impl fmt::Display) {
        for line in text.to_string().lines() {
            write(&format!("{}: {line}", self.name));
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let end = if std::thread::panicking() { "FAILED" } else { "passed" };
        write(&format!("{}: {end} after {:.1} s", self.name, self.begun.elapsed().as_secs_f64()));
    }
}

fn write(line: &str) {
    eprintln!("{line}");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(Path::new(FIGURES));
    writeln!(file.expect("the target directory can be written"), "{line}").expect("the file can be written");
}
