#!lua flags=allow-oom
-- What again.lua and read.lua, which go after this, share: the order of ids. They have 64 bits, numbers of Lua fewer, so
-- they are compared as digits.
local function less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

local function is_past(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
  if a_ms ~= b_ms then return less(b_ms, a_ms) end
  return less(b_seq, a_seq)
end

