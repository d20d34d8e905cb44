package criteria

import (
	"context"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

const modulePath = "github.com/criteria-go/criteria"

// Prefixes of the tags that hold the SHA-256 of the files that a run learned
// from: the data, and the checkpoint that it started with.
const (
	dataHash  = "data.hash."
	modelHash = "model.hash."
)

// versionTag is the tag that holds the version of this module.
const versionTag = "version.criteria"

// mainLibraries are those whose version may matter to a result, by the name
// of their tag.
var mainLibraries = map[string]string{
	"onnxruntime_go": "github.com/yalue/onnxruntime_go",
	"tokenizers":     "github.com/daulet/tokenizers",
	"gonum":          "gonum.org/v1/gonum",
	"goptuna":        "github.com/c-bata/goptuna",
	"sqlite":         "modernc.org/sqlite",
}

// lineageTags says from which code, libraries and data a run comes.
func lineageTags(ctx context.Context, d *Dataset) map[string]string {
	tags := gitTags(ctx)
	tags["version.go"] = strings.TrimPrefix(runtime.Version(), "go")
	tags[versionTag] = moduleVersion()
	if info, ok := debug.ReadBuildInfo(); ok {
		versions := map[string]string{}
		for _, dep := range info.Deps {
			versions[dep.Path] = dep.Version
		}
		for name, path := range mainLibraries {
			if v := versions[path]; v != "" {
				tags["version."+name] = strings.TrimPrefix(v, "v")
			}
		}
	}
	for file, hash := range d.Hashes {
		tags[dataHash+file] = hash
	}
	return tags
}

// moduleVersion returns the version of this module in the program, "unknown" if
// it was built without.
func moduleVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if m.Path == modulePath && m.Version != "" {
			return m.Version
		}
	}
	return "unknown"
}

// gitTags describes the working copy in the working directory, in which the
// training program and its configuration lie as a rule. Outside of one, or
// without git, the values are "unknown".
func gitTags(ctx context.Context) map[string]string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	git := func(args ...string) (string, bool) {
		out, err := exec.CommandContext(ctx, "git", args...).Output()
		return strings.TrimSpace(string(out)), err == nil
	}
	tags := map[string]string{"git.commit": "unknown", "git.branch": "unknown", "git.dirty": "unknown"}
	if commit, ok := git("rev-parse", "HEAD"); ok {
		tags["git.commit"] = commit
	}
	if branch, ok := git("rev-parse", "--abbrev-ref", "HEAD"); ok {
		tags["git.branch"] = branch
	}
	if changes, ok := git("status", "--porcelain", "--untracked-files=no"); ok {
		tags["git.dirty"] = strconv.FormatBool(changes != "")
	}
	return tags
}
