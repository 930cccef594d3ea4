-- What operators change. Goes after body.lua.
-- ARGV[REST..]: what, and its arguments, see below. Answer: `C`, how many jobs it met; for `redrive` and `purge` also the
-- place to go on at, or -1. Long changes are cut into many calls. Or `E<text>`.

local what, a = ARGV[REST], REST + 1
local CHUNK = 500
local changes = {}

local function number_of(text) return tonumber(text) end

-- digest, text, the settings that hold then
function changes.settings()
  if not exists and ARGV[a] == '' then return 0 end
  if not exists then
    own[2] = ARGV[3]
    call('HSET', ST, 'born', ARGV[3])
    exists = true
  else
    needs_no_room()
  end
  move_due()
  local digest, halted, met = ARGV[a], keep.halts, (ARGV[a] ~= '' or own[1]) and 1 or 0
  if digest == '' then
    call('DEL', CFG)
    call('HDEL', ST, 'v')
  else
    call('SET', CFG, ARGV[a + 1])
    call('HSET', ST, 'v', digest)
  end
  keep = settings_at(a + 2)
  if not keep.start then
    is_armed, since, puts.claimed = true, 0, 0
    call('DEL', UNTOLD)
  end
  if keep.max_workers == 0 then call('DEL', SEATS) end
  if halted and not keep.halts then
    local heads = call('HGETALL', GROUPS)
    for n = 1, #heads, 2 do
      if call('ZSCORE', DEAD, heads[n + 1]) then promote(heads[n]) end
    end
  end
  trim_dead()
  return met
end

-- 1 or 0
function changes.pause()
  local is_new = is_paused ~= (ARGV[a] == '1')
  is_paused = ARGV[a] == '1'
  puts.paused = ARGV[a]
  return is_new and 1 or 0
end

-- number, epoch, body
function changes.edit()
  local id, body = ARGV[a], ARGV[a + 2]
  local job = job_of(id, ARGV[a + 1])
  if not job or job[SPOT] ~= 4 then return 0 end
  local sum = dead_bytes - job[SIZE] + #body
  if sum > keep.dead_bytes then
    return 'EFULL the dead letters of the queue would take ' .. string.format('%.0f', sum) .. ' bytes (dead_bytes)'
  end
  dead_bytes, job[SIZE] = sum, #body
  call('HSET', BODIES, id, body)
  call('HSET', JOBS, id, cmsgpack.pack(job))
  return 1
end

local function redrive(id, job)
  if call('HLEN', JOBS) - call('ZCARD', DEAD) >= keep.max_messages or bytes + job[SIZE] > keep.max_bytes then
    return false
  end
  local head = job[GROUP] ~= '' and call('HGET', GROUPS, job[GROUP])
  leave(id, job)
  job[TRIES], job[EXPIRES] = 0, 0
  if head and head ~= id then
    enter(id, job, 1, 0)
  else
    if job[GROUP] ~= '' then call('HSET', GROUPS, job[GROUP], id) end
    enter(id, job, 0, now)
  end
  add('redriven', 1)
  return true
end

-- `these`, the number of jobs, for each number and epoch; or `oldest`, cause or '', limit, dead letters to leave out
function changes.redrive()
  move_due()
  local met = 0
  if ARGV[a] == 'these' then
    for n = 1, tonumber(ARGV[a + 1]) do
      local id = ARGV[a + 2 * n]
      local job = job_of(id, ARGV[a + 2 * n + 1])
      if job and job[SPOT] == 4 then
        if not redrive(id, job) then return met, -1 end
        met = met + 1
      end
    end
    return met, 0
  end
  local cause, limit, skip = ARGV[a + 1], number_of(ARGV[a + 2]), number_of(ARGV[a + 3])
  local ids = call('ZRANGE', DEAD, skip, skip + CHUNK - 1)
  for _, id in ipairs(ids) do
    local job = load(id)
    if cause == '' or job[CAUSE] == cause then
      if met >= limit or not redrive(id, job) then return met, -1 end
      met = met + 1
    else
      skip = skip + 1
    end
  end
  return met, #ids < CHUNK and -1 or skip
end

-- number, epoch
function changes.remove()
  move_due()
  local job = job_of(ARGV[a], ARGV[a + 1])
  if not job or job[SPOT] == 3 then return 0 end
  delete(ARGV[a], job)
  return 1
end

-- the places
function changes.purge()
  move_due()
  local met = 0
  -- Those that are parked go first, so that nobody becomes the head of a group for a moment.
  for n = a, #ARGV do
    local key = ({ parked = PARKED, ready = READY, delayed = DELAYED, leases = LEASES, dead = DEAD })[ARGV[n]]
    for _, id in ipairs(call('ZRANGE', key, 0, CHUNK - met - 1)) do
      if key == PARKED then id = string.match(id, '%z(%d+)$') end
      delete(id, load(id))
      met = met + 1
    end
    if met >= CHUNK then return met, 0 end
  end
  return met, -1
end

-- worker
function changes.leave()
  local had_one = call('ZREM', SEATS, ARGV[a])
  return had_one, -1, had_one == 1
end

-- number of a firing
function changes.told()
  local met = 0
  for n, packed in ipairs(call('LRANGE', UNTOLD, 0, -1)) do
    if cmsgpack.unpack(packed)[1] == tonumber(ARGV[a]) then
      met = met + call('LREM', UNTOLD, 1, packed)
      if n == 1 then
        puts.claimed = 0
        -- There may be another one to be told.
        has_fired = call('LLEN', UNTOLD) > 0
      end
    end
  end
  return met
end

if what == 'delete' then
  call('UNLINK', unpack(KEYS, 1, 15))
  return { 'C', exists and 1 or 0, -1 }
end
if what ~= 'settings' then
  if not exists then return { 'C', 0, -1 } end
  needs_no_room()
end
local met, further, wakes = changes[what]()
if type(met) == 'string' then return met end
if exists then finish(wakes) end
return { 'C', met, further or -1 }
