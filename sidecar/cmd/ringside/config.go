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

	"github.com/ringside-cache/ringside/sidecar"
)

// configFlags are those of every command that reads the configuration.
func configFlags(cmd *cobra.Command) *sidecar.Source {
	source := &sidecar.Source{Getenv: os.LookupEnv}
	cmd.Flags().StringVarP(&source.File, "config", "c", fromEnv("RINGSIDE_CONFIG", "ringside.yaml"),
		"configuration file (env RINGSIDE_CONFIG)")
	cmd.Flags().StringArrayVar(&source.Set, "set", nil,
		"set one field, whatever file and environment say: path=value; may be repeated")
	return source
}

// load is source.Load for what is an assignment at all. It does not repeat what is none: it may hold a secret.
func load(cmd *cobra.Command, source *sidecar.Source) (sidecar.Config, error) {
	for _, assignment := range source.Set {
		if path, _, ok := strings.Cut(assignment, "="); !ok || path == "" {
			return sidecar.Config{}, usagef(cmd, "--set: want path=value, such as listen.http=127.0.0.1:0")
		}
	}
	return source.Load()
}

func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print an example of a configuration, or the one in effect",
		Args:  usage(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigExample(), newConfigShow())
	return cmd
}

func newConfigExample() *cobra.Command {
	return &cobra.Command{
		Use:     "example",
		Short:   "Print a commented configuration that shows every field",
		Example: "  ringside config example > ringside.yaml",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), sidecar.Example)
			return err
		},
	}
}

func newConfigShow() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the configuration in effect: file, environment, flags and defaults; secrets are hidden",
		Example: `  ringside config show
  ringside config show --set listen.http=127.0.0.1:0 -o json`,
		Args: usage(cobra.NoArgs),
	}
	source, out := configFlags(cmd), outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := load(cmd, source)
		if err != nil {
			return err
		}
		text, err := c.Effective().Print(out.json())
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
		Short: "Check the configuration, connect to etcd and its origins, and prepare each statement",
		Long: `Check the configuration, connect to etcd and its origins, and prepare the statements of each dataset. Where a
dataset is writable, ask whether its rows can be written, without writing any; where it has a change feed, whether it would
tell.

Exit code 78: the configuration is wrong, or names a table, a column or a query that the database does not have; all that
is wrong is listed. Exit code 1: it is right, but etcd or an origin cannot be reached or refuses what is asked, or other
members would refuse the certificate of peer_tls.`,
		Example: `  ringside validate -c ringside.yaml
  ringside validate --offline`,
		Args: usage(cobra.NoArgs),
	}
	source := configFlags(cmd)
	offline := cmd.Flags().Bool("offline", false, "do not connect to etcd and the origins")
	timeout := cmd.Flags().Duration("timeout", 10*time.Second, "bound of the time for etcd and all origins")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := load(cmd, source)
		if err != nil {
			return err
		}
		for _, warning := range c.Warnings() {
			cmd.PrintErrln("warning: " + warning)
		}
		err = c.CheckIdentity()
		if !*offline {
			err = errors.Join(err, connect(cmd, c, *timeout))
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok, %d origins, %d datasets\n",
			source.File, len(c.Origins), len(c.Datasets))
		return err
	}
	return cmd
}

func connect(cmd *cobra.Command, c sidecar.Config, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
	defer cancel()
	err := errors.Join(c.CheckMembership(ctx), c.CheckOrigins(ctx))
	if ctx.Err() != nil {
		err = errors.Join(err, fmt.Errorf("not done within %s; --timeout allows more", timeout))
	}
	return err
}
