//go:build !unix

package servers

import "math"

// maxFiles returns no limit: this system has none to query.
func maxFiles() int { return math.MaxInt32 }
