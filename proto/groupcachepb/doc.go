// Package groupcachepb is generated from groupcache.proto: what clients of the cache before Ringside say.
package groupcachepb
