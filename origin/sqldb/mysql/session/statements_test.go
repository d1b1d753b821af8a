package session

import (
	"context"
	"database/sql/driver"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"
)

// fakeServer prepares at most a number of statements.
type fakeServer struct {
	preparing
	most     int
	open     []string
	prepared int
}

type fakeStatement struct {
	prepared
	server *fakeServer
	text   string
	runs   int
}

func (s *fakeServer) PrepareContext(_ context.Context, text string) (driver.Stmt, error) {
	if len(s.open) == s.most {
		return nil, &mysqldriver.MySQLError{Number: tooManyPrepared}
	}
	s.open = append(s.open, text)
	s.prepared++
	return &fakeStatement{server: s, text: text}, nil
}

func (*fakeServer) ResetSession(context.Context) error { return nil }

func (s *fakeStatement) Close() error {
	i := slices.Index(s.server.open, s.text)
	s.server.open = slices.Delete(s.server.open, i, i+1)
	return nil
}

func (s *fakeStatement) NumInput() int { return strings.Count(s.text, "?") }

func (s *fakeStatement) QueryContext(context.Context, []driver.NamedValue) (driver.Rows, error) {
	s.runs++
	switch {
	case s.text == "wrong":
		return nil, errors.New("wrong")
	case s.text == "outdated" && s.runs > 1:
		return nil, &mysqldriver.MySQLError{Number: 1292}
	case s.text == "limited" && s.runs > 1:
		return nil, &mysqldriver.MySQLError{Number: 3024}
	}
	return nil, nil
}

// run runs a statement as database/sql does.
func (c *conn) run(t *testing.T, text string) {
	t.Helper()
	if err := c.ResetSession(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := c.PrepareContext(Keep(t.Context(), ""), text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	_, err = s.(driver.StmtQueryContext).QueryContext(t.Context(), nil)
	if wrong := text == "wrong" || text == "limited" && s.(*statement).used; (err != nil) != wrong {
		t.Errorf("%s: %v", text, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestKeptStatements(t *testing.T) {
	large := "large" + strings.Repeat("?", maxKeptParameters+1)
	for name, test := range map[string]struct {
		most     int
		run      []string
		prepared int
		open     string
	}{
		"again":                  {9, []string{"a", "a", "a"}, 1, "a"},
		"the oldest is closed":   {9, []string{"a", "b", "c", "d", "a", "e", "a"}, 5, "a c d e"},
		"a failed one is closed": {9, []string{"a", "wrong", "wrong"}, 3, "a"},
		"a large one is closed":  {9, []string{"a", large, large}, 3, "a"},
		"one that was used before and is rejected is prepared again": {9, []string{"outdated", "outdated", "outdated"}, 3, "outdated"},
		"but not if its time has passed":                             {9, []string{"limited", "limited"}, 1, ""},
		"the server is full":                                         {2, []string{"a", "b", "c", "a", "a"}, 5, ""},
	} {
		server := &fakeServer{most: test.most}
		c := &conn{preparing: server, full: &atomic.Int64{}}
		for _, text := range test.run {
			c.run(t, text)
		}
		slices.Sort(server.open)
		if got := strings.Join(server.open, " "); got != test.open || server.prepared != test.prepared {
			t.Errorf("%s: %d were prepared and %q are open, want %d and %q", name, server.prepared, got, test.prepared, test.open)
		}
	}
}

func TestStatementsOfWritesAreNotKept(t *testing.T) {
	server := &fakeServer{most: 9}
	c := &conn{preparing: server, full: &atomic.Int64{}}
	s, err := c.PrepareContext(t.Context(), "a")
	if err != nil || s.Close() != nil || len(server.open) != 0 {
		t.Errorf("%v, %q are open", err, server.open)
	}
}

// Two statements of one text are open at once: each has rows of its own.
func TestStatementInUseIsNotShared(t *testing.T) {
	server := &fakeServer{most: 9}
	c := &conn{preparing: server, full: &atomic.Int64{}}
	first, err := c.PrepareContext(Keep(t.Context(), ""), "a")
	if err != nil {
		t.Fatal(err)
	}
	if second, err := c.PrepareContext(Keep(t.Context(), ""), "a"); err != nil || second == first {
		t.Errorf("got the same statement, %v", err)
	}
}

// One connection finds the server full: the others give back what they keep when they are used, and keep again later.
func TestConnectionsGiveTheirStatementsBackToAFullServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, full := &fakeServer{most: 2}, &atomic.Int64{}
		one, other := &conn{preparing: server, full: full}, &conn{preparing: server, full: full}
		one.run(t, "a")
		other.run(t, "b")
		one.run(t, "c")
		other.run(t, "d")
		if len(server.open) != 0 {
			t.Errorf("%q are still prepared", server.open)
		}
		time.Sleep(keepsNothing)
		one.run(t, "a")
		if len(server.open) != 1 {
			t.Errorf("after a while %q are prepared, want one", server.open)
		}
	})
}
