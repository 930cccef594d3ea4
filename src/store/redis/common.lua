-- What append.lua, read.lua and cursor.lua share: the clock, the life of this Redis, and the record of a topic.
--
-- A topic is a stream `log` (ids `<offset>-0`; fields: t = time, b = body, x = when it expires or 0, k = its key), a hash
-- `vals` in mode `latest` (of each key, and of '' for messages without one, the newest offset and the bytes of its body)
-- and a hash `meta`:
--   life   the store life that it was last written under     off    the newest offset
--   lives  `epoch:base,epoch:base`, oldest first              bytes  bytes of the bodies in the log
--   old    the time of the oldest entry in the log            due    when the times to live are to be set anew
--   mode   the mode that it was last kept in                  new    the time of the newest message
--   floor  the newest offset that bounds took                 cut    the time of that one, or a later time
--   f:NAME the last applied entry of the ingest source NAME  c:NAME  the last one whose idempotency key was in conflict
-- ARGV: milliseconds for idempotency keys; how many settings follow; for each its mode, the messages, bytes and
-- milliseconds that are kept, and milliseconds for the record. A script's own arguments begin at ARGV[rest].

local MAX_LIVES, TRIM_STEP, TRIM_STEPS, CHANGE_STEPS = 64, 64, 32, 160

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
-- Another master, or the same one after a restart, has another id. Asked for in the script, so that no write can slip
-- in between a change and our noticing it.
local life = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local window = ARGV[1]
local settings, rest = {}, 3
for n = 1, tonumber(ARGV[2]) do
  settings[n] = { mode = ARGV[rest], messages = tonumber(ARGV[rest + 1]), bytes = tonumber(ARGV[rest + 2]),
                  age = tonumber(ARGV[rest + 3]), record = tonumber(ARGV[rest + 4]) }
  rest = rest + 5
end

local function whole(n) return string.format('%.0f', n) end
local function offset_of(entry) return tonumber(string.match(entry[1], '^%d+')) end

-- All up to an offset is taken, the last of it not after a time.
local function take_to(t, floor, time)
  if floor > t.floor then t.floor, t.cut = floor, time end
end

-- Of a log that was kept whole only the newest of each key stays.
local function thin_out(t)
  local front = redis.call('XRANGE', t.log, '-', '+', 'COUNT', 1)[1]
  if front then take_to(t, offset_of(front) - 1, tonumber(front[2][2])) end
  local seen, last = {}, '+'
  t.len, t.bytes = 0, 0
  for step = 1, CHANGE_STEPS do
    local entries = redis.call('XREVRANGE', t.log, last, '-', 'COUNT', TRIM_STEP)
    local gone = {}
    for _, entry in ipairs(entries) do
      local key, size = entry[2][8] or '', #entry[2][4]
      if seen[key] then
        gone[#gone + 1] = entry[1]
      else
        seen[key], t.len, t.bytes = true, t.len + 1, t.bytes + size
        redis.call('HSET', t.vals, key, whole(offset_of(entry)) .. ' ' .. size)
      end
    end
    if #gone > 0 then redis.call('XDEL', t.log, unpack(gone)) end
    if #entries < TRIM_STEP then return end
    last = '(' .. entries[#entries][1]
    if step == CHANGE_STEPS then
      -- What lies before that is not looked at any more.
      redis.call('XTRIM', t.log, 'MINID', entries[#entries][1])
      take_to(t, offset_of(entries[#entries]) - 1, tonumber(entries[#entries][2][2]))
    end
  end
end

-- Where only the newest of each key was kept, the history begins behind the last hole: what was replaced has not expired.
local function begin_behind_holes(t)
  local expected, last = t.off, '+'
  t.len, t.bytes = 0, 0
  for _ = 1, CHANGE_STEPS do
    local entries = redis.call('XREVRANGE', t.log, last, '-', 'COUNT', TRIM_STEP)
    local is_hole = false
    for _, entry in ipairs(entries) do
      is_hole = offset_of(entry) ~= expected
      if is_hole then break end
      expected, t.len, t.bytes = expected - 1, t.len + 1, t.bytes + #entry[2][4]
    end
    if is_hole or #entries < TRIM_STEP then break end
    last = '(' .. entries[#entries][1]
  end
  redis.call('XTRIM', t.log, 'MINID', whole(expected + 1))
  redis.call('DEL', t.vals)
  take_to(t, expected, t.new)
end

-- The settings have another mode than the topic was kept in.
local function change_mode(t)
  if t.keep.mode == 'live' then
    redis.call('DEL', t.log, t.vals)
    t.len, t.bytes = 0, 0
    take_to(t, t.off, t.new)
  elseif t.mode == 'latest' then
    begin_behind_holes(t)
  elseif t.keep.mode == 'latest' then
    thin_out(t)
  end
  t.mode, t.due = t.keep.mode, 0
  redis.call('HSET', t.meta, 'mode', t.mode, 'bytes', whole(t.bytes), 'floor', whole(t.floor), 'cut', whole(t.cut))
end

-- Reads the record of a topic; begins its first life, or another one if the store began another.
local function open_topic(log, meta, vals, keep, fresh)
  local r = redis.call('HMGET', meta, 'life', 'off', 'lives', 'bytes', 'old', 'due', 'mode', 'new', 'floor', 'cut')
  local t = { log = log, meta = meta, vals = vals, keep = keep, off = tonumber(r[2]) or 0, lives = r[3],
              bytes = tonumber(r[4]) or 0, old = tonumber(r[5]) or 0, due = tonumber(r[6]) or 0, mode = r[7] or 'log',
              -- A record of an earlier version may be of any time.
              new = tonumber(r[8]) or now, floor = tonumber(r[9]) or 0, cut = tonumber(r[10]) or now,
              len = redis.call('XLEN', log) }
  t.noted = tonumber(r[9]) or 0
  if not r[1] or not r[3] then
    redis.call('DEL', log, meta, vals)
    t.off, t.len, t.due, t.lives, t.mode = 0, 0, 0, fresh .. ':0', keep.mode
    redis.call('HSET', meta, 'life', life, 'off', 0, 'lives', t.lives, 'bytes', 0, 'mode', t.mode)
  elseif r[1] ~= life then
    t.lives = t.lives .. ',' .. fresh .. ':' .. whole(t.off)
    local _, commas = string.gsub(t.lives, ',', '')
    if commas >= MAX_LIVES then t.lives = string.match(t.lives, ',(.*)$') end
    redis.call('HSET', meta, 'life', life, 'lives', t.lives)
  end
  if t.mode ~= keep.mode then change_mode(t) end
  if t.len == 0 then
    t.bytes = 0
    -- Its time was over, or nothing is kept.
    take_to(t, t.off, t.new)
  end
  return t
end

-- Takes from the front what is over the bounds, in bounded steps; the newest message always stays, bar its age.
-- Where many are kept they go once a tenth (at most 100) over the bound is there, since a stream frees them in groups.
local function trim(t)
  local most, most_bytes = t.keep.messages, t.keep.bytes
  local slack = most < 100 and 0 or math.min(math.floor(most / 10), 100)
  local keep = t.len > most + slack and most or t.len
  local last_old = now - t.keep.age
  local steps, first = 0, nil
  while t.len > 0 and (t.len > keep or (t.bytes > most_bytes and t.len > 1) or t.old <= last_old) and steps < TRIM_STEPS do
    steps, first = steps + 1, nil
    for _, entry in ipairs(redis.call('XRANGE', t.log, '-', '+', 'COUNT', TRIM_STEP)) do
      local fields = entry[2]
      local time = tonumber(fields[2])
      if t.len > keep or (t.bytes > most_bytes and t.len > 1) or time <= last_old then
        t.len, t.bytes, first = t.len - 1, t.bytes - #fields[4], offset_of(entry)
        take_to(t, first, time)
        if t.mode == 'latest' then redis.call('HDEL', t.vals, fields[8] or '') end
      else
        t.old = time
        break
      end
    end
    if not first then break end
    redis.call('XTRIM', t.log, 'MINID', whole(first + 1))
  end
  if t.len == 0 then t.bytes = 0 end
  return steps > 0
end

-- A record lives as long as whoever needs it longest, messages or cursors: its time is only ever made longer.
local function keep_record(meta, time)
  if redis.call('PEXPIRE', meta, whole(time), 'NX') == 0 then redis.call('PEXPIRE', meta, whole(time), 'GT') end
end

-- Sets the times to live of log and record anew, an eighth of the age before that is needed and not at every write.
local function keep_alive(t)
  if now < t.due then return false end
  local eighth = math.floor(t.keep.age / 8)
  local time = t.keep.age + eighth + 1000
  redis.call('PEXPIRE', t.log, time)
  if t.mode == 'latest' then redis.call('PEXPIRE', t.vals, time) end
  keep_record(t.meta, time + t.keep.record)
  t.due = now + eighth
  return true
end

