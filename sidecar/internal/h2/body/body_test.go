package body

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
)

// account is a Memory with a limit.
type account struct{ used, limit int64 }

func (a *account) Charge(n int64) bool {
	if a.used+n > a.limit {
		return false
	}
	a.used += n
	return true
}

func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// FuzzBody sends any bytes in any pieces: what is read must be the same, and what is held must be charged.
func FuzzBody(f *testing.F) {
	f.Add(append(framed([]byte("hello")), framed(make([]byte, 300))...), uint8(4), uint8(7), true)
	f.Add([]byte{1, 0, 0, 0, 200, 1, 2}, uint8(1), uint8(1), true)
	f.Add([]byte("not gRPC"), uint8(3), uint8(100), false)
	f.Fuzz(func(t *testing.T, input []byte, piece, room uint8, grpc bool) {
		var b Body
		a := &account{limit: 1 << 30}
		b.Init(a, grpc, 1<<20)
		var got []byte
		read := func() {
			p := make([]byte, int(room)+1)
			for b.Ready(len(p)) {
				n, err := b.Read(p)
				got = append(got, p[:n]...)
				if err != nil {
					return
				}
				if b.chunkBytes > a.used {
					t.Fatalf("%d bytes are held, %d are charged", b.chunkBytes, a.used)
				}
			}
			b.Next()
		}
		for rest := input; len(rest) > 0; {
			part := rest[:min(len(rest), int(piece)+1)]
			rest = rest[len(part):]
			if err := b.Add(part); errors.Is(err, ErrTooLarge) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
			read()
		}
		b.End()
		for len(got) < len(input) {
			before := len(got)
			read()
			read()
			if len(got) == before {
				t.Fatalf("only %d of %d bytes can be read", len(got), len(input))
			}
		}
		if !bytes.Equal(got, input) || b.Total() != int64(len(input)) {
			t.Errorf("got %d bytes, want the %d that were sent", len(got), len(input))
		}
	})
}

// A grpc.Server may read the message that was asked for and one more.
func TestMessagesWaitUntilTheyAreAskedFor(t *testing.T) {
	var b Body
	b.Init(&account{limit: 1 << 20}, true, 1<<10)
	message := framed([]byte("hello"))
	for range 3 {
		if err := b.Add(message); err != nil {
			t.Fatal(err)
		}
	}
	p := make([]byte, 100)
	for i := range 3 {
		n, err := b.Read(p)
		if n != len(message) || err != nil || b.Ready(len(p)) {
			t.Fatalf("message %d: got %d bytes, %v, ready for more %v; want one message", i, n, err, b.Ready(len(p)))
		}
		b.Next()
	}
	b.End()
	if n, err := b.Read(p); n != 0 || err != io.EOF {
		t.Errorf("got %d, %v at the end", n, err)
	}
	b.Close()
	if _, err := b.Read(p); !errors.Is(err, errClosed) {
		t.Errorf("got %v from a closed body", err)
	}
}

func TestBodyIsLimitedAndCharged(t *testing.T) {
	for _, test := range []struct {
		grpc  bool
		input []byte
		limit int64
		want  error
	}{
		{true, framed(make([]byte, 10)), 1 << 20, nil}, {true, framed(make([]byte, 11)), 1 << 20, ErrTooLarge},
		{false, make([]byte, 10), 1 << 20, nil}, {false, make([]byte, 11), 1 << 20, ErrTooLarge},
		{true, framed(make([]byte, 10)), 100, ErrMemory}, {false, make([]byte, 10), 100, ErrMemory},
	} {
		var b Body
		b.Init(&account{limit: test.limit}, test.grpc, 10)
		if err := b.Add(test.input); err != test.want {
			t.Errorf("%+v: got %v", test, err)
		}
	}
}
