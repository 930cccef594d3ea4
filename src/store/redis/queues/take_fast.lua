-- Takes jobs; the short way, where nothing is due, judged or bounded.
--
-- ARGV[REST..]: worker, count, bytes, lease or '', token.
-- Answer: `T`, why there is no more or '', whether there is more, milliseconds until something changes or -1, whether a
-- firing waits to be told, the lease; then for each job number, epoch, tries, priority, group, time and body.

local worker, most, most_bytes, token = ARGV[REST], tonumber(ARGV[REST + 1]), tonumber(ARGV[REST + 2]), ARGV[REST + 4]
local lease = math.min(tonumber(ARGV[REST + 3]) or tonumber(ARGV[7]), tonumber(ARGV[8]))
if not exists then return { 'T', '', 0, -1, 0, lease } end

local function take_first()
  local ids = call('ZRANGE', READY, 0, most - 1)
  local out = { 'T', '', 0, -1, 0, lease }
  if #ids > 0 then
    local max_deliveries, until_when, sum, count = tonumber(ARGV[9]), now + lease, 0, 0
    local records, jobs, leases, levels, expiring = call('HMGET', JOBS, unpack(ids)), { JOBS }, { LEASES }, {}, { EXPIRING }
    for n, id in ipairs(ids) do
      local job = cmsgpack.unpack(records[n])
      if job[TRIES] >= max_deliveries then return end
      if n > 1 and sum + job[SIZE] > most_bytes then break end
      sum, count = sum + job[SIZE], n
      local level, tries = job[PRIORITY], job[TRIES] + 1
      out[#out + 1], out[#out + 2], out[#out + 3], out[#out + 4] = id, job[EPOCH], tries, level
      out[#out + 1], out[#out + 2], out[#out + 3] = job[GROUP], string.format('%.0f', job[TIME]), ''
      job[TRIES], job[SPOT], job[UNTIL], job[TOKEN], job[BEGUN], job[WORKER] = tries, 3, until_when, token, now, worker
      jobs[2 * n], jobs[2 * n + 1] = id, cmsgpack.pack(job)
      leases[2 * n], leases[2 * n + 1] = until_when, id
      levels[level] = (levels[level] or 0) + 1
      if job[EXPIRES] > 0 then expiring[#expiring + 1] = id end
    end
    call('ZREMRANGEBYRANK', READY, 0, count - 1)
    for n, body in ipairs(call('HMGET', BODIES, unpack(ids, 1, count))) do out[6 + 7 * n] = body end
    call('ZADD', unpack(leases))
    call('HSET', unpack(jobs))
    if #expiring > 1 then
      call('ZREM', unpack(expiring))
      next_expiring = first_of(EXPIRING)
    end
    for level, number in pairs(levels) do call('HINCRBY', ST, 'w' .. level, -number) end
    call('HSET', ST, 'taken', taken + count)
    next_lease = math.min(next_lease, until_when)
    if count < #ids or #ids == most and call('ZCARD', READY) > 0 then out[3] = 1 end
  end
  local time = math.min(next_lease, next_delayed, next_expiring)
  if time < math.huge then out[4] = math.max(time - now, 0) end
  return out
end

if not is_due and not is_paused and most > 0 and ARGV[16] == '0' and ARGV[17] == '0' and ARGV[18] == '' then
  call('HDEL', ST, '-') -- as in `needs_no_room`
  local out = take_first()
  if out then return out end
end
