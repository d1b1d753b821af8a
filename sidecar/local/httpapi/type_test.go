package httpapi_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// typed is an origin with one key for each content.
type typed struct{}

func (typed) Load(_ context.Context, keys []string) ([]origin.Result, error) {
	results := make([]origin.Result, len(keys))
	for i, key := range keys {
		results[i].Err = origin.ErrNotFound
		for c := origin.ContentUnknown; c <= origin.ContentBytes; c++ {
			if c.String() == key {
				results[i] = origin.Result{Value: origin.Value{Data: []byte(`{"a": 1}`), Content: c}}
			}
		}
	}
	return results, nil
}

func startTyped(t *testing.T) *localtest.Server {
	return localtest.Start(t, local.Config{},
		local.Served{Dataset: localtest.NewDataset(t, "columns", typed{})},
		local.Served{Dataset: localtest.NewDataset(t, "rows", typed{}), JSON: true},
		local.Served{Dataset: localtest.NewDataset(t, "pages", typed{}), ContentType: "text/html"},
		local.Served{Dataset: localtest.NewDataset(t, "documents", typed{}), ContentType: "application/json"})
}

// The header depends on the content of the value, also in a hit and in the answer to HEAD; 304 has none.
func TestContentTypeIsThatOfTheValue(t *testing.T) {
	c := localtest.Dial(t, "tcp", startTyped(t).HTTP)
	for dataset, types := range map[string]map[string]string{
		"columns": {"json": "application/json", "text": "text/plain; charset=utf-8", "bytes": "application/octet-stream",
			"unknown": "application/octet-stream", "none": "application/problem+json"},
		"rows":  {"json": "application/json", "unknown": "application/json"},
		"pages": {"json": "text/html", "text": "text/html", "unknown": "text/html", "none": "application/problem+json"},
	} {
		for key, want := range types {
			for _, method := range []string{"GET", "GET", "HEAD"} {
				request := strings.Replace(localtest.Get("/v1/"+dataset+"/"+key), "GET", method, 1)
				c.Send(request)
				resp, _ := c.Response(method)
				if got := resp.Header.Get("Content-Type"); got != want {
					t.Errorf("%s %s/%s: got %q, want %q", method, dataset, key, got, want)
				}
				if method == "GET" && resp.StatusCode == http.StatusOK && dataset != "pages" {
					checkDocumented(t, request, resp, "")
				}
			}
		}
	}
	c.Send(localtest.Get("/v1/columns/text", "If-None-Match: *"))
	if resp, _ := c.Response("GET"); resp.StatusCode != http.StatusNotModified || resp.Header.Get("Content-Type") != "" {
		t.Errorf("got %d %v, want 304 without a type", resp.StatusCode, resp.Header)
	}
}

// A batch and an event contain JSON as it is, and everything else as base64 with its type.
func TestValuesOfABatchHaveTheirTypes(t *testing.T) {
	s := startTyped(t)
	base64 := `"valueBase64":"eyJhIjogMX0=",`
	for dataset, forms := range map[string]map[string]string{
		"columns": {"json": `"value":{"a":1},`, "text": base64 + `"contentType":"text/plain; charset=utf-8",`,
			"bytes": base64, "unknown": base64},
		"pages":     {"json": base64 + `"contentType":"text/html",`},
		"documents": {"text": `"value":{"a":1},`, "unknown": `"value":{"a":1},`},
	} {
		for key, want := range forms {
			c := localtest.Dial(t, "tcp", s.HTTP)
			want = fmt.Sprintf(`{"key":%q,%s"etag"`, key, want)
			c.Send(localtest.Post("/v1/"+dataset+":batchGet", fmt.Sprintf(`{"keys":[%q]}`, key)))
			if _, body := c.Response("POST"); !strings.HasPrefix(body, `{"results":[`+want) {
				t.Errorf("batch of %s/%s: got %s, want %s", dataset, key, body, want)
			}
			event, err := localtest.OpenWatch(t, "tcp", s.HTTP, "/v1/"+dataset+":watch?key="+key).Events.Event()
			if err != nil || !strings.HasPrefix(event.Data, want) {
				t.Errorf("event of %s/%s: got %s, %v; want %s", dataset, key, event.Data, err, want)
			}
		}
	}
}

// A client may send back what it has received.
func TestPutAcceptsTheTypeOfTheDataset(t *testing.T) {
	const special = "application/vnd.example+json"
	s := localtest.Start(t, local.Config{}, local.Served{
		Dataset: localtest.NewWritable(t, "rows", origintest.New(localtest.Rows())), JSON: true, ContentType: special})
	c := localtest.Dial(t, "tcp", s.HTTP)
	for sent, want := range map[string]int{special: 200, "application/json": 200, "text/csv": 415} {
		c.Send(localtest.Put("/v1/rows/a", `{"value":1}`, "Content-Type: "+sent))
		resp, body := c.Response("PUT")
		if got := resp.Header.Get("Content-Type"); resp.StatusCode != want || want == 200 && got != special {
			t.Errorf("%s: got %d %q %s, want %d %q", sent, resp.StatusCode, got, body, want, special)
		}
	}
}
