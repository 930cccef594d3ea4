-- Moves what is due, judges, and claims a firing; forgets a queue that was not used for long. Goes after body.lua.
-- ARGV[REST]: milliseconds that a queue is remembered that holds nothing, has no settings of its own and is not used.
-- Answer: `W`, jobs moved, whether more is due, whether something can be taken, milliseconds until something changes or
-- -1, and where a firing was claimed: number, oldest, arm, time, and what waits by priority.

if not exists then return { 'W', 0, 0, 0, -1 } end
needs_no_room()
local moved = move_due()
local takeable = finish()
local firing
if fires_wait() then
  firing = cmsgpack.unpack(call('LINDEX', UNTOLD, 0))
  puts.claimed = now + CLAIM
  call('HSET', ST, 'claimed', puts.claimed)
end

-- `idle` in st: since when nothing was put or taken, and how much had been by then. What is bound of a topic is not forgotten:
-- its whole history would be bound anew.
local function is_over()
  if own[1] or is_paused then return false end
  if call('HLEN', JOBS) > 0 or call('LLEN', UNTOLD) > 0 or call('ZCARD', SEATS) > 0 then return false end
  local used = (own[7] or '0') .. ' ' .. (own[8] or '0')
  local time, before = string.match(call('HGET', ST, 'idle') or '', '^(%d+) (.*)$')
  if before ~= used then
    call('HSET', ST, 'idle', string.format('%.0f', now) .. ' ' .. used)
    return false
  end
  if now - tonumber(time) < tonumber(ARGV[REST]) then return false end
  for _, source in ipairs(call('HKEYS', MARKS)) do
    if string.sub(source, 1, 6) == 'topic:' then return false end
  end
  return true
end

if is_over() then
  call('UNLINK', unpack(KEYS, 1, 15))
  return { 'W', moved, 0, 0, -1 }
end
local is_more = math.min(first_of(LEASES), first_of(DELAYED), first_of(EXPIRING)) <= now
local out = { 'W', moved, is_more and 1 or 0, takeable and 1 or 0, next_change() }
for n, value in ipairs(firing or {}) do out[5 + n] = string.format('%.0f', value) end
return out
