package history

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// Linear is the second opinion, of porcupine, on what must be linearizable: the row itself. Writes through any sidecar
// and around them, and reads that look at the database (NoCache, Direct), must be explained by one register per key
// that changes at one moment within each of them. It returns the keys for which there is no such explanation, and those
// for which none was found within limit, each.
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

// rowOperations takes those of ops that Linear judges. A write whose outcome is unknown may happen at any time after it
// began; that it never happens is the same as that it happens last.
func rowOperations(ops []Op) map[string][]porcupine.Operation {
	versions, byKey := map[uint64]int64{}, map[string][]porcupine.Operation{}
	for i := range ops {
		if ops[i].Seq != 0 && ops[i].Version != 0 {
			versions[ops[i].Seq] = ops[i].Version
		}
	}
	for _, op := range ops {
		looks := op.answered() && !op.Stale && (op.NoCache || op.Sidecar == Direct)
		if !looks && (!op.write() || op.Outcome == Failed) {
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

// row is the state of the register: absent when seq is 0. The version of an absent row is the one that the next must be
// above; 0 where it is not known.
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
	holds, denied := r.meets(op.If)
	switch {
	case op.Kind == Read && op.Outcome == Absent:
		return r.seq == 0, r
	case op.Kind == Read:
		same := r.version == 0 || op.Version == 0 || r.version == op.Version
		return r.seq == op.Seq && same, row{op.Seq, max(r.version, op.Version)}
	case op.Outcome == Refused:
		return denied, r
	case op.Outcome == Unknown && !holds:
		return true, r
	case op.Kind == Delete && r.seq == 0:
		return holds, r
	case op.Kind == Delete:
		return holds, row{0, max(r.version, op.Version)}
	}
	return holds && (op.Version == 0 || op.Version > r.version), row{op.Seq, op.Version}
}

// meets reports whether the row may meet the condition, and whether it may not: both where its version is not known.
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
