// Package peerv1 is generated from peer.proto: what sidecars say to each other.
package peerv1
