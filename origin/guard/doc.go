// Package guard keeps the budget of an origin. Each guard is a decorator of origin.Origin; those of a dataset are combined as
//
//	Batch (with the Limiter) → Breaker → source
//
// so that many misses become one load, which accepts more keys while it queues, and a breaker that opens rejects the queue
// in front of it at once. Writes and lists wait for their turn at the same Limiter and need no other guard: they are not
// batched, and say little about the next load. No guard limits time: the caller's context does. The datasets of an origin
// share a Limiter, because it is the origin's budget. Each dataset has its own Breaker, because a wrong query of one
// dataset must not block the others.
package guard
