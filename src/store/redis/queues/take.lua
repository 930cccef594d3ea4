-- Takes jobs, the whole way. Goes after take_fast.lua and body.lua.

needs_no_room()
move_due()
judge()

local may_take = true
if keep.max_workers > 0 then
  may_take = call('ZSCORE', SEATS, worker) or call('ZCARD', SEATS) < keep.max_workers
  if may_take then call('ZADD', SEATS, now + SEAT, worker) end
end

local function next_to_take()
  if keep.fair_every > 0 and (taken + 1) % keep.fair_every == 0 then
    local oldest
    for level = 0, 9 do
      local id = waiting_of(level) > 0 and first_ready(level)
      if id and (not oldest or id < oldest) then oldest = id end
    end
    return oldest
  end
  return call('ZRANGE', READY, 0, 0)[1]
end

local out = { 'T', '', 0, -1, 0, lease }

local function lend()
  local count, sum, buried = 0, 0, 0
  local start = keep.start
  if start and start.is_gate and start.batch > 0 then most = math.min(most, start.batch - since) end
  while count < most do
    local id = next_to_take()
    if not id then return end
    local job = load(id)
    local has_expired = job[EXPIRES] > 0 and job[EXPIRES] <= now
    if has_expired or job[TRIES] >= keep.max_deliveries then
      if buried == MOST_MOVED then return end
      buried = buried + 1
      bury(id, job, has_expired and 'expired' or 'max-deliveries')
    else
      if count > 0 and sum + job[SIZE] > most_bytes then return end
      count, sum, taken, since = count + 1, sum + job[SIZE], taken + 1, since + 1
      leave(id, job)
      job[TRIES], job[TOKEN], job[BEGUN], job[WORKER] = job[TRIES] + 1, token, now, worker
      enter(id, job, 3, now + lease)
      out[#out + 1], out[#out + 2], out[#out + 3], out[#out + 4] = id, job[EPOCH], job[TRIES], job[PRIORITY]
      out[#out + 1], out[#out + 2], out[#out + 3] =
        job[GROUP], string.format('%.0f', job[TIME]), call('HGET', BODIES, id)
    end
  end
end

if may_take and not is_paused and is_open() then lend() end
local takeable = finish()
if is_paused then
  out[2] = 'paused'
elseif not is_open() then
  out[2] = 'gate'
elseif not may_take then
  out[2] = 'seats'
elseif takeable then
  out[3] = 1
end
out[4] = next_change()
out[5] = fires_wait() and 1 or 0
return out
