package client

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
)

// selection names the keys to invalidate, in the form that POST :invalidate takes.
type selection struct {
	Keys   []string `json:"keys,omitempty"`
	Prefix string   `json:"prefix,omitempty"`
	All    bool     `json:"all,omitempty"`
}

// invalidated is the response to an invalidation.
type invalidated struct {
	Members   int      `json:"members"`
	Unreached []string `json:"unreached"`
}

func newInvalidate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "invalidate DATASET [KEY...]",
		Short: "Discard cached entries on all members, after a change that bypassed the cache",
		Long: `Discard the cached entries of some keys on all members, without writing anything. Use it after you have changed the
database directly. The exit code is 1 if some members could not be reached; their entries expire with their ttl.`,
		Example: `  ringside invalidate cnf-metrics CNF-001 CNF-002
  ringside invalidate routes --prefix 10.
  ringside invalidate routes --all`,
		Args: cli.Args(cobra.MinimumNArgs(1)),
	}
	sidecar, out := cli.HTTPFlag(cmd), cli.OutputFlag(cmd)
	var s selection
	cmd.Flags().StringVar(&s.Prefix, "prefix", "", "every key that starts with this prefix")
	cmd.Flags().BoolVar(&s.All, "all", false, "every key")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s.Keys = args[1:]
		if s.count() != 1 {
			return cli.Usagef(cmd, "give exactly one of KEYs, --prefix and --all")
		}
		result, err := invalidate(cmd, sidecar, args[0], s)
		if err != nil {
			return fmt.Errorf("invalidate %s: %w", args[0], err)
		}
		return result.print(cmd.OutOrStdout(), out.JSON())
	}
	return cmd
}

// count returns how many of the fields are set.
func (s selection) count() (n int) {
	for _, set := range []bool{len(s.Keys) > 0, s.Prefix != "", s.All} {
		if set {
			n++
		}
	}
	return n
}

func invalidate(cmd *cobra.Command, sidecar *cli.Listener, dataset string, s selection) (result invalidated, err error) {
	body, err := json.Marshal(s)
	if err != nil {
		return result, err
	}
	path := "/v1/" + url.PathEscape(dataset) + ":invalidate"
	resp, err := sidecar.Do(cmd.Context(), cli.Request{Method: http.MethodPost, Path: path, Body: body})
	if err != nil {
		return result, err
	}
	if resp.Status != http.StatusOK {
		return result, resp.Err()
	}
	if err := json.Unmarshal(resp.Body, &result); err != nil {
		return result, fmt.Errorf("decode the response: %w", err)
	}
	return result, nil
}

func (i invalidated) print(w io.Writer, asJSON bool) error {
	var err error
	if asJSON {
		err = cli.PrintJSON(w, i)
	} else {
		_, err = fmt.Fprintf(w, "invalidated on %s\n", cli.Count(i.Members, "member"))
	}
	if err == nil && len(i.Unreached) > 0 {
		err = fmt.Errorf("could not reach %s: their entries expire with their ttl", strings.Join(i.Unreached, ", "))
	}
	return err
}
