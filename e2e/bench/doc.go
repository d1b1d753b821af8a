// Package bench measures a sidecar as its applications see it, beside the least that other servers can do: nginx that
// returns a constant, Redis, a gRPC server that returns a constant. run.sh runs it several times and compares.
package bench
