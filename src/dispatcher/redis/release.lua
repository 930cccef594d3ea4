#!lua flags=allow-oom
-- Gives the lease of a partition up, if it is held by who asks. KEYS: owner. ARGV: who asks.
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
