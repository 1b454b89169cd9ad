-- The least that a guarded write does: KEYS[k] counts the events of ARGV[k] (offsets, u64) above its guard.
for k = 1, #KEYS do
  local key, offsets = KEYS[k], ARGV[k]
  local guard, count = tonumber(redis.call('HGET', key, 'g') or -1), 0
  for at = 1, #offsets, 8 do
    local offset = struct.unpack('<I8', offsets, at)
    if offset > guard then guard, count = offset, count + 1 end
  end
  redis.call('HINCRBY', key, 'n', count)
  redis.call('HSET', key, 'g', guard)
  redis.call('PEXPIRE', key, TTL_MS)
end
