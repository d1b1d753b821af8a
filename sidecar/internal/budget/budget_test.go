package budget

import (
	"sync"
	"testing"
)

// take takes chunks of n bytes until it is refused, and returns the bytes that it got.
func take(b *Budget, u Use, n int64) (total int64) {
	for b.Take(u, n) {
		total += n
	}
	return total
}

func TestEachUseHasBytesOfItsOwn(t *testing.T) {
	const total = 1000
	for first := range uses {
		for second := range uses {
			b := New(total)
			if got := take(b, first, 1); got != b.Limit(first) {
				t.Errorf("%v alone: got %d bytes, want its limit %d", first, got, b.Limit(first))
			}
			if first != second {
				take(b, second, 1)
			}
			all := int64(0)
			for u := range uses {
				take(b, u, 1)
				all += b.Stats()[u].Used
				if s := b.Stats()[u]; s.Used < total*own[u]/100 || s.Refused == 0 {
					t.Errorf("after %v and %v: %v has %d bytes, want at least its own %d", first, second, u, s.Used, total*own[u]/100)
				}
			}
			if all != total {
				t.Errorf("after %v and %v: got %d bytes in all, want %d", first, second, all, total)
			}
		}
	}
}

func TestReturnedBytesCanBeTakenAgain(t *testing.T) {
	b := New(1 << 20)
	var takers sync.WaitGroup
	for u := range uses {
		for range 4 {
			takers.Go(func() {
				for n := range int64(1000) {
					l := b.Loan(u)
					if grown := l.Grow(n); grown && l.Grow(n) {
						l.Shrink(n)
					}
					l.Close()
					l.Close()
				}
			})
		}
	}
	takers.Wait()
	for u := range uses {
		if s := b.Stats()[u]; s.Used != 0 {
			t.Errorf("%v: %d bytes are left after all were returned", u, s.Used)
		}
	}
	if b.common != 0 {
		t.Errorf("%d common bytes are left after all were returned", b.common)
	}
}

func TestRefusedTakeTakesNothing(t *testing.T) {
	b := New(1000)
	if b.Take(Requests, b.Limit(Requests)+1) || b.Stats()[Requests].Used != 0 {
		t.Error("got more bytes than the limit, or some of them, want none")
	}
	if !b.Take(Requests, b.Limit(Requests)) {
		t.Error("got no bytes, want the limit")
	}
}

func TestNilBudgetHasNoLimit(t *testing.T) {
	var b *Budget
	l := b.Loan(Responses)
	if !l.Grow(1<<40) || l.Bytes() != 1<<40 || b.Stats() != nil || b.Total() != 0 {
		t.Error("got a limit, want none")
	}
	l.Close()
}

func TestReturningTooMuchPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("got no panic, want one: the budget would grow")
		}
	}()
	New(1000).Return(Calls, 1)
}

func TestAccountsKeepTheirOwnBytes(t *testing.T) {
	b := New(10_000)
	var accounts []*Account
	for range 4 {
		accounts = append(accounts, b.Account(Connections, 0.25))
	}
	greedy := int64(0)
	for accounts[0].Take(1) {
		greedy++
	}
	if greedy != b.AccountLimit(Connections, 0.25) || greedy >= b.Limit(Connections) {
		t.Errorf("one account got %d bytes, want its limit %d, below that of its use, %d", greedy, b.AccountLimit(Connections, 0.25), b.Limit(Connections))
	}
	for u := range uses { // what is common is gone
		take(b, u, 1)
	}
	for i, a := range accounts[1:] {
		if !a.Take(500) {
			t.Errorf("account %d did not get the bytes that belong to it", i+1)
		}
	}
	accounts[0].Return(greedy)
	if !accounts[1].Take(1) {
		t.Error("returned bytes cannot be taken by another account")
	}
}

func TestNilAccountHasNoLimit(t *testing.T) {
	var none *Budget
	a := none.Account(Connections, 1)
	if !a.Take(1 << 50) {
		t.Error("got a limit, want none")
	}
	a.Return(1 << 50)
}
