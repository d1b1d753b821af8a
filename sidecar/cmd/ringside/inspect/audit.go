package inspect

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// auditTimeout is longer than the sidecar takes.
const auditTimeout = time.Minute

func newAudit() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit DATASET",
		Short: "Compare the cached entries of a sidecar with the database, and name those that break a promise",
		Long: `Compare the entries that this sidecar owns with the rows in the database. Nothing is changed, and reads come first: the
statements wait until no read needs the database. It takes at most 45 seconds; Ctrl-C ends it.

An entry may differ within its ttl. A promise is broken, and the exit code is 1, if reads get an entry that is older than
the policy allows, if a live change feed has not reported a change (a trigger is missing), or if the row has another value at
the same version. Such entries are looked at again two seconds later, because a change may just be arriving.

Each member owns other keys: run it on every member, see 'ringside ring'. Values are not shown; an ETag is a hash of one. The audit
log, which records who has changed what, is something else.`,
		Example: `  ringside audit cnf-metrics
  ringside audit cnf-metrics --keys 1000 -o json`,
		Args: cli.Args(cobra.ExactArgs(1)),
	}
	keys := cmd.Flags().Int("keys", 0, "number of entries to compare, chosen at random; 0: all")
	listener, out := cli.AdminFlag(cmd).TokenFlag(cmd), cli.OutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		query := url.Values{"dataset": {args[0]}}
		switch {
		case *keys < 0:
			return cli.Usagef(cmd, "--keys: want a number of entries, or 0 for all; got %d", *keys)
		case *keys > 0:
			query.Set("keys", strconv.Itoa(*keys))
		}
		response, err := listener.Do(cmd.Context(), cli.Request{
			Method: http.MethodGet, Path: "/api/audit?" + query.Encode(), Timeout: auditTimeout,
		})
		if err == nil && response.Status != http.StatusOK {
			err = response.Err()
		}
		var a adminapi.Audit
		if err == nil {
			err = json.Unmarshal(response.Body, &a)
		}
		if err != nil {
			return fmt.Errorf("audit %s: %w", args[0], err)
		}
		if out.JSON() {
			err = cli.PrintJSON(cmd.OutOrStdout(), json.RawMessage(response.Body))
		} else {
			err = printAudit(cmd.OutOrStdout(), a)
		}
		return errors.Join(err, auditError(a))
	}
	return cmd
}

// auditError is why an audit fails.
func auditError(a adminapi.Audit) error {
	switch n := a.Broken(); {
	case n == 1:
		return fmt.Errorf("audit %s: 1 entry breaks a promise", a.Dataset)
	case n > 1:
		return fmt.Errorf("audit %s: %d entries break a promise", a.Dataset, n)
	case !a.Complete:
		return fmt.Errorf("audit %s: not complete: %s", a.Dataset, printable.Text(a.Stopped))
	}
	return nil
}

func printAudit(w io.Writer, a adminapi.Audit) error {
	printable.Clean(&a)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "member\t%s\n", a.Node)
	for v := range kv.Verdicts {
		fmt.Fprintf(t, "%s\t%d\n", v, a.Counts[v.String()])
	}
	if a.Failed > 0 {
		fmt.Fprintf(t, "query failed\t%d\n", a.Failed)
	}
	if a.WorstAge > 0 {
		fmt.Fprintf(t, "worst age\t%s\n", short(a.WorstAge))
	}
	fmt.Fprintf(t, "took\t%s\n", a.Took.Round(time.Millisecond))
	if err := t.Flush(); err != nil || len(a.Findings) == 0 {
		return err
	}
	fmt.Fprintln(w)
	fmt.Fprintln(t, "KEY\tRESULT\tAGE\tPROMISED\tCACHED\tDATABASE\tREASON")
	slices.SortStableFunc(a.Findings, func(x, y adminapi.Finding) int { return rank(x) - rank(y) })
	for _, f := range a.Findings {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			f.Key, f.Result, short(f.Cached.Age), f.Promised, row(f.Cached.Row), row(f.Database), f.Reason)
	}
	if err := t.Flush(); err != nil || a.FindingsOmitted == 0 {
		return err
	}
	_, err := fmt.Fprintf(w, "and %d more\n", a.FindingsOmitted)
	return err
}

// rank is 0 for a broken promise.
func rank(f adminapi.Finding) int {
	if f.Result == kv.StaleWithinPromise.String() {
		return 1
	}
	return 0
}

func row(r adminapi.Row) string {
	switch {
	case r.NotFound:
		return "not found"
	case r.DataError != "":
		return "data error: " + r.DataError
	case r.Version != 0:
		return fmt.Sprintf("version %d %s", r.Version, r.ETag)
	}
	return r.ETag
}
