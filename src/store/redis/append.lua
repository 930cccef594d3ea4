-- Appends messages to topics, feeds them, and answers what became of each. Goes after common.lua.
--
-- KEYS: for each group its `wild` key; then for each of its topics log, meta, and the idempotency keys of its items.
-- ARGV[6]: the word for the feed in the names of channels; the number of groups. For each group: the beginning of its keys, the number of its topics. For each topic:
-- name, a fresh epoch, number of items, of ARGV and of idempotency keys that follow. For each item: flags, body, then
-- by flag 1: time to live; 2: (an idempotency key in KEYS); 4: source, and the mark of its entry; 8: the mark of the entry
-- of that source and topic that comes before it in the same batch, and went with an earlier call. A mark is the life
-- of the source and the entry id with digits filled up.
-- Answer: the time; then for each topic its epoch, and for each item the offset, or a text: `R<at>` repeated,
-- `C<at>` conflict, `S` skipped, `E<text>` failed. One that failed was not stored, and the others were. A fenced entry
-- is not stored where one of its source and topic before it failed, be it in this call or in one before.

local FEED = 1 -- the form of what is published, see feed.rs
local feed = ARGV[6]
local now_text = whole(now)
local out = { now_text }

local function text_of(err)
  if type(err) == 'table' then err = err.err end
  return 'E' .. tostring(err)
end

-- Marks of one life have the same beginning and width, so the order of texts is the order of entries.
local function reaches(last, mark)
  if type(last) ~= 'string' then return false end
  local space = string.find(mark, ' ', 1, true)
  return string.sub(last, 1, space) == string.sub(mark, 1, space) and mark <= last
end

local function append_topic(base, wild, name, fresh, items, a, k, key)
  local t = open_topic(KEYS[k], KEYS[k + 1], fresh)
  local epoch = string.match(t.lives, '([^,:]+):%d+$')
  local channel, marks = base .. feed .. ':' .. name, {}
  local held = {} -- sources of which an entry failed, and how
  local was_empty, old, due = t.len == 0, t.old, t.due
  local before, between = FEED .. ' ' .. epoch .. ' ', ' ' .. now_text .. ' '
  out[#out + 1] = epoch
  for _ = 1, items do
    local flags, body = tonumber(ARGV[a]), ARGV[a + 1]
    local answer, digest, ttl, idem, source, mark, refused
    a = a + 2
    if flags % 2 == 1 then ttl, a = tonumber(ARGV[a]), a + 1 end
    if flags % 4 >= 2 then idem, key = KEYS[key], key + 1 end
    if flags % 8 >= 4 then
      source, refused, mark, a = 'f:' .. ARGV[a], 'c:' .. ARGV[a], ARGV[a + 1], a + 2
      local last = marks[source] or redis.pcall('HGET', t.meta, source)
      answer = held[source] or reaches(last, mark) and 'S' or nil
      if flags >= 8 then
        local prior = ARGV[a]
        a = a + 1
        if not answer and not reaches(last, prior)
          and not reaches(marks[refused] or redis.pcall('HGET', t.meta, refused), prior) then
          answer = 'EHELD an earlier entry of its topic was not stored'
        end
      end
    end
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
      local added, expires
      if ttl then
        expires = whole(now + ttl)
        added = redis.pcall('XADD', t.log, offset .. '-0', 't', now_text, 'b', body, 'x', expires)
      else
        added = redis.pcall('XADD', t.log, offset .. '-0', 't', now_text, 'b', body)
      end
      if type(added) == 'table' and added.err then
        answer = text_of(added)
      else
        t.off, t.len, t.bytes, answer = t.off + 1, t.len + 1, t.bytes + #body, t.off + 1
        if idem then redis.pcall('SET', idem, digest .. ' ' .. epoch .. '.' .. offset, 'PX', window) end
        local message = before .. offset .. between .. (expires or '0') .. ' ' .. name .. ' ' .. body
        redis.pcall('PUBLISH', channel, message)
        if wild then redis.pcall('PUBLISH', base .. 'wild-' .. feed, message) end
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
  if was_empty then t.old, t.due = now, 0 end
  pcall(trim, t) -- foreign entries in the log must not stop the record from being written
  keep_alive(t)
  -- Numbers are written as they are read: Redis takes up to 17 digits of them.
  if next(marks) or t.old ~= old or t.due ~= due then
    local record = { t.meta, 'off', t.off, 'bytes', t.bytes, 'old', t.old, 'due', t.due }
    for source, mark in pairs(marks) do
      record[#record + 1], record[#record + 2] = source, mark
    end
    redis.call('HSET', unpack(record))
  else
    redis.call('HSET', t.meta, 'off', t.off, 'bytes', t.bytes)
  end
end

local a, k = 8, 1
for _ = 1, tonumber(ARGV[7]) do
  local base, topics = ARGV[a], tonumber(ARGV[a + 1])
  local wild = redis.call('EXISTS', KEYS[k]) == 1
  a, k = a + 2, k + 1
  for _ = 1, topics do
    local items, args, keys = tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4])
    local answered = #out
    local ok, err = pcall(append_topic, base, wild, ARGV[a], ARGV[a + 1], items, a + 5, k, k + 2)
    if not ok then
      if #out == answered then out[#out + 1] = '0' end
      while #out < answered + 1 + items do out[#out + 1] = text_of(err) end
    end
    a, k = a + 5 + args, k + 2 + keys
  end
end
return out
