// Package ready waits for the next request on many connections in one goroutine. The runtime polls a socket with a goroutine for
// each connection: to park it, to find that there is nothing to read, and to wake a thread takes a third of a hit. A Loop
// takes the sockets of connections that are likely to get nothing but hits, and looks for all of them at once.
package ready

// Waiter is a connection that waits in a Loop.
type Waiter interface {
	// Ready is called when the socket can be read or has ended. All connections of the loop wait until it returns. It may call
	// Loop.Remove.
	Ready()
}
