package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

// scope is what to invalidate, as POST :invalidate takes it.
type scope struct {
	Keys   []string `json:"keys,omitempty"`
	Prefix string   `json:"prefix,omitempty"`
	All    bool     `json:"all,omitempty"`
}

// told is who has dropped it.
type told struct {
	Members   int      `json:"members"`
	Unreached []string `json:"unreached"`
}

func newInvalidate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "invalidate DATASET [KEY...]",
		Short: "Drop entries on all members, after a change that went around the cache",
		Long: `Drop the entries of some keys on all members, without writing anything: for those who write to the database
themselves. Exit code 1 means that some members could not be told; what they hold ends with its ttl.`,
		Example: `  ringside invalidate cnf-metrics CNF-001 CNF-002
  ringside invalidate routes --prefix 10.
  ringside invalidate routes --all`,
		Args: usage(cobra.MinimumNArgs(1)),
	}
	sidecar, out := httpFlag(cmd), outputFlag(cmd)
	var s scope
	cmd.Flags().StringVar(&s.Prefix, "prefix", "", "every key that starts with this")
	cmd.Flags().BoolVar(&s.All, "all", false, "every key")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s.Keys = args[1:]
		if s.ways() != 1 {
			return usagef(cmd, "give KEYs, --prefix or --all; one of them")
		}
		told, err := sidecar.invalidate(cmd, args[0], s)
		if err != nil {
			return fmt.Errorf("invalidate %s: %w", args[0], err)
		}
		return told.print(cmd.OutOrStdout(), out.json())
	}
	return cmd
}

// ways counts how s says what to drop.
func (s scope) ways() (n int) {
	for _, given := range []bool{len(s.Keys) > 0, s.Prefix != "", s.All} {
		if given {
			n++
		}
	}
	return n
}

func (l *listener) invalidate(cmd *cobra.Command, dataset string, s scope) (told, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return told{}, err
	}
	path := "/v1/" + url.PathEscape(dataset) + ":invalidate"
	resp, err := l.ask(cmd.Context(), request{method: http.MethodPost, path: path, body: body})
	if err != nil {
		return told{}, err
	}
	if resp.status != http.StatusOK {
		return told{}, resp.refusal()
	}
	var t told
	if err := json.Unmarshal(resp.body, &t); err != nil {
		return told{}, fmt.Errorf("understand the answer: %w", err)
	}
	return t, nil
}

func (t told) print(w io.Writer, asJSON bool) error {
	var err error
	if asJSON {
		err = printJSON(w, t)
	} else {
		_, err = fmt.Fprintf(w, "dropped on %d members\n", t.Members)
	}
	if err == nil && len(t.Unreached) > 0 {
		err = fmt.Errorf("could not be told: %s; what they hold ends with its ttl", strings.Join(t.Unreached, ", "))
	}
	return err
}
