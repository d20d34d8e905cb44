package hydra

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// flags is what a command line asks for besides its overrides.
type flags struct {
	help, hydraHelp, version bool
	cfg                      string
	resolve                  bool
	pkg                      string
	hasPkg                   bool
	run, multirun            bool
	shellCompletion          bool
	configPath               string
	configName               string
	configDir                string
	hasConfigPath            bool
	hasConfigName            bool
	hasConfigDir             bool
	rerun                    string
	info                     string

	overrides []string
}

// option is a command line option. Names are in the order of the usage line.
type option struct {
	long, short string
	help        string
	metavar     string   // of the argument; "" for a switch
	choices     []string // of the argument, if not free
	constant    string   // the value when the argument is left out; "" if it must not be
	set         func(f *flags, value string)
}

// names returns the names as error messages give them.
func (o *option) names() string {
	if o.short == "" {
		return o.long
	}
	return o.long + "/" + o.short
}

func options() []option {
	cfgChoices := []string{"job", "hydra", "all"}
	infoChoices := []string{"all", "config", "defaults", "defaults-tree", "plugins", "searchpath"}
	return []option{
		{long: "--help", short: "-h", help: "Application's help", set: func(f *flags, _ string) { f.help = true }},
		{long: "--hydra-help", help: "Hydra's help", set: func(f *flags, _ string) { f.hydraHelp = true }},
		{long: "--version", help: "Show Hydra's version and exit", set: func(f *flags, _ string) { f.version = true }},
		{long: "--cfg", short: "-c", metavar: "CFG", choices: cfgChoices,
			help: "Show config instead of running [job|hydra|all]", set: func(f *flags, v string) { f.cfg = v }},
		{long: "--resolve", help: "Used in conjunction with --cfg, resolve config interpolations before printing.",
			set: func(f *flags, _ string) { f.resolve = true }},
		{long: "--package", short: "-p", metavar: "PACKAGE", help: "Config package to show",
			set: func(f *flags, v string) { f.pkg, f.hasPkg = v, true }},
		{long: "--run", short: "-r", help: "Run a job", set: func(f *flags, _ string) { f.run = true }},
		{long: "--multirun", short: "-m", help: "Run multiple jobs with the configured launcher and sweeper",
			set: func(f *flags, _ string) { f.multirun = true }},
		{long: "--shell-completion", short: "-sc", help: "Install or Uninstall shell completion: not supported by this program",
			set: func(f *flags, _ string) { f.shellCompletion = true }},
		{long: "--config-path", short: "-cp", metavar: "CONFIG_PATH",
			help: "Overrides the config directory of the program.\n" +
				"                    The config_path is absolute or relative to the working directory",
			set: func(f *flags, v string) { f.configPath, f.hasConfigPath = v, true }},
		{long: "--config-name", short: "-cn", metavar: "CONFIG_NAME", help: "Overrides the config_name of the program",
			set: func(f *flags, v string) { f.configName, f.hasConfigName = v, true }},
		{long: "--config-dir", short: "-cd", metavar: "CONFIG_DIR", help: "Adds an additional config dir to the config search path",
			set: func(f *flags, v string) { f.configDir, f.hasConfigDir = v, true }},
		{long: "--experimental-rerun", metavar: "EXPERIMENTAL_RERUN", help: "Rerun a job from a previous config pickle: not supported by this program",
			set: func(f *flags, v string) { f.rerun = v }},
		{long: "--info", short: "-i", metavar: "INFO", choices: infoChoices, constant: "all",
			help: "Print Hydra information [" + strings.Join(infoChoices, "|") + "]", set: func(f *flags, v string) { f.info = v }},
	}
}

const overridesHelp = "Any key=value arguments to override config values (use dots for.nested=overrides)"

// usageError is a command line that argparse would refuse.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func usageErrorf(format string, args ...any) *usageError {
	return &usageError{fmt.Sprintf(format, args...)}
}

// parseFlags splits a command line into flags and overrides by the rules of
// Python's argparse: options may be shortened to an unambiguous prefix, take
// their argument as --opt=value, -ovalue or from the next place, and end at --.
// Unlike argparse it lets overrides stand between options.
func parseFlags(args []string) (*flags, *usageError) {
	p := flagParser{options: options(), args: args}
	var unknown []string
	for p.pos < len(args) {
		arg := args[p.pos]
		p.pos++
		if arg == "--" {
			p.flags.overrides = append(p.flags.overrides, args[p.pos:]...)
			break
		}
		if !looksLikeOption(arg) {
			p.flags.overrides = append(p.flags.overrides, arg)
			continue
		}
		opt, value, hasValue, err := p.find(arg)
		switch {
		case err != nil:
			return nil, err
		case opt == nil:
			unknown = append(unknown, arg)
			continue
		}
		if err := p.apply(opt, arg, value, hasValue); err != nil {
			return nil, err
		}
		if p.flags.version {
			return &p.flags, nil // answered at once, whatever else follows
		}
	}
	if unknown != nil {
		return nil, usageErrorf("unrecognized arguments: %s", strings.Join(unknown, " "))
	}
	return &p.flags, nil
}

type flagParser struct {
	options []option
	args    []string
	pos     int
	flags   flags
}

var negativeNumber = regexp.MustCompile(`^-\d+$|^-\d*\.\d+$`)

// looksLikeOption tells options from overrides.
func looksLikeOption(arg string) bool {
	return len(arg) > 1 && arg[0] == '-' && !negativeNumber.MatchString(arg) && (!strings.Contains(arg, " ") || strings.HasPrefix(arg, "--"))
}

// find returns the option that arg names, with the value attached to it.
func (p *flagParser) find(arg string) (opt *option, value string, hasValue bool, err *usageError) {
	byName := func(name string) *option {
		i := slices.IndexFunc(p.options, func(o option) bool { return o.long == name || o.short == name })
		if i < 0 {
			return nil
		}
		return &p.options[i]
	}
	if opt := byName(arg); opt != nil {
		return opt, "", false, nil
	}
	name, value, hasValue := strings.Cut(arg, "=")
	if opt := byName(name); opt != nil && hasValue {
		return opt, value, true, nil
	}
	var matches []*option
	var names []string
	for i := range p.options {
		o := &p.options[i]
		if strings.HasPrefix(name, "--") && strings.HasPrefix(o.long, name) {
			matches, names = append(matches, o), append(names, o.long)
		}
	}
	if !strings.HasPrefix(arg, "--") {
		// -pVALUE
		if o := byName(arg[:2]); o != nil {
			return o, arg[2:], true, nil
		}
		return nil, "", false, nil
	}
	switch len(matches) {
	case 0:
		return nil, "", false, nil
	case 1:
		return matches[0], value, hasValue, nil
	}
	return nil, "", false, usageErrorf("ambiguous option: %s could match %s", arg, strings.Join(names, ", "))
}

// apply sets an option, with its argument if it takes one.
func (p *flagParser) apply(opt *option, arg, value string, hasValue bool) *usageError {
	if opt.metavar == "" {
		opt.set(&p.flags, "")
		if !hasValue {
			return nil
		}
		// -rm is -r -m
		if !strings.HasPrefix(arg, "--") && value != "" {
			if next, rest, hasRest, _ := p.find("-" + value); next != nil {
				return p.apply(next, "-"+value, rest, hasRest)
			}
		}
		return usageErrorf("argument %s: ignored explicit argument %s", opt.names(), strRepr(value))
	}
	if !hasValue {
		switch {
		case p.pos < len(p.args) && p.args[p.pos] != "--" && !looksLikeOption(p.args[p.pos]):
			value = p.args[p.pos]
			p.pos++
		case opt.constant != "":
			opt.set(&p.flags, opt.constant)
			return nil
		default:
			return usageErrorf("argument %s: expected one argument", opt.names())
		}
	}
	if opt.choices != nil && !slices.Contains(opt.choices, value) {
		quoted := make([]string, len(opt.choices))
		for i, c := range opt.choices {
			quoted[i] = strRepr(c)
		}
		return usageErrorf("argument %s: invalid choice: %s (choose from %s)", opt.names(), strRepr(value), strings.Join(quoted, ", "))
	}
	opt.set(&p.flags, value)
	return nil
}

// writeUsage writes the usage of the program, folded as argparse does.
func writeUsage(w io.Writer, program string) error {
	const width = 78
	prefix := "usage: " + program + " "
	indent := strings.Repeat(" ", len(prefix))
	var lines []string
	line := prefix
	for _, o := range options() {
		word := o.long
		if o.metavar != "" {
			argument := o.metavar
			if o.choices != nil {
				argument = "{" + strings.Join(o.choices, ",") + "}"
			}
			if o.constant != "" {
				argument = "[" + argument + "]"
			}
			word += " " + argument
		}
		word = "[" + word + "] "
		if len(line)+len(word)-1 > width && line != indent && line != prefix {
			lines = append(lines, line)
			line = indent
		}
		line += word
	}
	lines = append(lines, line, indent+"[overrides ...]")
	for _, line := range lines {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " ")); err != nil {
			return err
		}
	}
	return nil
}
