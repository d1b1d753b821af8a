package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
)

func newHealthcheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "healthcheck",
		Short:   "Check once whether the running sidecar is ready; exit code 0 if so, else 1",
		Example: "  ringside healthcheck\n  ringside healthcheck --probe livez",
		Args:    cli.Args(cobra.NoArgs),
	}
	metrics := cli.MetricsFlag(cmd)
	probe := cmd.Flags().String("probe", readyz, "what to check, as a probe of Kubernetes: startupz, livez or readyz")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !slices.Contains([]string{"startupz", "livez", readyz}, *probe) {
			return cli.Usagef(cmd, "--probe: want startupz, livez or readyz; got %q", *probe)
		}
		return check(cmd.Context(), metrics, *probe)
	}
	return cmd
}

const readyz = "readyz"

func check(ctx context.Context, metrics *cli.Listener, probe string) error {
	resp, err := metrics.Get(ctx, "/"+probe)
	if err != nil {
		return err
	}
	if resp.Status != http.StatusOK {
		return fmt.Errorf("the sidecar is not ready (%s): %s", probe, strings.TrimSpace(string(resp.Body)))
	}
	return nil
}

// pollInterval is the time between two readiness checks of wait.
const pollInterval = 50 * time.Millisecond

func newWait() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wait",
		Short: "Wait until the running sidecar is ready",
		Example: `  ringside wait --timeout 30s && exec my-application
  ringside wait --metrics 127.0.0.1:9073`,
		Args: cli.Args(cobra.NoArgs),
	}
	metrics := cli.MetricsFlag(cmd)
	timeout := cmd.Flags().Duration("timeout", 30*time.Second, "time limit")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *timeout <= 0 {
			return cli.Usagef(cmd, "--timeout: want more than 0s; got %s", *timeout)
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), *timeout)
		defer cancel()
		if err := waitUntilReady(ctx, metrics); err != nil {
			return fmt.Errorf("not ready after %s: %w", *timeout, err)
		}
		return nil
	}
	return cmd
}

// waitUntilReady polls until the sidecar is ready. When ctx ends first, it returns the last error that ctx did not cause.
func waitUntilReady(ctx context.Context, metrics *cli.Listener) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for last := ctx.Err(); ; {
		err := check(ctx, metrics, readyz)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return last
		case <-tick.C:
		}
	}
}
