// Package bench measures a sidecar from the view of its applications and compares it with minimal servers: nginx returning
// a constant, Redis, and a gRPC server returning a constant. run.sh runs it several times and writes the results.
package bench
