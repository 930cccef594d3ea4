//! Medians with their intervals, and the table of them.

use std::time::Duration;

/// What was measured of one server, a turn after the other.
pub struct Figures {
    name: String,
    /// Microseconds of processor time a delivery.
    costs: Vec<f64>,
    latencies: Vec<Duration>,
}

impl Figures {
    pub fn new(name: &str) -> Figures {
        Figures { name: name.into(), costs: Vec::new(), latencies: Vec::new() }
    }

    pub fn add(&mut self, cost: Duration, deliveries: f64, latencies: Vec<Duration>) {
        self.costs.push(cost.as_secs_f64() * 1e6 / deliveries);
        self.latencies.extend(latencies);
    }
}

/// The first is the floor, which the others are held against turn by turn.
pub fn print(all: &[Figures]) {
    let floor = &all[0];
    println!("| | µs a delivery | over the floor | ratio | 95 % | p50 ms | p99 ms |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for figures in all {
        let mut ratios: Vec<f64> = figures.costs.iter().zip(&floor.costs).map(|(cost, floor)| cost / floor).collect();
        let mut over: Vec<f64> = figures.costs.iter().zip(&floor.costs).map(|(cost, floor)| cost - floor).collect();
        let (low, ratio, high) = interval(&mut ratios);
        let mut latencies: Vec<f64> = figures.latencies.iter().map(|l| l.as_secs_f64() * 1e3).collect();
        latencies.sort_by(f64::total_cmp);
        let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
        println!(
            "| {} | {:.2} | {:+.2} | {ratio:.3} | {low:.3}–{high:.3} | {:.2} | {:.2} |",
            figures.name,
            interval(&mut figures.costs.clone()).1,
            interval(&mut over).1,
            at(0.5),
            at(0.99)
        );
    }
}

/// The median and the order statistics between which it lies with 95 %.
pub fn interval(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let half = 1.96 * n.sqrt() / 2.0;
    let at = |i: f64| values[(i.max(0.0) as usize).min(values.len() - 1)];
    (at((n / 2.0 - half).floor()), at((n / 2.0).floor()), at((n / 2.0 + half).ceil()))
}
