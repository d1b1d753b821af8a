package cli

import (
	"bytes"
	"testing"
)

func TestValuesDoNotControlTheTerminal(t *testing.T) {
	const value = "a\x1b[2J\tb\n"
	if got := forReader(true, value); got != "a [2J\tb\n" {
		t.Errorf("terminal: got %q", got)
	}
	if got := ForReader(&bytes.Buffer{}, value); got != value {
		t.Errorf("program: got %q, want the value unchanged", got)
	}
}

func TestErrorNamesTheID(t *testing.T) {
	r := Response{Status: 503, Body: []byte(`{"title":"Origin unavailable","detail":"retry later","id":"0123456789abcdef"}`)}
	if got, want := r.Err().Error(), "Origin unavailable: retry later (id 0123456789abcdef)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
