-- Takes accepted interactions into the statistics of items, each once, whatever is delivered again.
--
-- KEYS[k]  i:<item_id>
-- ARGV[k]  the operations on this item, in order, packed (see writer.py); those of one position come in one call, one
--          after the other:
--          type, position, time, value           somebody did this to the item
--          FOLLOWED, position, time, weight, item   that item followed this one in a session
--
-- Numbers in front of this text, from the settings: SHORT_MS, LONG_MS, NEIGHBOUR_MS (half-lives), NEIGHBOURS_KEPT,
-- NEIGHBOURS_MAX, TTL_MS; and the types VIEW, PURCHASE, DISLIKE, RATING.
--
-- The fields are described in item_state.py. A neighbour's weight is stored as of a landmark (an event weighs the more,
-- the later it is), so that an event touches one weight and no name. Ids hold no control character, so that a search
-- for 0x1f item 0x1e among the names finds this item and nothing else.

local FOLLOWED = 0             -- no type of interaction
local OPERATION = '<BI2I6i8d'  -- I2I6: partition and offset
local OWN_SIZE = 25            -- bytes of an operation without an item: what comes behind it is mostly its pairs
local GUARD = 8                -- bytes of a position in `guards`
-- `state` is the version and then these doubles: counts by type (1 to 8), and
local SHORT, LONG, AS_OF, FIRST, LAST, RATED, PAID = 9, 10, 11, 12, 13, 14, 15
local NUMBERS = 15
local STATE = '<' .. string.rep('d', NUMBERS)
local NO_STATE = string.rep('\0', 8 + 8 * NUMBERS)
-- The TTL is renewed by the first write in each hundredth of it: a key lives for 99 to 100 % of it after its last write.
local RENEW_US = TTL_MS * 1000 / 100
-- The landmark moves up when weights have grown by 2^256 (64 days at a half-life of 6 h); doubles end at 2^1024.
local RESCALE_AT = 256

local call, pack, unpack_struct = redis.call, struct.pack, struct.unpack
local sub, find, byte, format = string.sub, string.find, string.byte, string.format

local function read_neighbours(names, weights)
  if not names then return {names = '', weights = '', as_of = 0} end
  local landmark, as_of = unpack_struct('<dd', weights)
  return {names = names, weights = sub(weights, 17), landmark = landmark, as_of = as_of}
end

local function unpack_weights(neighbours)
  local count = #neighbours.weights / 8
  return {unpack_struct('<' .. string.rep('d', count), neighbours.weights)}, count
end

-- Moves the landmark to a later time.
local function rescale(neighbours, time)
  local factor = 2 ^ ((neighbours.landmark - time) / NEIGHBOUR_MS)
  local weights, count = unpack_weights(neighbours)
  for place = 1, count do weights[place] = pack('<d', weights[place] * factor) end
  neighbours.weights, neighbours.landmark = table.concat(weights, '', 1, count), time
end

-- Keeps the heaviest, and gives them new places in the same order.
local function trim(neighbours, kept)
  local weights, count = unpack_weights(neighbours)
  local sorted = {unpack(weights, 1, count)}
  table.sort(sorted)
  local bound = sorted[count - kept + 1]
  local names, packed, place, from = {}, {}, 0, 0
  for item in string.gmatch(neighbours.names, '\31([^\30]*)') do
    from = from + 1
    if weights[from] >= bound and place < kept then
      place = place + 1
      names[place] = format('\31%s\30%06d', item, place)
      packed[place] = pack('<d', weights[from])
    end
  end
  neighbours.names, neighbours.weights = table.concat(names), table.concat(packed)
end

local function follow(neighbours, item, weight, time)
  neighbours.changed = true
  if not neighbours.landmark then neighbours.landmark = time end
  if time > neighbours.as_of then neighbours.as_of = time end
  if time - neighbours.landmark > RESCALE_AT * NEIGHBOUR_MS then rescale(neighbours, time) end
  weight = weight * 2 ^ ((time - neighbours.landmark) / NEIGHBOUR_MS)
  local weights = neighbours.weights
  local _, stop = find(neighbours.names, '\31' .. item .. '\30', 1, true)
  if stop then
    local at = 8 * tonumber(sub(neighbours.names, stop + 1, stop + 6)) - 7
    weight = weight + unpack_struct('<d', weights, at)
    neighbours.weights = sub(weights, 1, at - 1) .. pack('<d', weight) .. sub(weights, at + 8)
  else
    local place = #weights / 8 + 1
    neighbours.names = neighbours.names .. format('\31%s\30%06d', item, place)
    neighbours.weights = weights .. pack('<d', weight)
    neighbours.new = true
    if place > NEIGHBOURS_MAX then trim(neighbours, NEIGHBOURS_KEPT) end
  end
end

-- Where the newest offset taken from a partition stands in `guards`, and the offset.
local function guard_of(guards, partition)
  for at = 1, #guards, GUARD do
    local from, offset = unpack_struct('<I2I6', guards, at)
    if from == partition then return at, offset end
  end
  return #guards + 1, -1
end

local function count(state, type, time, value)
  local first, as_of = state[FIRST], state[AS_OF]
  if first == 0 or time < first then state[FIRST] = time end
  if time > state[LAST] then state[LAST] = time end
  state[type] = state[type] + 1
  if type == PURCHASE then
    state[PAID] = state[PAID] + value
  elseif type == RATING then
    state[RATED] = state[RATED] + value
  elseif type == VIEW or type == DISLIKE then
    return
  end
  if time >= as_of then
    state[SHORT] = state[SHORT] * 2 ^ ((as_of - time) / SHORT_MS) + 1
    state[LONG] = state[LONG] * 2 ^ ((as_of - time) / LONG_MS) + 1
    state[AS_OF] = time
  else
    state[SHORT] = state[SHORT] + 2 ^ ((time - as_of) / SHORT_MS)
    state[LONG] = state[LONG] + 2 ^ ((time - as_of) / LONG_MS)
  end
end

local function update(key, operations, now)
  local stored, neighbours
  if byte(operations) == FOLLOWED or #operations > OWN_SIZE then
    stored = call('HMGET', key, 'state', 'guards', 'neighbours', 'weights')
    neighbours = read_neighbours(stored[3], stored[4])
  else
    stored = call('HMGET', key, 'state', 'guards')
  end
  local state, guards, changed, numbers = stored[1] or NO_STATE, stored[2] or '', false, nil
  local at, size, taken = 1, #operations, nil

  while at <= size do
    local type, partition, offset, time, value, next_at = unpack_struct(OPERATION, operations, at)
    local item
    if type == FOLLOWED then item, next_at = unpack_struct('<Hc0', operations, next_at) end
    local guard_at, guard = guard_of(guards, partition)
    local position = sub(operations, at + 1, at + GUARD)
    if offset > guard or position == taken then
      if position ~= taken then
        guards = sub(guards, 1, guard_at - 1) .. position .. sub(guards, guard_at + GUARD)
        taken, changed = position, true
      end
      if item then
        if not neighbours then neighbours = read_neighbours(unpack(call('HMGET', key, 'neighbours', 'weights'))) end
        follow(neighbours, item, value, time)
      else
        if not numbers then numbers = {unpack_struct(STATE, state, 9)} end
        count(numbers, type, time, value)
      end
    end
    at = next_at
  end
  if not changed then return end

  local version = unpack_struct('<d', state)
  state = pack('<d', math.max(version + 1, now)) .. (numbers and pack(STATE, unpack(numbers, 1, NUMBERS)) or sub(state, 9))
  if not (neighbours and neighbours.changed) then
    call('HSET', key, 'state', state, 'guards', guards)
  else
    local weights = pack('<dd', neighbours.landmark, neighbours.as_of) .. neighbours.weights
    if neighbours.new then
      call('HSET', key, 'state', state, 'guards', guards, 'weights', weights, 'neighbours', neighbours.names)
    else
      call('HSET', key, 'state', state, 'guards', guards, 'weights', weights)
    end
  end
  if math.floor(now / RENEW_US) ~= math.floor(version / RENEW_US) then call('PEXPIRE', key, TTL_MS) end
end

-- Versions are the microseconds of Redis' own clock, or one more than before: they grow also where an item expired,
-- or Redis lost its last second, in between.
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
for k = 1, #KEYS do update(KEYS[k], ARGV[k], now) end
