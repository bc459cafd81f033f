package main

import (
	"context"
	"fmt"
	"runtime/debug"
)

// version is stamped into the program of the image; empty: the module's own
// version, or its commit, is told.
var version string

type versionCmd struct{}

// Help is shown by --help.
func (*versionCmd) Help() string { return "Example:\n\n    rollcall version" }

// Run prints the version of the module, or the commit that it was built of.
func (*versionCmd) Run(_ context.Context, s *session) error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	_, err := fmt.Fprintf(s.out, "rollcall %s (%s)\n", versionOf(info), info.GoVersion)
	return err
}

// versionOf returns the version that a program was built of.
func versionOf(info *debug.BuildInfo) string {
	if version != "" {
		return version
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" && len(setting.Value) >= 12 {
			return "devel-" + setting.Value[:12]
		}
	}
	return "devel"
}
