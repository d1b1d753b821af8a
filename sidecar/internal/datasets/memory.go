package datasets

import "github.com/ringside-cache/ringside/sidecar/config"

// divide divides bytes among datasets: each gets its memory_share, and those without one share the rest equally.
func divide(bytes int64, among map[string]config.Dataset) map[string]int64 {
	rest, others := 1.0, 0
	for _, d := range among {
		if d.MemoryShare == nil {
			others++
		} else {
			rest -= float64(*d.MemoryShare)
		}
	}
	parts := make(map[string]int64, len(among))
	for name, d := range among {
		share := rest / float64(max(1, others))
		if d.MemoryShare != nil {
			share = float64(*d.MemoryShare)
		}
		parts[name] = int64(share * float64(bytes))
	}
	return parts
}
