package httporigin_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin"
)

func TestPrometheus(t *testing.T) {
	c := origin.SourceConfig{DSN: "http://" + rig.Prometheus(t, nil, []string{"127.0.0.1:1"})} // a target that is down
	preset := origin.HTTPValues{Preset: origin.PresetPrometheus}
	o := open(t, c, preset)
	if err := openSource(t, c).Check(soon(t), origin.Dataset{Name: "up", HTTP: preset}); err != nil {
		t.Error(err)
	}
	var data struct {
		ResultType string
		Result     json.RawMessage
	}
	r := one(t, o, "1 + 1")
	if err := json.Unmarshal(r.Value.Data, &data); r.Err != nil || err != nil || data.ResultType != "scalar" || !strings.Contains(string(data.Result), `"2"`) {
		t.Errorf("got %s, %v", r.Value.Data, r.Err)
	}
	if r := one(t, o, `vector(1) > 2`); !errors.Is(r.Err, origin.ErrNotFound) {
		t.Errorf("no series: got %s, %v; want not found", r.Value.Data, r.Err)
	}
	if r := one(t, o, "sum("); !errors.Is(r.Err, origin.ErrInvalidKey) {
		t.Errorf("no expression: got %s, %v; want an invalid key", r.Value.Data, r.Err)
	}
	preset.URL = `/api/v1/query?query=label_replace(vector(1), "instance", "{key}", "", "")`
	o = open(t, c, preset)
	if r := one(t, o, "a:1"); r.Err != nil || !strings.Contains(string(r.Value.Data), `"instance":"a:1"`) {
		t.Errorf("got %s, %v", r.Value.Data, r.Err)
	}
	for _, key := range []string{`a", "", "") or vector(2) #`, `a\`, "a'", "a\nb"} {
		if r := one(t, o, key); !errors.Is(r.Err, origin.ErrInvalidKey) {
			t.Errorf("%q: got %s, %v; want an invalid key", key, r.Value.Data, r.Err)
		}
	}
}

func TestResponsesOfPrometheus(t *testing.T) {
	for body, want := range map[string]string{
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"2"]}]},"warnings":["w"]}`: "",
		`{"status":"error","errorType":"timeout","error":"canary"}`:                                                     "the query failed: timeout",
		`{"status":"success"}`:                                "not a response of Prometheus",
		`{"status":"success","data":{"resultType":"vector"}}`: "not a response of Prometheus",
		`{}`:   "not a response of Prometheus",
		`[]`:   "not a response of Prometheus",
		`null`: "not a response of Prometheus",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(body))
		}))
		r := one(t, open(t, origin.SourceConfig{DSN: server.URL}, origin.HTTPValues{Preset: origin.PresetPrometheus}), "k")
		server.Close()
		if want == "" && (r.Err != nil || r.Value.Content != origin.ContentJSON) || want != "" && (r.Err == nil || !strings.Contains(r.Err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", body, r.Err, want)
		}
	}
}

func TestKeysArePartsOfQueries(t *testing.T) {
	source := openSource(t, origin.SourceConfig{DSN: "http://127.0.0.1:1"})
	for url, isValid := range map[string]bool{
		"":                               true,
		"/prom/api/v1/query?query={key}": true,
		`/api/v1/query?query=up{instance="{key}"}`:             true,
		`/api/v1/query?query=up{instance=%22{key}%22}`:         true,
		`/api/v1/query?query=up{instance="{key}:9100"}&time=1`: true,
		`/api/v1/query?query=rate({key}[5m])`:                  false,
		`/api/v1/query?query={key}{job="a"}`:                   false,
		`/api/v1/query?query=up{a="{key}",b="{key}"}`:          false,
		`/api/v1/query/{key}`:                                  false,
		`/api/v1/query?query=up&time={key}`:                    false,
	} {
		_, err := source.Dataset(origin.Dataset{Name: "up", HTTP: origin.HTTPValues{Preset: origin.PresetPrometheus, URL: url}})
		if (err == nil) != isValid {
			t.Errorf("%s: got %v", url, err)
		}
	}
}
