#!lua flags=allow-oom
-- Puts a dead letter back where publishers write. Answers 1; 0 if there is no such letter, -1 if it kept no fields.
-- KEYS: dead letters, the stream or the list. ARGV: the letter's id, 'stream' or 'list'.
local letter = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not letter then return 0 end
local fields = {}
for i = 9, #letter[2] do fields[#fields + 1] = letter[2][i] end
if #fields < 2 then return -1 end
if ARGV[2] == 'list' then
  redis.call('RPUSH', KEYS[2], fields[2])
else
  redis.call('XADD', KEYS[2], '*', unpack(fields))
end
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
