// Package cli has what all commands of the program share: usage errors, the output flag, and requests to a listener of a
// running sidecar.
package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// UsageError is an invalid command line.
type UsageError struct{ error }

// Usagef returns a UsageError that points to the help of cmd.
func Usagef(cmd *cobra.Command, format string, args ...any) error {
	return UsageError{fmt.Errorf(format+"; see `%s --help`", append(args, cmd.CommandPath())...)}
}

// AsUsage turns err, which is not nil, into a UsageError.
func AsUsage(err error) error { return UsageError{err} }

// Args turns every error of check into a UsageError.
func Args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			if _, want, ok := strings.Cut(cmd.Use, " "); ok {
				return Usagef(cmd, "want %s; got %s", want, Count(len(args), "argument"))
			}
			return Usagef(cmd, "%v", err)
		}
		return nil
	}
}

// FromEnv returns the environment variable name, or fallback if it is unset or empty.
func FromEnv(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

// Output is the value of the flag -o.
type Output string

// OutputFlag adds the flag -o to cmd.
func OutputFlag(cmd *cobra.Command) *Output {
	o := Output("text")
	cmd.Flags().VarP(&o, "output", "o", "output format")
	return &o
}

// JSON reports whether the output format is JSON.
func (o *Output) JSON() bool { return *o == "json" }

func (o *Output) String() string { return string(*o) }

// Type implements pflag.Value.
func (o *Output) Type() string { return "text|json" }

// Set implements pflag.Value.
func (o *Output) Set(value string) error {
	if value != "text" && value != "json" {
		return errors.New("want text or json")
	}
	*o = Output(value)
	return nil
}

// PrintJSON writes v as indented JSON.
func PrintJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// OrDash returns s, or "-" if s is empty.
func OrDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// Count returns n with its noun: "1 member", "2 members".
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
