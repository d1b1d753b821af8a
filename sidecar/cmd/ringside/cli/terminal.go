package cli

import (
	"io"
	"os"

	"github.com/ringside-cache/ringside/ring/printable"
)

// IsTerminal reports whether a person reads w.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// ForReader returns text as w gets it: a program reads it unchanged, and the terminal of a person must not be controlled by
// the bytes of a row.
func ForReader(w io.Writer, text string) string { return forReader(IsTerminal(w), text) }

func forReader(terminal bool, text string) string {
	if terminal { //guard:row-controls-terminal
		return printable.Block(text)
	}
	return text
}
