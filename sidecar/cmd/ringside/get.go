package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringside-cache/ringside/ring"
)

func newGet() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get DATASET KEY",
		Short: "Read one key as an application does, and print its value",
		Long:  "Read one key as an application does, and print its value. An absent key is exit code 1.",
		Example: `  ringside get cnf-metrics CNF-001
  ringside get cnf-metrics CNF-001 -o json
  ringside get routes 10.0.0.0/8 --http unix:/run/ringside/ringside.sock`,
		Args: usage(cobra.ExactArgs(2)),
	}
	sidecar, out := httpFlag(cmd), outputFlag(cmd)
	noCache := cmd.Flags().Bool("no-cache", false, "ask the database anew, whatever is held")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r := request{method: http.MethodGet, path: "/v1/" + ring.RouteKey(args[0], args[1]), header: http.Header{}}
		if *noCache {
			r.header.Set("Cache-Control", "no-cache")
		}
		resp, err := sidecar.ask(cmd.Context(), r)
		if err != nil {
			return err
		}
		if resp.status != http.StatusOK {
			return fmt.Errorf("%s %s: %w", args[0], args[1], resp.refusal())
		}
		if out.json() {
			return printJSON(cmd.OutOrStdout(), newFound(args[0], args[1], resp))
		}
		return printValue(cmd.OutOrStdout(), resp.body)
	}
	return cmd
}

// found is a value with what the header fields say of it.
type found struct {
	Dataset     string          `json:"dataset"`
	Key         string          `json:"key"`
	Value       json.RawMessage `json:"value,omitempty"`
	Bytes       []byte          `json:"value_base64,omitempty"` // of a value that is no JSON
	Version     string          `json:"version,omitempty"`
	ETag        string          `json:"etag"`
	AgeSeconds  int             `json:"age_seconds"`
	CacheStatus string          `json:"cache_status"`
	CacheFor    string          `json:"cache_control,omitempty"`
}

func newFound(dataset, key string, r response) found {
	age, _ := strconv.Atoi(r.header.Get("Age")) // 0 where it is missing
	f := found{
		Dataset: dataset, Key: key, Version: r.header.Get("Ringside-Version"), ETag: r.header.Get("ETag"), AgeSeconds: age,
		CacheStatus: r.header.Get("Cache-Status"), CacheFor: r.header.Get("Cache-Control"),
	}
	if strings.HasPrefix(r.header.Get("Content-Type"), "application/json") && json.Valid(r.body) {
		f.Value = r.body
	} else {
		f.Bytes = r.body
	}
	return f
}

// printValue writes the value as it is, and ends the line for a person's sake.
func printValue(w io.Writer, value []byte) error {
	if len(value) == 0 || value[len(value)-1] != '\n' {
		value = append(value, '\n')
	}
	_, err := w.Write(value)
	return err
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
