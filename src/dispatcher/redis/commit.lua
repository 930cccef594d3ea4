#!lua flags=allow-oom
-- Moves the cursor of a partition on, and keeps what could not be used, in one step.
--
-- KEYS: stream, owner, cursor, dead letters. ARGV: who asks, the cursor when the entries were read, the new cursor, how
-- many entries that is, the most dead letters kept, the name of the source; for each dead letter its entry's id,
-- reason, text, the number of fields, the fields. Answer: 'lost', or how many dead letters had to go.
local stream, owner, cursor, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
if redis.call('GET', owner) ~= ARGV[1] or redis.call('HGET', cursor, 'at') ~= ARGV[2] then return 'lost' end
local time = redis.call('TIME')
redis.call('HSET', cursor, 'at', ARGV[3], 'moved', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)))
redis.call('HINCRBY', cursor, 'count', ARGV[4])

local a = 7
while ARGV[a] do
  local letter = { 'source', ARGV[6], 'entry', ARGV[a], 'reason', ARGV[a + 1], 'text', ARGV[a + 2] }
  local fields = tonumber(ARGV[a + 3])
  for i = a + 4, a + 3 + fields do letter[#letter + 1] = ARGV[i] end
  if fields == 0 then
    -- Too large to have been handed out: it is copied here. No more values than a call can take.
    local entry = redis.call('XRANGE', stream, ARGV[a], ARGV[a])[1]
    for i = 1, math.min(entry and #entry[2] or 0, 4000) do letter[#letter + 1] = entry[2][i] end
  end
  redis.call('XADD', dead, '*', unpack(letter))
  a = a + 4 + fields
end
if a == 7 then return '0' end
return tostring(redis.call('XTRIM', dead, 'MAXLEN', ARGV[5]))
