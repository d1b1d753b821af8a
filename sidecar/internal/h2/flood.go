package h2

import "time"

const (
	maxUseless    = 1000 // frames of no use per second
	usefulRequest = 8    // frames of no use that a request pays for
)

// useless counts frames that cost work and bring nothing: PING, SETTINGS, RST_STREAM, PRIORITY, empty and unknown ones.
type useless struct {
	frames int
	since  time.Time
}

// flood counts one, and reports whether there are too many.
func (u *useless) flood() bool {
	if u.frames++; u.frames <= maxUseless {
		return false
	}
	now := time.Now()
	flood := now.Sub(u.since) < time.Second //guard:h2-flood-of-useless-frames
	u.frames, u.since = 0, now
	return flood
}

// pay lets an answered request pay for some, so that a client may send pings with its requests.
func (u *useless) pay() {
	u.frames = max(u.frames-usefulRequest, 0) //guard:h2-pings-with-requests-are-a-flood
}

// tooUseless counts a frame of no use, and reports a flood.
func (r *reader) tooUseless() bool {
	flood := r.conn.useless.flood()
	if flood {
		r.conn.server.stats.Floods.Add(1)
	}
	return flood
}
