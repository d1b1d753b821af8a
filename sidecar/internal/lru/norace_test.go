//go:build !race

package lru

const raced = false
