package cache

import (
	"context"
	"sync"
)

// gathering turns the questions of many flights into one. The first flight that asks makes it, once each of the others
// has asked or left.
type gathering[Q, A any] struct {
	run  func(context.Context, []Q) []A
	full chan struct{} // closed when nobody is awaited
	back chan struct{} // closed when answers are there

	mu        sync.Mutex // guards those below
	awaited   int        // those who have neither asked nor left, and who gives out places
	places    int        // given
	questions []Q
	gone      bool // with the questions so far

	answers []A // to questions; written before back is closed
}

// gather returns a gathering that waits until its maker, too, has left.
func gather[Q, A any](run func(context.Context, []Q) []A) *gathering[Q, A] {
	return &gathering[Q, A]{run: run, awaited: 1, full: make(chan struct{}), back: make(chan struct{})}
}

// place is that of one flight, whose goroutine alone uses it.
type place[Q, A any] struct {
	in   *gathering[Q, A]
	done bool // it has asked, or left
}

func (g *gathering[Q, A]) place() *place[Q, A] {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.awaited++
	g.places++
	return &place[Q, A]{in: g}
}

// ask returns the answer to q, once. Otherwise ok is false, and q is to be asked alone. It takes the time of the flight
// that asked first; all began together.
func (p *place[Q, A]) ask(ctx context.Context, q Q) (a A, ok bool) {
	if p.done {
		return a, false
	}
	p.done = true
	n, ok := p.in.add(q)
	if !ok {
		return a, false
	}
	if n == 0 {
		p.in.travel(ctx)
	}
	<-p.in.back
	if n >= len(p.in.answers) {
		return a, false
	}
	return p.in.answers[n], true
}

// leave says that the flight has nothing to ask, unless it has asked.
func (p *place[Q, A]) leave() {
	if !p.done {
		p.done = true
		p.in.leave()
	}
}

func (g *gathering[Q, A]) add(q Q) (n int, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gone {
		return 0, false
	}
	g.questions = append(g.questions, q)
	g.leaveLocked()
	return len(g.questions) - 1, true
}

func (g *gathering[Q, A]) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leaveLocked()
}

func (g *gathering[Q, A]) leaveLocked() {
	g.awaited--
	if g.awaited == 0 {
		close(g.full)
	}
}

func (g *gathering[Q, A]) travel(ctx context.Context) {
	defer close(g.back)
	select {
	case <-g.full:
	case <-ctx.Done():
	}
	g.mu.Lock()
	g.gone = true
	g.mu.Unlock()
	g.answers = g.run(ctx, g.questions)
}
