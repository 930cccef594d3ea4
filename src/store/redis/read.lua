-- Reads a stretch of a topic with all that is needed to judge it. Goes after common.lua.
--
-- KEYS: log, meta, vals. ARGV[rest..]: a fresh epoch; `after`, `last` or `since`; a number (an offset: read what follows
-- it; how many of the newest; a time: read what was stored then or later); how many messages and bytes at most, at least
-- one message.
-- Answer: lives, newest offset, oldest offset not taken by bounds (newest + 1 if there is none), the first offset of the
-- newest so many (in mode `latest`) or since that time, 1 if bounds may have taken one since that time, the offset from
-- which and the one to which was read, and the messages (offset, time, body, when it expires or 0): all of the stretch
-- that have not expired.

local SCAN_STEP, SCAN_STEPS = 64, 160

local t = open_topic(KEYS[1], KEYS[2], KEYS[3], settings[1], ARGV[rest])
if trim(t) then
  redis.call('HSET', t.meta, 'bytes', whole(t.bytes), 'old', whole(t.old), 'floor', whole(t.floor), 'cut', whole(t.cut))
end
if keep_alive(t) then redis.call('HSET', t.meta, 'due', whole(t.due)) end

local kind, number = ARGV[rest + 1], tonumber(ARGV[rest + 2])
local most, most_bytes = tonumber(ARGV[rest + 3]), tonumber(ARGV[rest + 4])

local function is_readable(entry)
  local expires = tonumber(entry[2][6] or 0)
  return expires == 0 or expires > now
end

local function first_from(offset)
  local entry = redis.call('XRANGE', t.log, whole(offset), '+', 'COUNT', 1)[1]
  return entry and offset_of(entry), entry and tonumber(entry[2][2])
end

local function first_of_newest(count)
  local first, last = t.off + 1, '+'
  for _ = 1, SCAN_STEPS do
    local entries = redis.call('XREVRANGE', t.log, last, '-', 'COUNT', SCAN_STEP)
    for _, entry in ipairs(entries) do
      if count == 0 then return first end
      if is_readable(entry) then first, count = offset_of(entry), count - 1 end
    end
    if #entries < SCAN_STEP then return first end
    last = '(' .. entries[#entries][1]
  end
  -- There are more than are looked at: all of them.
  return first_from(0)
end

-- Times never descend with offsets (see append.lua), so the first is found by halving.
local function first_since(time)
  local low, high = first_from(0) or t.off + 1, t.off + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    local offset, at = first_from(middle)
    if offset and at < time then low = offset + 1 else high = middle end
  end
  return first_from(low) or t.off + 1
end

-- In a log the first entry tells it; where some are replaced, only what was noted when bounds took one.
local oldest = t.floor + 1
if t.mode == 'log' then oldest = first_from(0) or t.off + 1 end

local from, first, cut = number, t.off + 1, 0
if kind == 'last' and t.mode == 'log' then
  from = math.max(t.off - number, 0)
elseif kind == 'last' then
  first = first_of_newest(number)
  from = first - 1
elseif kind == 'since' then
  first = first_since(number)
  from = first - 1
  if oldest > 1 and number <= t.cut then cut = 1 end
end

local messages, bytes, to, steps, full = {}, 0, from, 0, false
while to < t.off and not full and steps < SCAN_STEPS do
  steps = steps + 1
  local entries = redis.call('XRANGE', t.log, whole(to + 1), '+', 'COUNT', SCAN_STEP)
  for _, entry in ipairs(entries) do
    local fields = entry[2]
    if is_readable(entry) then
      if #messages > 0 and (#messages >= most or bytes + #fields[4] > most_bytes) then
        full = true
        break
      end
      messages[#messages + 1] = { offset_of(entry), tonumber(fields[2]), fields[4], tonumber(fields[6] or 0) }
      bytes = bytes + #fields[4]
    end
    to = offset_of(entry)
  end
  if #entries < SCAN_STEP and not full then to = t.off end
end
return { t.lives, t.off, oldest, first, cut, from, math.max(to, from), messages }
