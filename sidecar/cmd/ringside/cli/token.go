package cli

import (
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// TokenFlag adds the flag --token-file, whose token requests to l carry.
func (l *Listener) TokenFlag(cmd *cobra.Command) *Listener {
	const env = "RINGSIDE_TOKEN_FILE"
	cmd.Flags().StringVar(&l.tokenFile, "token-file", os.Getenv(env), "file with a token in its first line, where a dataset needs one (env "+env+")")
	return l
}

// authorize adds the token to a header. The token is in no error.
func (l *Listener) authorize(h http.Header) error {
	if l.tokenFile == "" {
		return nil
	}
	text, err := os.ReadFile(l.tokenFile)
	if err != nil {
		return fmt.Errorf("--token-file: %w", err)
	}
	token, _, _ := strings.Cut(string(text), "\n")
	if token = strings.TrimSpace(token); token == "" || strings.ContainsFunc(token, notVisible) {
		return UsageError{fmt.Errorf("--token-file: the first line of %s is not a token", l.tokenFile)}
	}
	h.Set("Authorization", "Bearer "+token)
	return nil
}

// notVisible reports whether r cannot be in a header field.
func notVisible(r rune) bool { return r <= ' ' || r > '~' }
