package history

import (
	"fmt"
	"hash/crc32"
	"strings"
)

// Value is the text that a write stores. It names its dataset, key and write and has a checksum, so that a misplaced or damaged
// value is found without the history.
type Value struct {
	Dataset, Key string // without spaces
	Seq          uint64
	Writer       int32
}

const valueFormat = "%s %s %d %d %s %08x"

// filler makes values longer than one machine word or cache line, so that a racy copy damages them.
var filler = strings.Repeat("0123456789abcdef", 6)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// String is the value's text.
func (v Value) String() string {
	sum := crc32.Checksum(fmt.Appendf(nil, "%s %s %d %d", v.Dataset, v.Key, v.Seq, v.Writer), castagnoli)
	return fmt.Sprintf(valueFormat, v.Dataset, v.Key, v.Seq, v.Writer, filler[v.Seq%uint64(len(filler)):], sum)
}

// Parse parses the text that was read from a key of a dataset. An error means that no client wrote it there.
func Parse(dataset, key, text string) (Value, error) {
	var v Value
	var padding string
	var sum uint32
	if _, err := fmt.Sscanf(text, "%s %s %d %d %s %x", &v.Dataset, &v.Key, &v.Seq, &v.Writer, &padding, &sum); err != nil {
		return Value{}, fmt.Errorf("%.200q is not a value: %w", text, err)
	}
	switch {
	case v.String() != text:
		return Value{}, fmt.Errorf("%.200q is damaged", text)
	case v.Dataset != dataset || v.Key != key:
		return Value{}, fmt.Errorf("it is the value of %s/%s", v.Dataset, v.Key)
	}
	return v, nil
}
