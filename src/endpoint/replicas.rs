//! Which replicas a master can count on, by what it says of them. No I/O.

/// One that has not answered for so many seconds is not counted on.
const MOST_LAG: u64 = 10;

/// How many are in step, by the master's `INFO replication`.
pub fn replicas_in_step(info: &str) -> usize {
    let lines = info.lines().filter_map(|line| line.trim().split_once(':'));
    let is_replica = |name: &str| name.strip_prefix("slave").is_some_and(|n| n.parse::<u32>().is_ok());
    lines.filter(|(name, state)| is_replica(name) && is_in_step(state)).count()
}

/// Reads `ip=…,port=…,state=online,offset=…,lag=0`.
fn is_in_step(replica: &str) -> bool {
    let (mut online, mut late) = (false, false);
    for (name, value) in replica.split(',').filter_map(|field| field.split_once('=')) {
        match name {
            "state" => online = value == "online",
            "lag" => late = value.parse::<u64>().is_ok_and(|lag| lag > MOST_LAG),
            _ => {}
        }
    }
    online && !late
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_not_online_or_late_is_not_in_step() {
        for (state, count) in [
            ("state=online,offset=1,lag=0", 1),
            ("state=online,offset=1,lag=10", 1),
            ("state=online,offset=1,lag=11", 0),
            ("state=wait_bgsave,offset=0,lag=0", 0),
        ] {
            let info = format!("role:master\r\nconnected_slaves:1\r\nslave0:ip=a,port=1,{state}\r\nslave_x:online\r\n");
            assert_eq!(replicas_in_step(&info), count, "{state}");
        }
    }
}
