// Package peerv1 is generated from peer.proto, the protocol between members.
package peerv1
