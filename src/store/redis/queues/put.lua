-- Puts jobs, the whole way. Goes after put_fast.lua and body.lua.

local MOST_MARKS, MAX_DELAY = 10000, 31536000000

-- The first write is one that needs room.
local has_begun = call('HSETNX', ST, 'born', ARGV[3])
if has_begun == 1 then own[2] = ARGV[3] end
if own[4] ~= life then
  epoch = ARGV[3]
  call('HSET', ST, 'life', life, 'epoch', epoch)
end
move_due()

local function text_of(err)
  if type(err) == 'table' then err = err.err end
  return 'E' .. tostring(err)
end

-- Marks of one life have the same beginning and width, so the order of texts is the order of entries.
local function reaches(last, mark, later)
  if not last then return false end
  local of = string.sub(last, 1, string.find(last, ' ', 1, true))
  if of == string.sub(mark, 1, #of) then return mark <= last end
  return string.find(later .. ' ', of, 1, true) ~= nil
end

-- What a key stands for in this queue, since it began: an id, and the digest of the content if it counts.
local function known_by(key)
  local text = call('GET', key)
  local born, id, digest = string.match(text or '', '^(%S+) (%S+) ?(%S*)$')
  if born == own[2] then return id, digest end
end

local function remember(key, window, id, digest)
  call('SET', key, own[2] .. ' ' .. id .. ' ' .. digest, 'PX', window)
end

local function live() return call('HLEN', JOBS) - call('ZCARD', DEAD) end

-- Whether so many jobs and bytes are takeable, of the levels up to this one.
local function can_drop(level, excess, excess_bytes)
  local from, step = 0, 100
  while true do
    local ids = call('ZRANGE', READY, '+inf', (9 - level) * LEVEL, 'BYSCORE', 'REV', 'LIMIT', from, step)
    for _, id in ipairs(ids) do
      excess, excess_bytes = excess - 1, excess_bytes - load(id)[SIZE]
      if excess <= 0 and excess_bytes <= 0 then return true end
    end
    if #ids < step then return false end
    from = from + step
  end
end

local function victim(level)
  local oldest
  for n = 0, level do
    local id = waiting_of(n) > 0 and first_ready(n)
    if id and keep.on_full == 'drop-lowest-priority' then return id end
    if id and (not oldest or id < oldest) then oldest = id end
  end
  return oldest
end

-- An error text where there is no room and none can be made.
local function make_room(level, size)
  if size > keep.max_bytes then
    return 'ELARGE a job of ' .. size .. ' bytes, and the queue takes ' .. ARGV[5] .. ' in all (max_bytes)'
  end
  local excess, excess_bytes = live() + 1 - keep.max_messages, bytes + size - keep.max_bytes
  if excess <= 0 and excess_bytes <= 0 then return nil end
  local most = keep.on_full == 'drop-oldest' and 9 or level
  if keep.on_full == 'reject' or not can_drop(most, excess, excess_bytes) then
    return 'EFULL the queue holds ' .. live() .. ' jobs of ' .. string.format('%.0f', bytes) .. ' bytes'
  end
  while live() >= keep.max_messages or bytes + size > keep.max_bytes do
    local id = victim(most)
    if not id then break end
    bury(id, load(id), 'dropped')
  end
end

local function put(item)
  local mark, known, digest = item.mark, nil, item.idem and redis.sha1hex(item.body) or ''
  if mark then
    local last = call('HGET', MARKS, item.source)
    if reaches(last, mark, item.later) then return 'S' end
    if not last and call('HLEN', MARKS) >= MOST_MARKS then
      return 'EFULL a queue is fed by at most ' .. MOST_MARKS .. ' sources'
    end
    if item.life and item.life ~= life then return 'EHELD the store began another life' end
  end
  local by_idem, of
  if item.idem then by_idem, of = known_by(item.idem) end
  if by_idem and of ~= digest then return 'C' .. by_idem end
  known = by_idem or item.dedupe and known_by(item.dedupe)
  if known then
    if item.idem and not by_idem then remember(item.idem, item.idem_window, known, digest) end
    if mark then call('HSET', MARKS, item.source, mark) end
    add('repeated', 1)
    return 'R' .. known
  end
  local full = make_room(item.level, #item.body)
  if full then return full end
  seq = seq + 1
  local id, shown = id_of(seq), epoch .. '.' .. string.format('%.0f', seq)
  if item.idem then remember(item.idem, item.idem_window, shown, digest) end
  if item.dedupe then remember(item.dedupe, item.dedupe_window, shown, '') end
  local spot, time = 0, now
  if item.group ~= '' then
    if call('HSETNX', GROUPS, item.group, id) == 0 then spot, time = 1, 0 end
  else
    local at = item.at or now + math.min(item.delay or keep.delay, MAX_DELAY)
    at = math.min(at, now + MAX_DELAY)
    if at > now then spot, time = 2, at end
  end
  local ttl = item.ttl or keep.ttl
  local expires = ttl > 0 and now + ttl or 0
  call('HSET', BODIES, id, item.body)
  enter(id, { item.level, 0, now, epoch, item.group, expires, #item.body, 0, 0, 0 }, spot, time)
  puts.seq = seq
  add('put', 1)
  if mark then call('HSET', MARKS, item.source, mark) end
  return seq
end

local out, held, a, k = { 'P', string.format('%.0f', now), epoch, has_begun }, {}, REST + 2, 16
for n = 1, tonumber(ARGV[REST + 1]) do
  local flags = tonumber(ARGV[a])
  local item = { level = tonumber(ARGV[a + 1]), body = ARGV[a + 2], group = '' }
  a = a + 3
  local function has(flag) return math.floor(flags / flag) % 2 == 1 end
  local function word()
    a = a + 1
    return ARGV[a - 1]
  end
  if has(1) then item.ttl = tonumber(word()) end
  if has(2) then item.group = word() end
  if has(4) then item.delay = tonumber(word()) end
  if has(8) then item.at = tonumber(word()) end
  if has(16) then item.dedupe_window = word() end
  if has(32) then item.idem_window = word() end
  if has(64) then item.source, item.mark, item.later = word(), word(), word() end
  if has(128) then item.life = word() end
  if has(32) then item.idem, k = KEYS[k], k + 1 end
  if has(16) then item.dedupe, k = KEYS[k], k + 1 end
  local answer = held[item.source or false]
  if not answer then
    local ok, said = pcall(put, item)
    answer = ok and said or text_of(said)
  end
  local is_refused = type(answer) == 'string' and string.sub(answer, 1, 1) == 'E' and string.sub(answer, 1, 6) ~= 'ELARGE'
  if item.source and is_refused then held[item.source] = answer end
  out[n + 4] = answer
  judge()
end
finish()
return out
