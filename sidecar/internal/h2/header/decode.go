package header

import (
	"golang.org/x/net/http2/hpack"

	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
	"github.com/ringside-cache/ringside/sidecar/internal/headerlimit"
)

// Decoder decodes the header blocks of a connection.
type Decoder struct{ hpack *hpack.Decoder }

// NewDecoder returns a Decoder that adds the fields of each block to h.
func NewDecoder(h *Head) Decoder { return NewFieldDecoder(h.add) }

// NewFieldDecoder returns a Decoder that calls add with each field.
func NewFieldDecoder(add func(hpack.HeaderField)) Decoder {
	d := Decoder{hpack.NewDecoder(TableBytes, add)}
	d.hpack.SetMaxStringLength(headerlimit.ParsedBytes)
	return d
}

// Decode decodes a whole block.
func (d Decoder) Decode(block []byte) error {
	if _, err := d.hpack.Write(block); err != nil {
		return frame.CodeCompression
	}
	if d.hpack.Close() != nil {
		return frame.CodeCompression // it ends within a field
	}
	return nil
}
