-- Moves what is due, judges, and claims a firing. Goes after body.lua.
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
local is_more = math.min(first_of(LEASES), first_of(DELAYED), first_of(EXPIRING)) <= now
local out = { 'W', moved, is_more and 1 or 0, takeable and 1 or 0, next_change() }
for n, value in ipairs(firing or {}) do out[5 + n] = string.format('%.0f', value) end
return out
