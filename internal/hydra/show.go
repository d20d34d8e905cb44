package hydra

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// sanitized returns the part of a configuration that --cfg calls job, hydra or
// all.
func sanitized(composed *composition, part string) *Config {
	switch part {
	case "job":
		return composed.job()
	case "hydra":
		root := &node{}
		root.clear(mappingNode)
		h := composed.hydra().copy()
		for _, key := range []string{"hydra_help", "help"} {
			h.remove(h.child(key))
		}
		root.append("hydra", h)
		return &Config{root: root, env: composed.env}
	}
	return &Config{root: composed.root, env: composed.env}
}

// showConfig prints the configuration, for --cfg.
func (r *runner) showConfig(c *composer, req request, f *flags) error {
	composed, err := c.compose(req)
	if err != nil {
		return err
	}
	config := sanitized(composed, f.cfg)
	header, shown := "", config.root
	if f.hasPkg && f.pkg != "_global_" {
		header = "# @package " + f.pkg + "\n"
		found, ok, err := (&resolution{env: config.env}).selectFrom(config.root, "."+f.pkg, false)
		if err != nil {
			return config.root.locate(err, f.pkg)
		}
		if !ok || found == nil || isMissing(found) {
			return errors.New("package '" + f.pkg + "' not found in config")
		}
		if shown, ok = found.(*node); !ok {
			_, err := fmt.Fprintln(r.app.Stdout, pyStr(found))
			return err
		}
	}
	value := shown.plain()
	if f.resolve {
		if value, err = (&resolution{env: config.env, lenient: true}).value(shown); err != nil {
			return err
		}
	}
	_, err = io.WriteString(r.app.Stdout, header+string(dump(value)))
	return err
}

// showHelp prints the help of the program: its config groups and options, for
// --help.
func (r *runner) showHelp(c *composer, req request, resolve bool) error {
	composed, err := c.compose(req)
	if err != nil {
		return err
	}
	job := composed.job()
	config, err := job.YAML()
	if resolve {
		config, err = job.ResolvedYAML()
	}
	if err != nil {
		return err
	}
	return r.printTemplate(composed, "hydra.help.template", string(config))
}

// showHydraHelp prints the help of Hydra, for --hydra-help.
func (r *runner) showHydraHelp(c *composer, req request) error {
	composed, err := c.compose(req)
	if err != nil {
		return err
	}
	return r.printTemplate(composed, "hydra.hydra_help.template", string(dump(sanitized(composed, "hydra").root.plain())))
}

// printTemplate prints a help text with the names that start with a dollar sign
// filled in.
func (r *runner) printTemplate(composed *composition, key, config string) error {
	template, err := (&Config{root: composed.root, env: composed.env}).Get(key)
	if err != nil {
		return err
	}
	text := pyStr(template)
	if help := strings.TrimSpace(r.app.Help); help != "" && key == "hydra.help.template" {
		const configTitle = "== Config ==\n"
		if i := strings.Index(text, configTitle); i >= 0 {
			text = text[:i] + help + "\n\n" + text[i:]
		} else {
			text += "\n" + help + "\n"
		}
	}
	isHydra := func(group string) bool { return group == "hydra" || strings.HasPrefix(group, "hydra/") }
	text = strings.NewReplacer(
		"$$", "$",
		"$FLAGS_HELP", flagsHelp(),
		"$HYDRA_CONFIG_GROUPS", groupsHelp(composed.repo, isHydra),
		"$APP_CONFIG_GROUPS", groupsHelp(composed.repo, func(group string) bool { return !isHydra(group) }),
		"$CONFIG", config,
	).Replace(text)
	_, err = fmt.Fprintln(r.app.Stdout, text)
	return err
}

func flagsHelp() string {
	var b strings.Builder
	for _, o := range options() {
		fmt.Fprintf(&b, "%s : %s\n", strings.TrimSuffix(o.long+","+o.short, ","), o.help)
	}
	return b.String() + "Overrides : " + overridesHelp
}

func groupsHelp(repo *repository, include func(group string) bool) string {
	var b strings.Builder
	for _, group := range repo.groups("") {
		if include(group) {
			fmt.Fprintf(&b, "%s: %s\n", group, strings.Join(repo.options(group), ", "))
		}
	}
	return b.String()
}

// showInfo prints how the configuration comes about, for --info.
func (r *runner) showInfo(c *composer, req request, topic string) error {
	if topic == "plugins" {
		return errorf(KindUnsupported, "Plugins are not supported by this program.")
	}
	composed, err := c.compose(req)
	if err != nil {
		return err
	}
	var b strings.Builder
	if topic == "all" {
		title(&b, "Hydra "+hydraVersion, "=")
	}
	if topic == "all" || topic == "config" || topic == "searchpath" {
		b.WriteByte('\n')
		title(&b, "Config search path", "*")
		searchPathTable(&b, composed.repo.sources)
	}
	if topic == "all" || topic == "config" || topic == "defaults-tree" {
		b.WriteByte('\n')
		title(&b, "Defaults Tree", "*")
		defaultsTree(&b, composed.defaults.tree, "")
	}
	if topic == "all" || topic == "config" || topic == "defaults" {
		b.WriteByte('\n')
		title(&b, "Defaults List", "*")
		defaultsTable(&b, composed.defaults.steps)
	}
	if topic == "all" || topic == "config" {
		title(&b, "Config", "*")
		fmt.Fprintf(&b, "%s\n", dump(composed.job().root.plain()))
	}
	_, err = io.WriteString(r.app.Stdout, b.String())
	return err
}

// title writes a line and underlines it.
func title(b *strings.Builder, text, underline string) {
	fmt.Fprintf(b, "%s\n%s\n", text, strings.Repeat(underline, utf8.RuneCountInString(text)))
}

func searchPathTable(b *strings.Builder, sources []source) {
	rows := [][]string{{"Provider", "Search path"}}
	for _, s := range sources {
		rows = append(rows, []string{s.provider, s.url()})
	}
	table(b, rows, "|")
}

func defaultsTable(b *strings.Builder, steps []mergeStep) {
	rows := [][]string{{"Config path", "Package", "_self_", "Parent"}}
	for _, step := range steps {
		self := "False"
		if step.isSelf {
			self = "True"
		}
		rows = append(rows, []string{step.config, step.pkg, self, step.parent})
	}
	table(b, rows, "| ") // Hydra ends the header of this table with a space
}

// table writes rows in columns; the first one is the header and ends in headerEnd.
func table(b *strings.Builder, rows [][]string, headerEnd string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	format := func(row []string) string {
		var line strings.Builder
		for i, cell := range row {
			fmt.Fprintf(&line, "| %-*s ", widths[i], cell)
		}
		return line.String()
	}
	header := format(rows[0]) + headerEnd
	rule := strings.Repeat("-", utf8.RuneCountInString(header))
	fmt.Fprintf(b, "%s\n%s\n", header, rule)
	for _, row := range rows[1:] {
		fmt.Fprintf(b, "%s|\n", format(row))
	}
	fmt.Fprintf(b, "%s\n", rule)
}

func defaultsTree(b *strings.Builder, n *defaultsNode, pad string) {
	text := n.configPath()
	switch d := n.item; {
	case d == nil:
	case d.isSelf():
		text = selfItem
	case d.isGroup:
		name, ok := d.name()
		if !ok {
			name = "null"
		}
		text = d.overrideKey() + ": " + name
	}
	b.WriteString(pad + text)
	if len(n.children) > 0 {
		b.WriteByte(':')
	}
	b.WriteByte('\n')
	for _, child := range n.children {
		defaultsTree(b, child, pad+"  ")
	}
}
