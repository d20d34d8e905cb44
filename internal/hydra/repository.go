package hydra

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/criteria-go/criteria/internal/readfile"
)

// maxConfigSize bounds the size of a configuration file.
const maxConfigSize = 4 << 20

// source is an entry of the search path: a tree of config groups.
type source struct {
	provider string // who added it: hydra, main, command-line, …
	scheme   string
	path     string
	tree     fs.FS // nil for the sources that are only listed
}

// String returns the source as error messages list it.
func (s source) String() string {
	return fmt.Sprintf("provider=%s, path=%s", s.provider, s.url())
}

func (s source) url() string { return s.scheme + "://" + s.path }

// dirSource returns the source for a folder of the file system.
func dirSource(provider, dir string) source {
	return source{provider: provider, scheme: "file", path: dir, tree: os.DirFS(dir)}
}

// stat returns the file information of a path in the tree, nil if there is none.
func (s source) stat(name string) fs.FileInfo {
	if s.tree == nil {
		return nil
	}
	name = path.Clean(strings.TrimPrefix(name, "/"))
	if !fs.ValidPath(name) {
		return nil
	}
	info, err := fs.Stat(s.tree, name)
	if err != nil {
		return nil
	}
	return info
}

func (s source) isGroup(name string) bool {
	info := s.stat(name)
	return info != nil && info.IsDir()
}

func (s source) isConfig(name string) bool {
	info := s.stat(fileName(name))
	return info != nil && !info.IsDir()
}

// fileName returns the file that holds a config.
func fileName(config string) string {
	if strings.HasSuffix(config, ".yaml") {
		return config
	}
	return config + ".yaml"
}

// loadedConfig is a config file, parsed.
type loadedConfig struct {
	tree      *node // a mapping or a sequence, without the defaults list
	pkg       string
	hasPkg    bool // whether there is a package header
	defaults  []*defaultItem
	isBuiltin bool
}

// repository finds configs and groups along the search path.
type repository struct {
	sources []source
	cache   map[string]*loadedConfig
}

func newRepository(sources []source) *repository {
	return &repository{sources: sources, cache: make(map[string]*loadedConfig)}
}

func (r *repository) groupExists(name string) bool {
	return slices.ContainsFunc(r.sources, func(s source) bool { return s.isGroup(name) })
}

func (r *repository) configExists(name string) bool {
	return slices.ContainsFunc(r.sources, func(s source) bool { return s.isConfig(name) })
}

// options returns the names of the configs in a group, sorted.
func (r *repository) options(group string) []string {
	return r.list(group, func(entry fs.DirEntry, s source, file string) (string, bool) {
		name, isYAML := strings.CutSuffix(entry.Name(), ".yaml")
		return name, isYAML && s.isConfig(file)
	})
}

// subgroups returns the names of the groups in a group, sorted.
func (r *repository) subgroups(group string) []string {
	return r.list(group, func(entry fs.DirEntry, s source, file string) (string, bool) {
		return entry.Name(), s.isGroup(file) && entry.Name() != "__pycache__"
	})
}

func (r *repository) list(group string, pick func(fs.DirEntry, source, string) (string, bool)) []string {
	var names []string
	for _, s := range r.sources {
		if !s.isGroup(group) {
			continue
		}
		entries, err := fs.ReadDir(s.tree, path.Clean(strings.TrimPrefix(group, "/")))
		if err != nil {
			continue // a folder that cannot be read offers nothing
		}
		for _, entry := range entries {
			if name, ok := pick(entry, s, path.Join(group, entry.Name())); ok {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// groups returns all groups that hold configs, sorted, with their subgroups.
func (r *repository) groups(parent string) []string {
	var groups []string
	for _, name := range r.subgroups(parent) {
		group := path.Join(parent, name)
		if len(r.options(group)) > 0 {
			groups = append(groups, group)
		}
		groups = append(groups, r.groups(group)...)
	}
	slices.Sort(groups)
	return groups
}

// load returns the config of the first source that has it, nil if none does.
func (r *repository) load(config string) (*loadedConfig, error) {
	if loaded, ok := r.cache[config]; ok {
		return loaded, nil
	}
	var loaded *loadedConfig
	for _, s := range r.sources {
		if !s.isConfig(config) {
			continue
		}
		var err error
		if loaded, err = s.load(config); err != nil {
			return nil, err
		}
		break
	}
	r.cache[config] = loaded
	return loaded, nil
}

func (s source) load(config string) (*loadedConfig, error) {
	file := path.Clean(strings.TrimPrefix(fileName(config), "/"))
	name := path.Join(s.path, file)
	if info := s.stat(file); info != nil && info.Size() > maxConfigSize {
		return nil, errorf(KindOS, "%s has %d bytes, more than the %d that a config may have", name, info.Size(), maxConfigSize)
	}
	data, err := readfile.AllFS(context.Background(), s.tree, file, maxConfigSize)
	if err != nil {
		return nil, errorf(KindOS, "cannot read the config %s: %v", name, err)
	}
	value, err := readConfig(name, data)
	if err != nil {
		return nil, err
	}
	tree, err := newTree(value)
	if err != nil {
		return nil, err
	}
	loaded := &loadedConfig{tree: tree}
	if loaded.pkg, loaded.hasPkg, err = packageHeader(data); err != nil {
		return nil, err
	}
	if loaded.defaults, err = takeDefaults(config, tree); err != nil {
		return nil, err
	}
	if s.provider == "hydra" && config == "hydra/config" {
		loaded.isBuiltin = true
		if loaded.tree, err = newTyped(hydraSchema()); err != nil {
			return nil, err
		}
	}
	return loaded, nil
}

var headerLine = regexp.MustCompile(`^\s*#\s*@`)

// packageHeader returns the package named by a line "# @package NAME" at the top
// of a config.
func packageHeader(data []byte) (pkg string, ok bool, err error) {
	const headerLength = 512 // what Hydra looks at, in characters
	head := []rune(string(data[:min(len(data), 4*headerLength)]))
	for line := range strings.Lines(string(head[:min(len(head), headerLength)])) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if !headerLine.MatchString(line) {
			break
		}
		line = strings.TrimSpace(strings.TrimLeft(line, "#"))
		parts := strings.Fields(line)
		switch {
		case len(parts) < 2:
			return "", false, errorf(KindValue, "Expected header format: KEY VALUE, got '%s'", line)
		case len(parts) > 2:
			return "", false, errorf(KindValue, "Too many components in '%s'", line)
		case parts[0] == "@package":
			pkg, ok = parts[1], true
		}
	}
	return pkg, ok, nil
}

// takeDefaults removes the defaults list from a config and parses it.
func takeDefaults(config string, tree *node) ([]*defaultItem, error) {
	if tree.kind != mappingNode {
		return nil, nil
	}
	list := tree.child("defaults")
	if list == nil {
		return nil, nil
	}
	tree.remove(list)
	if list.isMissing() {
		return nil, nil
	}
	if list.kind != sequenceNode {
		kind := pyType(list.plain())
		if list.kind == mappingNode {
			kind = "mapping"
		}
		return nil, errorf(KindValue, "Invalid defaults list in '%s', defaults must be a list (got %s)", config, kind)
	}
	items := make([]*defaultItem, len(list.items))
	for i, n := range list.items {
		item, err := newDefaultItem(config, n.plain())
		if err != nil {
			return nil, err
		}
		items[i] = item
	}
	return items, nil
}

// absolute returns a path of the command line as an absolute one.
func absolute(name string) (string, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", errorf(KindOS, "cannot make %q an absolute path: %v", name, err)
	}
	return abs, nil
}

// hydraSource is the tree of Hydra's own config groups.
func hydraSource() source {
	tree, err := fs.Sub(builtinConf, "conf")
	if err != nil {
		panic(err) // the name is valid
	}
	return source{provider: "hydra", scheme: "pkg", path: "hydra.conf", tree: tree}
}

// schemaSource is where Hydra keeps schemas; it ends every search path.
func schemaSource() source { return source{provider: "schema", scheme: "structured"} }
