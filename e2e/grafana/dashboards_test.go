// Package grafana checks the dashboards with the types that Grafana generates from its schemas.
package grafana

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

func TestDashboardsAreOfGrafanasTypes(t *testing.T) {
	files, err := filepath.Glob("../../deploy/grafana/*.json")
	if err != nil || len(files) != 4 {
		t.Fatalf("got the dashboards %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := check(text); err != nil {
			t.Errorf("%s: %v", filepath.Base(file), err)
		}
		for _, field := range []string{"gridPos", "graphTooltip", "legendFormat", "colorMode"} {
			if check(bytes.Replace(text, []byte(`"`+field+`"`), []byte(`"unknown"`), 1)) == nil {
				t.Errorf("%s: an unknown field instead of %s is no error", filepath.Base(file), field)
			}
		}
	}
}

// check decodes a dashboard, of which each field must exist in the schema and have the right type. Panels are decoded one by one:
// their options and queries have schemas of their own.
func check(text []byte) error {
	var board map[string]json.RawMessage
	if err := json.Unmarshal(text, &board); err != nil {
		return err
	}
	var panels []json.RawMessage
	if err := json.Unmarshal(board["panels"], &panels); err != nil {
		return err
	}
	//lint:ignore SA1019 releases of Grafana that cannot import version 2 of the schema are in use
	var d dashboard.Dashboard
	board["panels"] = json.RawMessage("[]")
	rest, err := json.Marshal(board)
	if err != nil {
		return err
	}
	list := []error{empty(d.UnmarshalJSONStrict(rest)), empty(d.Validate())}
	for i, panel := range panels {
		if err := checkPanel(panel); err != nil {
			list = append(list, fmt.Errorf("panel %d: %w", i, err))
		}
	}
	return errors.Join(list...)
}

func checkPanel(text []byte) error {
	var p dashboard.Panel
	// The schemas of these depend on the type of the panel and of its data source.
	var parts struct {
		Options     json.RawMessage
		Targets     []json.RawMessage
		FieldConfig struct {
			Defaults struct{ Custom json.RawMessage }
		}
	}
	if err := json.Unmarshal(text, &parts); err != nil {
		return err
	}
	list := []error{empty(p.UnmarshalJSONStrict(text)), empty(p.Validate())}
	for _, target := range parts.Targets {
		list = append(list, empty(new(prometheus.Dataquery).UnmarshalJSONStrict(target)))
	}
	switch p.Type {
	case "stat":
		list = append(list, empty(new(stat.Options).UnmarshalJSONStrict(parts.Options)))
	case "timeseries":
		list = append(list, empty(new(timeseries.Options).UnmarshalJSONStrict(parts.Options)),
			empty(new(timeseries.FieldConfig).UnmarshalJSONStrict(parts.FieldConfig.Defaults.Custom)))
	default:
		list = append(list, fmt.Errorf("the type is %q", p.Type))
	}
	return errors.Join(list...)
}

// empty returns nil for the list without errors that the generated code returns.
func empty(err error) error {
	var list cog.BuildErrors
	if errors.As(err, &list) && len(list) == 0 {
		return nil
	}
	return err
}
