package main

import (
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/sidecar"
	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/logging"
	"github.com/ringside-cache/ringside/sidecar/supervise"
)

func newRun() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the sidecar",
		Long: `Run the sidecar until SIGTERM or SIGINT. It then leaves the ring, serves until the other members have stopped sending
requests, and exits with code 0. A second signal makes it exit at once, with code 1. It reloads its configuration on
SIGHUP and when the file changes.

With --supervise the sidecar is a child process. On "ringside restart" or SIGUSR2, the program at the same path takes its place,
with the current configuration and the entries of the old process, which serves until the new one is prepared. After a crash it
starts again. Connections are not refused meanwhile: they wait.

Each field of the configuration can also be set by an environment variable, such as RINGSIDE_LISTEN_HTTP for listen.http,
and by --set; a flag overrides a variable, and a variable overrides the file. Logs go to stderr.`,
		Example: `  ringside run -c /etc/ringside/ringside.yaml
  ringside run --log-format console --set listen.http=127.0.0.1:0
  RINGSIDE_MEMORY=64MiB ringside run
  ringside run --supervise`,
		Args: cli.Args(cobra.NoArgs),
	}
	source := configFlags(cmd)
	cmd.Flags().Func("log-format", "json or console; same as --set log.format=",
		assign(source, "log.format", logging.Formats...))
	cmd.Flags().Func("log-level", "debug, info, warn or error; same as --set log.level=",
		assign(source, "log.level", logging.Levels...))
	supervised := cmd.Flags().Bool("supervise", false,
		"run the sidecar in a child process, and hold its sockets while that is replaced, after a crash or by ringside restart")
	debuggable := cmd.Flags().Bool("debuggable", false,
		"let debuggers attach and other processes of the same user read the memory and the environment, secrets included")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *debuggable {
			if err := setPrivate(false); err != nil {
				return err
			}
		}
		c, err := loadConfig(cmd, source)
		if err != nil {
			return err
		}
		log, err := logging.New(c.Effective().Log.Format, c.Effective().Log.Level, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		if *supervised {
			return runSupervised(cmd, source, log)
		}
		return runSidecar(cmd.Context(), c, log)
	}
	return cmd
}

// runSupervised runs this program again without --supervise, as often as necessary.
func runSupervised(cmd *cobra.Command, source *config.Source, log *zap.Logger) error {
	program, err := osexec.LookPath(os.Args[0]) // not os.Executable: after an update, that is the old file
	if err != nil {
		return fmt.Errorf("find the program of the sidecar: %w", err)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR2)
	defer signal.Stop(signals)
	command := append([]string{program}, slices.DeleteFunc(slices.Clone(os.Args[1:]), isSupervise)...)
	return supervise.Run(cmd.Context(), supervise.Config{
		Load: func() (config.Config, error) { return loadConfig(cmd, source) }, Command: command, Signals: signals, Log: log,
	})
}

func isSupervise(arg string) bool {
	return arg == "--supervise" || strings.HasPrefix(arg, "--supervise=")
}

func runSidecar(ctx context.Context, c config.Config, log *zap.Logger) error {
	err := sidecar.RunChild(ctx, c, log)
	_ = log.Sync() // some kinds of stderr cannot be synced, and the error could not be reported
	return err
}

// assign returns a flag that sets one field to one of the allowed values.
func assign(source *config.Source, path string, allowed ...string) func(string) error {
	return func(value string) error {
		if !slices.Contains(allowed, value) {
			return fmt.Errorf("want one of %s", strings.Join(allowed, ", "))
		}
		source.Set = append(source.Set, path+"="+value)
		return nil
	}
}
