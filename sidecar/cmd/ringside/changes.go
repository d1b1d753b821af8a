package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringside-cache/ringside/sidecar"
	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
	"github.com/ringside-cache/ringside/sidecar/config"
)

func newChanges() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "changes",
		Short: "Print, install or remove what a dataset's change feed needs",
		Long: `Print, install or remove what the change feed of a dataset needs in its database: triggers on the table, and for poll a
table of changes; for logical a publication. The sidecar never installs them itself. Installing requires a database account with that permission:
set its DSN with --set origins.NAME.dsn_file=…, or let a database administrator run the output of sql.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newChangesSQL(), newChangesApply(), newChangesRemove())
	return cmd
}

func newChangesSQL() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sql DATASET",
		Short: "Print the statements that apply would run, or with --remove those that remove would run",
		Example: `  ringside changes sql cnf-metrics
  ringside changes sql cnf-metrics --remove`,
	}
	remove := cmd.Flags().Bool("remove", false, "print the statements that undo apply")
	runOnFeed(cmd, func(ctx context.Context, c config.Config, dataset string) (string, error) {
		install, undo, err := sidecar.ChangesSQL(ctx, c, dataset)
		if *remove {
			return undo, err
		}
		return install, err
	})
	return cmd
}

func newChangesApply() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "apply DATASET",
		Short:   "Install the triggers and the table of changes, or the publication; existing ones are replaced",
		Example: "  ringside changes apply cnf-metrics",
	}
	runOnFeed(cmd, func(ctx context.Context, c config.Config, dataset string) (string, error) {
		install, _, err := sidecar.ChangesSQL(ctx, c, dataset)
		if err == nil {
			err = sidecar.ApplyChanges(ctx, c, dataset)
		}
		return warningsIn(install) + dataset + ": change feed installed\n", err
	})
	return cmd
}

// warningsIn returns the lines of the install statements that an operator must know.
func warningsIn(install string) (text string) {
	for line := range strings.Lines(install) {
		if warning, ok := strings.CutPrefix(line, "-- WARNING: "); ok {
			text += "warning: " + warning
		}
	}
	return text
}

func newChangesRemove() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "remove DATASET",
		Short:   "Remove the triggers or the publication, but keep the table of changes, which other datasets may use",
		Example: "  ringside changes remove cnf-metrics",
	}
	runOnFeed(cmd, func(ctx context.Context, c config.Config, dataset string) (string, error) {
		return dataset + ": change feed removed\n", sidecar.RemoveChanges(ctx, c, dataset)
	})
	return cmd
}

// runOnFeed makes cmd take the name of a dataset, call do, and print the text that do returns.
func runOnFeed(cmd *cobra.Command, do func(ctx context.Context, c config.Config, dataset string) (string, error)) {
	cmd.Args = cli.Args(cobra.ExactArgs(1))
	source := configFlags(cmd)
	timeout := cmd.Flags().Duration("timeout", 10*time.Second, "time limit for the database")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := loadConfig(cmd, source)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), *timeout)
		defer cancel()
		text, err := do(ctx, c, args[0])
		if err != nil {
			return fmt.Errorf("%s: %w", cmd.CommandPath(), err)
		}
		_, err = fmt.Fprint(cmd.OutOrStdout(), text)
		return err
	}
}
