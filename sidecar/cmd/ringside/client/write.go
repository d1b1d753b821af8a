package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func newPut() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "put DATASET {KEY [VALUE|-] | --from FILE}",
		Short: "Write one row, or those of a file, through the members that own the keys",
		Long: `Write one row, through the member that owns its key, and print its version. The value has the form that get
prints: the row as a JSON object, or the content of one column; - reads it from stdin. Columns that the object does not
name keep their values. Exit code 0 means that the write is committed.

If the outcome is unknown, retry with the same --idempotency-key: the write is applied at most once, unless the key has
changed owner in between.

--from writes the rows of a file, or of stdin with -: each line is a JSON object, as in a :batchPut of the HTTP API.
  {"key":"CNF-001","value":{"value":42}}
  {"key":"CNF-002","delete":true,"ifVersion":7}
At most 1000 lines and 1 MiB are sent at once. Each row succeeds or fails on its own: those that fail are printed to stderr
with their lines, and the exit code is then 1. Exit code 0 means that all are committed.`,
		Example: `  ringside put cnf-metrics CNF-001 '{"value":42}'
  ringside put cnf-metrics CNF-001 --file row.json --if-version 7
  ringside put cnf-metrics CNF-009 - --create
  ringside put cnf-metrics --from rows.jsonl`,
		Args: cli.Args(cobra.RangeArgs(1, 3)),
	}
	sidecar, out, flags := cli.HTTPFlag(cmd), cli.OutputFlag(cmd), writeFlags(cmd)
	file := cmd.Flags().String("file", "", "read the value from this file")
	create := cmd.Flags().Bool("create", false, "only if the row does not exist")
	from := cmd.Flags().String("from", "", "write the rows of this file, one JSON object a line; - for stdin")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("from") {
			if err := checkFrom(cmd, args); err != nil {
				return err
			}
			return putFile(cmd, sidecar, out, args[0], *from)
		}
		if len(args) < 2 {
			return cli.Usagef(cmd, "give KEY and VALUE, or --from FILE")
		}
		header, err := flags.header(cmd, *create)
		if err != nil {
			return err
		}
		value, err := readInput(cmd, args[2:], *file)
		if err != nil {
			return err
		}
		w := rowWrite{http.MethodPut, args[0], args[1], header, value}
		return w.execute(cmd, sidecar, out)
	}
	return cmd
}

func newDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete DATASET KEY",
		Short: "Delete one row, through the member that owns its key",
		Long: `Delete one row, through the member that owns its key. The exit code is also 0 if the row did not exist.

If the outcome is unknown, delete it again.`,
		Example: `  ringside delete cnf-metrics CNF-001
  ringside delete cnf-metrics CNF-001 --if-version 7`,
		Args: cli.Args(cobra.ExactArgs(2)),
	}
	sidecar, out, flags := cli.HTTPFlag(cmd), cli.OutputFlag(cmd), writeFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		header, err := flags.header(cmd, false)
		if err != nil {
			return err
		}
		w := rowWrite{http.MethodDelete, args[0], args[1], header, nil}
		return w.execute(cmd, sidecar, out)
	}
	return cmd
}

// conditions are the flags that all writes share.
type conditions struct {
	version version
	match   string
	id      string
}

func writeFlags(cmd *cobra.Command) *conditions {
	c := &conditions{}
	cmd.Flags().Var(&c.version, "if-version", "only if the row has this version")
	cmd.Flags().StringVar(&c.match, "if-match", "", "only if the row has this ETag, or with * only if it exists")
	cmd.Flags().StringVar(&c.id, "idempotency-key", "",
		"id of this write: a retry with the same id within five minutes is a no-op")
	return c
}

// version is the version of a row, as get -o json prints it.
type version int64

func (v *version) String() string { return strconv.FormatInt(int64(*v), 10) }
func (v *version) Type() string   { return "version" }

func (v *version) Set(text string) error {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return errors.New("want a row version, a whole number from 1, as printed by `ringside get -o json`")
	}
	*v = version(n)
	return nil
}

// header returns the HTTP header of a write with these conditions.
func (c *conditions) header(cmd *cobra.Command, create bool) (http.Header, error) {
	if err := checkNotEmpty(cmd); err != nil {
		return nil, err
	}
	h := http.Header{}
	if create {
		h.Set("If-None-Match", "*")
	}
	if c.match != "" {
		h.Set("If-Match", quoted(c.match))
	}
	if cmd.Flags().Changed("if-version") {
		h.Set("Ringside-If-Version", c.version.String())
	}
	if len(h) > 1 {
		return nil, cli.Usagef(cmd, "give at most one of --if-version, --if-match and --create")
	}
	if c.id != "" {
		h.Set("Idempotency-Key", strconv.Quote(c.id))
	}
	return h, nil
}

// checkNotEmpty rejects a flag that is empty because a script did not set its variable: the write would be sent without
// the intended condition.
func checkNotEmpty(cmd *cobra.Command) error {
	for _, name := range []string{"if-match", "idempotency-key", "file", "from"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed && f.Value.String() == "" { //guard:empty-write-flag
			return cli.Usagef(cmd, "--%s is empty: nothing was sent; give it a value or omit it", name)
		}
	}
	return nil
}

// checkFrom rejects what belongs to one row beside a file of rows.
func checkFrom(cmd *cobra.Command, args []string) error {
	if err := checkNotEmpty(cmd); err != nil {
		return err
	}
	if len(args) > 1 {
		return cli.Usagef(cmd, "give KEY and VALUE, or --from FILE, not both")
	}
	for _, name := range []string{"file", "create", "if-version", "if-match", "idempotency-key"} {
		if cmd.Flags().Changed(name) { //guard:condition-of-a-file-ignored
			return cli.Usagef(cmd, "--%s is for one row: give each line of the file its own ifNoneMatch, ifVersion, ifMatch or "+
				"idempotencyKey", name)
		}
	}
	return nil
}

// quoted adds the quotes of an ETag, which the shell has removed.
func quoted(etag string) string {
	if etag == "*" || strings.HasPrefix(etag, `"`) {
		return etag
	}
	return `"` + etag + `"`
}

// readInput reads the value from the argument, the file or stdin.
func readInput(cmd *cobra.Command, arg []string, file string) ([]byte, error) {
	switch {
	case len(arg) == 1 && file != "":
		return nil, cli.Usagef(cmd, "give VALUE or --file, not both")
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readValue(f)
	case len(arg) == 0:
		return nil, cli.Usagef(cmd, "give VALUE, - for stdin, or --file")
	case arg[0] == "-":
		return readValue(cmd.InOrStdin())
	}
	return []byte(arg[0]), nil
}

func readValue(r io.Reader) ([]byte, error) {
	value, err := io.ReadAll(io.LimitReader(r, kv.MaxValueBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the value: %w", err)
	}
	if len(value) > kv.MaxValueBytes {
		return nil, fmt.Errorf("the value is larger than the limit of %d bytes", kv.MaxValueBytes)
	}
	return value, nil
}

// rowWrite is one PUT or DELETE of one row.
type rowWrite struct {
	method, dataset, key string
	header               http.Header
	value                []byte
}

// written is the result of a write, as printed by -o json.
type written struct {
	Dataset string `json:"dataset"`
	Key     string `json:"key"`
	Version string `json:"version,omitempty"`
	ETag    string `json:"etag,omitempty"`
	Deleted bool   `json:"deleted,omitempty"`
}

func (w rowWrite) execute(cmd *cobra.Command, sidecar *cli.Listener, out *cli.Output) error {
	resp, err := w.send(cmd.Context(), sidecar)
	if err != nil {
		return fmt.Errorf("%s %s: %w", w.dataset, w.key, err)
	}
	result := written{
		Dataset: w.dataset, Key: w.key, Version: resp.Header.Get("Ringside-Version"), ETag: resp.Header.Get("ETag"),
		Deleted: w.method == http.MethodDelete,
	}
	if out.JSON() {
		return cli.PrintJSON(cmd.OutOrStdout(), result)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), cli.ForReader(cmd.OutOrStdout(), fmt.Sprint(result)))
	return err
}

// String is one line.
func (w written) String() string {
	line := "written"
	if w.Deleted {
		line = "deleted"
	}
	if w.Version != "" {
		line += ", version " + w.Version
	}
	return line
}

func (w rowWrite) send(ctx context.Context, sidecar *cli.Listener) (cli.Response, error) {
	path, err := keyPath(ctx, sidecar, w.dataset, w.key)
	if err != nil {
		return cli.Response{}, err // nothing was sent
	}
	resp, err := sidecar.Do(ctx, cli.Request{Method: w.method, Path: path, Header: w.header, Body: w.value})
	var usage cli.UsageError
	switch {
	case errors.Is(err, cli.ErrNoListener) || errors.As(err, &usage):
		return resp, err
	case err != nil:
		return resp, fmt.Errorf("outcome unknown, the write may have been applied: %w; read the key with `ringside get --no-cache`", err)
	case resp.Status/100 != 2:
		return resp, resp.Err()
	}
	return resp, nil
}
