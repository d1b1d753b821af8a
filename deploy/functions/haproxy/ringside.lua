-- http-request lua.ringside: looks up the key in X-Api-Key and sets txn.pool, or responds with 403 or 503.
core.register_action("ringside", {"http-req"}, function(txn)
	local url = "http://127.0.0.1:7079/v1/pools/" .. txn.sf:req_hdr("x-api-key")
	local answer = core.httpclient():get{url = url, timeout = 4000}
	if answer.status == 200 then
		txn:set_var("txn.pool", answer.body)
		return
	end
	local reply = txn:reply()
	reply:set_status(answer.status == 404 and 403 or 503)
	txn:done(reply)
end, 0)
