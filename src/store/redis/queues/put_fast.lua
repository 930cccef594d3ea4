-- Puts jobs; the short way, for those with nothing special about them into a queue that is there and has room.
--
-- ARGV[REST..]: `plain` or `any`; the number of jobs; for each its flags, priority and body, and then by flag 1: time to
-- live; 2: group; 4: delay in milliseconds, or 8: when it is due; 16: de-duplication, the window of its key; 32:
-- idempotency, the window; 64: source, mark of its entry, and lives of the source after that one of the mark, parted by
-- spaces; 128: not to be stored in another life than this. `plain`: only flag 1.
-- KEYS[16..]: for each job by flag 32 its idempotency key, by flag 16 its de-duplication key.
-- Answer: `P`, time, epoch, whether the queue began with it, and for each the number, or a text: `R<id>` repeated, `C<id>` conflict, `S` skipped,
-- `E<text>` failed, where an id is `<epoch>.<number>`.

-- The life of this Redis, as in common.lua; found without a pattern, which would take longer than the rest.
local info = call('INFO', 'replication')
local _, before_life = string.find(info, 'master_replid:', 1, true)
local life = string.sub(info, before_life + 1, before_life + 40)

local function id_of(number) return string.format('%015.0f', number) end

local function put_plain()
  local count, ttl_of_all = tonumber(ARGV[REST + 1]), tonumber(ARGV[11])
  local most, most_bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
  if call('HLEN', JOBS) - call('ZCARD', DEAD) + count > most then return end
  local ready, bodies, jobs, expiring, levels = { READY }, { BODIES }, { JOBS }, { EXPIRING }, {}
  local a, at, sum, out = REST + 2, 2, bytes, { 'P', string.format('%.0f', now), epoch, 0 }
  for n = 1, count do
    local level, body, ttl = tonumber(ARGV[a + 1]), ARGV[a + 2], ttl_of_all
    if ARGV[a] == '1' then ttl, a = tonumber(ARGV[a + 3]), a + 1 end
    a, sum = a + 3, sum + #body
    local id, expires = id_of(seq + n), 0
    if ttl > 0 then
      expires = now + ttl
      expiring[#expiring + 1], expiring[#expiring + 2] = expires, id
    end
    ready[at], ready[at + 1] = (9 - level) * LEVEL + seq + n, id
    bodies[at], bodies[at + 1] = id, body
    jobs[at], jobs[at + 1] = id, cmsgpack.pack({ level, 0, now, epoch, '', expires, #body, 0, now, 0 })
    levels[level] = (levels[level] or 0) + 1
    at, out[n + 4] = at + 2, seq + n
  end
  if sum > most_bytes then return end
  call('HSET', ST, 'seq', seq + count, 'bytes', sum)
  call('HSET', unpack(jobs))
  call('HSET', unpack(bodies))
  call('ZADD', unpack(ready))
  if #expiring > 1 then call('ZADD', unpack(expiring)) end
  for level, number in pairs(levels) do call('HINCRBY', ST, 'w' .. level, number) end
  call('HINCRBY', ST, 'put', count)
  if not was_ready and not is_paused then call(PUBLISH, ARGV[2], 'j') end
  return out
end

-- Not with what is judged, or delayed by default, or due.
if ARGV[REST] == 'plain' and exists and own[4] == life and not is_due and ARGV[18] == '' and ARGV[12] == '0'
  and ARGV[16] == '0' then
  local out = put_plain()
  if out then return out end
end
