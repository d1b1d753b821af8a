package flight

import "sync"

// Concurrently calls fn for 0 to n-1, at most limit at once, and returns when all have returned. A panic of one becomes a
// panic of the caller, on a goroutine whose owner recovers.
func Concurrently(n, limit int, fn func(i int)) {
	if n == 1 {
		fn(0)
		return
	}
	var all sync.WaitGroup
	slots, panicked := make(chan struct{}, max(limit, 1)), make(chan any, n)
	for i := range n {
		slots <- struct{}{}
		all.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					panicked <- p
				}
				<-slots
			}()
			fn(i)
		})
	}
	all.Wait()
	select {
	case p := <-panicked:
		panic(p)
	default:
	}
}
