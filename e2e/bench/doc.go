// Package bench measures a sidecar from the view of its applications, and compares it with the fastest servers for each part of
// its work: proxies and caches, memory stores, other sidecars and libraries, and echo servers that do nothing else. run.sh runs
// it several times, so that the rounds of all servers are interleaved, and report.py writes the results.
package bench
