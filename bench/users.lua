-- wrk: each request with the name of one of 100 000 users in a header.
function init()
  math.randomseed(1)
end

function request()
  return wrk.format("GET", nil, { ["X-User"] = "user-" .. math.random(0, 99999) })
end
