-- Takes catalogue entries, each once, whatever is delivered again.
--
-- KEYS[k]  c:<item_id>
-- ARGV[k]  partition (u16), offset (u48), then the Item's bytes; no bytes: the entry is gone
--
-- Number in front of this text, from the settings: GONE_TTL_MS, how long the guard of a deleted entry is kept.

-- All records of an item stand in one partition, so that there is one guard.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
for k = 1, #KEYS do
  local key, entry = KEYS[k], ARGV[k]
  local partition, offset, at = struct.unpack('<I2I6', entry)
  local stored = redis.call('HMGET', key, 'version', 'guards')
  local guard = -1
  if stored[2] then guard = select(2, struct.unpack('<I2I6', stored[2])) end
  if offset > guard then
    local version = math.max(tonumber(stored[1] or 0) + 1, now)
    redis.call('HSET', key, 'version', string.format('%d', version), 'guards', string.sub(entry, 1, 8))
    if at > #entry then
      redis.call('HDEL', key, 'item')
      redis.call('PEXPIRE', key, GONE_TTL_MS)
    else
      redis.call('HSET', key, 'item', string.sub(entry, at))
      redis.call('PERSIST', key)
    end
  end
end
