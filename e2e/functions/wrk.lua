-- wrk.lua FILE COUNT RATE: requests for the keys of FILE, one "key answer" per line, in this order and from the beginning.
-- Request N has the N-th key in X-Api-Key and in the path. Ends after COUNT responses. RATE is per second and connection; 0: as
-- many as the server answers.
local keys, answers, sent, count, wait = {}, {}, 0, 0, 0
responses, wrong = 0, 0 -- globals: done reads them
local threads = {}

function setup(thread) table.insert(threads, thread) end

function init(args)
	for line in io.lines(args[1]) do
		local key, answer = line:match("^(%S+) (%S+)$")
		keys[#keys + 1], answers["/" .. key] = key, answer
	end
	count = tonumber(args[2])
	if tonumber(args[3]) > 0 then wait = 1000 / tonumber(args[3]) end
end

function delay() return wait end

function request()
	local key = keys[sent % #keys + 1]
	sent = sent + 1
	return wrk.format("GET", "/" .. key, {["X-Api-Key"] = key})
end

function response(status, headers, body)
	local path, answer = body:match("^(%S+) (%S+)$")
	if status ~= 200 or answers[path] == nil or answers[path] ~= answer then wrong = wrong + 1 end
	responses = responses + 1
	if responses == count then
		wrk.thread:stop()
		-- The main thread sleeps for the whole duration, perhaps soon.
		io.popen("while kill -INT $PPID; do sleep 0.05; done 2>/dev/null")
	end
end

function done(summary, latency)
	local thread = threads[1] -- the only one
	local e = summary.errors
	local lost = e.connect + e.read + e.write + e.timeout
	io.write(string.format('\n{"requests": %d, "failed": %d, "p50": %d, "p99": %d}\n', thread:get("responses") + lost,
		thread:get("wrong") + lost, latency:percentile(50) * 1000, latency:percentile(99) * 1000))
end
