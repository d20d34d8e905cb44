package hydra

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// The release whose behaviour and files this package reproduces. They appear in
// hydra.runtime.
const (
	hydraVersion     = "1.3.8"
	hydraVersionBase = "1.3"
)

// runMode is how the program runs its jobs.
type runMode string

const (
	modeRun      runMode = "RUN"
	modeMultirun runMode = "MULTIRUN"
)

// composer composes configurations for one program.
type composer struct {
	jobName string
	sources []source
	env     environment // without hydra, which is set for each configuration
	// fromShell is set if messages go to somebody who must quote for a shell.
	fromShell bool
	warn      func(string)
}

// request is what to compose.
type request struct {
	config    string
	overrides []string
	mode      runMode
	// anySweep leaves it to the sweeper to say which sweeps it supports.
	anySweep bool
}

// composition is a composed configuration.
type composition struct {
	root     *node // of the program's configuration with the node "hydra"
	env      *environment
	defaults *defaultsList
	repo     *repository
}

// hydra returns the node of Hydra's own configuration.
func (c *composition) hydra() *node { return c.root.child("hydra") }

// job returns the configuration of the program, without Hydra's.
func (c *composition) job() *Config {
	root := c.root.copy()
	root.remove(root.child("hydra"))
	return &Config{root: root, env: c.env}
}

// compose finds the configs to use, merges them and applies the overrides of
// values. Overrides of groups have taken effect before, wherever they stand.
func (c *composer) compose(req request) (*composition, error) {
	result, err := c.composeRequest(req)
	if err != nil {
		if e := asError(err); e.Kind.isOmegaConf() {
			return nil, &Error{Kind: KindComposition, Key: e.Key, Cause: e}
		}
		return nil, err
	}
	return result, nil
}

func (c *composer) composeRequest(req request) (*composition, error) {
	for _, s := range c.sources {
		if s.provider == "main" && !s.isGroup(".") {
			return nil, errorf(KindMissingConfig, "Primary config directory not found.\nCheck that the config directory '%s' exists and readable", s.path)
		}
	}
	overrides, err := parseOverrides(req.overrides)
	if err != nil {
		return nil, err
	}
	repo, err := c.repository(req.config, overrides)
	if err != nil {
		return nil, err
	}
	if !req.anySweep {
		if err := c.checkSweeps(overrides, req.mode); err != nil {
			return nil, err
		}
	}
	defaults, err := expandDefaults(repo, req.config, overrides, req.mode == modeMultirun, c.warn)
	if err != nil {
		return nil, err
	}
	env := c.env
	result := &composition{env: &env, defaults: defaults, repo: repo}
	if result.root, err = mergeConfigs(repo, defaults.steps, &env); err != nil {
		return nil, err
	}
	closed := true
	result.root.closed = &closed
	for _, o := range defaults.choices.values {
		if err := applyOverride(result.root, o, &env); err != nil {
			return nil, err
		}
	}
	env.hydra = result.hydra()
	if err := checkShape(env.hydra, hydraSchema(), "hydra"); err != nil {
		return nil, err
	}
	if err := c.fillHydra(result, req, overrides); err != nil {
		return nil, err
	}
	return result, nil
}

// repository returns the search path, with the entries of hydra.searchpath in
// front of its last one.
func (c *composer) repository(config string, overrides []*override) (*repository, error) {
	repo := newRepository(c.sources)
	var paths any
	provider := "hydra.searchpath in main"
	if config != "" {
		loaded, err := repo.load(config)
		if err != nil {
			return nil, err
		}
		if loaded != nil {
			if loaded.tree.kind != mappingNode {
				return nil, errorf(KindComposition, "primary config '%s' must be a DictConfig, got ListConfig", config)
			}
			r := &resolution{env: &c.env}
			found, ok, err := r.selectFrom(loaded.tree, ".hydra.searchpath", false)
			if err != nil {
				return nil, err
			}
			if ok && !isMissing(found) {
				paths = plainOf(found)
			}
		}
	}
	for _, o := range overrides {
		if o.keyElement() == "hydra.searchpath" {
			paths, provider = o.plainValue(), "hydra.searchpath in command-line"
			break
		}
	}
	if paths == nil {
		return repo, nil
	}
	list, ok := paths.([]any)
	added := make([]source, len(list))
	for i, item := range list {
		p, isString := item.(string)
		ok = ok && isString
		added[i] = searchPathSource(provider, p)
		if isString && !added[i].isGroup(".") {
			c.warn(fmt.Sprintf("provider=%s, path=%s is not available.", provider, added[i].path))
		}
	}
	if !ok {
		return nil, errorf(KindComposition, "hydra.searchpath must be a list of strings. Got: %s", pyStr(paths))
	}
	last := len(repo.sources) - 1
	repo.sources = slices.Concat(repo.sources[:last], added, repo.sources[last:])
	return repo, nil
}

// searchPathSource returns the source for an entry of hydra.searchpath. Only
// folders are supported; other schemes offer nothing.
func searchPathSource(provider, p string) source {
	scheme, rest, ok := strings.Cut(p, "://")
	if !ok {
		return dirSource(provider, p)
	}
	if scheme == "file" {
		return dirSource(provider, rest)
	}
	return source{provider: provider, scheme: scheme, path: rest}
}

// checkSweeps refuses sweeps that the mode does not allow.
func (c *composer) checkSweeps(overrides []*override, mode runMode) error {
	for _, o := range overrides {
		s := o.sweep()
		switch {
		case s == nil:
		case mode == modeMultirun:
			if o.isHydra() {
				return errorf(KindComposition, "Sweeping over Hydra's configuration is not supported : '%s'", o.line)
			}
		default:
			if choice, ok := s.(*choiceSweep); !ok || !choice.simple {
				return errorf(KindComposition, "Sweep parameters '%s' requires --multirun", o.line)
			}
			example := "key='value1,value2'"
			if c.fromShell {
				example = `key=\'value1,value2\'`
			}
			return errorf(KindComposition, "Ambiguous value for argument '%s'\n"+
				"1. To use it as a list, use key=[value1,value2]\n"+
				"2. To use it as string, quote the value: %s\n"+
				"3. To sweep over it, add --multirun to your command line", o.line, example)
		}
	}
	return nil
}

// mergeConfigs merges the configs in order, each at its package.
func mergeConfigs(repo *repository, steps []mergeStep, env *environment) (*node, error) {
	root := &node{}
	root.clear(mappingNode)
	for _, step := range steps {
		loaded, err := repo.load(step.config)
		if err != nil {
			return nil, err
		}
		placed, err := atPackage(loaded.tree, step.pkg, env)
		if err != nil {
			return nil, err
		}
		if !step.primary && !loaded.isBuiltin && placed.kind == mappingNode {
			if h := placed.child("hydra"); h != nil && h.kind == mappingNode && h.child("searchpath") != nil {
				return nil, errorf(KindComposition, "In '%s': Overriding hydra.searchpath is only supported from the primary config", step.config)
			}
		}
		if err := merge(root, placed, env); err != nil {
			e := asError(err)
			if !e.Kind.isOmegaConf() {
				return nil, err
			}
			return nil, &Error{Kind: KindComposition, Key: e.Key,
				Msg: fmt.Sprintf("In '%s': %s raised while composing config:\n%s", step.config, e.Kind, e.Msg)}
		}
	}
	return root, nil
}

// atPackage returns a tree that has config at the dotted path pkg.
func atPackage(config *node, pkg string, env *environment) (*node, error) {
	if pkg == "" {
		return config, nil
	}
	root := &node{}
	root.clear(mappingNode)
	if err := update(root, pkg, Map{}, true, env); err != nil {
		return nil, err
	}
	at := root
	for _, part := range splitKey(pkg) {
		at = at.child(part)
	}
	replace(at, config.copy())
	return root, nil
}

// applyOverride applies the override of a value.
func applyOverride(root *node, o *override, env *environment) error {
	if o.hasPackage {
		return errorf(KindComposition, "Override %s looks like a config group override, but config group '%s' does not exist.", o.line, o.key)
	}
	value := o.plainValue()
	var err error
	switch o.op {
	case opDelete:
		err = deleteValue(root, o, value, env)
	case opAdd:
		err = addValue(root, o, value, env)
	case opForceAdd:
		err = update(root, o.key, value, true, env)
	default:
		err = update(root, o.key, value, false, env)
		if err == nil {
			return nil
		}
		if e := asError(err); e.Kind == KindAttribute || e.Kind == KindKey {
			return &Error{Kind: KindComposition, Key: e.Key, Cause: e,
				Msg: fmt.Sprintf("Could not override '%s'.\nTo append to your config use +%s", o.key, o.line)}
		}
	}
	if err == nil {
		return nil
	}
	e := asError(err)
	if !e.Kind.isOmegaConf() {
		return err
	}
	return &Error{Kind: KindComposition, Key: e.Key, Cause: e, Msg: "Error merging override " + o.line}
}

// addValue adds a key that must not have a value yet; lists and dicts are
// merged into what is there.
func addValue(root *node, o *override, value any, env *environment) error {
	existing, found, err := (&resolution{env: env}).selectFrom(root, "."+o.key, false)
	if err != nil {
		return root.locate(err, o.key)
	}
	switch value.(type) {
	case Map, []any:
	default:
		if found && existing != nil && !isMissing(existing) {
			return &Error{Kind: KindComposition, Key: o.key, Msg: fmt.Sprintf("Could not append to config. An item is already at '%s'.\n"+
				"Either remove + prefix: '%s'\nOr add a second + to add or override '%s': '+%s'\n", o.key, o.line[1:], o.key, o.line)}
		}
	}
	return update(root, o.key, value, true, env)
}

// deleteValue deletes a key that has a value, the given one if there is one.
func deleteValue(root *node, o *override, want any, env *environment) error {
	r := &resolution{env: env}
	existing, found, err := r.selectFrom(root, "."+o.key, false)
	if err != nil {
		return root.locate(err, o.key)
	}
	existing = plainOf(existing)
	if !found || existing == nil || isMissing(existing) {
		return &Error{Kind: KindComposition, Key: o.key, Msg: fmt.Sprintf("Could not delete from config. '%s' does not exist.", o.key)}
	}
	if want != nil && !pyEqual(want, existing) {
		return &Error{Kind: KindComposition, Key: o.key, Msg: fmt.Sprintf("Could not delete from config. The value of '%s' is %s and not %s.",
			o.key, pyStr(existing), pyStr(want))}
	}
	parent, last := root, o.key
	if i := strings.LastIndexByte(o.key, '.'); i >= 0 {
		found, _, err := r.selectFrom(root, "."+o.key[:i], false)
		if err != nil {
			return root.locate(err, o.key)
		}
		parent, _ = found.(*node)
		last = o.key[i+1:]
	}
	if parent.kind == sequenceNode {
		return errorf(KindType, "list indices must be integers or slices, not str")
	}
	if parent.object != nil && parent != root {
		return parent.fail(KindConfigType, last, "%s (DictConfig) does not support deletion", parent.object.name)
	}
	child := parent.child(last)
	if child == nil {
		return parent.fail(KindKey, last, "Key not found: '%s'", last)
	}
	parent.remove(child)
	return nil
}

// checkShape checks that n still has the fields of its type. A config or an
// override may have put something else in the place of a whole node.
func checkShape(n *node, s *schema, key string) error {
	if n == nil || n.kind != mappingNode || n.absent || n.object == nil {
		return &Error{Kind: KindComposition, Key: key, Msg: fmt.Sprintf("'%s' must be a %s, its fields can only be set one by one", key, s.name)}
	}
	for _, f := range s.fields {
		child := n.child(f.name)
		if child == nil {
			return &Error{Kind: KindComposition, Key: key, Msg: fmt.Sprintf("'%s' lacks the field '%s'", key, f.name)}
		}
		if f.schema != nil && f.schema.kind == structSchema {
			if err := checkShape(child, f.schema, key+"."+f.name); err != nil {
				return err
			}
		}
	}
	return nil
}

// fillHydra records in the node "hydra" how the configuration came about.
func (c *composer) fillHydra(result *composition, req request, overrides []*override) error {
	h := result.hydra()
	return h.withClosed(false, func() error {
		hydraLines, taskLines := []any{}, []any{}
		for _, o := range overrides {
			if o.isHydra() {
				hydraLines = append(hydraLines, o.line)
			} else {
				taskLines = append(taskLines, o.line)
			}
		}
		cwd, err := os.Getwd()
		if err != nil {
			return errorf(KindOS, "cannot find the working directory: %v", err)
		}
		sources := make([]any, len(result.repo.sources))
		for i, s := range result.repo.sources {
			sources[i] = Map{{"path", s.path}, {"schema", s.scheme}, {"provider", s.provider}}
		}
		set := func(path string, value any) {
			if err == nil {
				err = update(h, path, value, true, result.env)
			}
		}
		set("overrides.hydra", append(plainList(h, "overrides.hydra"), hydraLines...))
		set("overrides.task", append(plainList(h, "overrides.task"), taskLines...))
		known := result.defaults.choices.known
		for _, key := range known.keys {
			if err == nil {
				err = h.child("runtime").child("choices").set(key, known.values[key])
			}
		}
		for _, name := range plainList(h, "job.env_copy") {
			value, ok := c.env.lookupEnv(pyStr(name))
			if !ok {
				return errorf(KindLookup, "%s", pyRepr(name))
			}
			if err == nil {
				err = h.child("job").child("env_set").set(name, value)
			}
		}
		set("runtime.version", hydraVersion)
		set("runtime.version_base", hydraVersionBase)
		set("runtime.cwd", cwd)
		set("runtime.config_sources", sources)
		if h.child("job").child("name").isMissing() {
			set("job.name", c.jobName)
		}
		set("job.override_dirname", overrideDirname(h, overrides))
		var config any
		if req.config != "" {
			config = req.config
		}
		set("job.config_name", config)
		return err
	})
}

// plainList returns the items of a list of the node n.
func plainList(n *node, path string) []any {
	for _, part := range splitKey(path) {
		if n = n.child(part); n == nil {
			return nil
		}
	}
	items, _ := n.plain().([]any)
	return items
}

// overrideDirname joins the overrides of the task for the use in a folder name.
func overrideDirname(h *node, overrides []*override) string {
	conf := h.child("job").child("config").child("override_dirname")
	text := func(key string) string { return pyStr(conf.child(key).plain()) }
	excluded := plainList(conf, "exclude_keys")
	var lines []string
	for _, o := range overrides {
		if !o.isHydra() && !slices.ContainsFunc(excluded, func(key any) bool { return key == o.key }) {
			lines = append(lines, o.line)
		}
	}
	slices.Sort(lines)
	return strings.ReplaceAll(strings.Join(lines, text("item_sep")), "=", text("kv_sep"))
}
