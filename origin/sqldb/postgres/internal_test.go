package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
)

// Whatever the server sends for a type, the row is JSON.
func FuzzCellIsJSON(f *testing.F) {
	oids := []uint32{pgtype.BoolOID, pgtype.Int8OID, pgtype.NumericOID, pgtype.Float4OID, pgtype.Float8OID, pgtype.ByteaOID, pgtype.JSONOID,
		pgtype.TimestampOID, pgtype.TimestamptzOID, pgtype.TimeOID, pgtype.BPCharOID, pgtype.IntervalOID, pgtype.DateOID}
	for i := range oids {
		for _, text := range []string{"NaN", "-Infinity", "1e400", "-0", ".5", "0044-03-15 BC", "infinity", "24:00:00", `\x00ff`, "\xff", `{"a":"\ud800"}`, ""} {
			f.Add(uint8(i), []byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, text []byte) {
		oid := oids[int(kind)%len(oids)]
		row := rowjson.EncodeRow([]string{"v"}, []rowjson.Cell{cellOf(oid, text)})
		if _, err := rowjson.ParseRow(row); err != nil {
			t.Fatalf("%d: %q: %v", oid, row, err)
		}
	})
}
