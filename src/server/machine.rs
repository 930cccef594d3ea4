//! What the machine, or the container, lets this process have.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a hub opens beside its connections: listeners, the store, Redis, logs.
const OTHERS: u64 = 100;
/// The least that may wait for connections.
const LEAST: usize = 4 << 20;

/// Raises the limit of open files as far as it may be, and says how many connections that leaves room for.
pub fn open_files() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let files = if raised.is_ok() { maximum } else { current };
    files.unwrap_or(u64::MAX).saturating_sub(OTHERS)
}

/// Bytes that this process may use: the least of the machine's memory, its control group's, and its own limit.
pub fn memory() -> u64 {
    let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    });
    let machine = total.map_or(u64::MAX, |kib| kib * 1024);
    let own = getrlimit(Resource::As).current.unwrap_or(u64::MAX);
    machine.min(own).min(control_group().unwrap_or(u64::MAX))
}

/// Bytes that may wait for connections: what is set, or 70 % of what there is, without what the cache of history may take.
pub fn budget(limit: usize, cache: usize) -> usize {
    let all = if limit == 0 { usize::try_from(memory() / 10 * 7).unwrap_or(usize::MAX) } else { limit };
    // However little it is, somebody can be served.
    all.saturating_sub(cache).max(LEAST)
}

/// The least limit of the groups that this process is in, of either version.
fn control_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut least = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            some if some.split(',').any(|one| one == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        // In a container the path is often the host's, and the group is seen at the root.
        let mut path = path.trim_end_matches('/');
        loop {
            let limit = fs::read_to_string(format!("{root}{path}/{name}")).ok();
            let limit = limit.and_then(|text| text.trim().parse::<u64>().ok());
            least = [least, limit].into_iter().flatten().min();
            match path.rfind('/') {
                Some(end) => path = &path[..end],
                None => break,
            }
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_memory_and_files() {
        let (memory, connections) = (memory(), open_files());
        assert!(memory > 64 << 20 && memory < u64::MAX, "{memory}");
        assert!(connections > 0);
        assert!(getrlimit(Resource::Nofile).current.is_none_or(|files| files > connections));
    }
}
