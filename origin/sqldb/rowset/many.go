package rowset

import (
	"bytes"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
)

// lists collects the rows of keys that may have many. The rows of a key are complete only at the end of a statement.
type lists struct {
	order   []orderColumn
	byKey   map[string]*list
	bytes   int // of all lists
	limit   int // of bytes, for more than one key
	maxRows int
	full    bool
}

type orderColumn struct {
	index      int // in the names of the columns
	descending bool
}

// list is the rows of one key.
type list struct {
	rows   []listed
	values int // bytes of the rows as JSON, with a comma each
	bytes  int // with the texts by which they are ordered
	err    error
}

// listed is a row: the text by which it is ordered, and from at on its JSON, which decides between equal ones.
type listed struct {
	text []byte
	at   int
}

// heldValues is how many of the largest values the rows of one statement may be together, with the texts that order them, and
// maxOrder is how much longer than the largest value those of one key may be.
const heldValues, maxOrder = 16, 8

func newLists(ds origin.Dataset, maxBytes int) *lists {
	if !ds.Many {
		return nil
	}
	l := &lists{limit: heldValues * maxBytes, maxRows: ds.MaxRows}
	if l.maxRows <= 0 {
		l.maxRows = origin.DefaultMaxRows
	}
	l.reset()
	return l
}

func (l *lists) reset() { l.byKey, l.bytes, l.full = map[string]*list{}, 0, false }

// orderColumns sets the order: the columns of Dataset.Order, and then those that are shown, from the left.
func (s *Set) orderColumns() error {
	s.lists.order = s.lists.order[:0]
	used := map[int]bool{}
	for _, name := range s.Dataset.Order {
		column, descending := strings.CutPrefix(name, "-")
		i := slices.Index(s.names, column)
		if i < 0 {
			return NoColumn("order", column, s.names)
		}
		used[i] = true
		s.lists.order = append(s.lists.order, orderColumn{i, descending})
	}
	for i := range s.names[:s.shown] {
		if !used[i] && (s.value < 0 || s.value == i) {
			s.lists.order = append(s.lists.order, orderColumn{index: i})
		}
	}
	return nil
}

// addToList adds a row to those of a requested key.
func (s *Set) addToList(key string, cells []rowjson.Cell) {
	l := s.lists
	if _, requested := s.results[key]; !requested || l.full {
		return
	}
	of := l.byKey[key]
	if of == nil {
		of = &list{values: len("[")}
		l.byKey[key] = of
	}
	if of.err != nil {
		return
	}
	row := s.listedRow(cells)
	of.rows, of.values, of.bytes = append(of.rows, row), of.values+len(row.text)-row.at+len(","), of.bytes+len(row.text)
	l.bytes += len(row.text)
	of.err = s.checkList(of)
	if of.err != nil {
		l.bytes -= of.bytes
		of.rows, of.bytes = nil, 0
	}
	if l.bytes > l.limit && len(l.byKey) > 1 { //guard:statement-holds-all-its-lists
		l.reset()
		l.full = true
	}
}

func (s *Set) listedRow(cells []rowjson.Cell) listed {
	var row listed
	for _, c := range s.lists.order {
		row.text = rowjson.AppendOrder(row.text, cells[c.index], c.descending)
	}
	row.at = len(row.text)
	if s.value >= 0 {
		row.text = append(row.text, rowjson.EncodeCell(cells[s.value])...)
	} else {
		row.text = append(row.text, rowjson.EncodeRow(s.names[:s.shown], cells)...)
	}
	return row
}

// checkList returns what is wrong with the rows of a key, which are then not held.
func (s *Set) checkList(of *list) error {
	switch {
	case len(of.rows) > s.lists.maxRows: //guard:list-without-limit-of-rows
		return origin.NewDataError(origin.TooLarge, "the key has more than %d rows, the max_rows of the dataset: raise it, or choose a key with fewer rows",
			s.lists.maxRows)
	case of.values > s.maxBytes: //guard:list-without-limit-of-bytes
		return origin.NewDataError(origin.TooLarge, "the rows of the key make a value of more than %d bytes: choose fewer columns, or a key with fewer rows", s.maxBytes)
	case of.bytes > maxOrder*s.maxBytes:
		return origin.NewDataError(origin.TooLarge, "the columns that order the rows of the key have more than %d bytes: order by shorter ones", maxOrder*s.maxBytes)
	}
	return nil
}

// Full reports whether the rows of the statement were too large to be held together: keys must be read in smaller parts.
func (s *Set) Full() bool { return s.lists != nil && s.lists.full }

// finishList makes the rows of a key its result. Without rows it stays not found.
func (s *Set) finishList(key string) {
	if s.lists == nil || s.lists.byKey[key] == nil {
		return
	}
	of := s.lists.byKey[key]
	delete(s.lists.byKey, key)
	s.lists.bytes -= of.bytes
	if of.err != nil {
		s.results[key] = origin.Result{Err: of.err}
		return
	}
	s.results[key] = origin.Result{Value: origin.Value{Data: of.join(), Content: origin.ContentJSON}}
}

func (of *list) join() []byte {
	slices.SortFunc(of.rows, func(a, b listed) int { return bytes.Compare(a.text, b.text) })
	value := make([]byte, 0, of.values)
	for i, row := range of.rows {
		value = append(append(value, "[,"[min(i, 1)]), row.text[row.at:]...)
	}
	return append(value, ']')
}
