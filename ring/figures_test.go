package ring

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// addressed returns n members with hash keys like those of pods.
func addressed(n int) []Member {
	addrs := make([]string, n)
	for i := range addrs {
		addrs[i] = fmt.Sprintf("10.%d.%d.%d:7072", i>>12, i>>6&63, i&63)
	}
	return byAddr(addrs...)
}

// arc is a range of hashes with one owner on each of two rings.
type arc struct {
	share         float64 // of all hashes
	before, after *Member
	successor     *Member // the first on the ring before that is not its owner
}

// arcs splits the hashes at each entry of both rings, so that the figures are exact.
func arcs(before, after *Ring) []arc {
	ends := slices.Compact(slices.Sorted(slices.Values(slices.Concat(before.hashes, after.hashes))))
	last := ends[len(ends)-1]
	pieces := make([]arc, len(ends))
	for k, end := range ends {
		i, j := search(before.hashes, end), search(after.hashes, end)
		pieces[k] = arc{
			share:     float64(end-last) / (1 << 64), // the first one wraps around, as its difference does
			before:    &before.members[before.owners[i]],
			after:     &after.members[after.owners[j]],
			successor: &before.members[nextOwner(before.owners, i)],
		}
		last = end
	}
	return pieces
}

func nextOwner(owners []uint32, i int) uint32 {
	for j := range owners {
		if next := owners[(i+j)%len(owners)]; next != owners[i] {
			return next
		}
	}
	return owners[i]
}

// change is the effect of the leave of one member; that of its join is the reverse.
type change struct {
	moved       float64 // share of all hashes that change owners
	bystanders  float64 // of all hashes, those that move although their owner stays
	toSuccessor float64 // share of the leaver's hashes that move to their successor
}

func leave(before, after *Ring) change {
	var c change
	var owned float64
	for _, a := range arcs(before, after) {
		if a.before.ID == a.after.ID {
			continue
		}
		c.moved += a.share
		if after.Member(a.before.ID) != nil {
			c.bystanders += a.share
			continue
		}
		owned += a.share
		if a.after.ID == a.successor.ID {
			c.toSuccessor += a.share
		}
	}
	if owned > 0 {
		c.toSuccessor /= owned
	}
	return c
}

// meanLeave is the mean over up to 10 evenly chosen members that own anything.
func meanLeave(t *testing.T, r *Ring, size Size, owned []float64) change {
	var owners []int
	for i, share := range owned {
		if share > 0 {
			owners = append(owners, i)
		}
	}
	var mean change
	k := min(len(owners), 10)
	for i := range k {
		leaver := owners[i*len(owners)/k]
		c := leave(r, mustNew(t, slices.Delete(r.Members(), leaver, leaver+1), size))
		mean.moved += c.moved / float64(k)
		mean.bystanders += c.bystanders / float64(k)
		mean.toSuccessor += c.toSuccessor / float64(k)
	}
	return mean
}

// shares returns the share of the hashes that each member owns, by index.
func shares(r *Ring) []float64 {
	shares := make([]float64, r.Len())
	last := r.hashes[len(r.hashes)-1]
	for i, h := range r.hashes {
		shares[r.owners[i]] += float64(h-last) / (1 << 64)
		last = h
	}
	return shares
}

// figures is a row of the table in DESIGN.md.
func figures(t *testing.T, n int, size Size) string {
	r := mustNew(t, addressed(n), size)
	owned := shares(r)
	idle := 0
	for _, share := range owned {
		if share == 0 {
			idle++
		}
	}
	c := meanLeave(t, r, size, owned)
	return fmt.Sprintf("| %d | %d–%d | %d | %.2f | %d | %.4f | %.4f | %.4f | %.2f |", n, size.Min, size.Max,
		len(r.hashes), slices.Max(owned)*float64(n), idle, 1/float64(n), c.moved, c.bystanders, c.toSuccessor)
}

// Users choose a size by this table, so it must be correct.
func TestFiguresInDesign(t *testing.T) {
	design, err := os.ReadFile("DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		size Size
		ns   []int
	}{
		{DefaultSize(), []int{3, 5, 10, 11, 50, 75, 100, 500, 1000, 4096, 5000, 10000}},
		{Size{Min: 4096, Max: 4096}, []int{3, 11, 100, 1000}},
		{Size{Min: 65536, Max: 1 << 20}, []int{100, 1000, 10000}},
	} {
		for _, n := range test.ns {
			if row := figures(t, n, test.size); !strings.Contains(string(design), row) {
				t.Errorf("DESIGN.md has not the row\n%s", row)
			}
		}
	}
}
