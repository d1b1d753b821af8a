// Package cache is the whole read path of a dataset: memory, the owner, the origin. It opens no socket, writes no log
// and starts no timer but the bounds of its flights.
package cache
