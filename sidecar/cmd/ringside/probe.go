package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newHealthcheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "healthcheck",
		Short:   "Ask once whether the running sidecar is ready; exit code 0 if so, else 1",
		Example: "  ringside healthcheck",
		Args:    usage(cobra.NoArgs),
	}
	metrics := metricsFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return metrics.ready(cmd.Context()) }
	return cmd
}

func (l *listener) ready(ctx context.Context) error {
	resp, err := l.get(ctx, "/readyz")
	if err != nil {
		return err
	}
	if resp.status != http.StatusOK {
		return fmt.Errorf("the sidecar is not ready: %s", strings.TrimSpace(string(resp.body)))
	}
	return nil
}

// pollInterval is the time between two questions of wait.
const pollInterval = 50 * time.Millisecond

func newWait() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wait",
		Short: "Wait until the running sidecar is ready",
		Example: `  ringside wait --timeout 30s && exec my-application
  ringside wait --metrics 127.0.0.1:9073`,
		Args: usage(cobra.NoArgs),
	}
	metrics := metricsFlag(cmd)
	timeout := cmd.Flags().Duration("timeout", 30*time.Second, "give up after this time")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *timeout <= 0 {
			return usagef(cmd, "--timeout: want more than 0s; got %s", *timeout)
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), *timeout)
		defer cancel()
		if err := metrics.wait(ctx); err != nil {
			return fmt.Errorf("not ready after %s: %w", *timeout, err)
		}
		return nil
	}
	return cmd
}

// wait asks until the sidecar is ready. When ctx is done first it returns the last answer that was not ctx's own end.
func (l *listener) wait(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for last := ctx.Err(); ; {
		err := l.ready(ctx)
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
