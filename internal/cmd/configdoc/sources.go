package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/criteria-go/criteria"
)

// sources is what the repository says about its configuration.
type sources struct {
	root     fs.FS
	fields   map[string]string   // Go type and field, as "TrainConfig.Seed" → comment beside it
	types    map[string]string   // Go type → its comment
	comments map[string]string   // key → comment in conf/
	options  map[string][]string // key → options that set it
	defaults map[string]string   // group → name of its default
}

func readSources(root fs.FS) (*sources, error) {
	s := &sources{
		root: root, fields: map[string]string{}, types: map[string]string{}, comments: map[string]string{},
		options: map[string][]string{}, defaults: map[string]string{},
	}
	names, err := fs.Glob(root, "*.go")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		if err := s.readGo(name); err != nil {
			return nil, err
		}
	}
	return s, s.readConf()
}

// setsKeys matches the comment of an option for single fields, up to the last
// key.
var (
	setsKeys = regexp.MustCompile(`^(With\w+) sets ([^.:]*\.[a-z_0-9.]+(?:(?:,| and) [a-z_0-9]+\.[a-z_0-9.]+)*)`)
	anyKey   = regexp.MustCompile(`(?:model|data|train|hpo|mlflow)(?:\.[a-z_0-9]+)+`)
)

func (s *sources) readGo(name string) error {
	src, err := fs.ReadFile(s.root, name)
	if err != nil {
		return err
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if m := setsKeys.FindStringSubmatch(strings.Join(strings.Fields(d.Doc.Text()), " ")); d.Recv == nil && m != nil {
				for _, key := range anyKey.FindAllString(m[2], -1) {
					s.options[key] = append(s.options[key], m[1])
				}
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				t, ok := spec.(*ast.TypeSpec)
				if !ok {
					continue
				}
				s.types[t.Name.Name] = cmp.Or(t.Doc.Text(), d.Doc.Text())
				if fields, ok := t.Type.(*ast.StructType); ok {
					for _, f := range fields.Fields.List {
						for _, n := range f.Names {
							s.fields[t.Name.Name+"."+n.Name] = strings.TrimSpace(cmp.Or(f.Comment.Text(), f.Doc.Text()))
						}
					}
				}
			}
		}
	}
	return nil
}

// readConf reads the comments of the default option of every group.
func (s *sources) readConf() error {
	var main struct{ Defaults []any }
	text, err := fs.ReadFile(s.root, "conf/config.yaml")
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(text, &main); err != nil {
		return fmt.Errorf("conf/config.yaml: %w", err)
	}
	for _, entry := range main.Defaults {
		choice, ok := entry.(map[string]any)
		if !ok {
			continue // _self_
		}
		for group, name := range choice {
			s.defaults[group] = fmt.Sprint(name)
			doc, err := s.parse(path.Join("conf", group, fmt.Sprint(name)+".yaml"))
			if err != nil {
				return err
			}
			s.collect(group, doc)
		}
	}
	if len(s.defaults) == 0 {
		return fmt.Errorf("conf/config.yaml: no groups in its defaults list")
	}
	return nil
}

func (s *sources) parse(name string) (*yaml.Node, error) {
	text, err := fs.ReadFile(s.root, name)
	if err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil || len(doc.Content) == 0 {
		return nil, fmt.Errorf("%s: %v", name, err)
	}
	return doc.Content[0], nil
}

func (s *sources) collect(prefix string, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		key := prefix + "." + name.Value
		var parts []string
		// The comment of a file is its first, apart from the first key.
		for _, c := range []string{name.HeadComment, name.LineComment, value.LineComment} {
			if text := plain(lastParagraph(c)); text != "" {
				parts = append(parts, text)
			}
		}
		s.comments[key] = strings.Join(parts, " ")
		s.collect(key, value)
	}
}

// lastParagraph drops what an empty line separates from a key.
func lastParagraph(comment string) string {
	parts := strings.Split(comment, "\n\n")
	return parts[len(parts)-1]
}

// plain removes the marks of a comment and joins its lines.
func plain(comment string) string {
	var lines []string
	for line := range strings.Lines(comment) {
		lines = append(lines, strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "#")))
	}
	return strings.TrimSpace(strings.Join(lines, " "))
}

// sentence begins with a capital letter and ends with a full stop.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	text = strings.ToUpper(text[:1]) + text[1:]
	if !strings.HasSuffix(text, ".") {
		text += "."
	}
	return text
}

// saidDefault matches what a field's comment says of its default, which has a
// column of its own.
var saidDefault = regexp.MustCompile(`[;,]? ?\bdefault [^.;]*(?:\.\d[^.;]*)*`)

// meaning explains a key. takes is what it accepts, which need not be said twice.
func (s *sources) meaning(key, takes string, owner reflect.Type, f reflect.StructField) string {
	text := s.comments[key]
	if text == "" {
		text = strings.Trim(saidDefault.ReplaceAllString(s.fields[owner.Name()+"."+f.Name], ""), " .;,")
	}
	if text == strings.ReplaceAll(takes, "`", "") {
		text = ""
	}
	text = strings.TrimSuffix(text, ".")
	for _, o := range s.options[key] {
		text += " (`" + o + "`)"
	}
	return strings.TrimSpace(text)
}

// ask returns what Validate wants at a key, by giving it values that can hardly
// be right.
func ask(key string) string {
	for _, absurd := range []any{-1e300, 1e300, "?!"} {
		c := criteria.DefaultConfig()
		v := lookup(reflect.ValueOf(&c).Elem(), key)
		if v.Kind() == reflect.Pointer {
			v.Set(reflect.New(v.Type().Elem()))
			v = v.Elem()
		}
		if v.Kind() == reflect.Slice && v.Len() > 0 {
			v = v.Index(0)
		}
		switch x := absurd.(type) {
		case float64:
			switch {
			case v.CanFloat():
				v.SetFloat(x)
			case v.CanInt() && x < 0:
				v.SetInt(-1 << 62)
			case v.CanInt():
				v.SetInt(1 << 62)
			default:
				continue
			}
		case string:
			if v.Kind() != reflect.String {
				continue
			}
			v.SetString(x)
		}
		err, _ := c.Validate().(*criteria.ConfigError)
		if err == nil {
			continue
		}
		for _, p := range err.Problems {
			if p.Key == key || strings.HasPrefix(p.Key, key+"[") {
				return p.Want
			}
		}
	}
	return ""
}

// lookup finds the field of a key.
func lookup(v reflect.Value, key string) reflect.Value {
	for name := range strings.SplitSeq(key, ".") {
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("yaml") == name {
				v = v.Field(i)
				break
			}
		}
	}
	return v
}

// options of a group are its files, the default one first.
func (s *sources) groupFiles(group string) ([]string, error) {
	names, err := fs.Glob(s.root, path.Join("conf", group, "*.yaml"))
	for i, name := range names {
		names[i] = strings.TrimSuffix(path.Base(name), ".yaml")
	}
	slices.SortStableFunc(names, func(a, b string) int {
		rank := map[string]int{s.defaults[group]: -1}
		return rank[a] - rank[b]
	})
	return names, err
}
