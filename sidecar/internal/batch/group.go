package batch

import "github.com/ringside-cache/ringside/sidecar/kv"

// ByPeer groups elements by the member of each, in their order. This member is nil.
func ByPeer[T any](list []T, member func(T) kv.Peer) (groups [][]T) {
	if len(list) == 1 {
		return [][]T{list}
	}
	at := map[string]int{} // :: node id → index in groups
	for _, one := range list {
		id := ""
		if p := member(one); p != nil {
			id = p.ID()
		}
		g, ok := at[id]
		if !ok {
			g = len(groups)
			at[id], groups = g, append(groups, nil)
		}
		groups[g] = append(groups[g], one)
	}
	return groups
}
