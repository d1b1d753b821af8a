package adminapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/ringside-cache/ringside/ring/printable"
)

// MaxDatasets limits the datasets of a State that another member sends.
const MaxDatasets = 1000

// maxStateBytes limits an encoded State.
const maxStateBytes = 1 << 20

var (
	errManyDatasets = fmt.Errorf("the state has more than %d datasets", MaxDatasets)
	errManyHotKeys  = fmt.Errorf("the state has more than %d hot keys", MaxHotKeys)
)

// DecodeState decodes the State of another member, which may be anything: text for a terminal, numbers that are none, or a
// list that would fill the memory.
func DecodeState(data []byte) (*State, error) {
	if len(data) > maxStateBytes {
		return nil, fmt.Errorf("the state has %d bytes; at most %d are allowed", len(data), maxStateBytes)
	}
	type plain State // without the list
	var outer struct {
		plain
		Datasets json.RawMessage `json:"datasets"`
		HotKeys  json.RawMessage `json:"hot_keys"`
	}
	if err := json.Unmarshal(data, &outer); err != nil {
		return nil, stateError(err)
	}
	s := State(outer.plain)
	var err error
	if s.Datasets, err = decodeList[DatasetState](outer.Datasets, MaxDatasets, errManyDatasets); err != nil {
		return nil, err
	}
	if s.HotKeys, err = decodeList[HotKey](outer.HotKeys, MaxHotKeys, errManyHotKeys); err != nil {
		return nil, err
	}
	s.clean()
	return &s, nil
}

// decodeList decodes a list of at most so many values.
func decodeList[V any](data []byte, most int, errMany error) ([]V, error) {
	list := []V{}
	in := json.NewDecoder(bytes.NewReader(data))
	if start, err := in.Token(); err != nil || start != json.Delim('[') {
		return list, nil // null, or no list at all: none
	}
	for in.More() {
		if len(list) == most { //guard:datasets-of-member-without-limit
			return nil, errMany
		}
		var d V
		if err := in.Decode(&d); err != nil {
			return nil, stateError(err)
		}
		list = append(list, d)
	}
	return list, nil
}

// stateError says what is wrong with the JSON of a member, without its text.
func stateError(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("the state has another type than %v in the field %s", wrong.Type, printable.Text(wrong.Field))
	}
	return fmt.Errorf("the state is not JSON: %s", printable.Text(err.Error()))
}

// clean makes every text printable and every counter possible.
func (s *State) clean() {
	printable.Clean(s)
	s.Uptime = max(0, s.Uptime)
	for i := range s.HotKeys {
		k := &s.HotKeys[i]
		k.KeyBytes, k.Rate = max(0, k.KeyBytes), max(0, k.Rate)
	}
	for i := range s.Datasets {
		d := &s.Datasets[i]
		for _, n := range []*int64{
			&d.Hits, &d.LocalHits, &d.PeerHits, &d.Loads, &d.Stale, &d.Negative, &d.Errors, &d.OriginQueries, &d.Served,
			&d.Written, &d.Entries, &d.Bytes, &d.MaxBytes,
		} {
			*n = min(max(0, *n), maxCounter) //guard:counter-of-member-is-negative
		}
	}
}

// maxCounter lets the sum of the counters of 10 000 members with their datasets be an int64.
const maxCounter = math.MaxInt64 / (1 << 28)
