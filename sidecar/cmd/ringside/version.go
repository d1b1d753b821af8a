package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/ringside-cache/ringside/sidecar"
	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
)

func newVersion() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Example: `  ringside version
  ringside version -o json`,
		Args: cli.Args(cobra.NoArgs),
	}
	out := cli.OutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		version, revision := sidecar.Version()
		if out.JSON() {
			return cli.PrintJSON(cmd.OutOrStdout(), map[string]string{
				"version": version, "revision": revision, "go": runtime.Version(),
				"platform": runtime.GOOS + "/" + runtime.GOARCH,
			})
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "ringside %s (revision %s, %s, %s/%s)\n", version, cli.OrDash(revision),
			runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return err
	}
	return cmd
}
