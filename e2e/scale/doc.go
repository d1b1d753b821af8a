// Package scale measures what each member costs the others. Its benchmark runs real sidecars; run.sh writes results.txt and results.md.
package scale
