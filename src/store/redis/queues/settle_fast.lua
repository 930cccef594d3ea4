-- Ends or extends deliveries; the short way, for acknowledgements outside of groups.
--
-- ARGV[REST..]: `acks` or `any`; the number of settlements; for each a code, the job's number, epoch, the token, and then
-- for `n` (nack): delay or '', and as for `t` (term): an error text with a `+` before it, or ''; for `x` (extend):
-- milliseconds or ''. `a` (ack) and `r` (release) have no more; `acks`: only these first.
-- Answer: `S`, and for each a text: `D` done, `B` buried, `X<milliseconds>` extended, `N` no lease, `G` gone.

local function ack_all()
  local count, ids, gone = tonumber(ARGV[REST + 1]), {}, {}
  for n = 1, count do ids[n] = ARGV[REST + 4 * n - 1] end
  local records = call('HMGET', JOBS, unpack(ids))
  local out, failures, sum, a = { 'S' }, { FAILURES }, 0, REST + 2
  for n, id in ipairs(ids) do
    local job = records[n] and cmsgpack.unpack(records[n])
    if not job or gone[id] or job[SPOT] ~= 3 or job[EPOCH] ~= ARGV[a + 2] or job[TOKEN] ~= ARGV[a + 3]
      or job[GROUP] ~= '' then
      return
    end
    gone[id], out[n + 1], sum, a = true, 'D', sum + job[SIZE], a + 4
    if job[FAILED] > 0 then failures[#failures + 1] = id end
  end
  call('ZREM', LEASES, unpack(ids))
  call('HDEL', JOBS, unpack(ids))
  call('HDEL', BODIES, unpack(ids))
  if #failures > 1 then call('HDEL', unpack(failures)) end
  call('HSET', ST, 'bytes', bytes - sum)
  call('HINCRBY', ST, 'acked', count)
  return out
end

if ARGV[REST] == 'acks' and exists and not is_due and ARGV[16] == '0' and ARGV[18] == '' then
  local out = ack_all()
  if out then return out end
end
