#!lua flags=allow-oom
-- Takes or renews the lease of a partition. Answers {1, 0}, or {0, ms that another has it for}.
-- KEYS: owner. ARGV: who asks, ms.
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return { 0, math.max(redis.call('PTTL', KEYS[1]), 0) } end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return { 1, 0 }
