package httporigin

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

func TestValidatorsAreBounded(t *testing.T) {
	var r renewals
	var values []origin.Value // as the cache holds them
	key := strings.Repeat("k", 1000)
	for i := range 2000 {
		v := origin.Value{Data: []byte(strings.Repeat("v", minAllocation))}
		values = append(values, v)
		r.remember(fmt.Sprint(key, i), header(`ETag: "1"`), v)
	}
	if n := len(r.held); n == 0 || n > maxValidatorBytes/len(key) || r.bytes > maxValidatorBytes {
		t.Errorf("got %d validators of %d bytes; want at most %d bytes", n, r.bytes, maxValidatorBytes)
	}
	r.remember("long", header("ETag: "+strings.Repeat("e", maxValidator+1)), values[0])
	r.remember("empty", header(`ETag: "1"`), origin.Value{})
	r.remember("none", header(), values[0])
	for _, key := range []string{"long", "empty", "none"} {
		if one, _ := r.lookup(key); one != nil {
			t.Errorf("%s: it is remembered", key)
		}
	}
	r.forget(fmt.Sprint(key, 0), nil)
	if one, _ := r.lookup(fmt.Sprint(key, 0)); one != nil {
		t.Error("it is not forgotten")
	}
	runtime.KeepAlive(values)
}
