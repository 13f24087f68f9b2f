-- The functions of the Redis store. Each is atomic by itself; all checks come before the first write, because what a
-- function has written stays when it fails. Txids are compared as text, so that no digit is lost in Lua's doubles.
-- LIBRARY stands for the name of this version of the library, DEPTH for the number of txids whose undo is kept.

-- Values per call: Lua's unpack fails at about 8,000.
local CHUNK = 1000

local function sibling(key, name)
  return string.match(key, '^(.*}):') .. ':' .. name
end

local function damaged(text)
  return redis.error_reply('DAMAGED ' .. text)
end

local function number(n)
  return string.format('%.0f', n)
end

-- What a replica says may be older than what was shown before.
local function only_master()
  if not string.find(redis.call('INFO', 'replication'), 'role:master', 1, true) then
    return redis.error_reply('READONLY this server is a replica')
  end
end

-- Generation, token, txid and attempt of a shard; none if it is empty. The second value is an error.
local function stand(meta)
  local held = redis.call('HMGET', meta, 'generation', 'token', 'txid', 'attempt')
  if held[1] and held[2] and held[3] and held[4] then
    return held
  end
  if redis.call('EXISTS', meta) == 1 then
    return nil, damaged('the record ' .. meta .. ' lacks generation, token, txid or attempt')
  end
  return nil
end

local function undo_range(txid)
  local last = tonumber(txid)
  return math.max(1, last + 1 - DEPTH), last
end

-- A token with the same counter that no writer has.
local function nobody(token)
  return (string.gsub(token, '%-%x+$', '-' .. string.rep('0', 32)))
end

-- What becomes of a commit: the same words as the seam's `judge`.
local function judge(held, generation, token, txid, previous, attempt)
  if not held then return 'generation', '' end
  if held[1] ~= generation then return 'generation', held[1] end
  if held[2] ~= token then return 'token', held[2] end
  if held[3] == txid then
    if held[4] == attempt then return 'held', '' end
    return 'attempt', txid
  end
  if held[3] ~= previous then return 'order', held[3] end
  return 'apply', ''
end

-- args: generation, token, txid, the txid before it, attempt, what is wrong with the changes ('' for nothing), then
-- for each scope: its name, new keys n, other keys m, n + m pairs of key and state, m states before, undo.
local function commit(keys, args)
  local meta = keys[1]
  local held, broken = stand(meta)
  if broken then return broken end
  local verdict, has = judge(held, args[1], args[2], args[3], args[4], args[5])
  if verdict ~= 'apply' then return {verdict, has} end
  if args[6] ~= '' then return damaged(args[6]) end

  local blocks, at = {}, 7
  while args[at] do
    local scope, new, old = args[at], tonumber(args[at + 1]), tonumber(args[at + 2])
    local pairs_at, count = at + 3, new + old
    local block = {scope = scope, key = sibling(meta, 'v:' .. scope), new = new, from = pairs_at, count = count}
    local rows = redis.call('HGET', meta, 'rows:' .. scope)
    block.known = rows ~= false
    if block.known and redis.call('HLEN', block.key) ~= tonumber(rows) then
      return damaged('the hash ' .. block.key .. ' has not the ' .. rows .. ' keys that its record counts: keys were lost')
    end
    local before = pairs_at + 2 * count - 1
    for first = 0, count - 1, CHUNK do
      local names, last = {}, math.min(first + CHUNK, count) - 1
      for i = first, last do names[#names + 1] = args[pairs_at + 2 * i] end
      local states = block.known and redis.call('HMGET', block.key, unpack(names)) or {}
      for i = first, last do
        local want = false
        if i >= new then want = args[before + i - new + 1] end
        if (states[i - first + 1] or false) ~= want then
          return {'before', scope, args[pairs_at + 2 * i]}
        end
      end
    end
    block.undo = args[before + old + 1]
    blocks[#blocks + 1] = block
    at = before + old + 2
  end

  -- A server may come back with the beginning of this alone, if its file was torn and others write to it before we
  -- look. Until the last write the shard is of a writer that does not exist, and of an attempt that is not its txid's:
  -- nobody reads it or commits to it, and whoever takes it over finds it doubtful.
  redis.call('HSET', meta, 'token', nobody(args[2]), 'attempt', args[5])
  local undo = sibling(meta, 'u:' .. args[3])
  redis.call('UNLINK', undo)
  redis.call('HSET', undo, 'attempt', args[5])
  for _, block in ipairs(blocks) do
    -- A scope that the record does not count does not exist: whatever is left under its name is of another life.
    if not block.known then redis.call('UNLINK', block.key) end
    for first = 0, block.count - 1, CHUNK do
      local last = math.min(first + CHUNK, block.count) - 1
      redis.call('HSET', block.key, unpack(args, block.from + 2 * first, block.from + 2 * last + 1))
    end
    if block.new > 0 then redis.call('HINCRBY', meta, 'rows:' .. block.scope, block.new) end
    redis.call('HSET', undo, block.scope, block.undo)
  end
  local first = undo_range(args[3])
  redis.call('UNLINK', sibling(meta, 'u:' .. number(first - 1)))
  redis.call('HSET', meta, 'txid', args[3], 'token', args[2])
  return {'apply', ''}
end

local function scopes_of(meta)
  local names = {}
  for _, field in ipairs(redis.call('HKEYS', meta)) do
    local scope = string.match(field, '^rows:(.*)$')
    if scope then names[#names + 1] = scope end
  end
  return names
end

-- args: generation and token as seen ('' for an empty shard), the new generation and token.
local function claim(keys, args)
  local meta = keys[1]
  local held, broken = stand(meta)
  if broken then return broken end
  local generation, token = held and held[1] or '', held and held[2] or ''
  if generation == args[3] and token == args[4] then return 'held' end
  if generation ~= args[1] or token ~= args[2] then return 'refused' end
  if generation == args[3] then
    redis.call('HSET', meta, 'token', args[4])
    return 'taken'
  end
  if held then
    for _, scope in ipairs(scopes_of(meta)) do redis.call('UNLINK', sibling(meta, 'v:' .. scope)) end
    local first, last = undo_range(held[3])
    for txid = first, last do redis.call('UNLINK', sibling(meta, 'u:' .. number(txid))) end
    redis.call('UNLINK', meta)
  end
  redis.call('HSET', meta, 'generation', args[3], 'token', args[4], 'txid', '0', 'attempt', '')
  return 'empty'
end

-- args: generation, token, then view and epoch of each scope that goes.
local function drop(keys, args)
  local meta = keys[1]
  local held, broken = stand(meta)
  if broken then return broken end
  if not held or held[1] ~= args[1] or held[2] ~= args[2] then return 0 end
  local first, last = undo_range(held[3])
  for at = 3, #args, 2 do
    local view, epoch = args[at], args[at + 1]
    local scope = view .. ':' .. epoch
    redis.call('UNLINK', sibling(meta, 'v:' .. scope))
    redis.call('HDEL', meta, 'rows:' .. scope)
    local floor = tonumber(redis.call('HGET', meta, 'floor:' .. view) or '0')
    redis.call('HSET', meta, 'floor:' .. view, number(math.max(floor, tonumber(epoch) + 1)))
    for txid = first, last do redis.call('HDEL', sibling(meta, 'u:' .. number(txid)), scope) end
  end
  return 1
end

-- The record, and after it the scopes with the keys that they really have. args: more scopes to count.
local function counted(meta, more)
  local names, seen, found = scopes_of(meta), {}, {}
  for _, scope in ipairs(more) do names[#names + 1] = scope end
  for _, scope in ipairs(names) do
    if not seen[scope] then
      seen[scope] = true
      local known = redis.call('HEXISTS', meta, 'rows:' .. scope) == 1
      found[#found + 1] = scope
      found[#found + 1] = known and redis.call('HLEN', sibling(meta, 'v:' .. scope)) or 0
    end
  end
  return found
end

local function meta(keys, args)
  local replica = only_master()
  if replica then return replica end
  local held, broken = stand(keys[1])
  if broken then return broken end
  if not held then return {} end
  return {redis.call('HGETALL', keys[1]), counted(keys[1], {})}
end

-- args: txid, scopes. The undo of each txid above it, scope by scope.
local function tail(keys, args)
  local replica = only_master()
  if replica then return replica end
  local key = keys[1]
  local held, broken = stand(key)
  if broken then return broken end
  if not held then return {} end
  local scopes, undo = {}, {}
  for i = 2, #args do scopes[#scopes + 1] = args[i] end
  local first, last = undo_range(held[3])
  for txid = math.max(first, tonumber(args[1]) + 1), last do
    local name = sibling(key, 'u:' .. number(txid))
    if redis.call('EXISTS', name) == 0 then return damaged('the undo ' .. name .. ' is gone') end
    for _, scope in ipairs(scopes) do
      local packed = redis.call('HGET', name, scope)
      if packed then undo[#undo + 1] = {number(txid), scope, packed} end
    end
  end
  return {redis.call('HGETALL', key), counted(key, scopes), undo}
end

-- By how many keys a scope differs from what the record says of it.
local function missing(meta, scope)
  local rows = tonumber(redis.call('HGET', meta, 'rows:' .. scope) or '0')
  if rows == 0 then return 0 end
  return math.abs(rows - redis.call('HLEN', sibling(meta, 'v:' .. scope)))
end

-- args: scope, keys. The stand, each key's state or nothing, and how many keys are missing.
local function find(keys, args)
  local replica = only_master()
  if replica then return replica end
  local held, broken = stand(keys[1])
  if broken then return broken end
  if not held then return {} end
  local states, name = {}, sibling(keys[1], 'v:' .. args[1])
  if redis.call('HEXISTS', keys[1], 'rows:' .. args[1]) == 1 then
    for first = 2, #args, CHUNK do
      local last = math.min(first + CHUNK - 1, #args)
      for _, state in ipairs(redis.call('HMGET', name, unpack(args, first, last))) do
        states[#states + 1] = state
      end
    end
  end
  return {{held[1], held[2], held[3]}, states, missing(keys[1], args[1])}
end

-- args: scope, where to go on ('' for the beginning), about how many rows. A cursor means something to the process
-- that gave it alone, whose hash seed it rests on: another one begins anew.
local function page(keys, args)
  local replica = only_master()
  if replica then return replica end
  local held, broken = stand(keys[1])
  if broken then return broken end
  if not held then return {} end
  local at = {held[1], held[2], held[3]}
  if redis.call('HEXISTS', keys[1], 'rows:' .. args[1]) == 0 then return {at, {}, '', 0} end
  local lost = missing(keys[1], args[1])
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  local of, cursor = string.match(args[2], '^(%w+)-(%d+)$')
  if of ~= run then cursor = '0' end
  local rows, name = {}, sibling(keys[1], 'v:' .. args[1])
  -- A sparse table may answer with nothing for a while.
  repeat
    local part = redis.call('HSCAN', name, cursor, 'COUNT', args[3])
    cursor, rows = part[1], part[2]
  until cursor == '0' or #rows > 0
  return {at, rows, cursor == '0' and '' or run .. '-' .. cursor, lost}
end

-- args: token and revision expected ('' for no record), the record's fields generation, token, revision, appended,
-- committed and the record itself, the txid and entry to append ('' for none), forget below, forget all (1 or 0).
local function write(keys, args)
  local key = keys[1]
  local entries = sibling(key, 'txns')
  local held = redis.call('HMGET', key, 'token', 'revision', 'record', 'kept', 'last')
  if (held[1] or '') ~= args[1] or (held[2] or '') ~= args[2] then return {'refused', held[3]} end
  local count = redis.call('HLEN', entries)
  local kept, last, below = tonumber(held[4] or '0'), tonumber(held[5] or '0'), tonumber(args[11])
  if args[12] == '1' then
    redis.call('UNLINK', entries)
    kept, last = 0, 0
  elseif below > kept then
    local gone = {}
    if below - kept <= count then
      for txid = kept, below - 1 do gone[#gone + 1] = number(txid) end
    else
      for _, txid in ipairs(redis.call('HKEYS', entries)) do
        if tonumber(txid) < below then gone[#gone + 1] = txid end
      end
    end
    for first = 1, #gone, CHUNK do
      redis.call('HDEL', entries, unpack(gone, first, math.min(first + CHUNK - 1, #gone)))
    end
    kept = below
  end
  if args[9] ~= '' then
    redis.call('HSET', entries, args[9], args[10])
    kept, last = math.min(kept, tonumber(args[9])), math.max(last, tonumber(args[9]))
  end
  redis.call('HSET', key, 'generation', args[3], 'token', args[4], 'revision', args[5], 'appended', args[6],
    'committed', args[7], 'record', args[8], 'kept', number(kept), 'last', number(last))
  return {'written', false}
end

local function read(keys, args)
  local replica = only_master()
  if replica then return replica end
  local record = redis.call('HGET', keys[1], 'record')
  if not record and redis.call('EXISTS', keys[1]) == 1 then
    return damaged('the ledger ' .. keys[1] .. ' lacks its record')
  end
  return record
end

-- args: the first txid. The entries from it on, in any order.
local function txns(keys, args)
  local replica = only_master()
  if replica then return replica end
  local entries, first = sibling(keys[1], 'txns'), tonumber(args[1])
  local held = redis.call('HMGET', keys[1], 'kept', 'last')
  first = math.max(first, tonumber(held[1] or '0'))
  local last, found = tonumber(held[2] or '0'), {}
  if last - first < redis.call('HLEN', entries) then
    for from = first, last, CHUNK do
      local names = {}
      for txid = from, math.min(from + CHUNK - 1, last) do names[#names + 1] = number(txid) end
      for _, entry in ipairs(redis.call('HMGET', entries, unpack(names))) do
        if entry then found[#found + 1] = entry end
      end
    end
    return found
  end
  local all = redis.call('HGETALL', entries)
  for i = 1, #all, 2 do
    if tonumber(all[i]) >= first then found[#found + 1] = all[i + 1] end
  end
  return found
end

-- The values of a hash: requests or pins.
local function list(keys, args)
  return only_master() or redis.call('HVALS', keys[1])
end

local function register(name, callback, flags)
  redis.register_function{function_name = 'LIBRARY_' .. name, callback = callback, flags = flags}
end

register('commit', commit, {})
register('claim', claim, {})
register('drop', drop, {'allow-oom'})
register('write', write, {})
register('meta', meta, {'no-writes'})
register('tail', tail, {'no-writes'})
register('find', find, {'no-writes'})
register('page', page, {'no-writes'})
register('read', read, {'no-writes'})
register('txns', txns, {'no-writes'})
register('list', list, {'no-writes'})
