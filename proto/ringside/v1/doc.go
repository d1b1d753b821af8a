// Package ringsidev1 is generated from cache.proto: what applications say to their sidecar.
package ringsidev1
