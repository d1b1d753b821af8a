// Package guard keeps an origin's budget. Each guard is a decorator of origin.Origin; a dataset's are put together as
//
//	Batch → Timeout → Limiter → Breaker → source
//
// so that many misses are one load, whose time includes that in the queue, and a breaker that opens answers the queue
// behind it at once. A Limiter is shared by the datasets of an origin, whose budget it is; a Breaker belongs to one
// dataset, as a query that is wrong must not silence the others.
package guard
