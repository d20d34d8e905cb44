package hydra

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Limits on the expansion of defaults lists, against configs that include
// themselves.
const (
	maxDefaultsDepth = 100
	maxDefaults      = 10_000
)

// defaultItem is an entry of a defaults list: a choice for a config group
// ("group: option"), a config ("option"), or the place of the config itself
// ("_self_").
type defaultItem struct {
	isGroup bool
	group   string // as written; with a leading slash it is absolute
	option  string // of a group
	isNull  bool   // the group is chosen to be empty
	options []any  // several options; not nil takes the place of option
	path    string // of a config

	pkg      string
	hasPkg   bool
	optional bool // may be absent
	override bool // changes a choice made before
	appended bool // comes from +group=option
	primary  bool // is the config that the program names

	// The config that contains the item.
	baseDir   string
	basePkg   string
	isAdopted bool
	header    string // package header of the chosen config
	hasHeader bool
	isDeleted bool // by ~group, or optional and absent
}

const selfItem = "_self_"

// newDefaultItem parses an entry of the defaults list of config.
func newDefaultItem(config string, value any) (*defaultItem, error) {
	switch v := value.(type) {
	case string:
		d := &defaultItem{}
		d.path, d.pkg, d.hasPkg = splitPackage(v)
		if d.path == selfItem && d.hasPkg {
			return nil, errorf(KindValue, "_self_@PACKAGE is not supported")
		}
		return d, nil
	case Map:
		if len(v) == 0 {
			return nil, errorf(KindValue, "In %s: Missing group name in {}", config)
		}
		if len(v) > 1 {
			return nil, errorf(KindValue, "In %s: Too many keys in default item %s", config, pyRepr(v))
		}
		return newGroupItem(v[0])
	case []any:
		return nil, errorf(KindValue, "Unsupported type in defaults : ListConfig")
	}
	return nil, errorf(KindValue, "Unsupported type in defaults : %s", pyType(value))
}

func newGroupItem(e Entry) (*defaultItem, error) {
	key, ok := e.Key.(string)
	if !ok {
		return nil, errorf(KindAssertion, "a config group in a defaults list must be a string, got %s", pyRepr(e.Key))
	}
	d := &defaultItem{isGroup: true}
	key, d.pkg, d.hasPkg = splitPackage(key)
	words := strings.Split(key, " ")
	d.group = words[len(words)-1]
keywords:
	for _, word := range words[:len(words)-1] {
		switch word {
		case "optional":
			d.optional = true
		case "override":
			d.override = true
		default:
			break keywords
		}
	}
	switch v := e.Value.(type) {
	case nil:
		d.isNull = true
	case string:
		d.option = v
	case []any:
		for _, item := range v {
			if _, ok := item.(string); !ok {
				return nil, errorf(KindValue, "Unsupported item value in defaults : %s, nested list items must be strings", pyType(item))
			}
		}
		d.options = v
	default:
		return nil, errorf(KindValue, "Unsupported item value in defaults : %s. Supported: string or list", pyType(e.Value))
	}
	if d.group == "" {
		return nil, errorf(KindAssertion, "a config group in a defaults list must have a name")
	}
	return d, nil
}

// splitPackage splits name@package. The package _here_ is that of the parent.
func splitPackage(s string) (name, pkg string, hasPkg bool) {
	name, pkg, hasPkg = strings.Cut(s, "@")
	pkg, _, _ = strings.Cut(pkg, ":")
	if pkg == "_here_" {
		pkg = ""
	}
	return name, pkg, hasPkg
}

// setOption makes a choice from the command line or from an override.
func (d *defaultItem) setOption(c choice) {
	d.option, d.isNull, d.options = c.option, c.isNull, c.options
}

func (d *defaultItem) isSelf() bool {
	return d.isGroup && d.option == selfItem || !d.isGroup && d.path == selfItem
}

// adopt tells d which config contains it.
func (d *defaultItem) adopt(baseDir, basePkg string) {
	if d.isAdopted {
		return
	}
	d.baseDir, d.basePkg, d.isAdopted = baseDir, basePkg, true
	if d.hasPkg && strings.Contains(d.pkg, "_group_") {
		d.pkg = "_global_." + strings.ReplaceAll(d.pkg, "_group_", d.defaultPackage())
	}
}

// absolutePath returns a path of the item as seen from the root of the tree.
func (d *defaultItem) absolutePath(p string) string {
	if rest, ok := strings.CutPrefix(p, "/"); ok {
		return rest
	}
	switch {
	case d.baseDir == "":
		return p
	case p == "":
		return d.baseDir
	}
	return d.baseDir + "/" + p
}

// groupPath returns the group as seen from the root.
func (d *defaultItem) groupPath() string {
	if d.isGroup {
		return d.absolutePath(d.group)
	}
	dir := d.path[:max(strings.LastIndexByte(d.path, '/'), 0)]
	if strings.HasPrefix(d.path, "/") {
		return strings.TrimPrefix(dir, "/")
	}
	return d.absolutePath(dir)
}

// name returns the name of the chosen config within its group; ok is false if
// none is chosen.
func (d *defaultItem) name() (name string, ok bool) {
	if d.isGroup {
		return d.option, !d.isNull
	}
	return d.path[strings.LastIndexByte(d.path, '/')+1:], true
}

// configPath returns the path of the chosen config from the root.
func (d *defaultItem) configPath() string {
	if !d.isGroup {
		return d.absolutePath(d.path)
	}
	if d.isNull {
		return d.groupPath() + "/None"
	}
	return d.groupPath() + "/" + d.option
}

func (d *defaultItem) isMissing() bool {
	name, _ := d.name()
	return d.options == nil && isMissing(name)
}

func (d *defaultItem) isInterpolation() bool {
	if d.isGroup {
		return d.options == nil && isInterpolation(d.option)
	}
	return isInterpolation(d.configPath())
}

// defaultPackage is the package of a group that names none.
func (d *defaultItem) defaultPackage() string { return strings.ReplaceAll(d.groupPath(), "/", ".") }

// setHeader takes over the package header of the chosen config. It is always
// absolute.
func (d *defaultItem) setHeader(header string) {
	switch {
	case header == "":
		header = "_global_"
	case header != "_global_" && !strings.HasPrefix(header, "_global_."):
		header = "_global_." + header
	}
	d.header, d.hasHeader = header, true
}

// finalPackage returns where in the configuration the chosen config lands.
func (d *defaultItem) finalPackage() string { return d.packageOf(true) }

// packageOf is finalPackage with or without regard to the package header.
func (d *defaultItem) packageOf(header bool) string {
	pkg := ""
	switch {
	case d.hasPkg:
		pkg = d.pkg
	case header && d.hasHeader:
		pkg = d.header
	default:
		group := d.group
		if !d.isGroup {
			group = d.path[:max(strings.LastIndexByte(d.path, '/'), 0)]
		}
		pkg = strings.ReplaceAll(strings.TrimPrefix(group, "/"), "/", ".")
	}
	switch {
	case d.basePkg == "":
	case pkg == "":
		pkg = d.basePkg
	default:
		pkg = d.basePkg + "." + pkg
	}
	if i := strings.LastIndex(pkg, "_global_"); i >= 0 {
		return strings.TrimPrefix(pkg[i+len("_global_"):], ".")
	}
	return pkg
}

// overrideKey returns how the choice is named on the command line.
func (d *defaultItem) overrideKey() string {
	key := d.groupPath()
	if pkg := d.packageOf(false); pkg != d.defaultPackage() {
		if pkg == "" {
			pkg = "_global_"
		}
		key += "@" + pkg
	}
	return key
}

// choice is what an override chooses for a group.
type choice struct {
	option   string
	isNull   bool
	options  []any
	external bool   // from the command line
	config   string // that contains the override, if it is not external
	used     bool
}

func (c choice) String() string {
	if c.options != nil {
		return pyRepr(c.options)
	}
	return c.option
}

// deletion is ~group or ~group=option.
type deletion struct {
	option    string
	hasOption bool
	used      bool
}

// orderedMap is a map that remembers the order of its keys.
type orderedMap[V any] struct {
	keys   []string
	values map[string]V
}

func (m *orderedMap[V]) set(key string, value V) {
	if m.values == nil {
		m.values = make(map[string]V)
	}
	if _, ok := m.values[key]; !ok {
		m.keys = append(m.keys, key)
	}
	m.values[key] = value
}

// choices collects the overrides of defaults lists and what has been chosen.
type choices struct {
	overrides orderedMap[*choice]
	deletions orderedMap[*deletion]
	appended  []*defaultItem
	values    []*override // overrides of values, for after the merge

	known        orderedMap[any] // override key to option or nil
	knownByGroup map[string]map[string]bool
}

// newChoices sorts the overrides into those of groups and those of values.
func newChoices(repo *repository, overrides []*override) (*choices, error) {
	c := &choices{knownByGroup: make(map[string]map[string]bool)}
	for _, o := range overrides {
		if o.sweep() != nil {
			continue
		}
		value := o.plainValue()
		if _, isDict := value.(Map); isDict || !repo.groupExists(o.key) {
			c.values = append(c.values, o)
			continue
		}
		switch o.op {
		case opForceAdd:
			return nil, errorf(KindComposition, "force-add of config groups is not supported: '%s'", o.line)
		case opDelete:
			option, isString := value.(string)
			if value != nil && !isString {
				return nil, errorf(KindValue, "Config group override deletion value must be a string : %s", o.line)
			}
			c.deletions.set(o.keyWithPackage(), &deletion{option: option, hasOption: isString})
			continue
		}
		chosen := choice{external: true}
		switch v := value.(type) {
		case string:
			chosen.option = v
		case []any:
			chosen.options = v
		default:
			return nil, errorf(KindValue, "Config group override must be a string or a list. Got %s", pyType(value))
		}
		if o.op == opChange {
			c.overrides.set(o.keyWithPackage(), &chosen)
			continue
		}
		if o.key == "" {
			return nil, errorf(KindAssertion, "a config group that is appended must have a name: '%s'", o.line)
		}
		item := &defaultItem{isGroup: true, group: o.key, pkg: o.pkg, hasPkg: o.hasPackage, appended: true}
		if item.pkg == "_here_" {
			item.pkg = ""
		}
		item.setOption(chosen)
		c.appended = append(c.appended, item)
	}
	return c, nil
}

// addOverride takes over an override from a defaults list, unless a stronger
// one is there.
func (c *choices) addOverride(config string, d *defaultItem) {
	key := d.overrideKey()
	if _, ok := c.overrides.values[key]; !ok {
		c.overrides.set(key, &choice{option: d.option, isNull: d.isNull, options: d.options, config: config})
	}
}

// apply makes the choice for d that an override asks for.
func (c *choices) apply(d *defaultItem) {
	if !d.isGroup {
		return
	}
	if chosen, ok := c.overrides.values[d.overrideKey()]; ok {
		d.setOption(*chosen)
		chosen.used = true
	}
}

// remember records the choice of d and refuses a second one for its group.
func (c *choices) remember(d *defaultItem) error {
	if !d.isGroup {
		return nil
	}
	key := d.overrideKey()
	var option any
	if name, ok := d.name(); ok {
		option = name
	}
	if previous, ok := c.known.values[key]; ok && previous != option {
		return errorf(KindComposition, "Multiple values for %s. To override a value use 'override %s: %s'", key, key, pyStr(previous))
	} else if !ok {
		c.known.set(key, option)
	}
	group := d.groupPath()
	if c.knownByGroup[group] == nil {
		c.knownByGroup[group] = make(map[string]bool)
	}
	c.knownByGroup[group][key] = true
	return nil
}

// deletes tells whether the command line deletes d, and notes that it did.
func (c *choices) deletes(d *defaultItem) bool {
	if !d.isGroup {
		return false
	}
	del, ok := c.deletions.values[d.overrideKey()]
	if !ok {
		return false
	}
	if name, _ := d.name(); del.hasOption && del.option != name {
		return false
	}
	del.used = true
	return true
}

// checkUsed reports overrides and deletions that matched nothing.
func (c *choices) checkUsed() error {
	for _, key := range c.overrides.keys {
		chosen := c.overrides.values[key]
		if chosen.used {
			continue
		}
		group, _, _ := strings.Cut(key, "@")
		candidates := slices.Sorted(maps.Keys(c.knownByGroup[group]))
		var msg string
		switch len(candidates) {
		case 0:
			msg = fmt.Sprintf("Could not override '%s'. No match in the defaults list.", key)
		case 1:
			msg = fmt.Sprintf("Could not override '%s'.\nDid you mean to override %s?", key, candidates[0])
		default:
			msg = fmt.Sprintf("Could not override '%s'.\nDid you mean to override one of %s?", key, strings.Join(candidates, ", "))
		}
		if !chosen.external {
			msg = fmt.Sprintf("In '%s': %s", chosen.config, msg)
		} else {
			msg += fmt.Sprintf("\nTo append to your default list use +%s=%s", key, chosen)
		}
		return &Error{Kind: KindComposition, Msg: msg, Key: key}
	}
	for _, key := range c.deletions.keys {
		del := c.deletions.values[key]
		if del.used {
			continue
		}
		what := key
		if del.hasOption {
			what += "=" + del.option
		}
		return &Error{Kind: KindComposition, Key: key, Msg: fmt.Sprintf("Could not delete '%s'. No match in the defaults list", what)}
	}
	return nil
}

// defaultsNode is a config in the tree of defaults lists.
type defaultsNode struct {
	item     *defaultItem // nil for the virtual root
	parent   *defaultsNode
	children []*defaultsNode
}

func (n *defaultsNode) configPath() string {
	if n.item == nil {
		return "<root>"
	}
	return n.item.configPath()
}

// mergeStep is one config of the final list, in the order of merging.
type mergeStep struct {
	config  string
	pkg     string
	parent  string // the config that brought it in
	isSelf  bool
	primary bool
	key     string // override key, "" for configs without a group
}

// defaultsList is the outcome of expanding the defaults lists.
type defaultsList struct {
	steps   []mergeStep
	tree    *defaultsNode
	choices *choices
}

// expandDefaults finds the configs to merge for the primary config and the
// overrides. skipMissing tolerates groups without a choice.
func expandDefaults(repo *repository, config string, overrides []*override, skipMissing bool, warn func(string)) (*defaultsList, error) {
	chosen, err := newChoices(repo, overrides)
	if err != nil {
		return nil, err
	}
	x := expander{repo: repo, choices: chosen, skipMissing: skipMissing, warn: warn}
	root := &defaultsNode{}
	roots := []*defaultItem{{path: "hydra/config"}}
	if config != "" {
		roots = append(roots, &defaultItem{path: config, primary: true})
	}
	// Later entries are expanded first, so that an override is known before the
	// choice that it changes.
	for _, item := range slices.Backward(roots) {
		item.adopt("", "")
		child := &defaultsNode{item: item, parent: root}
		if err := x.expand(child, item.primary, false, 0); err != nil {
			return nil, err
		}
		root.children = append([]*defaultsNode{child}, root.children...)
	}
	list := &defaultsList{tree: root, choices: chosen}
	list.flatten(root)
	seen := make(map[string]bool)
	for _, step := range list.steps {
		if step.isSelf || step.key == "" {
			continue
		}
		if seen[step.key] {
			return nil, errorf(KindComposition, "%s appears more than once in the final defaults list", step.key)
		}
		seen[step.key] = true
	}
	return list, chosen.checkUsed()
}

// flatten appends the configs below n in merge order.
func (l *defaultsList) flatten(n *defaultsNode) {
	if len(n.children) > 0 {
		for _, child := range n.children {
			l.flatten(child)
		}
		return
	}
	d := n.item
	if d == nil || d.isDeleted || d.isMissing() {
		return
	}
	if _, ok := d.name(); !ok {
		return
	}
	step := mergeStep{config: d.configPath(), pkg: d.finalPackage(), primary: d.primary}
	at := n.parent
	if d.isSelf() {
		step = mergeStep{config: at.configPath(), pkg: at.item.finalPackage(), primary: at.item.primary, isSelf: true}
		at = at.parent
	} else if d.isGroup {
		step.key = d.overrideKey()
	}
	if at != nil {
		step.parent = at.configPath()
	}
	l.steps = append(l.steps, step)
}

// expander expands defaults lists recursively.
type expander struct {
	repo        *repository
	choices     *choices
	skipMissing bool
	warn        func(string)
	count       int
}

// expand adds to n the entries of the defaults list of its config.
func (x *expander) expand(n *defaultsNode, isRoot, interpolated bool, depth int) error {
	d := n.item
	if x.count++; x.count > maxDefaults || depth > maxDefaultsDepth {
		return errorf(KindComposition, "the defaults list of '%s' is too deep or too long; does a config include itself?", d.configPath())
	}
	if isRoot && !x.repo.configExists(d.configPath()) {
		return x.notFound(n)
	}
	loaded, err := x.load(d)
	if err != nil {
		return err
	}
	if x.choices.deletes(d) {
		d.isDeleted = true
		return nil
	}
	if err := x.choices.remember(d); err != nil {
		return err
	}
	if _, ok := d.name(); !ok {
		return nil
	}
	if d.isMissing() {
		return x.missing(d)
	}
	if loaded == nil {
		if d.optional {
			d.isDeleted = true
			return nil
		}
		return x.notFound(n)
	}

	entries, selfAdded, err := x.entries(d, loaded, isRoot)
	if err != nil {
		return err
	}
	if err := x.collectOverrides(entries, d, interpolated); err != nil {
		return err
	}
	// Backwards, see expandDefaults; put in order at the end.
	for _, entry := range slices.Backward(entries) {
		if err := x.expandEntry(n, entry, interpolated, depth); err != nil {
			return err
		}
	}
	// Interpolations are resolved once all other choices of the list are known.
	for _, child := range n.children {
		if child.item.isSelf() || !child.item.isInterpolation() {
			continue
		}
		if err := x.resolve(child.item, entries, selfAdded); err != nil {
			return err
		}
		if err := x.expand(child, false, true, depth+1); err != nil {
			return err
		}
	}
	slices.Reverse(n.children)
	return nil
}

// load loads the config that d chooses and takes its package header over. It
// returns nil if there is none.
func (x *expander) load(d *defaultItem) (*loadedConfig, error) {
	if d.isMissing() {
		return nil, nil
	}
	loaded, err := x.repo.load(d.configPath())
	if err != nil || loaded == nil {
		return nil, err
	}
	if loaded.hasPkg {
		d.setHeader(loaded.pkg)
	}
	return loaded, nil
}

// entries returns a copy of the defaults list of a config, completed by _self_
// and by what the command line appends.
func (x *expander) entries(d *defaultItem, loaded *loadedConfig, isRoot bool) (entries []*defaultItem, selfAdded bool, err error) {
	hasSelf, hasOther := false, false
	for _, item := range loaded.defaults {
		entry := *item
		entries = append(entries, &entry)
		if entry.isSelf() {
			if hasSelf {
				return nil, false, errorf(KindComposition, "Duplicate _self_ defined in %s", d.configPath())
			}
			hasSelf = true
		}
		hasOther = hasOther || !entry.override
	}
	appends := isRoot && len(x.choices.appended) > 0
	if len(entries) > 0 || appends {
		if !hasSelf && hasOther || len(entries) == 0 {
			if d.primary && hasOther && hasContent(loaded.tree) {
				x.warn(fmt.Sprintf("In '%s': Defaults list is missing `_self_`. "+
					"See https://hydra.cc/docs/1.2/upgrades/1.0_to_1.1/default_composition_order for more information", d.configPath()))
			}
			entries = append(entries, &defaultItem{path: selfItem})
		}
		selfAdded = !hasSelf
	}
	if appends {
		entries = append(entries, x.choices.appended...)
	}
	return entries, selfAdded, nil
}

// hasContent tells whether a config has values besides its defaults list.
func hasContent(tree *node) bool {
	return tree.kind == mappingNode && slices.ContainsFunc(tree.fields, func(c *node) bool { return !c.isMissing() })
}

// collectOverrides notes the "override group: option" entries, which must come
// last.
func (x *expander) collectOverrides(entries []*defaultItem, parent *defaultItem, interpolated bool) error {
	var last *defaultItem
	for _, d := range entries {
		if d.isSelf() {
			continue
		}
		d.adopt(parent.groupPath(), parent.finalPackage())
		if last != nil && !d.override && !d.appended {
			name, _ := d.name()
			lastName, _ := last.name()
			return errorf(KindComposition, "In %s: Override '%s : %s' is defined before '%s: %s'.\nOverrides must be at the end of the defaults list",
				parent.configPath(), last.overrideKey(), lastName, d.overrideKey(), name)
		}
		if !d.override {
			continue
		}
		last = d
		if interpolated {
			name, _ := d.name()
			return errorf(KindComposition, "%s: Default List Overrides are not allowed in the subtree\nof an in interpolated config group (override %s=%s).\n",
				parent.configPath(), d.overrideKey(), name)
		}
		x.choices.addOverride(parent.configPath(), d)
	}
	return nil
}

// expandEntry adds one entry of a defaults list to n.
func (x *expander) expandEntry(n *defaultsNode, d *defaultItem, interpolated bool, depth int) error {
	parent := n.item
	add := func(item *defaultItem) *defaultsNode {
		child := &defaultsNode{item: item, parent: n}
		n.children = append(n.children, child)
		return child
	}
	switch {
	case d.isSelf():
		add(d)
		return nil
	case d.override:
		return nil
	}
	d.adopt(parent.groupPath(), parent.finalPackage())
	x.choices.apply(d)
	if d.isGroup && d.options != nil {
		for _, item := range slices.Backward(d.options) {
			option, ok := item.(string)
			if !ok {
				return errorf(KindType, "argument of type '%s' is not iterable", pyType(item))
			}
			if isInterpolation(option) {
				return errorf(KindComposition, "In '%s': Defaults List interpolation is not supported in options list items", parent.configPath())
			}
			item := &defaultItem{path: d.group + "/" + option, pkg: d.pkg, hasPkg: d.hasPkg, optional: d.optional}
			item.adopt(parent.groupPath(), parent.finalPackage())
			if err := x.expand(add(item), false, interpolated, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	child := add(d)
	if d.isInterpolation() {
		return nil
	}
	return x.expand(child, false, interpolated, depth+1)
}

// resolve replaces the interpolation in d, which sees the choices made so far.
func (x *expander) resolve(d *defaultItem, entries []*defaultItem, selfAdded bool) error {
	text := d.option
	if !d.isGroup {
		text = d.configPath()
	}
	known := Map{}
	for _, key := range x.choices.known.keys {
		known = append(known, Entry{key, x.choices.known.values[key]})
	}
	list := []any{}
	for _, entry := range entries {
		switch {
		case selfAdded && entry.isSelf():
		case !entry.isGroup:
			list = append(list, entry.path)
		case entry.isNull:
			list = append(list, Map{{entry.overrideKey(), nil}})
		default:
			list = append(list, Map{{entry.overrideKey(), entry.option}})
		}
	}
	tree, err := newTree(append(known, Entry{"defaults", list}))
	if err != nil {
		return err
	}
	holder := &node{parent: tree, scalar: text}
	env := &environment{lookupEnv: func(string) (string, bool) { return "", false }}
	resolved, err := (&resolution{env: env}).dereference(holder)
	if err != nil {
		msg := fmt.Sprintf("Error resolving interpolation '%s'", text)
		if len(x.choices.known.keys) > 0 {
			msg += ", possible interpolation keys: " + strings.Join(x.choices.known.keys, ", ")
		}
		return errorf(KindComposition, "%s", msg)
	}
	option, ok := resolved.(string)
	if !ok {
		return errorf(KindAssertion, "the interpolation '%s' in a defaults list must resolve to a string, got %s", text, pyType(plainOf(resolved)))
	}
	if d.isGroup {
		d.option = option
	} else {
		d.path = "/" + option
	}
	return nil
}

// missing reports a group for which an option must be chosen.
func (x *expander) missing(d *defaultItem) error {
	switch {
	case x.skipMissing:
		return nil
	case !d.isGroup:
		return errorf(KindValue, "Missing ConfigDefault is not supported : %s", d.configPath())
	}
	key := d.overrideKey()
	return &Error{Kind: KindComposition, Key: key, Msg: fmt.Sprintf("You must specify '%s', e.g, %s=<OPTION>\nAvailable options:\n%s",
		key, key, indented(x.repo.options(d.groupPath())))}
}

func indented(lines []string) string {
	out := make([]string, len(lines))
	for i, line := range lines {
		out[i] = "\t" + line
	}
	return strings.Join(out, "\n")
}

// notFound reports a config that is nowhere on the search path.
func (x *expander) notFound(n *defaultsNode) error {
	d := n.item
	config := d.configPath()
	var msg string
	switch {
	case d.primary:
		msg = fmt.Sprintf("Cannot find primary config '%s'. Check that it's in your config search path.\n", config)
	case d.isGroup:
		msg = fmt.Sprintf("Could not find '%s'\n", config)
		if options := x.repo.options(d.groupPath()); len(options) > 0 {
			msg += fmt.Sprintf("\nAvailable options in '%s':\n%s", d.groupPath(), indented(options))
		}
	default:
		msg = fmt.Sprintf("Could not load '%s'.\n", config)
	}
	if !d.primary && n.parent != nil {
		msg = fmt.Sprintf("In '%s': %s", n.parent.configPath(), msg)
	}
	paths := make([]string, len(x.repo.sources))
	for i, s := range x.repo.sources {
		paths[i] = s.String()
	}
	return &Error{Kind: KindMissingConfig, Key: config, Msg: msg + "\nConfig search path:\n" + indented(paths)}
}
