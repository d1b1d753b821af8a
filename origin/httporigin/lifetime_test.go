package httporigin

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)

// header returns the header of lines such as "Age: 5".
func header(lines ...string) http.Header {
	h := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	return h
}

func TestLifetimes(t *testing.T) {
	httpTime := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for _, tt := range []struct {
		header []string
		want   string // fresh/stale
	}{
		{nil, "-/-"},
		{[]string{"Cache-Control: public, immutable, x=\"a, max-age=1\""}, "-/-"},
		{[]string{"Cache-Control: max-age=60"}, "1m0s/-"},
		{[]string{"Cache-Control: MAX-AGE = \"60\""}, "1m0s/-"},
		{[]string{"Cache-Control: max-age=60", "Age: 50"}, "10s/-"},
		{[]string{"Cache-Control: max-age=60", "Age: 70"}, "0s/-"},
		{[]string{"Cache-Control: max-age=60", "Age: -5"}, "1m0s/-"},
		{[]string{"Cache-Control: max-age=60, s-maxage=5"}, "5s/-"},
		{[]string{"Cache-Control: max-age=6, s-maxage=50"}, "50s/-"},
		{[]string{"Cache-Control: max-age=60", "Cache-Control: max-age=5"}, "5s/-"},
		{[]string{"Cache-Control: max-age=99999999999999999999"}, "596523h14m8s/-"},
		{[]string{"Cache-Control: max-age=soon"}, "0s/-"},
		{[]string{"Cache-Control: max-age"}, "0s/-"},
		{[]string{"Cache-Control: no-store, max-age=60"}, "0s/0s"},
		{[]string{"Cache-Control: no-cache"}, "0s/0s"},
		{[]string{"Cache-Control: max-age=60, must-revalidate, stale-if-error=60"}, "1m0s/0s"},
		{[]string{"Cache-Control: max-age=60, stale-if-error=30"}, "1m0s/30s"},
		{[]string{"Cache-Control: private"}, "-/-"},
		{[]string{"Expires: " + httpTime(time.Minute)}, "1m0s/-"},
		{[]string{"Expires: " + httpTime(time.Minute), "Date: " + httpTime(30*time.Second)}, "30s/-"},
		{[]string{"Expires: 0"}, "0s/-"},
		{[]string{"Expires: 0", "Cache-Control: max-age=60"}, "1m0s/-"},
	} {
		l := lifetimeOf(header(tt.header...), now)
		if got := shown(l.fresh) + "/" + shown(l.stale); got != tt.want {
			t.Errorf("%q: got %s, want %s", tt.header, got, tt.want)
		}
	}
}

func shown(d *time.Duration) string {
	if d == nil {
		return "-"
	}
	return fmt.Sprint(*d)
}

func TestRetryAfter(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": 0, "5": 5 * time.Second, "86400": maxRetryAfter, "-5": 0, "soon": 0,
		now.Add(7 * time.Second).Format(http.TimeFormat): 7 * time.Second, now.Add(-time.Hour).Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(header("Retry-After: "+text), now); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}

func FuzzLifetime(f *testing.F) {
	f.Add("max-age=60, s-maxage=\"5\", no-cache=\"a, b\"", "7", "Thu, 01 Dec 1994 16:00:00 GMT", "5")
	f.Add(`x="\",max-age=1`, "-1", "0", "")
	f.Add(",,=,", "99999999999999999999", "Mon", "9999999999999999999999")
	f.Fuzz(func(t *testing.T, cacheControl, age, expires, retry string) {
		h := http.Header{"Cache-Control": {cacheControl, "max-age=60"}, "Age": {age}, "Expires": {expires}, "Retry-After": {retry}}
		l := lifetimeOf(h, now)
		if l.fresh == nil || *l.fresh < 0 || l.stale != nil && (*l.stale < 0 || *l.stale > maxSeconds*time.Second) {
			t.Errorf("got %s, %s", shown(l.fresh), shown(l.stale))
		}
		if wait := retryAfter(h, now); wait < 0 || wait > maxRetryAfter {
			t.Errorf("wait %v", wait)
		}
	})
}
