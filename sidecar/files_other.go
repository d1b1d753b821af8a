//go:build !unix

package sidecar

import "math"

// maxFiles is without limit where there is none to ask for.
func maxFiles() int { return math.MaxInt32 }
