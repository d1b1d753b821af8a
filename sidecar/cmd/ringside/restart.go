package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
	"github.com/ringside-cache/ringside/sidecar/supervise"
)

func newRestart() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restart",
		Short: "Replace the process of the running sidecar without a gap",
		Long: `Replace the process of a sidecar that runs with --supervise: by the program at the same path, with the current configuration.
The old process serves until the new one is prepared, and leaves its entries to it. Wait for the outcome: exit code 0 when the new
process is ready, 1 when the old one keeps serving, with the reason.`,
		Example: `  ringside restart
  ringside restart --pid 4711`,
		Args: cli.Args(cobra.NoArgs),
	}
	pid := cmd.Flags().Int("pid", 0, "process id of `ringside run --supervise`, if there are several")
	timeout := cmd.Flags().Duration("timeout", 3*time.Minute, "time limit of the wait for the outcome")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *timeout <= 0 || *pid < 0 {
			return cli.Usagef(cmd, "--timeout: want more than 0s, --pid: not less than 0; got %s, %d", *timeout, *pid)
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), *timeout)
		defer cancel()
		began := time.Now()
		if err := supervise.Restart(ctx, *pid); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "The sidecar has been replaced; the new process is ready after %s.\n", time.Since(began).Round(time.Millisecond))
		return nil
	}
	return cmd
}
