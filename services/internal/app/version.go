package app

import "runtime/debug"

// Version of the program, stamped in by the build:
//
//	-ldflags "-X github.com/rollcall-mesh/rollcall/services/internal/app.Version=1.2.0"
//
// Empty means that it was not.
var Version string

// version returns the stamped version, else the module's, else the revision
// that was built, else "devel".
func version() string {
	if Version != "" {
		return Version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}
