package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringside-cache/ringside/sidecar"
)

func newChanges() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "changes",
		Short: "Print, apply or remove what a dataset's change feed needs in the database",
		Long: `Print, apply or remove what the change feed of a dataset needs in its database: triggers on the table, and for poll a
table of changes. The sidecar itself makes none of it. To do so takes an account that may; name its DSN by
--set origins.NAME.dsn_file=…, or have somebody run what sql prints.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newChangesSQL(), newChangesApply(), newChangesRemove())
	return cmd
}

func newChangesSQL() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sql DATASET",
		Short: "Print the statements that apply would run, or with --remove those of remove",
		Example: `  ringside changes sql cnf-metrics
  ringside changes sql cnf-metrics --remove`,
	}
	remove := cmd.Flags().Bool("remove", false, "print what undoes it")
	onFeed(cmd, func(ctx context.Context, c sidecar.Config, dataset string) (string, error) {
		install, undo, err := c.ChangesSQL(ctx, dataset)
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
		Short:   "Make the triggers, and the table of changes; what is there already is made anew",
		Example: "  ringside changes apply cnf-metrics",
	}
	onFeed(cmd, func(ctx context.Context, c sidecar.Config, dataset string) (string, error) {
		return dataset + ": changes are told from now on\n", c.ApplyChanges(ctx, dataset)
	})
	return cmd
}

func newChangesRemove() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "remove DATASET",
		Short:   "Remove the triggers, but not the table of changes, which other datasets may use",
		Example: "  ringside changes remove cnf-metrics",
	}
	onFeed(cmd, func(ctx context.Context, c sidecar.Config, dataset string) (string, error) {
		return dataset + ": changes are not told any more\n", c.RemoveChanges(ctx, dataset)
	})
	return cmd
}

// onFeed makes cmd one that takes a dataset, does something to its feed, and prints what that returns.
func onFeed(cmd *cobra.Command, do func(ctx context.Context, c sidecar.Config, dataset string) (string, error)) {
	cmd.Args = usage(cobra.ExactArgs(1))
	source := configFlags(cmd)
	timeout := cmd.Flags().Duration("timeout", 10*time.Second, "bound of the time that the database may take")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := load(cmd, source)
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
