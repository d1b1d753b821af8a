// Command ringside is the sidecar and the tool that looks into it: its subcommands run it, ask it, and check its
// configuration.
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

	"github.com/ringside-cache/ringside/sidecar"
)

func main() {
	os.Exit(run(interruptible(context.Background()), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// interruptible returns a context that the first SIGINT or SIGTERM ends. The second one ends the process at once.
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
		fmt.Fprintf(stderr, "ringside: %v\n", err)
	}
	return exitCode(err)
}

// usageError is a command line that means nothing.
type usageError struct{ error }

func exitCode(err error) int {
	var usage usageError
	var config *sidecar.ConfigError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &config):
		return exitBadConfig
	}
	return exitFailure
}

// usage makes every complaint of check a usage error.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usagef(cmd, "%v", err)
		}
		return nil
	}
}

func usagef(cmd *cobra.Command, format string, args ...any) error {
	return usageError{fmt.Errorf(format+"; see `%s --help`", append(args, cmd.CommandPath())...)}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "ringside",
		Short: "A cache at the side of every pod, and one ring of them",
		Long: `Ringside reads operational data for the applications of its pod, over HTTP, gRPC or a unix socket: from its own
memory, from the one member of the ring that owns the key, or from the database. Writes go through that member, too.

Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration.`,
		Example: `  ringside config example > ringside.yaml
  ringside run
  ringside get cnf-metrics CNF-001`,
		Args:          usage(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usagef(cmd, "%v", err) })
	root.AddCommand(
		newRun(), newGet(), newPut(), newDelete(), newInvalidate(), newWatch(), newExplain(), newRing(), newTop(),
		newValidate(), newChanges(), newConfig(), newWait(), newHealthcheck(), newVersion(),
	)
	return root
}

// fromEnv returns the variable name, or fallback where it is not set.
func fromEnv(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

// output is the flag -o.
type output string

func (o *output) String() string { return string(*o) }
func (o *output) Type() string   { return "text|json" }

func (o *output) Set(value string) error {
	if value != "text" && value != "json" {
		return errors.New("want text or json")
	}
	*o = output(value)
	return nil
}

func (o *output) json() bool { return *o == "json" }

func outputFlag(cmd *cobra.Command) *output {
	o := output("text")
	cmd.Flags().VarP(&o, "output", "o", "how the result is printed")
	return &o
}
