package header

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
	"github.com/ringside-cache/ringside/sidecar/internal/headerlimit"
)

// account is a Memory with a limit.
type account struct{ used, most, limit int64 }

func (a *account) Take(n int64) bool {
	if a.used+n > a.limit {
		return false
	}
	a.used += n
	a.most = max(a.most, a.used)
	return true
}

func (a *account) Release(n int64) { a.used -= n }

// receive decodes a block that arrives in frames of at most size bytes, each in parts of at most piece bytes.
func receive(d Decoder, a *account, block []byte, size, piece int) error {
	b := NewBlock(d, a)
	defer b.Close()
	for first := true; first || !b.Complete(); first = false {
		payload := block[:min(len(block), size)]
		block = block[len(payload):]
		f := frame.Header{Length: len(payload), Kind: frame.Continuation, ID: 1}
		if first {
			f.Kind = frame.Headers
		}
		if len(block) == 0 {
			f.Flags = frame.FlagEndHeaders
		}
		b.Begin(f)
		for last := false; !last; {
			part := payload[:min(len(payload), piece)]
			payload = payload[len(part):]
			last = len(payload) == 0
			if err := b.Add(part, last); err != nil {
				return err
			}
		}
	}
	return nil
}

// FuzzBlock sends any block, in one piece and in many: both must have the same result, and give back all memory.
func FuzzBlock(f *testing.F) {
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, field := range []hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":path", Value: "/a"}, {Name: "x", Value: strings.Repeat("y", 99)}} {
		_ = e.WriteField(field)
	}
	f.Add(block.Bytes(), uint8(7), uint8(3))
	f.Add([]byte{0xff, 0xff}, uint8(1), uint8(1))
	f.Fuzz(func(t *testing.T, block []byte, size, piece uint8) {
		if len(block) > headerlimit.ParsedBytes {
			t.Skip("it is too large")
		}
		var whole, parts Head
		for h, decode := range map[*Head]func(d Decoder, a *account) error{
			&whole: func(d Decoder, a *account) error { return receive(d, a, block, len(block)+1, len(block)+1) },
			&parts: func(d Decoder, a *account) error {
				return receive(d, a, block, int(size)+1, int(piece)+1)
			},
		} {
			h.Reset(16 << 10)
			a := &account{limit: 1 << 20}
			if err := decode(NewDecoder(h), a); err != nil {
				if !errors.Is(err, frame.CodeCompression) {
					t.Errorf("got error %v, want one of the compression", err)
				}
				h.Reset(0) // what was decoded before does not matter
				h.Wrong = true
			}
			if a.used != 0 {
				t.Errorf("%d bytes are charged after the end", a.used)
			}
		}
		if whole.Wrong != parts.Wrong || whole.Path != parts.Path || len(whole.Fields) != len(parts.Fields) || whole.Size != parts.Size {
			t.Errorf("got %+v in one piece, %+v in many", whole, parts)
		}
	})
}

func TestBlockIsLimitedAndCharged(t *testing.T) {
	var h Head
	d := NewDecoder(&h)
	for _, test := range []struct {
		bytes int
		limit int64
		want  error
	}{{headerlimit.ParsedBytes + 1, 1 << 30, ErrTooLarge}, {10 << 10, 4 << 10, ErrMemory}} {
		a := &account{limit: test.limit}
		h.Reset(16 << 10)
		err := receive(d, a, make([]byte, test.bytes), frame.MaxSize, 1000)
		if err != test.want || a.used != 0 || a.most > min(test.limit, 2*headerlimit.ParsedBytes) {
			t.Errorf("%+v: got %v, %d bytes are charged, at most %d", test, err, a.used, a.most)
		}
	}
}
