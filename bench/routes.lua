-- wrk: requests spread over all routes that bench/scale.py makes; its path_of in Lua. The argument is their number.
local tails = { [0] = "", [1] = "/a/b", [2] = "/detail" }
local count = 1

function init(args)
  count = tonumber(args[1])
  math.randomseed(1)
end

function request()
  local number = math.random(0, count - 1)
  local path = "/team-" .. number % 97 .. "/service-" .. number .. "/items" .. tails[number % 3]
  return wrk.format("GET", path)
end
