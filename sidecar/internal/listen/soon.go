package listen

import "time"

// Soon returns a deadline after about the timeout: the one that is set, if it is at most an eighth earlier. To set one
// costs more than the rest of a read from the buffer.
func Soon(set time.Time, timeout time.Duration) time.Time {
	at := time.Now().Add(timeout)
	if early := at.Sub(set); early >= 0 && early < timeout/8 {
		return set
	}
	return at
}
