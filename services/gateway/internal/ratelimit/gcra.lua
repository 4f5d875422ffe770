-- One decision. KEYS[1]: the budget; ARGV: interval in microseconds, burst, cost (negative gives back).
-- Answers {allowed, tat, now}. The key lives as long as its budget is not whole.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local interval, burst, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local v = redis.pcall('GET', KEYS[1])
local tat = now
if type(v) == 'string' then
  tat = tonumber(v) or now
elseif type(v) == 'table' and v.err then
  redis.call('DEL', KEYS[1]) -- somebody else's value under our key: the budget starts anew
end
if tat < now then tat = now end
local next = tat + cost * interval
if next < now then next = now end
if next - burst * interval > now then
  return {0, string.format('%.0f', tat), string.format('%.0f', now)}
end
if next > now then
  redis.call('SET', KEYS[1], string.format('%.0f', next), 'PX', math.ceil((next - now) / 1000))
else
  redis.call('DEL', KEYS[1])
end
return {1, string.format('%.0f', next), string.format('%.0f', now)}
