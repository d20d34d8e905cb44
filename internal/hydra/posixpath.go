package hydra

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// posixPath is a value of Python's pathlib.PosixPath, in the normal form that
// Python gives it: "x/y", "/x", "." for the empty one.
type posixPath string

// pathTag is how PyYAML writes such a value, before the name of its class.
const pathTag = "!!python/object/apply:pathlib."

// parts returns the parts that PyYAML lists of a path.
func (p posixPath) parts() []any {
	var parts []any
	text := string(p)
	if root := rootOf(text); root != "" {
		parts = append(parts, root)
		text = text[len(root):]
	}
	for part := range strings.SplitSeq(text, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	return parts
}

// rootOf returns what an absolute path begins with. POSIX gives two slashes, but
// not three, a meaning of their own, which pathlib keeps.
func rootOf(path string) string {
	switch {
	case strings.HasPrefix(path, "//") && !strings.HasPrefix(path, "///"):
		return "//"
	case strings.HasPrefix(path, "/"):
		return "/"
	}
	return ""
}

// joinPosix is pathlib.PosixPath(*segments).
func joinPosix(segments []string) posixPath {
	path := ""
	for _, s := range segments {
		switch {
		case strings.HasPrefix(s, "/"):
			path = s
		case path == "" || strings.HasSuffix(path, "/"):
			path += s
		default:
			path += "/" + s
		}
	}
	root := rootOf(path)
	var parts []string
	for part := range strings.SplitSeq(path, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	if text := root + strings.Join(parts, "/"); text != "" {
		return posixPath(text)
	}
	return "."
}

// path reads a path value. Of the objects of Python that YAML can name, OmegaConf's
// loader makes paths alone, and of a list of their segments only.
func (r *yamlReader) path(n *yaml.Node, class string, depth int) (any, error) {
	if n.Kind != yaml.SequenceNode {
		return nil, r.fail(n, "expected a sequence node, but found %s", kindName(n))
	}
	if class == "WindowsPath" {
		return nil, r.fail(n, "cannot instantiate 'WindowsPath' on your system")
	}
	items, err := r.sequence(n, depth)
	if err != nil {
		return nil, err
	}
	var segments []string
	for _, item := range items.([]any) {
		switch item := item.(type) {
		case string:
			segments = append(segments, item)
		case posixPath:
			segments = append(segments, string(item))
		default:
			return nil, errorf(KindType, "expected str, bytes or os.PathLike object, not %s", pyType(item))
		}
	}
	return joinPosix(segments), nil
}

// pathClass returns the class of path that a tag asks for, if it does.
func pathClass(tag string) (class string, ok bool) {
	class, ok = strings.CutPrefix(longTag(tag), longTag(pathTag))
	switch class {
	case "Path", "PosixPath", "WindowsPath":
		return class, ok
	}
	return "", false
}
