-- Appends messages to topics, feeds them, and answers what became of each. Goes after common.lua, and after a line that
-- says by which command messages are fed: channels of a cluster are sharded.
--
-- KEYS: for each group its `wild` key; then for each of its topics log, meta, vals, and the idempotency keys of its items.
-- ARGV[rest..]: the word for the feed in the names of channels; the life that the server should be in; the number of groups.
-- For each group: the beginning of its keys, the number of its topics. For each topic: name, which of the settings are its, a fresh epoch, number of items, of
-- ARGV and of idempotency keys that follow. For each item: flags, body, then by flag 1: time to live; 2: (an idempotency
-- key in KEYS); 4: source, and the mark of its entry; 8: the mark of the entry of that source and topic that comes before
-- it in the same batch, and went with an earlier call; 16: the key of what it replaces; 32: (before that
-- key) lives of the source that came after the one of the mark, parted by spaces; 64: not to be stored in another life than
-- told. A mark is the life of the source and the entry id with digits filled up.
-- Answer: for each topic the time and its epoch, and for each item the offset, or a text: `R<at>` repeated,
-- `C<at>` conflict, `S` skipped, `E<text>` failed. One that failed was not stored, and the others were. A fenced entry
-- is not stored where one of its source and topic before it failed, be it in this call or in one before.

local FEED = 1 -- the form of what is published, see feed.rs
local feed = ARGV[rest]
local should_live = ARGV[rest + 1]
local out = {}

local function text_of(err)
  if type(err) == 'table' then err = err.err end
  return 'E' .. tostring(err)
end

-- Marks of one life have the same beginning and width, so the order of texts is the order of entries.
local function reaches(last, mark, later)
  if type(last) ~= 'string' then return false end
  local of = string.sub(last, 1, string.find(last, ' ', 1, true))
  if of == string.sub(mark, 1, #of) then return mark <= last end
  return later ~= nil and string.find(later .. ' ', of, 1, true) ~= nil
end

-- Puts a message into the log, as the topic's mode wants it; answers an error of Redis.
local function keep_message(t, offset, time, body, expires, key)
  if t.mode == 'live' then
    -- Written at once, so that a Redis without room refuses before anybody hears of it.
    local written = redis.pcall('HSET', t.meta, 'off', offset, 'new', time)
    if type(written) == 'table' and written.err then return written end
    t.floor, t.cut = t.off + 1, tonumber(time)
    return nil
  end
  local fields = { 't', time, 'b', body }
  if expires or key then fields[5], fields[6] = 'x', expires or '0' end
  if key then fields[7], fields[8] = 'k', key end
  local added = redis.pcall('XADD', t.log, offset .. '-0', unpack(fields))
  if type(added) == 'table' and added.err then return added end
  t.len, t.bytes = t.len + 1, t.bytes + #body
  if t.mode == 'latest' then
    local prior = redis.pcall('HGET', t.vals, key or '')
    local replaced, size = string.match(type(prior) == 'string' and prior or '', '^(%d+) (%d+)$')
    if replaced and redis.pcall('XDEL', t.log, replaced .. '-0') == 1 then
      t.len, t.bytes = t.len - 1, t.bytes - tonumber(size)
    end
    redis.pcall('HSET', t.vals, key or '', offset .. ' ' .. #body)
  end
  return nil
end

local function append_topic(base, wild, name, keep, fresh, items, a, k, key)
  local t = open_topic(KEYS[k], KEYS[k + 1], KEYS[k + 2], keep, fresh)
  local epoch = string.match(t.lives, '([^,:]+):%d+$')
  local channel, marks = base .. feed .. ':' .. name, {}
  local held = {} -- sources of which an entry failed, and how
  local was_empty, old, due = t.len == 0, t.old, t.due
  -- Times never descend within a topic, though the clock does (another master may have an earlier one): `since` finds
  -- its first message by that. What ends by time is counted on the clock.
  local time = math.max(now, t.new)
  local time_text = whole(time)
  local before, between = FEED .. ' ' .. epoch .. ' ', ' ' .. time_text .. ' '
  out[#out + 1], out[#out + 2] = time_text, epoch
  for _ = 1, items do
    local flags, body = tonumber(ARGV[a]), ARGV[a + 1]
    local answer, digest, ttl, idem, source, mark, refused, replaces
    a = a + 2
    if flags % 2 == 1 then ttl, a = tonumber(ARGV[a]), a + 1 end
    if flags % 4 >= 2 then idem, key = KEYS[key], key + 1 end
    if flags % 8 >= 4 then
      source, refused, mark, a = 'f:' .. ARGV[a], 'c:' .. ARGV[a], ARGV[a + 1], a + 2
      local last = marks[source] or redis.pcall('HGET', t.meta, source)
      local prior, later
      if flags % 16 >= 8 then prior, a = ARGV[a], a + 1 end
      if flags % 64 >= 32 then later, a = ARGV[a], a + 1 end
      answer = held[source] or reaches(last, mark, later) and 'S' or nil
      if not answer and flags >= 64 and life ~= should_live then answer = 'EHELD the store began another life' end
      if prior then
        if not answer and not reaches(last, prior)
          and not reaches(marks[refused] or redis.pcall('HGET', t.meta, refused), prior) then
          answer = 'EHELD an earlier entry of its topic was not stored'
        end
      end
    end
    if flags % 32 >= 16 then replaces, a = ARGV[a], a + 1 end
    if idem and not answer then
      digest = redis.sha1hex(body)
      local known = redis.pcall('GET', idem)
      if type(known) == 'table' then
        answer = text_of(known)
      elseif known then
        answer = (string.sub(known, 1, 40) == digest and 'R' or 'C') .. string.sub(known, 42)
      end
    end
    if not answer then
      local offset = whole(t.off + 1)
      local expires = ttl and whole(now + ttl)
      local refusal = keep_message(t, offset, time_text, body, expires, replaces)
      if refusal then
        answer = text_of(refusal)
      else
        t.off, t.new, answer = t.off + 1, time, t.off + 1
        if idem then redis.pcall('SET', idem, digest .. ' ' .. epoch .. '.' .. offset, 'PX', window) end
        -- Who hears it counts the time to live from the time beside it.
        local ends = ttl and whole(time + ttl) or '0'
        local message = before .. offset .. between .. ends .. ' ' .. name .. ' ' .. body
        redis.pcall(PUBLISH, channel, message)
        if wild then redis.pcall(PUBLISH, base .. 'wild-' .. feed, message) end
      end
    end
    if source then
      local kind = type(answer) == 'number' and 'R' or string.sub(answer, 1, 1)
      if kind == 'R' then
        marks[source] = mark
      elseif kind == 'C' then
        marks[refused] = mark
      elseif kind == 'E' then
        held[source] = answer
      end
    end
    out[#out + 1] = answer
  end
  if was_empty and t.mode ~= 'live' then t.old, t.due = time, 0 end
  pcall(trim, t) -- foreign entries in the log must not stop the record from being written
  keep_alive(t)
  -- Numbers are written as they are read: Redis takes up to 17 digits of them.
  local record = { t.meta, 'off', t.off, 'bytes', t.bytes, 'new', t.new }
  local function put(name, value)
    record[#record + 1], record[#record + 2] = name, value
  end
  if t.old ~= old or t.due ~= due then
    put('old', t.old)
    put('due', t.due)
  end
  if t.floor ~= t.noted then
    put('floor', t.floor)
    put('cut', t.cut)
  end
  for source, mark in pairs(marks) do put(source, mark) end
  redis.call('HSET', unpack(record))
end

local a, k = rest + 3, 1
for _ = 1, tonumber(ARGV[rest + 2]) do
  local base, topics = ARGV[a], tonumber(ARGV[a + 1])
  local wild = redis.call('EXISTS', KEYS[k]) == 1
  a, k = a + 2, k + 1
  for _ = 1, topics do
    local keep = settings[tonumber(ARGV[a + 1])]
    local items, args, keys = tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5])
    local answered = #out
    local ok, err = pcall(append_topic, base, wild, ARGV[a], keep, ARGV[a + 2], items, a + 6, k, k + 3)
    if not ok then
      if #out == answered then out[#out + 1], out[#out + 2] = '0', '0' end
      while #out < answered + 2 + items do out[#out + 1] = text_of(err) end
    end
    a, k = a + 6 + args, k + 3 + keys
  end
end
return out
