package http1

import (
	"bytes"
	"io"
)

// The limits of content in chunks.
const (
	maxChunkLine   = 256     // of the size of a chunk with its extensions
	maxExtensions  = 4 << 10 // of all extensions of one content
	maxTrailer     = 4 << 10 // of the trailer section
	maxTrailerLine = 1 << 10
	maxChunkDigits = 8
	directRead     = 2 << 10 // reads of at least this many bytes bypass the buffer
)

// Content reads the content of a request: all of it, and nothing after it. Its zero value has none.
type Content struct {
	reader  *Reader
	left    int64 // of the content, or of the current chunk
	chunked bool
	begun   bool // the first chunk has begun
	ended   bool
	extra   int // bytes of extensions so far
	err     error
}

// Content returns the content of a request whose head was read last.
func (r *Reader) Content(h *Head) Content {
	return Content{reader: r, left: max(h.Length, 0), chunked: h.Length == Chunked, ended: h.Length == 0}
}

// Ended reports whether all of the content has been read.
func (c *Content) Ended() bool { return c.ended }

// Left returns how many bytes are left, or Chunked.
func (c *Content) Left() int64 {
	if c.chunked && !c.ended {
		return Chunked
	}
	return c.left
}

// Read implements io.Reader. Errors are those of the connection, Malformed, or ErrNoMemory, and stay.
func (c *Content) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.read(p)
	if err == io.EOF && !c.ended {
		err = errContentCutOff
	}
	c.err = err
	return n, err
}

func (c *Content) read(p []byte) (int, error) {
	if c.chunked && c.left == 0 && !c.ended {
		if err := c.nextChunk(); err != nil {
			return 0, err
		}
	}
	if c.ended {
		return 0, io.EOF
	}
	n, err := c.reader.read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	c.ended = c.left == 0 && !c.chunked
	return n, err
}

// read reads bytes of the content, from the buffer if it has any.
func (r *Reader) read(p []byte) (int, error) {
	if r.Buffered() == 0 && len(p) >= directRead {
		return r.source.Read(p)
	}
	if r.Buffered() == 0 && len(p) > 0 {
		r.r, r.w = r.pin, r.pin
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.buf[r.r:r.w])
	r.r += n
	return n, nil
}

// nextChunk reads what is between two chunks, or after the last one.
func (c *Content) nextChunk() error {
	if c.begun {
		if line, err := c.line(maxChunkLine, errChunk); err != nil || len(line) > 0 {
			return orElse(err, errChunk)
		}
	}
	line, err := c.line(maxChunkLine, errChunk)
	if err != nil {
		return err
	}
	size, extensions, ok := cutChunkSize(line)
	if c.extra += extensions; !ok || c.extra > maxExtensions { //guard:endless-chunk-extensions
		return errChunk
	}
	c.begun, c.left = true, size
	if size == 0 {
		return c.endChunks()
	}
	return nil
}

// endChunks reads the trailer section. Its fields have no meaning here (RFC 9110, 6.5.1).
func (c *Content) endChunks() error {
	for left := maxTrailer; ; {
		line, err := c.line(min(maxTrailerLine, left), errTrailer) //guard:endless-trailer
		if err != nil {
			return err
		}
		if len(line) == 0 {
			c.ended = true
			return nil
		}
		if _, err := cutField(line); err != nil {
			return errTrailer
		}
		left -= len(line) + 2
	}
}

// line reads one line of at most limit bytes.
func (c *Content) line(limit int, tooLong error) ([]byte, error) {
	r := c.reader
	if r.Buffered() == 0 {
		r.r, r.w = r.pin, r.pin
	}
	line, end, err := r.line(0, limit, tooLong)
	if err == errLineEnd {
		err = errChunk
	}
	r.r += end
	return line, err
}

// cutChunkSize parses a chunk size. Extensions have no meaning here.
func cutChunkSize(line []byte) (size int64, extensions int, ok bool) {
	digits, extension, extended := bytes.Cut(line, []byte{';'})
	if len(digits) == 0 || len(digits) > maxChunkDigits || extended && !isText(view(extension)) {
		return 0, 0, false
	}
	for _, c := range digits {
		digit, ok := unhex(c)
		if !ok {
			return 0, 0, false
		}
		size = size<<4 | digit
	}
	return size, len(extension), true
}

func unhex(c byte) (int64, bool) {
	switch {
	case isDigit(c):
		return int64(c - '0'), true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int64(c|0x20-'a') + 10, true
	}
	return 0, false
}

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}
