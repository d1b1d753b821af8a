package sidecar

import (
	"cmp"
	"runtime/debug"
)

// Version returns the module version and the VCS revision that the program was built from. The revision is empty where
// the build did not know it, and ends in "+" where the tree had changes.
func Version() (version, revision string) {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown", ""
	}
	settings := map[string]string{}
	for _, s := range build.Settings {
		settings[s.Key] = s.Value
	}
	revision = settings["vcs.revision"]
	if settings["vcs.modified"] == "true" {
		revision += "+"
	}
	return cmp.Or(build.Main.Version, "(devel)"), revision
}
