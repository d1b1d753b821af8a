package changes

// ChangeLog has a state that tests set as another server would have left it.
type ChangeLog = changeLog

func (l *changeLog) SetTimeline(timeline string) { l.timeline = timeline }

func (l *changeLog) SetSnapshot(snapshot string) { l.snapshot = snapshot }

func (l *changeLog) SetHigh(high int64) { l.high = high }

func (l *changeLog) High() int64 { return l.high }
