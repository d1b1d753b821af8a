package history

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// Linear checks with porcupine that each row is linearizable: that one register per key, which changes at one moment within
// each write, explains all writes and the reads that use the database (NoCache, Direct). It returns the keys that are not
// linearizable, and the keys on which the search did not end within limit.
func Linear(ops []Op, limit time.Duration) (broken, undecided []string) {
	byKey := rowOperations(ops)
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		switch porcupine.CheckOperationsTimeout(rowModel, byKey[key], limit) {
		case porcupine.Illegal:
			broken = append(broken, key)
		case porcupine.Unknown:
			undecided = append(undecided, key)
		}
	}
	return broken, undecided
}

// rowOperations returns the operations that Linear checks, by key. A write of unknown outcome may happen at any time after its
// start; if it never happens, that is the same as if it happens last.
func rowOperations(ops []Op) map[string][]porcupine.Operation {
	versions, byKey := map[uint64]int64{}, map[string][]porcupine.Operation{}
	for i := range ops {
		if ops[i].Seq != 0 && ops[i].Version != 0 {
			versions[ops[i].Seq] = ops[i].Version
		}
	}
	for _, op := range ops {
		reads := op.answered() && !op.Stale && (op.NoCache || op.Sidecar == Direct)
		if !reads && (!op.isWrite() || op.Outcome == Failed) {
			continue
		}
		end := int64(op.End)
		if op.Outcome == Unknown {
			end, op.Version = math.MaxInt64, versions[op.Seq]
		}
		byKey[op.Key] = append(byKey[op.Key], porcupine.Operation{
			ClientId: int(op.Client), Input: op, Call: int64(op.Start), Return: end,
		})
	}
	return byKey
}

// row is the state of the register; seq is 0 if it is absent. The version of an absent row is a lower bound of the next version.
// It is 0 if it is not known.
type row struct {
	seq     uint64
	version int64
}

var rowModel = porcupine.Model{
	Init: func() any { return row{} },
	Step: func(state, input, _ any) (bool, any) {
		op := input.(Op)
		return state.(row).step(&op)
	},
}

func (r row) step(op *Op) (bool, row) {
	holds, fails := r.meets(op.If)
	switch {
	case op.Kind == Read && op.Outcome == Absent:
		return r.seq == 0, r
	case op.Kind == Read:
		same := r.version == 0 || op.Version == 0 || r.version == op.Version
		return r.seq == op.Seq && same, row{op.Seq, max(r.version, op.Version)}
	case op.Outcome == Refused:
		return fails, r
	case op.Outcome == Unknown && !holds:
		return true, r
	case op.Kind == Delete && r.seq == 0:
		return holds, r
	case op.Kind == Delete:
		return holds, row{0, max(r.version, op.Version)}
	}
	return holds && (op.Version == 0 || op.Version > r.version), row{op.Seq, op.Version}
}

// meets reports whether the condition may hold for the row, and whether it may fail: both, if the version is not known.
func (r row) meets(c Condition) (may, mayNot bool) {
	switch {
	case c.Absent:
		return r.seq == 0, r.seq != 0
	case c.Present:
		return r.seq != 0, r.seq == 0
	case c.Version != 0 && r.seq != 0 && r.version == 0:
		return true, true
	case c.Version != 0:
		same := r.seq != 0 && r.version == c.Version
		return same, !same
	}
	return true, false
}
