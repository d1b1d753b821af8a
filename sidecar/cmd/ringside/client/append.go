package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringside-cache/ringside/ring/routekey"
	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
)

func newAppend() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "append DATASET [VALUE|-]",
		Short: "Append one row whose key the database generates",
		Long: `Append one row whose key the database generates, and print the key and the version. The value has the form that get
prints, without the key: the row as a JSON object, or the content of one column; - reads it from stdin. Exit code 0 means
that the row is committed.

If the outcome is unknown, retry with the same --idempotency-key through the same sidecar: the row is inserted at most once.`,
		Example: `  ringside append sessions '{"user":"alice"}'
  ringside append sessions --file row.json -o json`,
		Args: cli.Args(cobra.RangeArgs(1, 2)),
	}
	sidecar, out := cli.HTTPFlag(cmd), cli.OutputFlag(cmd)
	file := cmd.Flags().String("file", "", "read the value from this file")
	id := cmd.Flags().String("idempotency-key", "", "id of this append: a retry with the same id within five minutes inserts no second row")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkNotEmpty(cmd); err != nil {
			return err
		}
		value, err := readInput(cmd, args[1:], *file)
		if err != nil {
			return err
		}
		r := cli.Request{Method: http.MethodPost, Path: "/v1/" + url.PathEscape(args[0]), Header: http.Header{}, Body: value}
		if *id != "" {
			r.Header.Set("Idempotency-Key", strconv.Quote(*id))
		}
		result, err := appendRow(cmd.Context(), sidecar, r, args[0])
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		if out.JSON() {
			return cli.PrintJSON(cmd.OutOrStdout(), result)
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), cli.ForReader(cmd.OutOrStdout(), strings.Replace(fmt.Sprint(result), "written", "appended "+result.Key, 1)))
		return err
	}
	return cmd
}

func appendRow(ctx context.Context, sidecar *cli.Listener, r cli.Request, dataset string) (written, error) {
	resp, err := sidecar.Do(ctx, r)
	var usage cli.UsageError
	switch {
	case errors.Is(err, cli.ErrNoListener) || errors.As(err, &usage):
		return written{}, err
	case err != nil:
		return written{}, fmt.Errorf("outcome unknown, the row may have been inserted: %w; look for it in the database", err)
	case resp.Status/100 != 2:
		return written{}, resp.Err()
	}
	_, key, err := routekey.Parse(strings.TrimPrefix(resp.Header.Get("Location"), "/v1/"))
	if err != nil {
		return written{}, fmt.Errorf("the row was inserted, but its Location is not understood: %w", err)
	}
	return written{Dataset: dataset, Key: key, Version: resp.Header.Get("Ringside-Version"), ETag: resp.Header.Get("ETag")}, nil
}
