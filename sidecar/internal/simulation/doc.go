// Package simulation runs thousands of sidecars' membership in one process and virtual time. Its test runs the code of package
// membership, ring/etcd, memberlist, invalidationlog and service with simulated links and a simulated etcd, counts what they send,
// and writes e2e/scale/SIMULATION.md (see e2e/scale/simulate.sh).
package simulation
