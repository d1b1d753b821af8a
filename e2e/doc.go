// Package e2e has no code of its own: its tests run the whole system, as processes, against real etcd and databases, and
// hold the repository to its map.
package e2e
