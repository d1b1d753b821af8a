package broadcast

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestOverloadSendsOneMessageForEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []string
		gate := make(chan struct{})
		b := New("everything", func(_ context.Context, batch []string) {
			<-gate
			sent = append(sent, batch...)
		})
		for i := range 2 * MaxWaiting {
			b.SendAfter(0, fmt.Sprint(i))
			if i == 0 {
				synctest.Wait() // the first is being sent
			}
		}
		close(gate)
		synctest.Wait()
		b.Close()
		if len(sent) > MaxWaiting+2 || sent[1] != "everything" {
			t.Errorf("%d messages sent, the second is %q; want at most %d, and one for everything", len(sent), sent[1], MaxWaiting+2)
		}
	})
}

func TestOverloadKeepsTheTimeOfTheLastMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, last := time.Now(), time.Time{}
		b := New("everything", func(context.Context, []string) { last = time.Now() })
		b.SendAfter(2*time.Second, "written late")
		for i := range 2 * MaxWaiting {
			b.SendAfter(time.Second, fmt.Sprint(i))
		}
		time.Sleep(time.Minute)
		b.Close()
		if after := last.Sub(began); after != 2*time.Second {
			t.Errorf("the last batch was sent after %v; want 2s, when the last message was due", after)
		}
	})
}

func TestMessageDueNowDoesNotWaitForOneDueLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, sent := time.Now(), map[string]time.Duration{}
		b := New("everything", func(_ context.Context, batch []string) {
			for _, message := range batch {
				sent[message] = time.Since(began)
			}
		})
		b.SendAfter(time.Hour, "later")
		time.Sleep(time.Second)
		b.SendAfter(0, "now")
		time.Sleep(2 * time.Hour)
		b.Close()
		b.SendAfter(0, "after Close")
		if sent["now"] != time.Second || sent["later"] != time.Hour || len(sent) != 2 {
			t.Errorf("sent %v; want now after 1s and later after 1h", sent)
		}
	})
}
