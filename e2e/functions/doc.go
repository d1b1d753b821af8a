// Package functions runs network functions of Debian's packages on loopback: each with its own SQL module, and with Ringside
// instead of it. Their configuration is in deploy/functions. The tests check that both answer the same and that no request for a
// cached key fails while something that Ringside needs is down. `make functions` also measures both and writes RESULTS.md.
package functions
