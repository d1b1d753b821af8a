// Package e2e has only tests. They run whole clusters as processes against real etcd and databases, and check the
// repository's import rules and text.
package e2e
