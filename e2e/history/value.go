package history

import (
	"fmt"
	"hash/crc32"
	"strings"
)

// Value is what is written: text that says itself which dataset, key and write it belongs to, so that a value in the
// wrong place, or half of one, is seen without knowing the history.
type Value struct {
	Dataset, Key string // without spaces
	Seq          uint64
	Writer       int32
}

const valueFormat = "%s %s %d %d %s %08x"

// filler makes a value longer than what a careless copy would move in one piece.
var filler = strings.Repeat("0123456789abcdef", 6)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// String is the value's text.
func (v Value) String() string {
	sum := crc32.Checksum(fmt.Appendf(nil, "%s %s %d %d", v.Dataset, v.Key, v.Seq, v.Writer), castagnoli)
	return fmt.Sprintf(valueFormat, v.Dataset, v.Key, v.Seq, v.Writer, filler[v.Seq%uint64(len(filler)):], sum)
}

// Parse reads the text of a value that was found at a key of a dataset. An error means that it cannot have been
// written there.
func Parse(dataset, key, text string) (Value, error) {
	var v Value
	var padding string
	var sum uint32
	if _, err := fmt.Sscanf(text, "%s %s %d %d %s %x", &v.Dataset, &v.Key, &v.Seq, &v.Writer, &padding, &sum); err != nil {
		return Value{}, fmt.Errorf("%.200q is no value: %w", text, err)
	}
	switch {
	case v.String() != text:
		return Value{}, fmt.Errorf("%.200q is damaged", text)
	case v.Dataset != dataset || v.Key != key:
		return Value{}, fmt.Errorf("it is the value of %s/%s", v.Dataset, v.Key)
	}
	return v, nil
}
