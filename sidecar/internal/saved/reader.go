package saved

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc64"
	"io"
)

// ErrNothing means that the other process has written nothing at all.
var ErrNothing = errors.New("the previous process has saved nothing")

var (
	errVersion  = errors.New("not in the format of this release")
	errChecksum = errors.New("the checksum is wrong")
)

// Reader reads what a Writer has written. The first error counts; after it, all numbers are 0. What it returns may be wrong until
// Close has compared the checksum.
type Reader struct {
	from *bufio.Reader
	sum  hash.Hash64
	err  error
	room int64
}

// NewReader begins to read r. It returns ErrNothing if r is empty.
func NewReader(r io.Reader) (*Reader, error) {
	in := &Reader{from: bufio.NewReaderSize(r, 64<<10), sum: crc64.New(table)}
	if _, err := in.from.Peek(1); errors.Is(err, io.EOF) {
		return nil, ErrNothing
	}
	line := make([]byte, len(version))
	in.read(line)
	if in.err == nil && string(line) != version { //guard:foreign-entries-are-restored
		in.err = errVersion
	}
	return in, in.err
}

// Allow sets how many bytes Bytes may return from now on.
func (r *Reader) Allow(n int64) { r.room = n }

// Room returns how many bytes Bytes may still return.
func (r *Reader) Room() int64 { return r.room }

func (r *Reader) read(p []byte) {
	if r.err == nil {
		_, r.err = io.ReadFull(r.from, p)
		_, _ = r.sum.Write(p) // a hash returns no error
	}
}

// Int returns the next number.
func (r *Reader) Int() int64 {
	var buffer [8]byte
	r.read(buffer[:])
	if r.err != nil {
		return 0
	}
	return int64(binary.BigEndian.Uint64(buffer[:]))
}

// Bytes returns the next bytes. If there is no room for them, it skips them and returns false; a wrong length can make a process
// allocate no more than that.
func (r *Reader) Bytes() (p []byte, ok bool) {
	n := r.Int()
	switch {
	case r.err != nil:
		return nil, false
	case n < 0:
		r.fail(errVersion)
		return nil, false
	case n > r.room: //guard:length-in-saved-entries-allocates-memory
		_, err := io.CopyN(r.sum, r.from, n)
		r.fail(err)
		return nil, false
	}
	r.room -= n
	p = make([]byte, n)
	r.read(p)
	return p, r.err == nil
}

// String is Bytes as text.
func (r *Reader) String() (s string, ok bool) {
	p, ok := r.Bytes()
	return string(p), ok
}

// Fail makes the Reader fail: the caller has found what cannot be.
func (r *Reader) Fail() { r.fail(errVersion) }

func (r *Reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// Err returns the first error.
func (r *Reader) Err() error {
	if errors.Is(r.err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return r.err
}

// Close compares the checksum, which must be next and last.
func (r *Reader) Close() error {
	want := r.sum.Sum64()
	var sum [8]byte
	r.read(sum[:])
	if r.err == nil && binary.BigEndian.Uint64(sum[:]) != want { //guard:corrupt-entries-are-restored
		r.err = errChecksum
	}
	return r.Err()
}
