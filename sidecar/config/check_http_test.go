package config

import (
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin/drivers"
)

func TestProblemsOfWhatHTTPClientsSee(t *testing.T) {
	const two = oneDataset + "    alias: [METRICS]\n    paths: [\"/m/{cnf_id}\"]\n" +
		"  other:\n    origin: db\n    query: SELECT ?\n"
	for _, test := range []struct{ name, text, want string }{
		{"fine", oneDataset + `
    alias: [DOMAINS, a.b_c]
    paths: ["/dns/lookup/{cnf_id}", "/all/{cnf_id...}"]
    body: '{"result": {value}}'
    absent: {status: 200, body: '{"result": false}', content_type: application/json}
    headers: {X-Tenant: tenant}`, ""},
		{"fine query", two + `    paths: ["/o/{any}"]`, ""},
		{"name that is an alias", two + "    alias: [metrics]", `datasets.other.alias: "metrics" is also the name or an alias of datasets.metrics`},
		{"alias of two", two + "    alias: [METRICS]", `datasets.other.alias: "METRICS" is also the name or an alias of datasets.metrics`},
		{"alias of itself", two + "    alias: [a, a]", `datasets.other.alias: "a" is also the name or an alias of datasets.other`},
		{"path of two", two + `    paths: ["/m/{any}"]`, "datasets.other.paths: /m/{any} and /m/{cnf_id} of datasets.metrics have paths in common"},
		{"path of itself", two + `    paths: ["/o/{any...}", "/o/x/{any}"]`, "datasets.other.paths: /o/x/{any} and /o/{any...} of datasets.other have paths"},
		{"path of the API", two + `    paths: ["/v1/{any}"]`, "datasets.other.paths[0]: paths below /v1 are those of the API itself"},
		{"variable that is no column", oneDataset + `    paths: ["/m/{id}"]`, "datasets.metrics.paths[0]: no variable has the name of the column cnf_id"},
		{"headers of one column", oneDataset + "    value: v\n    headers: {X-A: a}", "datasets.metrics.headers: the fields are columns of the row"},
		{"headers of many rows", oneDataset + "    rows: many\n    order: [cnf_id]\n    headers: {X-A: a}", "datasets.metrics.headers: the fields are columns of one row"},
		{"ext_authz", oneDataset + "ext_authz: {dataset: metrics, header: x-api-key}", ""},
		{"ext_authz of no dataset", oneDataset + "ext_authz: {dataset: other, header: x-api-key}", "ext_authz.dataset: no dataset is named \"other\"; want one of: metrics"},
		{"ext_authz without a header", oneDataset + "ext_authz: {dataset: metrics}", "ext_authz.header: want a header field in lower case"},
		{"ext_authz without a dataset", oneDataset + "ext_authz: {header: x}", "ext_authz.dataset: no dataset is named \"\""},
		{"ext_authz with another spelling", oneDataset + "ext_authz: {dataset: metrics, header: X-Api-Key}", "ext_authz.header: want"},
		{"ext_authz of two columns", strings.Replace(oneDataset, "key: cnf_id", "key: [a, b]", 1) + "ext_authz: {dataset: metrics, header: x}", "a key of several columns"},
		{"header of HTTP", oneDataset + "    headers: {Content-Length: a}", "datasets.metrics.headers.Content-Length: HTTP or Ringside gives"},
		{"absent", oneDataset + "    absent: {status: 503}", "datasets.metrics.absent.status: want one of 200, 204, 403, 404; got 503"},
	} {
		_, err := Source{Getenv: environ{}.get, Drivers: drivers.All()}.Parse([]byte(test.text))
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}
