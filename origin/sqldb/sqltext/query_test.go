package sqltext

import "testing"

func TestExpandWritesOneParameterPerKey(t *testing.T) {
	st := &Query{SQL: "SELECT k FROM r WHERE k IN (?)", List: true}
	for keys, want := range map[int]string{1: "SELECT k FROM r WHERE k IN (?)", 3: "SELECT k FROM r WHERE k IN (?,?,?)"} {
		if got := st.Expand(keys); got != want {
			t.Errorf("%d keys: %s", keys, got)
		}
	}
}
