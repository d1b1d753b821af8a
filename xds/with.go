//go:build !noxds

package xds

// Built tells whether the program has xDS and ext_authz over gRPC.
const Built = true
