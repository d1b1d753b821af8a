package ring_test

import (
	"fmt"
	"log"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/routekey"
)

func Example() {
	r, err := ring.New(ring.NewStatic([]string{"10.0.0.5:7072", "10.0.0.6:7072", "10.0.0.7:7072"}), ring.Size{})
	if err != nil {
		log.Fatal(err)
	}
	routeKey := routekey.Format("routes", "10.1.0.0/16 via eth0")
	fmt.Println(routeKey)
	for m := range r.Successors(routeKey) {
		fmt.Println(m.Addr)
	}
	// Output:
	// routes/10.1.0.0/16%20via%20eth0
	// 10.0.0.7:7072
	// 10.0.0.5:7072
	// 10.0.0.6:7072
}
