package silence

import "testing"

func TestSilenceEndsWithAnAnswerOrWithTime(t *testing.T) {
	var s Set
	want := func(now int64, party string, silent bool) {
		t.Helper()
		if got := s.Has(party, now); got != silent {
			t.Errorf("at %d: silent is %t; want %t", now, got, silent)
		}
	}
	want(0, "", false)
	s.Clear("")
	s.Mark("", 1)
	s.Mark("a", 5)
	want(2, "", true)
	want(2, "b", false)
	s.Clear("")
	want(3, "", false)
	want(int64(memory)+4, "a", true)
	want(int64(memory)+5, "a", false)
	s.Clear("a")
	if s.Any() {
		t.Error("a party is silent after all have answered")
	}
}

func TestSilentPartiesAreForgotten(t *testing.T) {
	var s Set
	for now, party := range []string{"a", "b", "c"} {
		s.Mark(party, int64(now)*int64(memory))
	}
	if len(s.until) != 1 {
		t.Errorf("%d parties are remembered; want the last one", len(s.until))
	}
}
