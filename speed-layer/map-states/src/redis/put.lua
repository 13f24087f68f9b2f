-- Arguments per call: Lua's unpack fails at about 8,000. Even, for a key and its value stay together.
local CHUNK = 2000
-- Kind, txid, floor, fence, digest; keys and values follow.
local FIRST = 6

local held = redis.call('HMGET', KEYS[1], 'kind', 'txid', 'writes', 'fence', 'digest')
if held[1] ~= ARGV[1] then
  return {'cleared'}
end
-- A txid is written together with values, and no value is ever taken away. A server evicts and expires whole keys, so
-- that there is no need to look at single fields.
if held[2] and redis.call('EXISTS', KEYS[2]) == 0 then
  return {'lost'}
end
local seen, txid = held[2] or '0', ARGV[2]
local kept, fence = held[4] or '0', ARGV[4]
local function less(one, two)
  return #one < #two or (#one == #two and one < two)
end
if less(held[3] or '0', ARGV[3]) then
  return {'back', held[3] or '0'}
end
if txid ~= '0' and less(txid, seen) then
  return {'behind', seen}
end
-- Fences tell attempts at one transaction apart. A writer without one is told apart from nobody.
local again = txid == seen
if txid ~= '0' and again and fence ~= '0' and less(fence, kept) then
  return {'replaced'}
end
-- Digests tell batches of one number apart.
local known, digest = held[5] or '0', ARGV[5]
if txid ~= '0' and again and digest ~= '0' and known ~= '0' and digest ~= known then
  return {'other'}
end
-- The values first: a key of another type is an error of its first command, when nothing has been written.
for first = FIRST, #ARGV, CHUNK do
  redis.call('HSET', KEYS[2], unpack(ARGV, first, math.min(first + CHUNK - 1, #ARGV)))
end
local writes = held[3] or '0'
if txid ~= '0' and #ARGV >= FIRST then
  redis.call('HSET', KEYS[1], 'txid', txid, 'fence', again and fence == '0' and kept or fence,
    'digest', again and digest == '0' and known or digest)
  writes = redis.call('HINCRBY', KEYS[1], 'writes', 1)
end
return {'put', string.format('%.0f', writes)}
