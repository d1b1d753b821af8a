// Package xds says whether this program has xDS, with which proxies and clients receive the ring: the build tag noxds leaves it
// out, and with it Envoy's API, a fifth of the program and of its memory.
package xds

// LeftOut is what a program without xDS says of fields that need it.
const LeftOut = "this program was built without Envoy's API (build tag noxds): leave the field out, or use a program with it"
