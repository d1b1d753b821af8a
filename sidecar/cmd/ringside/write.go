package main

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

	"github.com/ringside-cache/ringside/ring"
)

// maxValue bounds a value, as every sidecar does.
const maxValue = 1 << 20

func newPut() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "put DATASET KEY [VALUE|-]",
		Short: "Write one row, through the member that owns its key",
		Long: `Write one row, through the member that owns its key, and print its version. The value has the form that get
prints: the row as a JSON object, or one column as it is; - reads it from stdin. Columns that the object does not name
keep what they hold. Exit code 0 means that it is committed.

If the sidecar says that nobody knows what came of the write, send it again with the same --idempotency-key: it happens
once.`,
		Example: `  ringside put cnf-metrics CNF-001 '{"value":42}'
  ringside put cnf-metrics CNF-001 --file row.json --if-version 7
  ringside put cnf-metrics CNF-009 - --create`,
		Args: usage(cobra.RangeArgs(2, 3)),
	}
	sidecar, out, flags := httpFlag(cmd), outputFlag(cmd), writeFlags(cmd)
	file := cmd.Flags().String("file", "", "read the value from this file")
	create := cmd.Flags().Bool("create", false, "only if there is no such row")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		header, err := flags.header(cmd, *create)
		if err != nil {
			return err
		}
		value, err := valueOf(cmd, args[2:], *file)
		if err != nil {
			return err
		}
		c := change{http.MethodPut, args[0], args[1], header, value}
		return c.run(cmd, sidecar, out)
	}
	return cmd
}

func newDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete DATASET KEY",
		Short: "Delete one row, through the member that owns its key",
		Long: `Delete one row, through the member that owns its key. Exit code 0 means that it is gone, also when it was not
there.

If the sidecar says that nobody knows what came of it, delete it again.`,
		Example: `  ringside delete cnf-metrics CNF-001
  ringside delete cnf-metrics CNF-001 --if-version 7`,
		Args: usage(cobra.ExactArgs(2)),
	}
	sidecar, out, flags := httpFlag(cmd), outputFlag(cmd), writeFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		header, err := flags.header(cmd, false)
		if err != nil {
			return err
		}
		c := change{http.MethodDelete, args[0], args[1], header, nil}
		return c.run(cmd, sidecar, out)
	}
	return cmd
}

// conditions are the flags of every write.
type conditions struct {
	version version
	match   string
	id      string
}

func writeFlags(cmd *cobra.Command) *conditions {
	c := &conditions{}
	cmd.Flags().Var(&c.version, "if-version", "only if the row has this version")
	cmd.Flags().StringVar(&c.match, "if-match", "", "only if the row has this ETag, or, with *, if there is one")
	cmd.Flags().StringVar(&c.id, "idempotency-key", "",
		"name this write: sent again with the same name within some minutes, it happens once")
	return c
}

// version is that of a row, as get -o json prints it.
type version int64

func (v *version) String() string { return strconv.FormatInt(int64(*v), 10) }
func (v *version) Type() string   { return "version" }

func (v *version) Set(text string) error {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return errors.New("want the version of a row, a whole number from 1, as `ringside get -o json` prints it")
	}
	*v = version(n)
	return nil
}

// header says the same in HTTP.
func (c *conditions) header(cmd *cobra.Command, create bool) (http.Header, error) {
	if err := noEmptyFlag(cmd); err != nil {
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
		return nil, usagef(cmd, "at most one of --if-version, --if-match and --create can be checked")
	}
	if c.id != "" {
		h.Set("Idempotency-Key", strconv.Quote(c.id))
	}
	return h, nil
}

// noEmptyFlag refuses a flag whose variable a script has not set: a write without the condition that was meant would be
// a write of its own.
func noEmptyFlag(cmd *cobra.Command) error {
	for _, name := range []string{"if-match", "idempotency-key", "file"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed && f.Value.String() == "" { //guard:write-without-condition-script-meant
			return usagef(cmd, "--%s is given and empty: nothing was sent; give it a value, or leave it out", name)
		}
	}
	return nil
}

// quoted puts the quotes around an ETag that belong to it, and that a shell has taken.
func quoted(etag string) string {
	if etag == "*" || strings.HasPrefix(etag, `"`) {
		return etag
	}
	return `"` + etag + `"`
}

// valueOf reads the value from the one place that was named.
func valueOf(cmd *cobra.Command, arg []string, file string) ([]byte, error) {
	switch {
	case len(arg) == 1 && file != "":
		return nil, usagef(cmd, "give VALUE or --file, not both")
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readValue(f)
	case len(arg) == 0:
		return nil, usagef(cmd, "give VALUE, - for stdin, or --file")
	case arg[0] == "-":
		return readValue(cmd.InOrStdin())
	}
	return []byte(arg[0]), nil
}

func readValue(r io.Reader) ([]byte, error) {
	value, err := io.ReadAll(io.LimitReader(r, maxValue+1))
	if err != nil {
		return nil, fmt.Errorf("read the value: %w", err)
	}
	if len(value) > maxValue {
		return nil, fmt.Errorf("a value has at most %d bytes", maxValue)
	}
	return value, nil
}

// change is one write of one row.
type change struct {
	method, dataset, key string
	header               http.Header
	value                []byte
}

// written is what came of a write, as -o json prints it.
type written struct {
	Dataset string `json:"dataset"`
	Key     string `json:"key"`
	Version string `json:"version,omitempty"`
	ETag    string `json:"etag,omitempty"`
	Deleted bool   `json:"deleted,omitempty"`
}

func (c change) run(cmd *cobra.Command, sidecar *listener, out *output) error {
	resp, err := c.send(cmd.Context(), sidecar)
	if err != nil {
		return fmt.Errorf("%s %s: %w", c.dataset, c.key, err)
	}
	done := written{
		Dataset: c.dataset, Key: c.key, Version: resp.header.Get("Ringside-Version"), ETag: resp.header.Get("ETag"),
		Deleted: c.method == http.MethodDelete,
	}
	if out.json() {
		return printJSON(cmd.OutOrStdout(), done)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), done)
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

func (c change) send(ctx context.Context, sidecar *listener) (response, error) {
	resp, err := sidecar.ask(ctx, request{c.method, "/v1/" + ring.RouteKey(c.dataset, c.key), c.header, c.value})
	var usage usageError
	switch {
	case errors.Is(err, errNobody) || errors.As(err, &usage):
		return resp, err
	case err != nil:
		return resp, fmt.Errorf("nobody knows whether it happened: %w; read the key with `ringside get --no-cache`", err)
	case resp.status/100 != 2:
		return resp, resp.writeRefusal()
	}
	return resp, nil
}

// writeRefusal is a refusal that names the column that is wrong with a value.
func (r response) writeRefusal() error {
	err := r.refusal()
	for _, wrong := range r.problem().Errors {
		err = fmt.Errorf("%w (column %s)", err, wrong.Column)
	}
	return err
}
