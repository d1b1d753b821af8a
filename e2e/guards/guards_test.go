package guards

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/promises"
	"github.com/ringside-cache/ringside/e2e/rig"
)

const root = "../.."

var (
	all    = flag.Bool("all", false, "remove every guard, not a sample")
	sample = flag.Int("sample", 20, "how many guards to remove")
	only   = flag.String("only", "", "remove only these guards, by folder (sidecar/cache) or name, separated by commas; with -all")
	seed   = flag.Uint64("seed", 0, "the seed of the sample; 0: the time")
)

// F1: each guard is removed, one at a time, and its test must fail.
func TestPromiseF1EachGuardHasATestThatFailsWithoutIt(t *testing.T) {
	rig.NeedServers(t)
	guards, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	if *only != "" {
		chosen := strings.Split(*only, ",")
		guards = slices.DeleteFunc(guards, func(g Guard) bool {
			return !slices.Contains(chosen, g.dir) && !slices.Contains(chosen, g.Name)
		})
	}
	total := len(guards)
	if !*all {
		if *seed == 0 {
			*seed = uint64(time.Now().UnixNano())
		}
		random := rand.New(rand.NewPCG(*seed, 0))
		random.Shuffle(total, func(i, j int) { guards[i], guards[j] = guards[j], guards[i] })
		guards = guards[:min(*sample, total)]
	}
	var failed atomic.Int64
	t.Run("without", func(t *testing.T) { // returns after all its parallel subtests
		for _, g := range guards {
			t.Run(g.Name, func(t *testing.T) {
				t.Parallel()
				if err := g.check(t.TempDir()); err != nil {
					t.Errorf("%s (%s): %v", g.Name, g.Fault, err)
					return
				}
				failed.Add(1)
			})
		}
	})
	t.Logf("guards: %d of %d removed, seed %d; the tests of %d failed, as they must", len(guards), total, *seed, failed.Load())
	if *all && *only == "" {
		promises.Record(t, promises.Promise{
			Number: "F1", Done: "every guard removed, one at a time", N: total, Held: failed.Load() == int64(total),
			Figure: fmt.Sprintf("%d of %d tests failed, as they must", failed.Load(), total),
		})
	}
}

// check runs the guard's tests against a tree without the guard, and returns an error unless one fails.
func (g Guard) check(dir string) error {
	overlay, err := g.overlay(root, dir)
	if err != nil {
		return err
	}
	// Without vet, and without symbols for a debugger, the build takes two thirds of the time.
	cmd := exec.Command("go", "test", "-overlay", overlay, "-count=1", "-vet=off", "-ldflags=-s -w", "-timeout=2m",
		"-run", g.pattern(), "./"+cmp.Or(g.In, g.dir))
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return fmt.Errorf("%s passes without the guard:\n%s", g.Test, out)
	case strings.Contains(string(out), "[build failed]"), strings.Contains(string(out), "no tests to run"):
		return fmt.Errorf("the tree without the guard does not build, or %s does not exist:\n%s", g.Test, out)
	case !strings.Contains(string(out), "--- FAIL: ") && !strings.Contains(string(out), "panic: "):
		return fmt.Errorf("go test failed, but no test did:\n%s", out)
	}
	return nil
}

func TestWithoutChangesTheMarkedLine(t *testing.T) {
	const source = `package p

func f(a, b int) int {
	if a > b { //guard:bound
		return 0
	}
	switch {
	case a == b: //guard:equal guard:second
		a++ //guard:count
	}
	//guard:text
	const query = ` + "`SELECT 1\n\tFOR UPDATE`" + `
	return a
}
`
	for _, test := range []struct {
		guard     Guard
		old, want string
	}{
		{Guard{Name: "bound", Condition: "false"}, "if a > b {", "if false && (a > b) {"},
		{Guard{Name: "equal", Condition: "true"}, "case a == b:", "case true || (a == b):"},
		{Guard{Name: "second", Replace: "a == b", With: "b == a"}, "case a == b:", "case b == a:"},
		{Guard{Name: "count", Delete: true}, "\t\ta++\n", ""},
		{Guard{Name: "text", Replace: "FOR UPDATE", With: "FOR SHARE"}, "FOR UPDATE", "FOR SHARE"},
	} {
		got, err := test.guard.Without([]byte(source))
		want := strings.Replace(string(comment.ReplaceAll([]byte(source), nil)), test.old, test.want, 1)
		if err != nil || string(got) != want {
			t.Errorf("%s: got %v\n%s\nwant\n%s", test.guard.Name, err, got, want)
		}
	}
	for _, guard := range []Guard{
		{Name: "none", Delete: true}, {Name: "count", Condition: "false"}, {Name: "count", Replace: "b--"},
	} {
		if got, err := guard.Without([]byte(source)); err == nil {
			t.Errorf("%s: got\n%s\nwant an error", guard.Name, got)
		}
	}
}

// TestEveryGuardApplies finds guards whose marked line has changed. It does not run their tests.
func TestEveryGuardApplies(t *testing.T) {
	guards, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range guards {
		if _, err := g.overlay(root, t.TempDir()); err != nil {
			t.Error(err)
		}
	}
}
