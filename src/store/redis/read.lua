-- Reads a stretch of a topic with all that is needed to judge it. Goes after common.lua.
--
-- KEYS: log, meta. ARGV[6..]: a fresh epoch; `after` or `last`; a number (an offset: read what follows it; or how many
-- of the newest); how many messages and bytes at most, at least one message.
-- Answer: lives, newest offset, oldest offset kept (newest + 1 if none), the offset from which and the one to which was
-- read, and the messages (offset, time, body): all of the stretch that have not expired.

local SCAN_STEP, SCAN_STEPS = 64, 160

local t = open_topic(KEYS[1], KEYS[2], ARGV[6])
if trim(t) then redis.call('HSET', t.meta, 'bytes', whole(t.bytes), 'old', whole(t.old)) end
if keep_alive(t) then redis.call('HSET', t.meta, 'due', whole(t.due)) end

local from, most, most_bytes = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
if ARGV[7] == 'last' then from = math.max(t.off - from, 0) end

local oldest = t.off + 1
local front = redis.call('XRANGE', t.log, '-', '+', 'COUNT', 1)[1]
if front then oldest = tonumber(string.match(front[1], '^%d+')) end

local messages, bytes, to, steps, full = {}, 0, from, 0, false
while to < t.off and not full and steps < SCAN_STEPS do
  steps = steps + 1
  local entries = redis.call('XRANGE', t.log, whole(to + 1), '+', 'COUNT', SCAN_STEP)
  for _, entry in ipairs(entries) do
    local fields = entry[2]
    if not fields[6] or tonumber(fields[6]) > now then
      if #messages > 0 and (#messages >= most or bytes + #fields[4] > most_bytes) then
        full = true
        break
      end
      messages[#messages + 1] = { tonumber(string.match(entry[1], '^%d+')), tonumber(fields[2]), fields[4] }
      bytes = bytes + #fields[4]
    end
    to = tonumber(string.match(entry[1], '^%d+'))
  end
  if #entries < SCAN_STEP and not full then to = t.off end
end
return { t.lives, t.off, oldest, from, math.max(to, from), messages }
