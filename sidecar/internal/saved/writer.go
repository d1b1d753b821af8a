// Package saved encodes what one process of a sidecar leaves to the next: numbers and strings between a first line with the version
// of the format and a checksum of everything. It knows nothing of what they mean.
package saved

import (
	"bufio"
	"encoding/binary"
	"hash"
	"hash/crc64"
	"io"
)

// version is the first line. Change it with anything that is written: the next process may be of another release.
const version = "ringside entries 1\n"

var table = crc64.MakeTable(crc64.ECMA)

// Writer writes what Reader reads. The first error counts; Close returns it.
type Writer struct {
	to  *bufio.Writer
	sum hash.Hash64
	err error
	// text is for String, so that saving makes no garbage: there are two processes in the memory of the container.
	text []byte
}

// NewWriter begins to write to w.
func NewWriter(w io.Writer) *Writer {
	out := &Writer{to: bufio.NewWriterSize(w, 64<<10), sum: crc64.New(table)}
	out.write([]byte(version))
	return out
}

func (w *Writer) write(p []byte) {
	if w.err == nil {
		_, _ = w.sum.Write(p) // a hash returns no error
		_, w.err = w.to.Write(p)
	}
}

// Int writes a number.
func (w *Writer) Int(n int64) {
	var buffer [8]byte
	binary.BigEndian.PutUint64(buffer[:], uint64(n))
	w.write(buffer[:])
}

// Bytes writes bytes of any length.
func (w *Writer) Bytes(p []byte) {
	w.Int(int64(len(p)))
	w.write(p)
}

// String writes text of any length.
func (w *Writer) String(s string) {
	w.text = append(w.text[:0], s...)
	w.Bytes(w.text)
}

// Err returns the first error, so that the caller need not go on.
func (w *Writer) Err() error { return w.err }

// Close writes the checksum.
func (w *Writer) Close() error {
	var sum [8]byte
	binary.BigEndian.PutUint64(sum[:], w.sum.Sum64())
	w.write(sum[:])
	if w.err == nil {
		w.err = w.to.Flush()
	}
	return w.err
}
