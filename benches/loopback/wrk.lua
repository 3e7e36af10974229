-- Pings, session after session. Every request is written beforehand.
local requests, last, at = {}, 0, 0

function init(args)
  -- No two requests of a session have the same JSON-RPC id for a long time.
  for turn = 1, 4 do
    for id in io.lines(args[1]) do
      last = last + 1
      local body = '{"jsonrpc":"2.0","id":' .. (turn + 1) .. ',"method":"ping"}'
      wrk.headers["Mcp-Session-Id"] = id
      requests[last] = wrk.format("POST", nil, nil, body)
    end
  end
end

function request()
  at = at % last + 1
  return requests[at]
end

function done(summary, latency)
  local line = 'outcome: {"requests":%d,"duration":%d,"p50":%d,"p99":%d}\n'
  io.write(line:format(summary.requests, summary.duration, latency:percentile(50), latency:percentile(99)))
end
