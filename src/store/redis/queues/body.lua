-- What a queue does, for the calls that do not go the short way; goes after head.lua. It agrees with the pure queue of
-- `domain::queue::machine`, function by function.

local MOST_MOVED, MOST_ATTEMPTS, MOST_UNTOLD = 100, 10, 100
local CLAIM, SEAT = 5000, 10000

-- The settings as a call tells them, from this argument on.
local function settings_at(a)
  local keep = {
    max_messages = tonumber(ARGV[a]), max_bytes = tonumber(ARGV[a + 1]), on_full = ARGV[a + 2],
    lease = tonumber(ARGV[a + 3]), max_lease = tonumber(ARGV[a + 4]), max_deliveries = tonumber(ARGV[a + 5]),
    backoff = ARGV[a + 6], ttl = tonumber(ARGV[a + 7]), delay = tonumber(ARGV[a + 8]),
    dead_messages = tonumber(ARGV[a + 9]), dead_bytes = tonumber(ARGV[a + 10]), halts = ARGV[a + 11] == 'halt',
    max_workers = tonumber(ARGV[a + 12]), fair_every = tonumber(ARGV[a + 13]),
  }
  -- `gate` or `notify`, batch or 0, and the arms: `count N`, `urgent N PRIORITY`, `oldest MS`.
  local mode, batch, arms = string.match(ARGV[a + 14], '^(%a+),(%d+),(.*)$')
  if mode then
    keep.start = { is_gate = mode == 'gate', batch = tonumber(batch), arms = {} }
    for word, number, level in string.gmatch(arms, '(%a+) (%d+) ?(%d*)') do
      keep.start.arms[#keep.start.arms + 1] = { word = word, number = tonumber(number), level = tonumber(level) or 0 }
    end
  end
  return keep
end

local keep = settings_at(4)
local adds, puts, waiting, since, has_fired = {}, {}, nil, tonumber(own[9]) or 0, false
local first_bytes, first_dead_bytes, first_taken = bytes, dead_bytes, taken

local function add(field, by) adds[field] = (adds[field] or 0) + by end

local function waiting_of(level)
  if not waiting then
    waiting = {}
    for n, count in ipairs(call('HMGET', ST, 'w0', 'w1', 'w2', 'w3', 'w4', 'w5', 'w6', 'w7', 'w8', 'w9')) do
      waiting[n - 1] = tonumber(count) or 0
    end
  end
  return waiting[level] + (adds['w' .. level] or 0)
end

local function sum_waiting(from)
  local sum = 0
  for level = from, 9 do sum = sum + waiting_of(level) end
  return sum
end

local function is_open() return not (keep.start and keep.start.is_gate and is_armed) end
local was_takeable = was_ready and not is_paused and is_open()

local function load(id)
  local text = call('HGET', JOBS, id)
  return text and cmsgpack.unpack(text) or nil
end

local function leave(id, job)
  local spot = job[SPOT]
  if spot == 0 then
    call('ZREM', READY, id)
    add('w' .. job[PRIORITY], -1)
  elseif spot == 1 then
    call('ZREM', PARKED, job[GROUP] .. '\0' .. id)
    add('w' .. job[PRIORITY], -1)
  elseif spot == 2 then
    call('ZREM', DELAYED, id)
  elseif spot == 3 then
    call('ZREM', LEASES, id)
  else
    call('ZREM', DEAD, id)
  end
  if spot < 3 then
    if job[EXPIRES] > 0 then call('ZREM', EXPIRING, id) end
  else
    job[13], job[12], job[11] = nil, nil, nil
  end
  if spot == 4 then dead_bytes = dead_bytes - job[SIZE] else bytes = bytes - job[SIZE] end
end

local function enter(id, job, spot, time)
  job[SPOT], job[UNTIL] = spot, time
  if spot == 0 then
    call('ZADD', READY, (9 - job[PRIORITY]) * LEVEL + tonumber(id), id)
    add('w' .. job[PRIORITY], 1)
  elseif spot == 1 then
    call('ZADD', PARKED, 0, job[GROUP] .. '\0' .. id)
    add('w' .. job[PRIORITY], 1)
  elseif spot == 2 then
    call('ZADD', DELAYED, time, id)
  elseif spot == 3 then
    call('ZADD', LEASES, time, id)
  else
    call('ZADD', DEAD, time, id)
  end
  if spot < 3 and job[EXPIRES] > 0 then call('ZADD', EXPIRING, job[EXPIRES], id) end
  if spot == 4 then dead_bytes = dead_bytes + job[SIZE] else bytes = bytes + job[SIZE] end
  call('HSET', JOBS, id, cmsgpack.pack(job))
end

local function shift(id, job, spot, time)
  leave(id, job)
  enter(id, job, spot, time)
end

-- The head of a group is gone: the next one is takeable now.
local function promote(group)
  local entry = call('ZRANGEBYLEX', PARKED, '[' .. group .. '\0', '(' .. group .. '\1', 'LIMIT', 0, 1)[1]
  if not entry then
    call('HDEL', GROUPS, group)
    return
  end
  local id = string.sub(entry, #group + 2)
  call('HSET', GROUPS, group, id)
  shift(id, load(id), 0, now)
end

local function is_head(id, job) return job[GROUP] ~= '' and call('HGET', GROUPS, job[GROUP]) == id end

local function delete(id, job)
  leave(id, job)
  call('HDEL', JOBS, id)
  call('HDEL', BODIES, id)
  if job[FAILED] > 0 then call('HDEL', FAILURES, id) end
  if is_head(id, job) then promote(job[GROUP]) end
end

local function trim_dead()
  while dead_bytes > keep.dead_bytes or call('ZCARD', DEAD) > keep.dead_messages do
    local id = call('ZRANGE', DEAD, 0, 0)[1]
    if not id then return end
    delete(id, load(id))
    add('forgotten', 1)
  end
end

local function bury(id, job, cause)
  local led = is_head(id, job)
  leave(id, job)
  job[CAUSE] = cause
  enter(id, job, 4, now)
  add('died', 1)
  if led and not keep.halts then promote(job[GROUP]) end
  trim_dead()
end

local function fail(id, job, how, text)
  local known = call('HGET', FAILURES, id)
  local list = known and cmsgpack.unpack(known) or {}
  if #list >= MOST_ATTEMPTS then table.remove(list, 1) end
  list[#list + 1] = { now, job[WORKER], how, text }
  call('HSET', FAILURES, id, cmsgpack.pack(list))
  job[FAILED] = job[FAILED] + 1
end

-- One that was in flight waits again; says whether it had expired, and is dead now.
local function give_back(id, job, time)
  if job[EXPIRES] > 0 and job[EXPIRES] <= now then
    bury(id, job, 'expired')
    return true
  end
  shift(id, job, 0, time)
  return false
end

local function end_lease(id, job)
  add('lease_ended', 1)
  fail(id, job, 'lease', false)
  if job[TRIES] >= keep.max_deliveries then
    bury(id, job, 'max-deliveries')
  else
    give_back(id, job, job[UNTIL])
  end
end

local function due(key) return call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, MOST_MOVED) end

-- Moves what is due, so many of each kind at most; says how many.
local function move_due()
  local moved = 0
  if is_due then
    local ended = due(LEASES)
    for _, id in ipairs(ended) do end_lease(id, load(id)) end
    local over = due(DELAYED)
    for _, id in ipairs(over) do
      local job = load(id)
      shift(id, job, 0, job[UNTIL])
    end
    local expired = due(EXPIRING)
    for _, id in ipairs(expired) do bury(id, load(id), 'expired') end
    moved = #ended + #over + #expired
  end
  -- Somebody who stands by can have a seat that has ended.
  if keep.max_workers > 0 and call('ZREMRANGEBYSCORE', SEATS, '-inf', now) > 0 then was_takeable = false end
  return moved
end

-- The first of a priority of those that can be taken.
local function first_ready(level)
  local from = (9 - level) * LEVEL
  return call('ZRANGEBYSCORE', READY, from, from + LEVEL - 1, 'LIMIT', 0, 1)[1]
end

-- Since when the one of the first of each priority has been takeable that has been so for longest.
local function oldest_since()
  local oldest
  for level = 0, 9 do
    local id = waiting_of(level) > 0 and first_ready(level)
    local time = id and load(id)[UNTIL]
    if time and (not oldest or time < oldest) then oldest = time end
  end
  return oldest
end

local function is_true(arm)
  if arm.word == 'oldest' then
    local oldest = oldest_since()
    return oldest ~= nil and oldest + arm.number <= now
  end
  return sum_waiting(arm.level) >= arm.number
end

local function fire(arm)
  is_armed, since, has_fired = false, 0, true
  local firing = { call('HINCRBY', ST, 'firings', 1), now - (oldest_since() or now), arm - 1, now }
  for level = 0, 9 do firing[5 + level] = waiting_of(level) end
  if call('RPUSH', UNTOLD, cmsgpack.pack(firing)) > MOST_UNTOLD then
    call('LPOP', UNTOLD)
    puts.claimed = 0
  end
end

local function judge()
  local start = keep.start
  if not start then return end
  if not is_armed and (start.batch > 0 and since >= start.batch or sum_waiting(0) == 0) then is_armed = true end
  if not is_armed then return end
  for n, arm in ipairs(start.arms) do
    if is_true(arm) then return fire(n) end
  end
end

local function is_takeable() return not is_paused and is_open() and call('ZCARD', READY) > 0 end

local function claimed_until() return puts.claimed or tonumber(call('HGET', ST, 'claimed')) or 0 end

-- A firing waits to be told, and is nobody's to tell.
local function fires_wait() return keep.start ~= nil and call('LLEN', UNTOLD) > 0 and claimed_until() <= now end

-- How long until something changes by itself, or -1.
local function next_change()
  local time = math.min(first_of(LEASES), first_of(DELAYED), first_of(EXPIRING))
  if keep.max_workers > 0 then time = math.min(time, first_of(SEATS)) end
  if keep.start then
    if is_armed then
      local age
      for _, arm in ipairs(keep.start.arms) do
        if arm.word == 'oldest' and (not age or arm.number < age) then age = arm.number end
      end
      local oldest = age and oldest_since()
      if oldest then time = math.min(time, oldest + age) end
    end
    local claimed = claimed_until()
    if claimed > now and call('LLEN', UNTOLD) > 0 then time = math.min(time, claimed) end
  end
  return time == math.huge and -1 or math.max(time - now, 0)
end

-- The end of each call: judges, writes down, wakes. With `wakes` whoever waits is woken in any case.
local function finish(wakes)
  judge()
  for field, by in pairs(adds) do
    if by ~= 0 then call('HINCRBY', ST, field, string.format('%.0f', by)) end
  end
  adds, waiting = {}, nil
  if bytes ~= first_bytes then puts.bytes = bytes end
  if dead_bytes ~= first_dead_bytes then puts.dbytes = dead_bytes end
  if taken ~= first_taken then puts.taken = taken end
  if since ~= (tonumber(own[9]) or 0) then puts.since = since end
  if is_armed ~= (own[6] ~= '0') then puts.armed = is_armed and '1' or '0' end
  local fields = { ST }
  for field, value in pairs(puts) do fields[#fields + 1], fields[#fields + 2] = field, value end
  if #fields > 1 then call('HSET', unpack(fields)) end
  local takeable = is_takeable()
  if takeable and (wakes or not was_takeable) then call(PUBLISH, ARGV[2], 'j') end
  if has_fired then call(PUBLISH, ARGV[2], 'f') end
  return takeable
end

-- The job that an id names, if it is here.
local function job_of(id, its_epoch)
  local job = load(id)
  return job and job[EPOCH] == its_epoch and job or nil
end

-- The first write of a call may be refused where Redis has no room, and what comes after it is not. What makes room must
-- go on, so it begins with a write that needs none.
local function needs_no_room() call('HDEL', ST, '-') end
