#!lua flags=allow-oom
-- Notes under which life of the store everything that is kept has been handed out again. Answer: 1, or 0 if the lease is
-- another's. KEYS: owner, cursor. ARGV: who asks, the life.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], 'under', ARGV[2])
return 1
