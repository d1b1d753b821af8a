package metrics

// accessMetrics are about requests that were refused because of who made them, and the audit log of those and others.
func accessMetrics() []metric {
	return []metric{
		{"ringside_denied_total", counter, []string{"dataset", "reason"},
			"Requests refused because their caller lacks a permission (allow), or sent no valid token; reason is the permission.",
			access(func(a Access) map[string]int64 { return a.Denied })},
		{"ringside_rate_limited_total", counter, []string{"dataset", "reason"},
			"Requests refused because their client had reached a rate limit of the dataset (limits); reason is the limit.",
			access(func(a Access) map[string]int64 { return a.Limited })},
		{"ringside_audit_lines_total", counter, nil,
			"Lines written to the audit log.",
			audit(func(a Audit) int64 { return a.Written })},
		{"ringside_audit_dropped_total", counter, nil,
			"Lines missing from the audit log, because it could not be written in time or at all, or because too many requests were refused.",
			audit(func(a Audit) int64 { return a.Dropped })},
	}
}

// access omits what has not occurred: a dataset has seven reasons, and most have no permissions and limits of their own.
func access(field func(Access) map[string]int64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		if s.Access == nil {
			return
		}
		for _, a := range s.Access() {
			for name, n := range field(a) {
				if n > 0 {
					emit(float64(n), a.Dataset, name)
				}
			}
		}
	}
}

func audit(field func(Audit) int64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		if s.Audit != nil {
			emit(float64(field(s.Audit())))
		}
	}
}
