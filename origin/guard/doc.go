// Package guard keeps an origin's budget. Each guard is a decorator of origin.Origin; a dataset's are put together as
//
//	Batch (with the Limiter) → Breaker → source
//
// so that many misses are one load, which takes keys while it queues, and a breaker that opens answers the queue before
// it at once. Writes and lists wait for their turn at the same Limiter, and need nothing else: they are not batched, and
// say little of what a load would meet. There is no guard for time: the caller's context has that. A Limiter is shared
// by the datasets of an origin, whose budget it is; a Breaker belongs to one dataset, as a query that is wrong must not
// silence the others.
package guard
