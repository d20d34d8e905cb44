package hydra

import "slices"

// Config is a composed configuration. Interpolations are kept and resolved
// whenever values are read. It is safe for concurrent use.
type Config struct {
	root *node
	env  *environment
}

// YAML returns the configuration as Hydra writes it to .hydra/config.yaml:
// interpolations are not resolved.
func (c *Config) YAML() ([]byte, error) { return dump(c.root.plain()), nil }

// ResolvedYAML returns the configuration with all interpolations resolved.
func (c *Config) ResolvedYAML() ([]byte, error) {
	m, err := c.Resolved()
	if err != nil {
		return nil, err
	}
	return dump(m), nil
}

// Resolved returns the values of the configuration with all interpolations
// resolved, in order. The values are nil, bool, int64, *big.Int (integers
// beyond int64), float64, string, []byte, []any and [Map]. An option that must
// still be given a value has the string "???"; see [Config.MissingKeys].
func (c *Config) Resolved() (Map, error) {
	value, err := (&resolution{env: c.env}).value(c.root)
	if err != nil {
		return nil, err
	}
	m, _ := named(value).(Map)
	return m, nil
}

// Get returns the value at a dotted path such as "model.head.hidden_dims.0",
// with its interpolations resolved; the types are those of [Config.Resolved].
// A key that does not exist or has no value yet is an error.
func (c *Config) Get(path string) (any, error) {
	r := &resolution{env: c.env}
	value, found, err := r.selectFrom(c.root, "."+path, false)
	switch {
	case err != nil:
		return nil, c.root.locate(err, path)
	case !found:
		return nil, c.root.fail(KindAttribute, path, "Key '%s' is not in struct", lastPart(path))
	case isMissing(value):
		return nil, c.root.fail(KindMissingValue, path, "Missing mandatory value: %s", path)
	}
	if n, ok := value.(*node); ok {
		if value, err = r.value(n); err != nil {
			return nil, err
		}
	}
	return named(value), nil
}

// MissingKeys returns the full keys of the options that must still be given a
// value, sorted.
func (c *Config) MissingKeys() []string {
	var keys []string
	var gather func(n *node)
	gather = func(n *node) {
		for _, child := range n.children() {
			if child.isMissing() {
				keys = append(keys, child.fullKey())
				continue
			}
			gather(child)
		}
	}
	gather(c.root)
	slices.Sort(keys)
	return keys
}

// named replaces the members of enumerations by their names, and paths by their text.
func named(v any) any {
	switch v := v.(type) {
	case enumValue:
		return v.name
	case posixPath:
		return string(v)
	case []any:
		for i, item := range v {
			v[i] = named(item)
		}
	case Map:
		for i, e := range v {
			v[i].Value = named(e.Value)
		}
	}
	return v
}
