-- What every script of queues begins with: the clock, what the queue says of itself, and whether the settings that the
-- call goes by are those that are stored. Goes after a line that says by which command wakes are published.
--
-- All keys of a queue share a hash tag, and every call is given all of them:
--   ready    sorted: jobs that can be taken, in the order in which they will be   delayed  sorted by when they are due
--   leases   sorted: jobs in flight, by the end of their lease                    dead     sorted by the time of death
--   parked   sorted by text: `<group> NUL <id>`, jobs behind the head of theirs   groups   hash: group, id of its head
--   bodies   hash: id, body                                                       jobs     hash: id, record (packed)
--   st       hash: what is known of the queue as a whole                          cfg      text: its own settings
--   expiring sorted: waiting and delayed jobs that have a time to live, by its end
--   failures hash: id, the newest failed deliveries (packed)   seats  sorted: workers, by the end of their seat
--   marks    hash: source, mark of its last applied entry      untold list: firings that wait to be told (packed)
-- An id here is the job's number, filled up to 15 digits, so that equal times are in the order of numbers.
-- A record: priority, tries, when it was put, epoch of the number, group or '', end of its time to live or 0, bytes of the
-- body, spot, until, failures; then in flight: token, when the delivery began, worker; dead: the cause.
-- Spots: 0 ready (until: takeable since), 1 parked, 2 delayed (until it is due), 3 in flight (until the lease ends), 4 dead
-- (since).
-- st: `born` (drawn when the queue began), `life` and `epoch` of new ids, `seq` the newest number, `v` digest of cfg,
-- `idle` see sweep.lua, `paused`, `armed` ('0': it has fired), `since` jobs taken since, `claimed` until when a firing is somebody's, `firings`,
-- `w0`..`w9` waiting by priority, `bytes`, `dbytes` of the dead, and the totals by their names.
--
-- ARGV: digest of the stored settings that the caller knows ('' for none); channel; a fresh epoch; then the settings that
-- hold by that, see `settings_at`; a script's own arguments begin at ARGV[REST].
-- Answers `V`, the digest and the text of what is stored, where the caller knows something else: nothing was done then.

local REST = 19
local READY, DELAYED, LEASES, DEAD, PARKED, GROUPS, BODIES, JOBS, ST, CFG, EXPIRING, FAILURES, SEATS, MARKS, UNTOLD =
  unpack(KEYS, 1, 15)
local PRIORITY, TRIES, TIME, EPOCH, GROUP, EXPIRES, SIZE, SPOT, UNTIL, FAILED, TOKEN, BEGUN, WORKER =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13
local CAUSE = TOKEN
local LEVEL = 281474976710656 -- of a priority among the scores of `ready`: 2^48

local call = redis.call
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local own = call('HMGET', ST, 'v', 'born', 'epoch', 'life', 'paused', 'armed', 'seq', 'taken', 'since', 'bytes', 'dbytes')
if (own[1] or '') ~= ARGV[1] then return { 'V', own[1] or '', call('GET', CFG) or '' } end
local exists, is_paused, is_armed = own[2], own[5] == '1', own[6] ~= '0'
local epoch, seq, taken = own[3], tonumber(own[7]) or 0, tonumber(own[8]) or 0
local bytes, dead_bytes = tonumber(own[10]) or 0, tonumber(own[11]) or 0
local was_ready = exists and call('ZCARD', READY) > 0

local function first_of(key)
  local pair = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return tonumber(pair[2]) or math.huge
end

-- The next moments at which something moves by itself.
local next_lease, next_delayed, next_expiring = first_of(LEASES), first_of(DELAYED), first_of(EXPIRING)
local is_due = next_lease <= now or next_delayed <= now or next_expiring <= now
