// Command ringside-demo shows a whole Ringside cluster on one machine: an etcd inside this process, a SQLite file into
// which ringside-collector writes live telemetry, three sidecars as processes of their own, and gentle load on them. It
// leaves nothing behind when it ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "ringside-demo: %v\n", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	rate     int           // reads a second, of all sidecars together
	duration time.Duration // of the demo; 0: until it is interrupted
	revive   time.Duration // until a sidecar that was killed is started again
	bin      string        // folder of ringside and ringside-collector
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("ringside-demo", flag.ContinueOnError)
	flags.IntVar(&o.rate, "rate", 600, "reads a second, of all sidecars together; at least 1")
	flags.DurationVar(&o.duration, "for", 0, "end after this time; 0s: when interrupted")
	flags.DurationVar(&o.revive, "revive", 15*time.Second, "start a sidecar that was killed again after this time")
	flags.StringVar(&o.bin, "bin", "", "folder of ringside and ringside-collector (default: where ringside-demo is)")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 || o.rate < 1 || o.duration < 0 || o.revive < 0 {
		return o, errors.New("wrong flags; see ringside-demo --help")
	}
	if o.bin == "" {
		self, err := os.Executable()
		if err != nil {
			return o, fmt.Errorf("find the folder of this program: %w; give it with --bin", err)
		}
		o.bin = filepath.Dir(self)
	}
	return o, nil
}

// run is the demo from the flags to the last line. It returns when everything that it started has ended.
func run(ctx context.Context, args []string, out io.Writer) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if err := checkBinaries(o.bin); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ringside-demo-")
	if err != nil {
		return fmt.Errorf("make a folder for the demo's state: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	began := time.Now()
	c := newCluster(o, dir, out)
	defer c.stop()
	if err := c.start(ctx); err != nil {
		return orInterrupted(ctx, err)
	}
	fmt.Fprintf(out, "Ready after %.1f s.\n\n", time.Since(began).Seconds())
	c.printGuide(out)
	if o.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.duration)
		defer cancel()
	}
	err = c.show(ctx, out)
	c.printSummary(out)
	return err
}

// orInterrupted is nil when somebody pressed Ctrl-C while err came about.
func orInterrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func checkBinaries(dir string) error {
	for _, name := range []string{sidecarBinary, collectorBinary} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err != nil || info.IsDir() {
			return fmt.Errorf("%s is not there: run `make demo` in the repository, or say where it is with --bin", path)
		}
	}
	return nil
}
