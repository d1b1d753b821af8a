// Package stripe distributes goroutines among copies of what all of them write, so that CPUs do not wait for each other's
// cache lines.
package stripe

import "unsafe"

// Line is the size of a cache line. Each copy has one of its own.
const Line = 64

// Of returns the number of the calling goroutine's copy, of 1<<bits. The address of a variable on its stack distinguishes the
// goroutine. Unlike a random number, it is the same in the next call from the same place, so that a CPU finds the copy in
// its own cache; Go has no number of the CPU or of the goroutine.
func Of(bits uint) int {
	var onStack byte
	hash := uint64(uintptr(unsafe.Pointer(&onStack))>>smallestStack) * 0x9E3779B97F4A7C15
	return int(hash >> (64 - bits)) //guard:goroutines-share-one-stripe
}

// smallestStack is the logarithm of the smallest size of a stack: two variables of one goroutine are rarely further apart.
const smallestStack = 11
