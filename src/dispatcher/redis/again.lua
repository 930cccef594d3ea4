-- Hands applied entries of a partition out once more, as far as they are kept: for a store that may have lost them.
-- They are handed out under the life that they were handed out under before, so that a topic that still has one skips it.
-- Goes after ids.lua.
--
-- KEYS: stream, owner, cursor. ARGV: who asks, the id to begin after, most entries, most bytes of all, most bytes of one.
-- Answer: 'lost'; or the life, the lives that came after it, and the entries up to the cursor that are of that life.
local stream, owner, cursor = KEYS[1], KEYS[2], KEYS[3]
if redis.call('GET', owner) ~= ARGV[1] then return { 'lost' } end
local last, most, most_bytes, entry_bytes = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local state = redis.call('HMGET', cursor, 'at', 'life', 'past')
local at, present = state[1] or '0-0', state[2] or '?'
-- Oldest first: each life with the last entry that was handed out under it; the present one is without an end.
local lives, ends = {}, {}
for life, upto in string.gmatch(state[3] or '', '([^ ]+) ([%d-]+)') do
  lives[#lives + 1], ends[#ends + 1] = life, upto
end
lives[#lives + 1], ends[#ends + 1] = present, at

local entries, bytes, mine = {}, 0, nil
while #entries < most and bytes < most_bytes do
  local some = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', math.min(50, most - #entries))
  local more = false
  for _, entry in ipairs(some) do
    local id, fields = entry[1], entry[2]
    local of = 1
    while of < #lives and is_past(id, ends[of]) do of = of + 1 end
    mine = mine or of
    more = not is_past(id, at) and of == mine
    if not more then break end
    local size = 0
    for i = 1, #fields do size = size + #fields[i] end
    entries[#entries + 1] = { id, size > entry_bytes and size or fields }
    bytes, last = bytes + size, id
  end
  if not more then break end
end
local later = {}
for i = (mine or #lives) + 1, #lives do later[#later + 1] = lives[i] end
return { lives[mine or #lives], table.concat(later, ' '), entries }
