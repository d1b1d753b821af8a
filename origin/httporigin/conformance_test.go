package httporigin_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/httporigin"
	"github.com/ringside-cache/ringside/origin/origintest"
)

// open returns a dataset of the server at url.
func open(t *testing.T, c origin.SourceConfig, values origin.HTTPValues) origin.Origin {
	t.Helper()
	source := openSource(t, c)
	o, err := source.Dataset(origin.Dataset{Name: "things", HTTP: values})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func openSource(t *testing.T, c origin.SourceConfig) origin.Source {
	t.Helper()
	c.Name = "service"
	source, err := httporigin.Driver().Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := source.Close(); err != nil {
			t.Error(err)
		}
	})
	return source
}

// serve starts a server, and returns a dataset whose key is in a parameter.
func serve(t *testing.T, h http.HandlerFunc) origin.Origin {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return open(t, origin.SourceConfig{DSN: server.URL}, origin.HTTPValues{URL: "/things?name={key}"})
}

// one loads a key.
func one(t *testing.T, o origin.Origin, key string) origin.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	results, err := o.Load(ctx, []string{key})
	if err != nil {
		return origin.Result{Err: err}
	}
	return results[0]
}

func TestConformance(t *testing.T) {
	origintest.Conformance(t, origintest.Subject{
		Unversioned: true,
		New: func(t *testing.T, rows map[string]string) origin.Origin {
			return serve(t, func(w http.ResponseWriter, r *http.Request) {
				value, ok := rows[r.URL.Query().Get("name")]
				if !ok {
					w.WriteHeader(http.StatusNotFound)
					return
				}
				_, _ = w.Write([]byte(value))
			})
		},
		Stuck: func(t *testing.T) origin.Origin {
			return serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		},
	})
}
