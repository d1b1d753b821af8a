package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringside-cache/ringside/origin/drivers"
	"github.com/ringside-cache/ringside/sidecar"
	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/config/warnings"
)

// configFlags adds the flags that all commands with a configuration share.
func configFlags(cmd *cobra.Command) *config.Source {
	source := &config.Source{Getenv: os.LookupEnv, Drivers: drivers.All()}
	cmd.Flags().StringVarP(&source.File, "config", "c", cli.FromEnv("RINGSIDE_CONFIG", "ringside.yaml"),
		"configuration file (env RINGSIDE_CONFIG)")
	cmd.Flags().Var(assignments{&source.Set}, "set",
		"set one field, overriding file and environment: path=value; may be repeated")
	return source
}

// assignments is the value of --set. Unlike a StringArray, whose first use replaces the list, it keeps what the log flags
// have added.
type assignments struct{ list *[]string }

func (a assignments) Set(text string) error {
	*a.list = append(*a.list, text)
	return nil
}

func (assignments) String() string { return "" }

// Type is the type that the help shows.
func (assignments) Type() string { return "stringArray" }

// loadConfig rejects malformed assignments of --set and loads the configuration. Its error does not quote a malformed
// assignment, which may be a secret.
func loadConfig(cmd *cobra.Command, source *config.Source) (config.Config, error) {
	for _, assignment := range source.Set {
		if path, _, ok := strings.Cut(assignment, "="); !ok || path == "" {
			return config.Config{}, cli.Usagef(cmd, "--set: want path=value, such as listen.http=127.0.0.1:0")
		}
	}
	return source.Load()
}

func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print an example configuration, its schema, or the one in effect",
		Args:  cli.Args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigExample(), newConfigSchema(), newConfigShow())
	return cmd
}

func newConfigExample() *cobra.Command {
	return &cobra.Command{
		Use:     "example",
		Short:   "Print a commented example with every field",
		Example: "  ringside config example > ringside.yaml",
		Args:    cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), config.Example)
			return err
		},
	}
}

func newConfigSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of the configuration file, for editors",
		Long: "Print the JSON schema of the configuration file. Editors with the YAML language server use it after the first line\n" +
			"`# yaml-language-server: $schema=ringside.schema.json` of the configuration file.",
		Example: "  ringside config schema > ringside.schema.json",
		Args:    cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := config.Schema(drivers.All().Names())
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
}

func newConfigShow() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the configuration in effect, from file, environment, flags and defaults, with secrets hidden",
		Example: `  ringside config show
  ringside config show --set listen.http=127.0.0.1:0 -o json`,
		Args: cli.Args(cobra.NoArgs),
	}
	source, out := configFlags(cmd), cli.OutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := loadConfig(cmd, source)
		if err != nil {
			return err
		}
		text, err := c.Effective().Print(out.JSON())
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(text)
		return err
	}
	return cmd
}

func newValidate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "Check the configuration, connect to etcd and the origins, and prepare every statement",
		Long: `Check the configuration, connect to etcd and the origins, and prepare the statements of each dataset. A key with one row
needs a unique index; a view is searched for a key with two. For a writable dataset, also check that its rows can be written, without writing any; for a dataset with a change feed, that the feed is
installed and readable.

Exit code 78: the configuration is wrong, or names a table, a column or a query that the database does not have; all
errors are listed. Exit code 1: the configuration is right, but etcd or an origin is unreachable or rejects a request, or
other members would reject the certificate of peer_tls.`,
		Example: `  ringside validate -c ringside.yaml
  ringside validate --offline`,
		Args: cli.Args(cobra.NoArgs),
	}
	source := configFlags(cmd)
	offline := cmd.Flags().Bool("offline", false, "do not connect to etcd, the origins or the SPIFFE Workload API")
	timeout := cmd.Flags().Duration("timeout", 10*time.Second, "time limit for etcd and all origins together")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := loadConfig(cmd, source)
		if err != nil {
			return err
		}
		for _, warning := range warnings.Of(c) {
			cmd.PrintErrln("warning: " + warning)
		}
		if err := sidecar.CheckMemory(c); err != nil {
			return err
		}
		if *offline && c.PeerTLS.WorkloadAPI == "" {
			err = sidecar.CheckIdentity(cmd.Context(), c)
		}
		if !*offline {
			err = checkConnections(cmd, c, *timeout)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok, %s, %s\n",
			source.File, cli.Count(len(c.Origins), "origin"), cli.Count(len(c.Datasets), "dataset"))
		return err
	}
	return cmd
}

func checkConnections(cmd *cobra.Command, c config.Config, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
	defer cancel()
	err := errors.Join(sidecar.CheckIdentity(ctx, c), sidecar.CheckMembership(ctx, c), sidecar.CheckOrigins(ctx, c))
	if ctx.Err() != nil {
		err = errors.Join(err, fmt.Errorf("not completed within %s; increase --timeout", timeout))
	}
	return err
}
