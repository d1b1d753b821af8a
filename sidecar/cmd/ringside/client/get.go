// Package client has the commands that act as an application does: read, write, invalidate and watch keys.
package client

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
)

// Commands returns the commands of this package.
func Commands() []*cobra.Command {
	return []*cobra.Command{newGet(), newPut(), newAppend(), newDelete(), newInvalidate(), newWatch()}
}

func newGet() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get DATASET KEY",
		Short: "Read one key as an application does, and print its value",
		Long: `Read one key as an application does, and print its value. The exit code is 1 if the key does not exist.

The components of a composite key have slashes between them: example.org/alice. In a component, write % as %25 and / as %2F.`,
		Example: `  ringside get cnf-metrics CNF-001
  ringside get cnf-metrics CNF-001 -o json
  ringside get routes 10.0.0.0/8 --http unix:/run/ringside/ringside.sock`,
		Args: cli.Args(cobra.ExactArgs(2)),
	}
	sidecar, out := cli.HTTPFlag(cmd), cli.OutputFlag(cmd)
	noCache := cmd.Flags().Bool("no-cache", false, "load the value from the database, even if a cached one is fresh")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		path, err := keyPath(cmd.Context(), sidecar, args[0], args[1])
		if err != nil {
			return err
		}
		r := cli.Request{Method: http.MethodGet, Path: path, Header: http.Header{}}
		if *noCache {
			r.Header.Set("Cache-Control", "no-cache")
		}
		resp, err := sidecar.Do(cmd.Context(), r)
		if err != nil {
			return err
		}
		if resp.Status != http.StatusOK {
			return fmt.Errorf("%s %s: %w", args[0], args[1], resp.Err())
		}
		if out.JSON() {
			return cli.PrintJSON(cmd.OutOrStdout(), newResult(args[0], args[1], resp))
		}
		return printValue(cmd.OutOrStdout(), resp.Body)
	}
	return cmd
}

// result is a value with the metadata from the header of the response.
type result struct {
	Dataset     string          `json:"dataset"`
	Key         string          `json:"key"`
	Value       json.RawMessage `json:"value,omitempty"`
	Bytes       []byte          `json:"value_base64,omitempty"` // of a value that is not JSON
	Version     string          `json:"version,omitempty"`
	ETag        string          `json:"etag"`
	AgeSeconds  int             `json:"age_seconds"`
	CacheStatus string          `json:"cache_status"`
	CacheFor    string          `json:"cache_control,omitempty"`
}

func newResult(dataset, key string, r cli.Response) result {
	age, _ := strconv.Atoi(r.Header.Get("Age")) // 0 if it is missing
	f := result{
		Dataset: dataset, Key: key, Version: r.Header.Get("Ringside-Version"), ETag: r.Header.Get("ETag"), AgeSeconds: age,
		CacheStatus: r.Header.Get("Cache-Status"), CacheFor: r.Header.Get("Cache-Control"),
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") && json.Valid(r.Body) {
		f.Value = r.Body
	} else {
		f.Bytes = r.Body
	}
	return f
}

// printValue writes the value unchanged, except to a terminal, and adds a newline if it does not end with one.
func printValue(w io.Writer, value []byte) error {
	if len(value) == 0 || value[len(value)-1] != '\n' {
		value = append(value, '\n')
	}
	_, err := io.WriteString(w, cli.ForReader(w, string(value)))
	return err
}
