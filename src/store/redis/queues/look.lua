-- What is known of a queue and its jobs. Goes after body.lua. What is due is moved first, as in every call.
-- ARGV[REST..]: `stats`; `jobs`, place, skip, limit; `job`, number, epoch; `mark`, source; or `settings`.
-- Answer: `A` if the queue is not there. `N`: numbers and workers, see below. `J`, and for each job number, epoch, place,
-- priority, group, tries, time, until, expires, cause, attempts (packed) and body. `M` and the mark. `O`.

local what = ARGV[REST]
if what == 'mark' then return { 'M', call('HGET', MARKS, ARGV[REST + 1]) or '' } end
if what == 'settings' then return { 'O' } end
if not exists then return { 'A' } end
needs_no_room()
move_due()
finish()

if what == 'stats' then
  local oldest = oldest_since()
  local out = { 'N', call('ZCARD', PARKED), call('ZCARD', DELAYED), call('ZCARD', LEASES), call('ZCARD', DEAD),
                string.format('%.0f', bytes), string.format('%.0f', dead_bytes), oldest and now - oldest or -1,
                is_paused and 1 or 0, keep.start and keep.start.is_gate and (is_open() and 1 or 0) or -1 }
  local totals = call('HMGET', ST, 'firings', 'put', 'repeated', 'taken', 'acked', 'nacked', 'lease_ended', 'died',
    'redriven', 'forgotten')
  for _, number in ipairs(totals) do out[#out + 1] = number or 0 end
  for level = 0, 9 do out[#out + 1] = waiting_of(level) end
  local seats = keep.max_workers > 0 and call('ZRANGE', SEATS, 0, -1) or {}
  table.sort(seats)
  for _, worker in ipairs(seats) do out[#out + 1] = worker end
  return out
end

local PLACES = { ready = READY, parked = PARKED, delayed = DELAYED, leases = LEASES, dead = DEAD }
local ids
if what == 'jobs' then
  local skip, limit = tonumber(ARGV[REST + 2]), tonumber(ARGV[REST + 3])
  ids = call('ZRANGE', PLACES[ARGV[REST + 1]], skip, skip + limit - 1)
  if ARGV[REST + 1] == 'parked' then
    for n, entry in ipairs(ids) do ids[n] = string.match(entry, '%z(%d+)$') end
  end
else
  ids = { job_of(ARGV[REST + 1], ARGV[REST + 2]) and ARGV[REST + 1] }
end
local out = { 'J' }
for _, id in ipairs(ids) do
  local job = load(id)
  local at = #out
  out[at + 1], out[at + 2], out[at + 3], out[at + 4], out[at + 5] = id, job[EPOCH], job[SPOT], job[PRIORITY], job[GROUP]
  out[at + 6], out[at + 7] = job[TRIES], string.format('%.0f', job[TIME])
  out[at + 8], out[at + 9] = string.format('%.0f', job[UNTIL]), string.format('%.0f', job[EXPIRES])
  out[at + 10] = job[SPOT] == 4 and job[CAUSE] or ''
  local failures = {}
  if job[FAILED] > 0 then
    for _, failure in ipairs(cmsgpack.unpack(call('HGET', FAILURES, id))) do
      local text = failure[4] and '+' .. failure[4] or ''
      local time = string.format('%.0f', failure[1])
      failures[#failures + 1] = { time, failure[2], failure[3], text }
    end
  end
  out[at + 11], out[at + 12] = failures, call('HGET', BODIES, id)
end
return out
