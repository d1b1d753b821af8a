package errclass_test

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"testing"

	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
)

func TestMarkedErrors(t *testing.T) {
	err := errors.New("x")
	for _, c := range []struct {
		err         error
		class, want errclass.Class // what the database says, and the class
	}{
		{err, errclass.Statement, errclass.Statement},
		{errclass.Keyless(err), errclass.Statement, errclass.Origin},
		{fmt.Errorf("connect: %w", errclass.Keyless(err)), errclass.Row, errclass.Origin},
		{errclass.Keyless(err), errclass.Outdated, errclass.Origin},
		{errclass.Keyless(err), errclass.Denied, errclass.Denied},
		{errclass.Keyless(err), errclass.NoTable, errclass.NoTable},
		{errclass.Changed(err), errclass.Origin, errclass.Outdated},
		{errclass.DropConn(err), errclass.Origin, errclass.Broken},
		{errclass.DropConn(err), errclass.Statement, errclass.Statement},
		{driver.ErrBadConn, errclass.Origin, errclass.Broken},
	} {
		got := errclass.Of(c.err, func(error) errclass.Class { return c.class })
		if got != c.want {
			t.Errorf("%v of class %d: got %d, want %d", c.err, c.class, got, c.want)
		}
		if c.err != driver.ErrBadConn && !errors.Is(c.err, err) {
			t.Errorf("%v does not wrap the error", c.err)
		}
	}
	if dropped := errclass.DropConn(err); dropped.Error() != "x" || !errors.Is(dropped, driver.ErrBadConn) {
		t.Errorf("got %v, want the text of the error and a bad connection", dropped)
	}
	if errclass.Keyless(nil) != nil {
		t.Error("no error became one")
	}
}
