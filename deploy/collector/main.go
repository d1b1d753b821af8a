// Command ringside-collector measures this machine (CPU, load, memory, disks, networks, processes) and keeps the current
// values as rows of the table cnf_metrics in PostgreSQL, MySQL, MariaDB or SQLite. README.md lists the rows.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/ringside-cache/ringside/deploy/collector/table"
	"github.com/ringside-cache/ringside/deploy/collector/telemetry"
	"github.com/ringside-cache/ringside/sidecar/logging"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "ringside-collector: %v\n", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "ringside-collector: %v\n", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("see ringside-collector --help")

const (
	minInterval = 100 * time.Millisecond
	// maxPrefix leaves room for the rest of an id.
	maxPrefix = 64
)

// options are the flags.
type options struct {
	driver, dsn, dsnFile string
	prefix               string
	interval             time.Duration
	top                  int
	once, create         bool
	logFormat, logLevel  string
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("ringside-collector", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.driver, "driver", "", "postgres, mysql (MariaDB too) or sqlite")
	flags.StringVar(&o.dsn, "dsn", "", "the database; everybody on the machine can see it, use --dsn-file for a password")
	flags.StringVar(&o.dsnFile, "dsn-file", "", "file that holds the DSN")
	flags.StringVar(&o.prefix, "prefix", "", "begins all cnf_ids, where machines share a table; at most 64 bytes")
	flags.DurationVar(&o.interval, "interval", time.Second, "time between measurements, at least 100ms")
	flags.IntVar(&o.top, "top", 10, "processes to report by CPU, and as many by memory; 0 to 250")
	flags.BoolVar(&o.once, "once", false, "measure over one interval, write, end")
	flags.StringVar(&o.logFormat, "log-format", "json", "format of the log: json or console")
	flags.StringVar(&o.logLevel, "log-level", "info", "level of the log: debug, info, warn or error")
	flags.BoolVar(&o.create, "create", false, "create the table where it is missing")
	if err := flags.Parse(args); err != nil {
		return o, errors.Join(err, errUsage)
	}
	return o, o.check(flags.NArg())
}

func (o options) check(rest int) error {
	switch {
	case rest > 0:
		return fmt.Errorf("arguments without a flag: %w", errUsage)
	case (o.dsn == "") == (o.dsnFile == ""):
		return fmt.Errorf("give one of --dsn and --dsn-file: %w", errUsage)
	case o.interval < minInterval:
		return fmt.Errorf("--interval %v is below %v: %w", o.interval, minInterval, errUsage)
	case o.top < 0 || o.top > telemetry.MaxTop:
		return fmt.Errorf("--top %d is not between 0 and %d: %w", o.top, telemetry.MaxTop, errUsage)
	case len(o.prefix) > maxPrefix:
		return fmt.Errorf("--prefix has %d bytes, more than %d: %w", len(o.prefix), maxPrefix, errUsage)
	}
	return nil
}

func (o options) open() (*table.Table, error) {
	dsn := o.dsn
	if o.dsnFile != "" {
		b, err := os.ReadFile(o.dsnFile)
		// Omit the path: it may be a DSN passed by mistake.
		if failed, ok := errors.AsType[*fs.PathError](err); ok {
			return nil, fmt.Errorf("--dsn-file: %w; want the path of a file with the DSN", failed.Err)
		}
		if err != nil {
			return nil, fmt.Errorf("--dsn-file: %w", err)
		}
		dsn = strings.TrimSpace(string(b))
	}
	return table.Open(o.driver, dsn)
}

// run executes the program with its arguments until ctx is done.
func run(ctx context.Context, args []string, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	t, err := o.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	log, err := logging.New(o.logFormat, o.logLevel, stderr)
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }() // some kinds of stderr cannot be synced
	c := &collector{
		sampler:  telemetry.NewSampler(o.prefix, o.top),
		census:   telemetry.NewCensus(keepGone),
		table:    t,
		log:      log,
		prefix:   o.prefix,
		interval: o.interval,
		create:   o.create,
	}
	if o.once {
		return c.once(ctx)
	}
	c.run(ctx)
	return nil
}
