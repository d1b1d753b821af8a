// Command ringside-demo runs a whole Ringside cluster on one machine: an etcd inside this process, a SQLite file to which
// ringside-collector writes live telemetry, three sidecar processes, and a moderate load on them. At its end it stops all
// processes and removes all files.
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
	rate     int           // reads per second, over all sidecars
	duration time.Duration // of the demo; 0: until an interrupt
	revive   time.Duration // time until a sidecar that has exited is restarted
	bin      string        // folder with ringside and ringside-collector
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("ringside-demo", flag.ContinueOnError)
	flags.IntVar(&o.rate, "rate", 600, "reads per second over all sidecars; at least 1")
	flags.DurationVar(&o.duration, "for", 0, "stop after this time; 0s: on Ctrl-C")
	flags.DurationVar(&o.revive, "revive", 15*time.Second, "restart a sidecar that has exited after this time")
	flags.StringVar(&o.bin, "bin", "", "folder with ringside and ringside-collector (default: the folder of ringside-demo)")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 || o.rate < 1 || o.duration < 0 || o.revive < 0 {
		return o, errors.New("invalid flags or arguments; see ringside-demo --help")
	}
	if o.bin == "" {
		self, err := os.Executable()
		if err != nil {
			return o, fmt.Errorf("find the folder of this program: %w; set it with --bin", err)
		}
		o.bin = filepath.Dir(self)
	}
	return o, nil
}

// run runs the demo. It returns after all processes that it started have exited.
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
		return fmt.Errorf("create a folder for the demo's files: %w", err)
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

// orInterrupted returns nil instead of err after an interrupt, which may be the cause of err.
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
			return fmt.Errorf("%s does not exist: run `make demo` in the repository, or set its folder with --bin", path)
		}
	}
	return nil
}
