-- What append.lua and read.lua share: the clock, the life of this Redis, and the record of a topic.
--
-- A topic is a stream `log` (ids `<offset>-0`; fields: t = time, b = body, x = when it expires) and a hash `meta`:
--   life   the store life that it was last written under     off    the newest offset
--   lives  `epoch:base,epoch:base`, oldest first              bytes  bytes of the bodies in the log
--   old    the time of the oldest entry in the log            due    when the times to live are to be set anew
--   f:NAME the last applied entry of the ingest source NAME  c:NAME  the last one whose idempotency key was in conflict
-- ARGV[1..5]: messages, bytes and milliseconds that the log keeps; milliseconds for idempotency keys and for records.

local MAX_LIVES, TRIM_STEP, TRIM_STEPS = 64, 64, 32

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
-- Another master, or the same one after a restart, has another id. Asked for in the script, so that no write can slip
-- in between a change and our noticing it.
local life = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local keep_messages, keep_bytes, keep_age = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local window, record_age = ARGV[4], tonumber(ARGV[5])

local function whole(n) return string.format('%.0f', n) end

-- Reads the record of a topic; begins its first life, or another one if the store began another.
local function open_topic(log, meta, fresh)
  local r = redis.call('HMGET', meta, 'life', 'off', 'lives', 'bytes', 'old', 'due')
  local t = { log = log, meta = meta, off = tonumber(r[2]) or 0, lives = r[3], bytes = tonumber(r[4]) or 0,
              old = tonumber(r[5]) or 0, due = tonumber(r[6]) or 0, len = redis.call('XLEN', log) }
  if not r[1] or not r[3] then
    redis.call('DEL', log, meta)
    t.off, t.len, t.due, t.lives = 0, 0, 0, fresh .. ':0'
    redis.call('HSET', meta, 'life', life, 'off', 0, 'lives', t.lives, 'bytes', 0)
  elseif r[1] ~= life then
    t.lives = t.lives .. ',' .. fresh .. ':' .. whole(t.off)
    local _, commas = string.gsub(t.lives, ',', '')
    if commas >= MAX_LIVES then t.lives = string.match(t.lives, ',(.*)$') end
    redis.call('HSET', meta, 'life', life, 'lives', t.lives)
  end
  if t.len == 0 then t.bytes = 0 end
  return t
end

-- Takes from the front what is over the bounds, in bounded steps; the newest message always stays, bar its age.
-- Where many are kept they go once a tenth (at most 100) over the bound is there, since a stream frees them in groups.
local function trim(t)
  local slack = keep_messages < 100 and 0 or math.min(math.floor(keep_messages / 10), 100)
  local too_many = t.len > keep_messages + slack
  local keep = keep_messages
  if not too_many then keep = t.len end
  local last_old = now - keep_age
  local steps, first = 0, nil
  while t.len > 0 and (t.len > keep or (t.bytes > keep_bytes and t.len > 1) or t.old <= last_old) and steps < TRIM_STEPS do
    steps, first = steps + 1, nil
    for _, entry in ipairs(redis.call('XRANGE', t.log, '-', '+', 'COUNT', TRIM_STEP)) do
      local fields = entry[2]
      if t.len > keep or (t.bytes > keep_bytes and t.len > 1) or tonumber(fields[2]) <= last_old then
        t.len, t.bytes, first = t.len - 1, t.bytes - #fields[4], entry[1]
      else
        t.old = tonumber(fields[2])
        break
      end
    end
    if not first then break end
    redis.call('XTRIM', t.log, 'MINID', whole(tonumber(string.match(first, '^%d+')) + 1))
  end
  if t.len == 0 then t.bytes = 0 end
  return steps > 0
end

-- Sets the times to live of log and record anew, an eighth of the age before that is needed and not at every write.
local function keep_alive(t)
  if now < t.due then return false end
  local spare = math.floor(keep_age / 8) + 1000
  redis.call('PEXPIRE', t.log, keep_age + spare)
  redis.call('PEXPIRE', t.meta, keep_age + spare + record_age)
  t.due = now + math.floor(keep_age / 8)
  return true
end

