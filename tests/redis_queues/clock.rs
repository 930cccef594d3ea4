//! Time that goes by for one queue. The clock of a Redis cannot be moved, so all that lies in it is moved into the past.

use std::time::Duration;

/// Moves all that the queue holds back by so many milliseconds.
const SHIFT: &str = r"
local base, by = ARGV[1], tonumber(ARGV[2])
for _, name in ipairs({ 'delayed', 'leases', 'dead', 'expiring', 'seats' }) do
  for _, member in ipairs(redis.call('ZRANGE', base .. name, 0, -1)) do
    redis.call('ZINCRBY', base .. name, -by, member)
  end
end
local jobs = redis.call('HGETALL', base .. 'jobs')
for n = 1, #jobs, 2 do
  local job = cmsgpack.unpack(jobs[n + 1])
  job[3] = job[3] - by
  if job[6] > 0 then job[6] = job[6] - by end
  if job[8] ~= 1 then job[9] = job[9] - by end
  if job[8] == 3 then job[12] = job[12] - by end
  redis.call('HSET', base .. 'jobs', jobs[n], cmsgpack.pack(job))
end
local failures = redis.call('HGETALL', base .. 'failures')
for n = 1, #failures, 2 do
  local list = cmsgpack.unpack(failures[n + 1])
  for _, failure in ipairs(list) do failure[1] = failure[1] - by end
  redis.call('HSET', base .. 'failures', failures[n], cmsgpack.pack(list))
end
local claimed = redis.call('HGET', base .. 'st', 'claimed')
if claimed then redis.call('HSET', base .. 'st', 'claimed', math.max(0, claimed - by)) end
for n, packed in ipairs(redis.call('LRANGE', base .. 'untold', 0, -1)) do
  local firing = cmsgpack.unpack(packed)
  firing[4] = firing[4] - by
  redis.call('LSET', base .. 'untold', n - 1, cmsgpack.pack(firing))
end
for _, key in ipairs(redis.call('KEYS', base .. '*')) do
  local left = redis.call('PTTL', key)
  if left > by then redis.call('PEXPIRE', key, left - by) elseif left >= 0 then redis.call('DEL', key) end
end
";

/// The connection must lead to the server that has the queue.
pub fn pass(hand: &mut redis::Connection, prefix: &str, queue: &str, time: Duration) {
    let base = format!("{prefix}:{{q:{queue}}}:");
    redis::cmd("EVAL").arg(SHIFT).arg(0).arg(base).arg(time.as_millis() as u64).exec(hand).unwrap();
}
