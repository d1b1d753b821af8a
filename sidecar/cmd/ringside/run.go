package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/ringside-cache/ringside/sidecar"
)

func newRun() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the sidecar",
		Long: `Run the sidecar until SIGTERM or SIGINT: then it says goodbye to the other members, serves until they have
stopped asking, and ends with exit code 0. A second signal ends it at once, with exit code 1. On SIGHUP, and when the
file changes, it reads its configuration again.

Each field of the configuration can be set by a variable, RINGSIDE_LISTEN_HTTP for listen.http, and by --set; a flag
wins over a variable, and a variable over the file. Log lines go to stderr.`,
		Example: `  ringside run -c /etc/ringside/ringside.yaml
  ringside run --log-format console --set listen.http=127.0.0.1:0
  RINGSIDE_MEMORY=64MiB ringside run`,
		Args: usage(cobra.NoArgs),
	}
	source := configFlags(cmd)
	cmd.Flags().Func("log-format", "json or console; short for --set log.format=",
		assign(source, "log.format", "json", "console"))
	cmd.Flags().Func("log-level", "debug, info, warn or error; short for --set log.level=",
		assign(source, "log.level", "debug", "info", "warn", "error"))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := load(cmd, source)
		if err != nil {
			return err
		}
		log, err := newLogger(c.Effective().Log, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		return runSidecar(cmd.Context(), c, log)
	}
	return cmd
}

func runSidecar(ctx context.Context, c sidecar.Config, log *zap.Logger) error {
	err := sidecar.Run(ctx, c, log, nil)
	_ = log.Sync() // stderr cannot always be synced, and there is nobody left to tell
	return err
}

// assign returns a flag that sets one field to one of the values that it takes.
func assign(source *sidecar.Source, path string, allowed ...string) func(string) error {
	return func(value string) error {
		if !slices.Contains(allowed, value) {
			return fmt.Errorf("want one of %s", strings.Join(allowed, ", "))
		}
		source.Set = append(source.Set, path+"="+value)
		return nil
	}
}

// Of lines with the same text, the first in a second are written, and then each hundredth: a fault that repeats must
// not fill the disk of a node.
const (
	linesASecond = 20
	thenEach     = 100
)

func newLogger(c sidecar.Log, w io.Writer) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(c.Level)
	if err != nil {
		return nil, fmt.Errorf("log.level: %w", err)
	}
	core := zapcore.NewCore(newEncoder(c.Format), zapcore.Lock(zapcore.AddSync(w)), level)
	return zap.New(zapcore.NewSamplerWithOptions(core, time.Second, linesASecond, thenEach)), nil
}

func newEncoder(format string) zapcore.Encoder {
	c := zap.NewProductionEncoderConfig()
	c.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	c.EncodeDuration = zapcore.StringDurationEncoder
	c.TimeKey = "time"
	if format == "console" {
		c.EncodeLevel = zapcore.CapitalLevelEncoder
		return zapcore.NewConsoleEncoder(c)
	}
	return zapcore.NewJSONEncoder(c)
}
