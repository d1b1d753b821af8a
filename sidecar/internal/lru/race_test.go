//go:build race

package lru

// raced: the race detector slows every access down and has nothing to find where there is one goroutine.
const raced = true
