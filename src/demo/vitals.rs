//! A back end as anyone would write it: it reads this machine's vitals once a second and publishes them with a Redis
//! client. It knows of the hub what every publisher knows, the URL of the door and the name of the stream.

use std::time::Duration;

use serde_json::json;

/// Publishes for as long as it is not dropped; an outage of the door is waited out.
pub async fn publish(redis_url: String, stream: String) {
    let Ok(client) = redis::Client::open(redis_url) else { return };
    let mut before = read();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    // What was not read during an outage is not made up for.
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        loop {
            tick.tick().await;
            let now = read();
            if let (Some(before), Some(now)) = (&before, &now) {
                let data = now.since(before).to_string();
                let mut command = redis::cmd("XADD");
                command
                    .arg(&stream)
                    .arg("*")
                    .arg("topic")
                    .arg("vitals")
                    .arg("name")
                    .arg("vitals")
                    .arg("data")
                    .arg(data);
                if let Err(error) = command.query_async::<String>(&mut connection).await {
                    tracing::debug!(%error, "vitals were not published");
                    break;
                }
            }
            before = now;
        }
    }
}

#[cfg(target_os = "linux")]
use linux::read;

/// Whether this system has what is read here.
pub const AVAILABLE: bool = cfg!(target_os = "linux");

#[cfg(not(target_os = "linux"))]
fn read() -> Option<Vitals> {
    None
}

/// Counters as the system gives them.
struct Vitals {
    /// Busy and total ticks of each core.
    cores: Vec<(u64, u64)>,
    memory: (u64, u64),
    network: (u64, u64),
    load: [f32; 3],
    uptime: f64,
    host: String,
}

impl Vitals {
    /// What the page draws: rates since the last reading.
    fn since(&self, before: &Vitals) -> serde_json::Value {
        let cpu: Vec<f64> = self.cores.iter().zip(&before.cores).map(|(now, then)| share(*now, *then)).collect();
        let seconds = (self.uptime - before.uptime).max(0.1);
        let rate = |now: u64, then: u64| (now.saturating_sub(then) as f64 / seconds).round();
        json!({
            "cpu": cpu,
            "memory": { "total": self.memory.0, "used": self.memory.1 },
            "network": {
                "received": rate(self.network.0, before.network.0),
                "sent": rate(self.network.1, before.network.1),
            },
            "load": self.load.map(|l| (f64::from(l) * 100.0).round() / 100.0),
            "uptime": self.uptime.round(),
            "host": self.host,
        })
    }
}

fn share((busy, total): (u64, u64), (busy_then, total_then): (u64, u64)) -> f64 {
    let total = total.saturating_sub(total_then).max(1) as f64;
    (busy.saturating_sub(busy_then) as f64 / total * 1000.0).round() / 1000.0
}

#[cfg(target_os = "linux")]
mod linux {
    use procfs::{Current, CurrentSI};

    use super::Vitals;

    pub fn read() -> Option<Vitals> {
        let stat = procfs::KernelStats::current().ok()?;
        let memory = procfs::Meminfo::current().ok()?;
        let load = procfs::LoadAverage::current().ok()?;
        let uptime = procfs::Uptime::current().ok()?.uptime;
        let devices = procfs::net::dev_status().ok()?;
        let total = memory.mem_total;
        let free = memory.mem_available.unwrap_or(memory.mem_free);
        Some(Vitals {
            cores: stat.cpu_time.iter().map(ticks).collect(),
            memory: (total, total.saturating_sub(free)),
            network: devices.values().fold((0, 0), |sum, d| (sum.0 + d.recv_bytes, sum.1 + d.sent_bytes)),
            load: [load.one, load.five, load.fifteen],
            uptime,
            host: std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
        })
    }

    fn ticks(core: &procfs::CpuTime) -> (u64, u64) {
        let idle = core.idle + core.iowait.unwrap_or(0);
        let busy = core.user
            + core.nice
            + core.system
            + core.irq.unwrap_or(0)
            + core.softirq.unwrap_or(0)
            + core.steal.unwrap_or(0);
        (busy, busy + idle)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_here_is_drawn_in_bounds() {
        let first = read().expect("/proc is there");
        let drawn = read().expect("/proc is there").since(&first);
        let cores = drawn["cpu"].as_array().unwrap();
        assert!(!cores.is_empty() && cores.iter().all(|c| (0.0..=1.0).contains(&c.as_f64().unwrap())), "{drawn}");
        let memory = &drawn["memory"];
        assert!(memory["used"].as_u64().unwrap() <= memory["total"].as_u64().unwrap(), "{drawn}");
    }
}
