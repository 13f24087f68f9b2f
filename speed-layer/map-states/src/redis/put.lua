-- Arguments per call: Lua's unpack fails at about 8,000. Even, for a key and its value stay together.
local CHUNK = 2000

local held = redis.call('HMGET', KEYS[1], 'kind', 'txid')
if held[1] ~= ARGV[1] then
  return {'cleared'}
end
local seen, txid = held[2] or '0', ARGV[2]
if txid ~= '0' and (#txid < #seen or (#txid == #seen and txid < seen)) then
  return {'behind', seen}
end
-- The values first: a key of another type is an error of its first command, when nothing has been written.
for first = 3, #ARGV, CHUNK do
  redis.call('HSET', KEYS[2], unpack(ARGV, first, math.min(first + CHUNK - 1, #ARGV)))
end
if txid ~= '0' and #ARGV > 2 then
  redis.call('HSET', KEYS[1], 'txid', txid)
end
return {'put'}
