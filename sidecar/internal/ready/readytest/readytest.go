// Package readytest has what the tests of the servers have in common whose connections wait in the loops of package ready.
package readytest

import "math/rand/v2"

// Cut divides text at random places, for a client that sends it in pieces.
func Cut(random *rand.Rand, text string) (pieces []string) {
	for len(text) > 0 {
		n := 1 + random.IntN(len(text))
		if random.IntN(2) == 0 {
			n = min(n, 1+random.IntN(40))
		}
		pieces, text = append(pieces, text[:n]), text[n:]
	}
	return pieces
}
