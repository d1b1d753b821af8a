// Package container has what the container of a sidecar must have, for the sidecar itself and for what starts it.
package container

// LeastMemory is the lowest memory limit in bytes with which a sidecar withstands what its clients and other members can do: with
// it, batches of four and of sixteen clients, and the attacks of promise D, do not make the kernel end the process (see
// TestBatchesInTheSmallestContainer, and the figures in deploy/OPERATIONS.md).
const LeastMemory = 64 << 20
