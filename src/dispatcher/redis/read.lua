-- Reads what follows the cursor of a partition, and takes nothing away but what was applied long ago.
-- Goes after ids.lua.
--
-- KEYS: stream, owner, cursor; for a list also the list and its wake key. ARGV: who asks, most entries, most bytes of
-- all, most bytes of one, ms that applied entries are kept.
-- Answer: 'lost'; or life, cursor, entries that wait, entries that were trimmed away unread, the time, `under`, and the
-- entries: an id with its fields, or with its size if it is larger than one may be.
--
-- The cursor is a hash: `at`, the last id that was committed; `count`, how many entries had been added to the stream
-- up to there; `gen`, how often the stream began anew under the same server; `trimmed`,
-- entries lost to publishers, and `trimmed_at`, when last; `seen` and `life`, the last id that was handed out and under
-- which life; `past`, such pairs of lives that ended, oldest first; `under`, see made_up.lua; `moved`, when the cursor
-- was last moved; `marked` and `marked_at`, where it stood at a moment before.
--
-- Why `seen`: after a restart or a failover the server has a new life, and fences of two lives are not compared, as ids
-- may have been drawn twice. But what this record tells was written after the entries up to `seen`; where it has
-- survived, so have they, and they are the very entries that were handed out under the old life. So they are handed
-- out under it again, alone, and those that were applied already are skipped.
local stream, owner, cursor, list, wake = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local me, most, most_bytes, entry_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local keep = tonumber(ARGV[5])
if redis.call('GET', owner) ~= me then return { 'lost' } end

local function whole(number) return string.format('%.0f', number) end

local function facts()
  if redis.call('EXISTS', stream) == 0 then return { length = 0, added = 0, last = '0-0', first = '0-0' } end
  local reply, found = redis.call('XINFO', 'STREAM', stream), {}
  for i = 1, #reply, 2 do found[reply[i]] = reply[i + 1] end
  return {
    length = found['length'],
    added = found['entries-added'],
    last = found['last-generated-id'],
    first = found['recorded-first-entry-id'],
  }
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local life = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or '?'
local info = facts()
local state = redis.call('HMGET', cursor, 'at', 'count', 'gen', 'seen', 'life', 'past', 'under', 'moved', 'marked',
  'marked_at')
local at, count, gen = state[1], tonumber(state[2] or 0), tonumber(state[3] or 0)
local seen, old_life = state[4] or '0-0', state[5]
local moved, marked, marked_at = tonumber(state[8]), state[9], tonumber(state[10])

-- Within a life the last id of a stream only rises, also beyond what was handed out and is not committed yet.
local is_another = old_life == (gen > 0 and life .. '.' .. whole(gen) or life) and is_past(seen, info.last)
if not at or is_past(at, info.last) or is_another or info.added < count then
  -- The first time; or the stream is not the one that was read: somebody deleted it, and what it has now is new.
  if at and (at ~= '0-0' or is_another) then gen = gen + 1 end
  at, count, seen, moved, marked = '0-0', info.added - info.length, '0-0', nil, nil
  -- `seen` too: what the next one finds must not be taken for what was handed out of the stream before.
  redis.call('HSET', cursor, 'at', at, 'count', whole(count), 'gen', whole(gen), 'seen', seen)
end
if gen > 0 then life = life .. '.' .. whole(gen) end
local again = old_life and old_life ~= life and is_past(seen, at)
  and #redis.call('XRANGE', stream, '(' .. at, seen, 'COUNT', 1) == 1
if again then life = old_life end

local waiting, trimmed = math.max(info.added - count, 0), 0
if info.length == 0 or is_past(info.first, at) then
  -- Nothing of what was read is left, so all that is left waits; what was added besides is gone.
  trimmed = math.max(waiting - info.length, 0)
  waiting = info.length
  if trimmed > 0 then
    redis.call('HINCRBY', cursor, 'count', whole(trimmed))
    redis.call('HINCRBY', cursor, 'trimmed', whole(trimmed))
    redis.call('HSET', cursor, 'trimmed_at', whole(now))
  end
end

local entries, bytes, last = {}, 0, at
local function take(id, fields)
  local size = 0
  for i = 1, #fields do size = size + #fields[i] end
  if size > entry_bytes then
    entries[#entries + 1] = { id, size }
  else
    entries[#entries + 1] = { id, fields }
    bytes = bytes + size
  end
  last = id
end

while #entries < most and bytes < most_bytes do
  local some = redis.call('XRANGE', stream, '(' .. last, again and seen or '+', 'COUNT', math.min(50, most - #entries))
  if #some == 0 then break end
  for _, entry in ipairs(some) do take(entry[1], entry[2]) end
end

if list then
  -- What waits at the wake key came off the list first.
  local function move(from)
    while #entries < most and bytes < most_bytes do
      local some = redis.call('LPOP', from, math.min(50, most - #entries))
      if not some or #some == 0 then break end
      for _, text in ipairs(some) do
        take(redis.call('XADD', stream, '*', 'document', text), { 'document', text })
        waiting = waiting + 1
      end
    end
  end
  if bytes < most_bytes and not again then
    move(wake)
    move(list)
  end
  waiting = waiting + redis.call('LLEN', list) + redis.call('LLEN', wake)
end

if #entries > 0 and not again then
  if old_life and old_life ~= life then
    local past = (state[6] or '') .. old_life .. ' ' .. seen .. ' '
    local _, words = string.gsub(past, ' ', '')
    if words > 2 * 32 then past = string.match(past, '^[^ ]+ [^ ]+ (.*)$') end
    redis.call('HSET', cursor, 'past', past)
  end
  redis.call('HSET', cursor, 'seen', last, 'life', life)
end

-- What counts is when an entry was applied, not when it was added: a backlog that was drained late is kept as long as
-- any other. All up to the cursor was applied when it was last moved; all up to the mark, when that was set. The mark is
-- set anew every `keep`, so where entries come without a pause they are kept for up to twice as long.
local applied
if moved and now - moved >= keep then
  applied = at
elseif not marked or not marked_at or is_past(marked, at) then
  redis.call('HSET', cursor, 'marked', at, 'marked_at', whole(now))
elseif now - marked_at >= keep then
  applied = marked
  redis.call('HSET', cursor, 'marked', at, 'marked_at', whole(now))
end
if applied and applied ~= '0-0' then redis.call('XTRIM', stream, 'MINID', applied) end

return { life, at, whole(waiting), whole(trimmed), whole(now), state[7] or '', entries }
