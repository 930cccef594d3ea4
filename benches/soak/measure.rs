//! What the hub's process holds, over time.

use std::fs;
use std::time::{Duration, Instant};

pub struct Sample {
    pub after: Duration,
    pub kib: f64,
    pub files: f64,
}

/// Notes memory and open files until `end`.
pub async fn sample(pid: u32, every: Duration, end: Instant) -> Vec<Sample> {
    let begun = Instant::now();
    let mut tick = tokio::time::interval(every);
    let mut samples = Vec::new();
    while Instant::now() < end {
        tick.tick().await;
        let after = begun.elapsed();
        samples.push(Sample { after, kib: resident(pid), files: files(pid) });
        if samples.len() % 20 == 0 {
            let last = samples.last().expect("one was pushed");
            println!("  {:5.0} s  {:8.0} KiB  {:4.0} files", after.as_secs_f64(), last.kib, last.files);
        }
    }
    samples
}

/// Prints what they say, without the time in which caches and history fill.
pub fn print(samples: &[Sample], warm_up: Duration) {
    let warm: Vec<&Sample> = samples.iter().filter(|s| s.after >= warm_up).collect();
    let (Some(first), Some(last)) = (warm.first(), warm.last()) else { return println!("  too short to say anything") };
    let slope = |value: fn(&Sample) -> f64| {
        slope(&warm.iter().map(|s| (s.after.as_secs_f64() / 60.0, value(s))).collect::<Vec<_>>())
    };
    println!(
        "  resident memory  {:.0} KiB at the start, {:.0} KiB after {:.0} s of warm-up, {:.0} KiB at the end",
        samples[0].kib,
        first.kib,
        warm_up.as_secs_f64(),
        last.kib
    );
    println!("                   slope {:+.1} KiB a minute over {} samples", slope(|s| s.kib), warm.len());
    let files = || warm.iter().map(|s| s.files);
    println!(
        "  open files       {:.0} to {:.0}, {:.0} at the end; slope {:+.2} a minute",
        files().fold(f64::INFINITY, f64::min),
        files().fold(0.0, f64::max),
        last.files,
        slope(|s| s.files)
    );
}

/// By least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let over: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let under: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    if under > 0.0 { over / under } else { 0.0 }
}

fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the hub runs");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("Linux tells it");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

fn files(pid: u32) -> f64 {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the hub runs").count() as f64
}
