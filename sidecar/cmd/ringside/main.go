// Command ringside is the sidecar and its command-line tool. The commands of this folder run it and check its
// configuration; those that talk to a running sidecar are in the folders client, inspect and top.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/client"
	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/inspect"
	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/top"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/supervise"
)

func main() {
	if err := setPrivate(true); err != nil {
		fmt.Fprintf(os.Stderr, "ringside: warning: %v\n", err)
	}
	os.Exit(run(interruptible(context.Background()), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// interruptible returns a context that the first SIGINT or SIGTERM cancels. The second one exits at once.
func interruptible(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(exitFailure)
	}()
	return ctx
}

// The exit codes. 78 is EX_CONFIG of sysexits(3).
const (
	exitOK        = 0
	exitFailure   = 1
	exitUsage     = 2
	exitBadConfig = 78
)

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintf(stderr, "ringside: %s\n", printable.Block(err.Error())) // it may have text of a member, a client or a database
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var usage cli.UsageError
	var badConfig *config.Error
	var child *supervise.ExitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &badConfig):
		return exitBadConfig
	case errors.As(err, &child):
		return child.Code
	}
	return exitFailure
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "ringside",
		Short: "A cache sidecar for every pod, connected in one consistent-hash ring",
		Long: `Ringside serves operational data to the applications of its pod over HTTP, gRPC or a unix socket: from its own memory,
from the member of the ring that owns the key, or from the database. Writes go through the owner, too.

Exit codes: 0 success, 1 failure, 2 wrong usage, 78 wrong configuration.`,
		Example: `  ringside config example > ringside.yaml
  ringside run
  ringside get cnf-metrics CNF-001`,
		Args:          cli.Args(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return cli.Usagef(cmd, "%v", err) })
	root.AddCommand(newRun(), newValidate(), newConfig(), newChanges(), newRestart(), newWait(), newHealthcheck(), newVersion())
	root.AddCommand(client.Commands()...)
	root.AddCommand(inspect.Commands()...)
	root.AddCommand(top.Command())
	return root
}
