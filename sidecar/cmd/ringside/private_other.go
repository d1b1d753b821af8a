//go:build !linux

package main

// setPrivate does nothing: the attribute exists on Linux only.
func setPrivate(bool) error { return nil }
