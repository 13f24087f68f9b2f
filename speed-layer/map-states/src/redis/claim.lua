for _, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key)['ok']
  if found ~= 'hash' and found ~= 'none' then
    return {'type', key, found}
  end
end
local held = redis.call('HMGET', KEYS[1], 'kind', 'txid', 'layout')
local values = redis.call('EXISTS', KEYS[2]) == 1
if not held[1] then
  if values then
    return {'values'}
  end
  redis.call('HSET', KEYS[1], 'layout', '1', 'kind', ARGV[1])
  return {'held', ARGV[1]}
end
if held[3] ~= '1' then
  return {'layout', held[3] or 'none'}
end
if held[2] and not values then
  return {'meta'}
end
return {'held', held[1]}
