package access

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ringside-cache/ringside/sidecar/internal/caller"
)

// The subjects without an argument.
const (
	everyone      = "*"
	tokenPrefix   = "token:"
	certPrefix    = "cert:"
	spiffePrefix  = "spiffe://"
	unixUIDPrefix = "unix:uid="
	unixGIDPrefix = "unix:gid="
	below         = "/*" // ends an identity that stands for all identities below it
)

// kinds are the callers that a word stands for.
var kinds = map[string][]caller.Kind{
	"loopback": {caller.Loopback},
	"unix":     {caller.Unix},
	"network":  {caller.Unknown},
	"client":   {caller.Client, caller.Member},
}

var (
	tokenName   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
	trustDomain = regexp.MustCompile(`^[a-z0-9._-]+$`)
	pathSegment = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	certName    = regexp.MustCompile(`^[!-)+-~]+$`) // printable ASCII without the asterisk
)

const (
	maxTokenName = 63
	maxIdentity  = 2048 // of a SPIFFE id (SPIFFE-ID, 2.3)
)

var errSubject = errors.New("want loopback, unix, unix:uid=N, unix:gid=N, network, client, spiffe://…, cert:NAME, token:NAME or *")

// rule is the callers that may do one thing. The zero value is nobody.
type rule struct {
	everyone   bool
	kinds      [caller.Member + 1]bool // :: kind → every caller of the kind
	uids, gids []uint32
	ids        []string // of certificates
	idsBelow   []string // ends of ids are a slash
	tokens     []string // names
}

// parseRule returns the rule of a list of subjects.
func parseRule(subjects []string) (r rule, err error) {
	for _, s := range subjects {
		if err := r.add(s); err != nil {
			return rule{}, err
		}
	}
	return r, nil
}

// CheckSubject returns an error unless s is one of the forms of a subject.
func CheckSubject(s string) error { return new(rule).add(s) }

// TokenOf returns the name of the token that a subject is, if it is one.
func TokenOf(subject string) (name string, ok bool) { return strings.CutPrefix(subject, tokenPrefix) }

// CheckTokenName returns an error unless name can be that of a token.
func CheckTokenName(name string) error {
	if !tokenName.MatchString(name) || len(name) > maxTokenName {
		return fmt.Errorf("want a name of lower-case letters, digits and '-', at most %d, that does not begin with '-'; got %q",
			maxTokenName, name)
	}
	return nil
}

func (r *rule) add(s string) error {
	if s == everyone {
		r.everyone = true
		return nil
	}
	if of, ok := kinds[s]; ok {
		for _, k := range of {
			r.kinds[k] = true
		}
		return nil
	}
	switch {
	case strings.HasPrefix(s, unixUIDPrefix):
		return addID(&r.uids, s, unixUIDPrefix)
	case strings.HasPrefix(s, unixGIDPrefix):
		return addID(&r.gids, s, unixGIDPrefix)
	case strings.HasPrefix(s, tokenPrefix):
		name, _ := TokenOf(s)
		r.tokens = append(r.tokens, name)
		if CheckTokenName(name) != nil {
			return errors.New("want token:NAME with the name of one of tokens") // it may be the token itself
		}
		return nil
	case strings.HasPrefix(s, certPrefix):
		return r.addIdentity(strings.TrimPrefix(s, certPrefix), checkCertName)
	case strings.HasPrefix(s, spiffePrefix):
		return r.addIdentity(s, checkSPIFFE)
	}
	return fmt.Errorf("%w; got %q", errSubject, s)
}

func addID(to *[]uint32, s, prefix string) error {
	text := strings.TrimPrefix(s, prefix)
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || strconv.FormatUint(id, 10) != text || id == 1<<32-1 { // the last one is no id; see caller.Of
		return fmt.Errorf("want %sN with a number from 0 to 4294967294; got %q", prefix, s)
	}
	*to = append(*to, uint32(id))
	return nil
}

// addIdentity adds an identity, or all identities below one. Check gets it without the end that stands for those.
func (r *rule) addIdentity(id string, check func(string) error) error {
	base, prefix := strings.CutSuffix(id, below)
	if err := check(base); err != nil {
		return err
	}
	if prefix {
		r.idsBelow = append(r.idsBelow, base+"/") //guard:identity-matches-longer-name
	} else {
		r.ids = append(r.ids, base)
	}
	return nil
}

func checkCertName(name string) error {
	if !certName.MatchString(name) || len(name) > maxIdentity {
		return fmt.Errorf("want cert:NAME with a name of the certificate, which may end in /*; got %q", certPrefix+name)
	}
	return nil
}

// checkSPIFFE checks a SPIFFE id (SPIFFE-ID, 2). An id that can never match is a mistake that would go unnoticed.
func checkSPIFFE(id string) error {
	parts := strings.Split(strings.TrimPrefix(id, spiffePrefix), "/")
	ok := trustDomain.MatchString(parts[0]) && len(id) <= maxIdentity
	for _, segment := range parts[1:] {
		ok = ok && pathSegment.MatchString(segment) && segment != "." && segment != ".."
	}
	if !ok {
		return fmt.Errorf("want spiffe://trust-domain/path, which may end in /*; got %q", id)
	}
	return nil
}

// allows reports whether c may do it without a token.
func (r *rule) allows(c *caller.Caller) bool {
	return r.everyone || r.kinds[c.Kind] || r.names(c)
}

// names reports whether the rule has c itself.
func (r *rule) names(c *caller.Caller) bool {
	switch c.Kind {
	case caller.Unix:
		return slices.Contains(r.uids, c.UID) || slices.Contains(r.gids, c.GID)
	case caller.Client, caller.Member:
		return c.ID != "" && (slices.Contains(r.ids, c.ID) ||
			slices.ContainsFunc(r.idsBelow, func(p string) bool { return strings.HasPrefix(c.ID, p) }))
	case caller.Token:
		return slices.Contains(r.tokens, c.ID)
	}
	return false
}
