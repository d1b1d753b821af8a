package saved

import (
	"bytes"
	"errors"
	"math"
	"testing"
)

func example() []byte {
	var b bytes.Buffer
	w := NewWriter(&b)
	w.Int(math.MinInt64)
	w.String("key")
	w.Bytes([]byte{0, 255})
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// readAll reads what example writes.
func readAll(p []byte, room int64) (n int64, s string, b []byte, err error) {
	r, err := NewReader(bytes.NewReader(p))
	if err != nil {
		return 0, "", nil, err
	}
	r.Allow(room)
	n = r.Int()
	s, _ = r.String()
	b, _ = r.Bytes()
	return n, s, b, r.Close()
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	n, s, b, err := readAll(example(), 5)
	if err != nil || n != math.MinInt64 || s != "key" || !bytes.Equal(b, []byte{0, 255}) {
		t.Errorf("got %d, %q, %v, %v", n, s, b, err)
	}
	if _, s, b, err := readAll(example(), 2); err != nil || s != "" || len(b) != 2 {
		t.Errorf("with room for 2 bytes: got %q, %v, %v; want only the second", s, b, err)
	}
	if _, err := NewReader(bytes.NewReader(nil)); !errors.Is(err, ErrNothing) {
		t.Errorf("without a byte: got %v, want ErrNothing", err)
	}
}

func TestEveryChangedByteIsAnError(t *testing.T) {
	for i, whole := 0, example(); i < len(whole); i++ {
		changed := bytes.Clone(whole)
		changed[i] ^= 0x20
		if _, _, _, err := readAll(changed, 1<<10); err == nil {
			t.Errorf("byte %d of %d was changed: got no error", i, len(whole))
		}
		if i == 0 {
			continue
		}
		if _, _, _, err := readAll(whole[:i], 1<<10); err == nil {
			t.Errorf("%d of %d bytes: got no error", i, len(whole))
		}
	}
	other := bytes.Replace(example(), []byte("entries 1"), []byte("entries 2"), 1)
	if _, _, _, err := readAll(other, 1<<10); !errors.Is(err, errVersion) {
		t.Errorf("another version: got %v, want %v", err, errVersion)
	}
}

func FuzzReader(f *testing.F) {
	f.Add(example(), int64(5))
	f.Add(example(), int64(2))
	f.Fuzz(func(t *testing.T, p []byte, room int64) {
		_, s, b, _ := readAll(p, room)
		if int64(len(s)+len(b)) > max(room, 0) {
			t.Errorf("got %d bytes; room is %d", len(s)+len(b), room)
		}
	})
}
