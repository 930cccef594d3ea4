-- Ends or extends deliveries, the whole way. Goes after settle_fast.lua and body.lua.

local MAX_DELAY = 31536000000

needs_no_room()
move_due()

local function text_of(word) return string.sub(word, 1, 1) == '+' and string.sub(word, 2) or false end

local function wait_after(delivery)
  local n, last = 0, 0
  for wait in string.gmatch(keep.backoff, '%d+') do
    n, last = n + 1, tonumber(wait)
    if n == delivery then break end
  end
  return last
end

local function nack(id, job, delay, text)
  add('nacked', 1)
  fail(id, job, 'nack', text_of(text))
  if job[TRIES] >= keep.max_deliveries then
    bury(id, job, 'max-deliveries')
    return 'B'
  end
  delay = math.min(tonumber(delay) or wait_after(job[TRIES]), MAX_DELAY)
  if delay == 0 or job[EXPIRES] > 0 and job[EXPIRES] <= now then return give_back(id, job, now) and 'B' or 'D' end
  shift(id, job, 2, now + delay)
  return 'D'
end

local function settle(code, id, its_epoch, token, a)
  local job = job_of(id, its_epoch)
  if not job then return 'G' end
  if job[SPOT] ~= 3 or job[TOKEN] ~= token then return 'N' end
  if job[UNTIL] <= now then
    -- More leases ended than were moved just now.
    end_lease(id, job)
    return 'N'
  end
  if code == 'a' then
    add('acked', 1)
    delete(id, job)
    return 'D'
  elseif code == 'n' then
    return nack(id, job, ARGV[a], ARGV[a + 1])
  elseif code == 'r' then
    job[TRIES] = job[TRIES] - 1
    return give_back(id, job, now) and 'B' or 'D'
  elseif code == 't' then
    fail(id, job, 'term', text_of(ARGV[a]))
    bury(id, job, 'term')
    return 'B'
  end
  local time = math.min(now + (tonumber(ARGV[a]) or keep.lease), job[BEGUN] + keep.max_lease)
  job[UNTIL] = time
  call('ZADD', LEASES, time, id)
  call('HSET', JOBS, id, cmsgpack.pack(job))
  return 'X' .. string.format('%.0f', math.max(time - now, 0))
end

local words = { a = 0, r = 0, n = 2, t = 1, x = 1 }
local out, a = { 'S' }, REST + 2
for n = 1, tonumber(ARGV[REST + 1]) do
  local code = ARGV[a]
  out[n + 1] = settle(code, ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], a + 4)
  a = a + 4 + words[code]
  judge()
end
if exists then finish() end
return out
