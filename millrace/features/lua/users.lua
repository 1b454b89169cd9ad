-- Takes the events of users into their state, each event once, whatever is delivered again.
--
-- KEYS[k]  u:<user_id>; the fields and their packed forms are described in user_state.py
-- ARGV[k]  this user's events of the batch in order, each: hash of the event_id (8 bytes), then as an entry of
--          `recent`, then its value (double)
-- Answers for each key a list with one answer for each event:
--          a list of items  accepted (now, or before and delivered again): the session's earlier items, nearest first
--          0                the same event_id was accepted at another position: a duplicate
--          1                delivered again, and not to be counted (a duplicate, a FORGET, or long past)
--
-- Numbers in front of this text, from the settings: SEEN_KEPT, RECENT_KEPT, WALK_MAX, CONTEXT_MAX, SESSION_GAP_MS,
-- HALF_LIFE_MS, TTL_MS, DISLIKED_KEPT; and the types VIEW, PURCHASE, DISLIKE, FORGET.
--
-- Numbers are packed, not text, and fields are few: with a text field for each number this script took twice as long.

local EVENT = '<c8I2I6i8BI4Hc0Hd'  -- I2I6: partition and offset; Hc0: a string after its length
local ENTRY = '<I2I6i8BI4Hc0H'
local ENTRY_SIZE = 25              -- without the item
local RECORD = 16                  -- bytes of a record in `seen`: hash and position
local GUARD = 8                    -- bytes of a position in `guards`
local COUNT, COUNT_SIZE = '<Bddd', 25  -- bytes of a type in `counts`
local STATE, STATE_SIZE = '<dddddHB', 43
local DUPLICATE, KNOWN = 0, 1
-- The TTL is renewed by the first write in each hundredth of it: a key lives for 99 to 100 % of it after its last write.
local RENEW_MS = TTL_MS / 100

local call, pack, unpack_struct = redis.call, struct.pack, struct.unpack
local sub, find, byte = string.sub, string.find, string.byte

-- The newest offset taken from a partition, and the guards of the others. The newest of all stands first, and a user has
-- one partition unless the number of partitions or the partitioner changed.
local function guard_of(guards, partition)
  for at = 1, #guards, GUARD do
    local from, offset = unpack_struct('<I2I6', guards, at)
    if from == partition then
      return offset, at == 1 and sub(guards, GUARD + 1) or sub(guards, 1, at - 1) .. sub(guards, at + GUARD)
    end
  end
  return -1, guards
end

-- Whether one of the newest SEEN_KEPT records begins with these bytes.
local function has_seen(seen, bytes)
  local at = find(seen, bytes, 1, true)
  while at and at <= SEEN_KEPT * RECORD do
    if (at - 1) % RECORD == 0 then return true end
    at = find(seen, bytes, at + 1, true)
  end
  return false
end

-- Earlier distinct items of the session as of an event; `at` is where the next older engagement begins.
local function context(recent, at, time, session, item)
  local items, count, size = {}, 0, #recent
  for _ = 1, WALK_MAX do
    if at > size or count == CONTEXT_MAX then break end
    local _, _, then_, _, their_session, other, _, next_at = unpack_struct(ENTRY, recent, at)
    at = next_at
    if their_session == session then
      if session == 0 then
        if math.abs(time - then_) >= SESSION_GAP_MS then break end
        time = then_
      end
      local new = other ~= item
      for known = 1, count do
        if items[known] == other then new = false end
      end
      if new then
        count = count + 1
        items[count] = other
      end
    end
  end
  return items
end

-- The context of an event that was accepted before, as it was then; nothing if its engagement is kept no more.
local function context_again(recent, position, time, session, item)
  local at = 1
  while at <= #recent do
    local _, _, _, _, _, _, _, next_at = unpack_struct(ENTRY, recent, at)
    if sub(recent, at, at + GUARD - 1) == position then return context(recent, next_at, time, session, item) end
    at = next_at
  end
  return {}
end

-- The counts by type with one more event in them.
local function with_one(counts, type, time)
  for at = 1, #counts, COUNT_SIZE do
    if byte(counts, at) == type then
      local _, count, sum, as_of = unpack_struct(COUNT, counts, at)
      if time >= as_of then
        sum, as_of = sum * 2 ^ ((as_of - time) / HALF_LIFE_MS) + 1, time
      else
        sum = sum + 2 ^ ((time - as_of) / HALF_LIFE_MS)
      end
      return sub(counts, 1, at - 1) .. pack(COUNT, type, count + 1, sum, as_of) .. sub(counts, at + COUNT_SIZE)
    end
  end
  return counts .. pack(COUNT, type, 1, 1, time)
end

local function with_dislike(disliked, item)
  if find('\31' .. disliked .. '\31', '\31' .. item .. '\31', 1, true) then return disliked end
  disliked = disliked == '' and item or item .. '\31' .. disliked
  local _, separators = string.gsub(disliked, '\31', '')
  return separators < DISLIKED_KEPT and disliked or string.match(disliked, '^(.*)\31')
end

local function update(key, events, now)
  local stored = call('HMGET', key, 'state', 'recent', 'seen')
  local state, recent, seen = stored[1], stored[2] or '', stored[3] or ''
  local first, last, paid, erased_at, written_at, engagements, types = 0, 0, 0, 0, 0, 0, 0
  local counts, guards = '', ''
  if state then
    first, last, paid, erased_at, written_at, engagements, types = unpack_struct(STATE, state)
    counts = sub(state, STATE_SIZE + 1, STATE_SIZE + types * COUNT_SIZE)
    guards = sub(state, STATE_SIZE + types * COUNT_SIZE + 1)
  end
  local disliked
  local moved, accepted, engaged, erased = false, false, false, false
  local answers, n, at, size = {}, 0, 1, #events

  while at <= size do
    local hash, partition, offset, time, type, session, item, _, value, next_at = unpack_struct(EVENT, events, at)
    local position = sub(events, at + 8, at + RECORD - 1)
    local record_at = at
    at, n = next_at, n + 1
    local guard, others = guard_of(guards, partition)
    if offset <= guard then
      if not has_seen(seen, hash .. position) then
        answers[n] = KNOWN
      elseif type == VIEW or type == DISLIKE then
        answers[n] = {}
      else
        answers[n] = context_again(recent, position, time, session, item)
      end
    else
      guards, moved = position .. others, true
      if type == FORGET then
        call('HDEL', key, 'recent', 'seen', 'disliked')
        first, last, paid, erased_at, engagements = 0, 0, 0, time, 0
        counts, recent, seen, disliked = '', '', '', nil
        accepted, engaged = false, false
        answers[n] = KNOWN
      elseif has_seen(seen, hash) then
        answers[n] = DUPLICATE
      else
        accepted = true
        seen = hash .. position .. seen
        if first == 0 or time < first then first = time end
        if time > last then last = time end
        counts = with_one(counts, type, time)
        if type == VIEW then
          answers[n] = {}
        elseif type == DISLIKE then
          answers[n] = {}
          disliked = with_dislike(disliked or call('HGET', key, 'disliked') or '', item)
        else
          answers[n] = context(recent, 1, time, session, item)
          recent = sub(events, record_at + 8, next_at - 9) .. recent
          engagements, engaged = engagements + 1, true
          if type == PURCHASE then paid = paid + value end
        end
      end
    end
  end
  if not moved then return answers end

  while engagements > RECENT_KEPT do
    recent = sub(recent, 1, #recent - ENTRY_SIZE - unpack_struct('<H', recent, #recent - 1))
    engagements = engagements - 1
  end
  state = pack(STATE, first, last, paid, erased_at, now, engagements, #counts / COUNT_SIZE) .. counts .. guards
  if engaged then
    call('HSET', key, 'state', state, 'seen', sub(seen, 1, SEEN_KEPT * RECORD), 'recent', recent)
  elseif accepted then
    call('HSET', key, 'state', state, 'seen', sub(seen, 1, SEEN_KEPT * RECORD))
  else
    call('HSET', key, 'state', state)
  end
  if disliked then call('HSET', key, 'disliked', disliked) end
  if math.floor(now / RENEW_MS) ~= math.floor(written_at / RENEW_MS) then call('PEXPIRE', key, TTL_MS) end
  return answers
end

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answers = {}
for k = 1, #KEYS do answers[k] = update(KEYS[k], ARGV[k], now) end
return answers
