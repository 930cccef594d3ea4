-- Looks up, moves, makes and removes cursors. Goes after common.lua.
--
-- A hash `cursors` for each topic and owner holds of each name `<position> <when it was last used>`. It lives as long as
-- the youngest of them, and keeps the record of its topic as long; those that are over go when others are written.
-- KEYS: for each use the log, meta, vals and cursors that it is about. ARGV[rest..]: milliseconds between two uses that are
-- written down, and after the last of them until a cursor is over; how many a hash holds; the number of uses; for each
-- its kind, a fresh epoch, a name, and two words: for `open` where a new one begins (`newest`, `oldest`, `at` and the
-- position), for `commit` the position and `1` to allow to go back.
-- Answer, for each use: a code, the lives and the newest offset of the topic, then by code: `N` made or `O` found: where
-- it stands and when it was used; `B`: where it stands, which is further; `U` no position of the topic; `F` no room;
-- `A` absent; `D` removed; `L` all of them: name, position, use, and so on. Or a text: `E<text>` failed.

local SWEEP, SWEEP_FULL = 2, 64
local grain, lifetime, most = tonumber(ARGV[rest]), tonumber(ARGV[rest + 1]), tonumber(ARGV[rest + 2])

local function split(text)
  local at, used = string.match(text, '^(%S+) (%d+)$')
  return at, tonumber(used)
end

local function is_over(used) return used + lifetime <= now end

local function find(key, name)
  local text = redis.call('HGET', key, name)
  if not text then return nil end
  local at, used = split(text)
  if is_over(used) then
    redis.call('HDEL', key, name)
    return nil
  end
  return at, used
end

-- Looks at some of them, and removes what is over.
local function sweep(key, count)
  local found, gone = redis.call('HRANDFIELD', key, count, 'WITHVALUES'), {}
  for n = 1, #found, 2 do
    local _, used = split(found[n + 1])
    if is_over(used) then gone[#gone + 1] = found[n] end
  end
  if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
end

local function has_room(key)
  if redis.call('HLEN', key) < most then return true end
  sweep(key, SWEEP_FULL)
  return redis.call('HLEN', key) < most
end

local function put(t, key, name, at, used)
  sweep(key, SWEEP)
  redis.call('HSET', key, name, at .. ' ' .. whole(used))
  redis.call('PEXPIRE', key, whole(lifetime + 1000))
  keep_record(t.meta, lifetime + 1000)
end

-- The order of a position among those that the topic knows: its life, then its offset. See `domain::cursor`.
local function rank(t, at)
  local epoch, offset = string.match(at, '^([^.]+)%.(%d+)$')
  local n, found = 0, nil
  offset = tonumber(offset)
  for known, base in string.gmatch(t.lives, '([^,:]+):(%d+)') do
    base = tonumber(base)
    if found then return offset <= base and found or nil, offset end
    n = n + 1
    if known == epoch then
      if offset < base then return nil end
      found = n
    end
  end
  return found and offset <= t.off and found or nil, offset
end

local function first_place(t, first, at)
  if first == 'at' and rank(t, at) then return at end
  local offset = t.off
  if first == 'oldest' then
    offset = t.floor
    local front = t.mode == 'log' and redis.call('XRANGE', t.log, '-', '+', 'COUNT', 1)[1]
    if t.mode == 'log' then offset = front and offset_of(front) - 1 or t.off end
  end
  local epoch
  for known, base in string.gmatch(t.lives, '([^,:]+):(%d+)') do
    -- The life of the message that follows; at the head, the newest.
    if not epoch or offset >= tonumber(base) then epoch = known end
  end
  return epoch .. '.' .. whole(offset)
end

local function told(code, t, at, used)
  return { code, t.lives, t.off, at, whole(used) }
end

local uses = {}

function uses.open(t, key, name, first, at)
  local stands, used = find(key, name)
  if not stands then
    if not has_room(key) then return { 'F' } end
    stands = first_place(t, first, at)
    put(t, key, name, stands, now)
    return told('N', t, stands, now)
  end
  if used + grain <= now then
    used = now
    put(t, key, name, stands, used)
  end
  return told('O', t, stands, used)
end

function uses.commit(t, key, name, at, rewind)
  local life, offset = rank(t, at)
  if not life then return { 'U', t.lives, t.off } end
  local stands, used = find(key, name)
  if not stands then
    if not has_room(key) then return { 'F' } end
    put(t, key, name, at, now)
    return told('N', t, at, now)
  end
  local stood, stood_offset = rank(t, stands)
  if rewind ~= '1' and stood and (stood > life or stood == life and stood_offset > offset) then
    return { 'B', t.lives, t.off, stands }
  end
  if used + grain <= now then
    used = now
  elseif stands == at then
    return told('O', t, at, used)
  end
  put(t, key, name, at, used)
  return told('O', t, at, used)
end

function uses.find(t, key, name)
  local stands, used = find(key, name)
  if not stands then return { 'A' } end
  return told('O', t, stands, used)
end

function uses.remove(_, key, name)
  return { find(key, name) and redis.call('HDEL', key, name) == 1 and 'D' or 'A' }
end

function uses.list(t, key)
  local found, listed = redis.call('HGETALL', key), {}
  for n = 1, #found, 2 do
    local at, used = split(found[n + 1])
    if not is_over(used) then
      listed[#listed + 1], listed[#listed + 2], listed[#listed + 3] = found[n], at, whole(used)
    end
  end
  return { 'L', t.lives, t.off, listed }
end

local function use(n, a)
  local k, kind = 4 * (n - 1) + 1, ARGV[a]
  local makes = kind == 'open' or kind == 'commit'
  -- Looking begins no topic.
  if not makes and redis.call('EXISTS', KEYS[k + 1]) == 0 then return { 'A' } end
  local t = open_topic(KEYS[k], KEYS[k + 1], KEYS[k + 2], settings[n], ARGV[a + 1])
  if makes then
    if trim(t) then
      redis.call('HSET', t.meta, 'bytes', whole(t.bytes), 'old', whole(t.old), 'floor', whole(t.floor), 'cut', whole(t.cut))
    end
    if keep_alive(t) then redis.call('HSET', t.meta, 'due', whole(t.due)) end
  end
  return uses[kind](t, KEYS[k + 3], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4])
end

local answers = {}
for n = 1, tonumber(ARGV[rest + 3]) do
  local ok, answer = pcall(use, n, rest + 4 + 5 * (n - 1))
  if not ok then
    if type(answer) == 'table' then answer = answer.err end
    answer = 'E' .. tostring(answer)
  end
  answers[n] = answer
end
return answers
