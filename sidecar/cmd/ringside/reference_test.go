package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write CLI.md")

// CLI.md is the help text of all commands. `make generate` writes it.
func TestCLIReferenceIsCurrent(t *testing.T) {
	for _, name := range []string{"CONFIG", "HTTP", "ADMIN", "METRICS"} { // they change the defaults of flags
		t.Setenv("RINGSIDE_"+name, "")
	}
	var b strings.Builder
	b.WriteString("# Command line\n\nGenerated from the help texts by `make generate`. Do not edit.\n")
	for _, cmd := range commands(newRoot()) {
		if cmd.IsAvailableCommand() || !cmd.HasParent() {
			describe(&b, cmd)
		}
	}
	if *update {
		if err := os.WriteFile("CLI.md", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile("CLI.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != b.String() {
		t.Errorf("CLI.md differs from the help texts: run make generate; got\n%s\nwant\n%s", text, &b)
	}
}

func describe(b *strings.Builder, cmd *cobra.Command) {
	long := cmd.Long
	if long == "" {
		long = cmd.Short + "."
	}
	fmt.Fprintf(b, "\n## %s\n\n%s\n\n```\n%s\n```\n", cmd.CommandPath(), strings.NewReplacer("<", "\\<", "*", "\\*").Replace(long), cmd.UseLine())
	if flags := cmd.LocalFlags().FlagUsages(); flags != "" {
		fmt.Fprintf(b, "\nFlags:\n\n```\n%s```\n", flags)
	}
	if cmd.HasExample() {
		fmt.Fprintf(b, "\nExamples:\n\n```\n%s\n```\n", cmd.Example)
	}
}
