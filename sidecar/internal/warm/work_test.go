package warm

import (
	"fmt"
	"testing"
)

func TestManyChangesAreOneList(t *testing.T) {
	w := NewWork()
	w.Changed("ignored")
	w.Everything()
	w.enabled.Store(true)
	w.Changed("a")
	w.Changed("a")
	if keys, all := w.take(); len(keys) != 1 || keys[0] != "a" || all {
		t.Errorf("got %q, all %t; want the changed key", keys, all)
	}
	for i := range 3 * maxKeys {
		w.Changed(fmt.Sprint(i))
		if len(w.keys) > maxKeys {
			t.Fatalf("%d keys wait; want at most %d", len(w.keys), maxKeys)
		}
	}
	if keys, all := w.take(); len(keys) != 0 || !all {
		t.Errorf("got %d keys, all %t; want everything", len(keys), all)
	}
	if keys, all := w.take(); len(keys) != 0 || all {
		t.Errorf("got %d keys, all %t; want nothing", len(keys), all)
	}
}
