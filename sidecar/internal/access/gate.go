// Package access decides who may do what with a dataset, and how often. A Control has the rules of all datasets and the
// tokens; each dataset has a Gate, which every listener asks:
//
//	if !gate.Allows(&who, access.Read) { // most reads end here: no lock, no allocation
//		who, err = gate.Authorize(who, access.Read, authorization)
//	}
//	err = gate.Limit(&who, access.NoCache, 1)
//
// A member asks for those that it serves: calls between members are not subject to these rules, because the member that a
// client has called has decided already.
package access

import (
	"fmt"
	"sync/atomic"

	"github.com/ringside-cache/ringside/sidecar/internal/audit"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
)

// Operation is what a caller does with a dataset.
type Operation uint8

// The operations.
const (
	Read Operation = iota // single keys, batches, lists and watches
	Write
	Invalidate
	operations
)

// String returns the name of the operation in the configuration and in metrics.
func (o Operation) String() string { return [...]string{"read", "write", "invalidate"}[o] }

// Operations returns all operations.
func Operations() []Operation { return []Operation{Read, Write, Invalidate} }

// Rules are the subjects that may do each operation with a dataset. A nil list means the default, an empty one nobody.
type Rules struct{ Read, Write, Invalidate []string }

// The default rules: every client that can connect may read; only clients in the pod may change something.
var (
	defaultRead   = []string{everyone}
	defaultChange = []string{"loopback", "unix"} //guard:routed-clients-write-by-default
)

func (r Rules) of(o Operation) []string {
	list := [...][]string{r.Read, r.Write, r.Invalidate}[o]
	switch {
	case list != nil: //guard:empty-list-allows-the-default
		return list
	case o == Read:
		return defaultRead
	}
	return defaultChange
}

// compiled are the rules of a dataset, by operation.
type compiled [operations]rule

func compile(r Rules) (*compiled, error) {
	c := new(compiled)
	for _, o := range Operations() {
		var err error
		if c[o], err = parseRule(r.of(o)); err != nil {
			return nil, fmt.Errorf("allow.%s: %w", o, err)
		}
	}
	return c, nil
}

// Gate decides about one dataset. It is safe for concurrent use. A nil Gate allows everything.
type Gate struct {
	dataset string
	tokens  *Tokens
	log     *audit.Log
	rules   atomic.Pointer[compiled]
	limits  limiter
	denied  [operations]atomic.Int64
}

// Allows reports whether c may do o without a token. It takes no lock and allocates nothing.
func (g *Gate) Allows(c *caller.Caller, o Operation) bool {
	return g == nil || g.rules.Load()[o].allows(c)
}

// Open reports whether everyone may do o, so that the caller need not be known.
func (g *Gate) Open(o Operation) bool { return g == nil || g.rules.Load()[o].everyone }

// Authorize returns who makes a request, or a *DeniedError if they may not do o. Authorization is the header field of that
// name, or empty. A token that is valid is the caller from then on, so that its requests are attributed to it; one that is
// not needed and not valid is ignored, because it may be meant for something else.
func (g *Gate) Authorize(c caller.Caller, o Operation, authorization string) (caller.Caller, error) {
	who, denied := g.decide(c, o, authorization)
	if denied == nil {
		return who, nil
	}
	g.denied[o].Add(1)
	result := "permission-denied"
	if denied.Unauthenticated {
		result = "unauthenticated"
	}
	g.log.Record(audit.Event{
		Action: audit.Access, Caller: who, Dataset: g.dataset, Operation: o.String(), Result: result, Refused: true})
	return who, denied
}

// Permits is Authorize for what is only shown or hidden: it neither counts nor logs.
func (g *Gate) Permits(c caller.Caller, o Operation, authorization string) bool {
	_, denied := g.decide(c, o, authorization)
	return denied == nil
}

// Token returns the name of the token in an Authorization header, whatever it allows.
func (g *Gate) Token(authorization string) (name string, ok bool) {
	if g == nil {
		return "", false
	}
	return g.tokens.Find(authorization)
}

func (g *Gate) decide(c caller.Caller, o Operation, authorization string) (caller.Caller, *DeniedError) {
	if g == nil {
		return c, nil
	}
	r := &g.rules.Load()[o]
	allowed := r.allows(&c)
	name, valid := "", false
	if authorization != "" {
		name, valid = g.tokens.Find(authorization)
	}
	if valid {
		c.Kind, c.ID = caller.Token, name
		allowed = allowed || r.allows(&c)
	}
	if allowed {
		return c, nil
	}
	return c, &DeniedError{
		Dataset: g.dataset, Operation: o, Caller: c.String(),
		Unauthenticated: !valid && len(r.tokens) > 0, WrongToken: !valid && authorization != "",
	}
}

// Limit takes n units of what a caller may do, or returns a *LimitedError.
func (g *Gate) Limit(c *caller.Caller, k Kind, n int) error {
	if g == nil {
		return nil
	}
	wait, rate, ok := g.limits.take(c, k, n)
	if ok {
		return nil
	}
	return &LimitedError{Dataset: g.dataset, Kind: k, Rate: rate, RetryAfter: wait}
}

// Record writes a line about a change of the dataset into the audit log.
func (g *Gate) Record(e audit.Event) {
	if g != nil {
		e.Dataset = g.dataset
		g.log.Record(e)
	}
}

// Denied returns how many requests for an operation were denied.
func (g *Gate) Denied(o Operation) int64 {
	if g == nil {
		return 0
	}
	return g.denied[o].Load()
}

// Limited returns how many requests were refused because of a limit.
func (g *Gate) Limited(k Kind) int64 {
	if g == nil {
		return 0
	}
	return g.limits.refused[k].Load()
}
