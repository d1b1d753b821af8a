package kv

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ringside-cache/ringside/origin"
)

// Bounds of a Change.
const (
	// MaxValueBytes bounds a value that is written.
	MaxValueBytes = origin.DefaultMaxValueBytes
	// MaxIDBytes bounds Change.ID.
	MaxIDBytes = 128
	// MaxBatchWrites bounds the changes that are made together, and MaxBatchWriteBytes the sum of their Bytes: a batch is not much larger
	// than the largest value.
	MaxBatchWrites     = 1000
	MaxBatchWriteBytes = MaxValueBytes + 8<<10
)

// Change is one write of one row.
type Change struct {
	// Dataset is filled in by Dataset.Write; between members it is required.
	Dataset string
	Key     string
	// Delete deletes the row, if there is one; otherwise Value is its new value.
	Delete bool
	Value  []byte
	If     Condition
	// ID identifies the write: a retry with the same ID to the same owner is a no-op. Empty: each one is made.
	ID string
	// Observed makes this the report of a state: when it was observed, in nanoseconds since 1970; 0: it is none. The owner keeps the
	// newest one of a key and writes it; an older one succeeds without a write. Dataset.WriteMany takes it, without If and ID.
	Observed int64
	// Failover: the caller asks the successor because it could not reach the owner. Set between members only.
	Failover bool
}

// Bytes is the size of c in a batch.
func (c Change) Bytes() int { return len(c.Key) + len(c.Value) + len(c.ID) + len(c.If.ETag) }

// Appended is a row that the database has given a key.
type Appended struct {
	Key string
	// Answer is the row as it is now.
	Answer Answer
}

// Condition is what a Change requires of the row. At most one field is set; the zero value requires nothing.
type Condition struct {
	Absent  bool   // there is no such row
	Present bool   // there is one
	Version int64  // there is one of this version
	ETag    string // there is one whose value has this ETag; for datasets with versions
}

// Check returns what is wrong with c, except for its key; see CheckKey.
func (c Change) Check() error {
	switch {
	case len(c.Value) > MaxValueBytes:
		return fmt.Errorf("the value has %d bytes; at most %d are allowed", len(c.Value), MaxValueBytes)
	case len(c.ID) > MaxIDBytes:
		return fmt.Errorf("the idempotency id has %d bytes; at most %d are allowed", len(c.ID), MaxIDBytes)
	case c.Delete && (c.If.Absent || len(c.Value) > 0):
		return errors.New("DELETE takes no value and cannot require absence")
	case c.Observed != 0 && (c.Delete || c.ID != "" || c.If != Condition{}):
		return errors.New("an observation is neither a deletion, nor does it have a condition or an idempotency id")
	case c.If.fields() > 1:
		return errors.New("a write has at most one condition")
	}
	return nil
}

func (c Condition) fields() (n int) {
	for _, set := range []bool{c.Absent, c.Present, c.Version != 0, c.ETag != ""} {
		if set {
			n++
		}
	}
	return n
}

// Digest distinguishes writes that have the same ID.
func (c Change) Digest() uint64 {
	if c.ID == "" {
		return 0
	}
	sum := sha256.New() // of the value as it is: quoting 1 MiB takes much longer than its hash
	_, _ = fmt.Fprintf(sum, "%q %t %d %v ", c.Key, c.Delete, len(c.Value), c.If)
	_, _ = sum.Write(c.Value)
	return binary.LittleEndian.Uint64(sum.Sum(nil))
}
