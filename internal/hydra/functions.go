package hydra

import (
	"cmp"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
)

// param is a parameter of an override function.
type param struct {
	name        string
	keywordOnly bool
	variadic    bool // takes all positional arguments from here on
	optional    bool
	accepts     typeSet
}

// typeSet names the Python types that a parameter accepts, as its annotation.
type typeSet string

const (
	anyElement   typeSet = "Optional[Union[str, int, float, bool, List[Any], Dict[str, Any], QuotedString, Sweep]]"
	choiceItem   typeSet = "Union[str, int, float, bool, Dict[Any, Any], List[Any], ChoiceSweep]"
	number       typeSet = "Union[int, float]"
	maybeNumber  typeSet = "Optional[Union[int, float]]"
	taggable     typeSet = "Union[str, Sweep]"
	maybeSweep   typeSet = "Optional[Sweep]"
	sortable     typeSet = "Union[str, int, bool, float, list, dict, ChoiceSweep, RangeSweep]"
	maybeList    typeSet = "Optional[List[Any]]"
	maybeOrdered typeSet = "Optional[Union[ChoiceSweep, RangeSweep]]"
	strictBool   typeSet = "bool"
	patterns     typeSet = "Union[List[str], str]"
	maybePattern typeSet = "Optional[Union[List[str], str]]"
)

// accepts tells whether v has one of the types. A boolean is an integer in
// Python, and every sweep but the one of glob() is a Sweep.
func (set typeSet) accepts(v any) bool {
	if v == nil {
		return strings.HasPrefix(string(set), "Optional[")
	}
	names := strings.FieldsFunc(string(set), func(r rune) bool { return strings.ContainsRune("[], ", r) })
	has := func(name string) bool { return slices.Contains(names, name) }
	switch v := v.(type) {
	case bool:
		return has("bool") || has("int")
	case sweep:
		_, glob := v.(*globSweep)
		return has(v.pyType()) || has("Sweep") && !glob
	case []any:
		return has("List") || has("list")
	case Map:
		return has("Dict") || has("dict")
	}
	return has(pyType(v))
}

// arguments are the arguments of a call, bound to the parameters.
type arguments struct {
	positional []any // of the variadic parameter
	named      map[string]any
}

// function is an override function.
type function struct {
	params []param
	eval   func(arguments) (any, *Error)
}

const functionNames = "bool,choice,float,glob,int,interval,range,shuffle,sort,str,tag"

// functionByName returns the function that overrides may call under name.
func functionByName(name string) (function, bool) {
	variadic := func(accepts typeSet, keywords ...param) []param {
		return append([]param{{name: "args", variadic: true, accepts: accepts}}, keywords...)
	}
	ordered := []param{
		{name: "sweep", keywordOnly: true, optional: true, accepts: maybeOrdered},
		{name: "list", keywordOnly: true, optional: true, accepts: maybeList},
	}
	switch name {
	case "int", "float", "str", "bool":
		value := param{name: "value", keywordOnly: true, optional: true, accepts: anyElement}
		return function{variadic(anyElement, value), caster(name)}, true
	case "choice":
		return function{variadic(choiceItem), evalChoice}, true
	case "range":
		return function{[]param{
			{name: "start", accepts: number},
			{name: "stop", optional: true, accepts: maybeNumber},
			{name: "step", optional: true, accepts: number},
		}, evalRange}, true
	case "interval":
		return function{[]param{{name: "start", accepts: number}, {name: "end", accepts: number}}, evalInterval}, true
	case "tag":
		return function{variadic(taggable, param{name: "sweep", keywordOnly: true, optional: true, accepts: maybeSweep}), evalTag}, true
	case "shuffle":
		return function{variadic(sortable, ordered...), evalShuffle}, true
	case "sort":
		reverse := param{name: "reverse", keywordOnly: true, optional: true, accepts: strictBool}
		return function{variadic(sortable, append(ordered, reverse)...), evalSort}, true
	case "glob":
		return function{[]param{
			{name: "include", accepts: patterns},
			{name: "exclude", optional: true, accepts: maybePattern},
		}, evalGlob}, true
	}
	return function{}, false
}

// evaluate turns the syntax tree of a value into the value, calling its functions.
func evaluate(v any) (any, *Error) {
	switch v := v.(type) {
	case []any:
		for i, item := range v {
			value, err := evaluate(item)
			if err != nil {
				return nil, err
			}
			v[i] = value
		}
	case dictSyntax:
		var b mapBuilder
		for _, pair := range v {
			value, err := evaluate(pair.Value)
			if err != nil {
				return nil, err
			}
			b.set(pair.Key, value)
		}
		return b.build(), nil
	case *choiceSweep:
		if _, err := evaluate(v.items); err != nil {
			return nil, err
		}
	case *callSyntax:
		return v.eval()
	}
	return v, nil
}

func (c *callSyntax) eval() (any, *Error) {
	positional, named := []any{}, map[string]any{}
	var names []string
	for _, arg := range c.args {
		if arg.name == "" && len(names) > 0 {
			return nil, errorf(KindHydra, "positional argument follows keyword argument")
		}
		value, err := evaluate(arg.value)
		if err != nil {
			return nil, err
		}
		if q, ok := value.(quotedString); ok {
			value = q.text
		}
		if arg.name == "" {
			positional = append(positional, value)
			continue
		}
		if _, repeated := named[arg.name]; !repeated {
			names = append(names, arg.name)
		}
		named[arg.name] = value
	}
	value, err := c.apply(positional, named, names)
	if err != nil {
		return nil, &Error{Kind: KindHydra, Cause: err, Msg: fmt.Sprintf("%s while evaluating '%s': %s", err.Kind, c.text, err.Msg)}
	}
	return value, nil
}

// apply binds the arguments and calls the function.
func (c *callSyntax) apply(positional []any, named map[string]any, names []string) (any, *Error) {
	f, ok := functionByName(c.name)
	if !ok {
		return nil, errorf(KindHydra, "Unknown function '%s'\nAvailable: %s\n", c.name, functionNames)
	}
	args := arguments{named: map[string]any{}}
	for _, p := range f.params {
		value, isNamed := named[p.name]
		switch {
		case p.variadic:
			args.positional, positional = positional, nil
			for i, v := range args.positional {
				if !p.accepts.accepts(v) {
					return nil, mismatch(fmt.Sprintf("%s[%d]", p.name, i), v, p.accepts)
				}
			}
			continue
		case !p.keywordOnly && len(positional) > 0:
			if isNamed {
				return nil, errorf(KindType, "multiple values for argument '%s'", p.name)
			}
			value, positional = positional[0], positional[1:]
		case !isNamed && p.optional:
			continue
		case !isNamed:
			return nil, errorf(KindType, "missing a required argument: '%s'", p.name)
		}
		if !p.accepts.accepts(value) || p.accepts == strictBool && pyType(value) != "bool" {
			return nil, mismatch(p.name, value, p.accepts)
		}
		args.named[p.name] = value
	}
	if len(positional) > 0 {
		return nil, errorf(KindType, "too many positional arguments")
	}
	for _, name := range names {
		if !slices.ContainsFunc(f.params, func(p param) bool { return p.name == name && !p.variadic }) {
			return nil, errorf(KindType, "got an unexpected keyword argument '%s'", name)
		}
	}
	return f.eval(args)
}

func mismatch(name string, v any, want typeSet) *Error {
	return errorf(KindType, "mismatch type argument %s: %s is incompatible with %s", name, pyType(v), want)
}

// caster returns the function int, float, str or bool. It casts every value
// within its argument; several arguments are a sweep over them.
func caster(name string) func(arguments) (any, *Error) {
	return func(args arguments) (any, *Error) {
		value := args.named["value"]
		switch {
		case len(args.positional) > 0 && value != nil:
			return nil, errorf(KindType, "cannot use both position and named arguments")
		case value != nil:
		case len(args.positional) == 0:
			return nil, errorf(KindType, "No positional args or value specified")
		case len(args.positional) == 1:
			value = args.positional[0]
		default:
			choice, err := simpleChoice(args.positional)
			if err != nil {
				return nil, err
			}
			value = choice
		}
		return cast(name, value)
	}
}

// simpleChoice returns the sweep over some values, none of them a sweep.
func simpleChoice(items []any) (*choiceSweep, *Error) {
	for _, item := range items {
		if _, ok := item.(sweep); ok {
			return nil, errorf(KindAssertion, "")
		}
	}
	return &choiceSweep{items: items, simple: true}, nil
}

// cast converts all values within v.
func cast(to string, v any) (any, *Error) {
	switch v := v.(type) {
	case quotedString:
		return cast(to, v.text)
	case []any:
		items := make([]any, len(v))
		for i, item := range v {
			value, err := cast(to, item)
			if err != nil {
				return nil, err
			}
			items[i] = value
		}
		return items, nil
	case Map:
		m := make(Map, len(v))
		for i, e := range v {
			value, err := cast(to, e.Value)
			if err != nil {
				return nil, err
			}
			m[i] = Entry{e.Key, value}
		}
		return m, nil
	case *choiceSweep:
		items, err := cast(to, v.items)
		if err != nil {
			return nil, err
		}
		return &choiceSweep{items: items.([]any), simple: v.simple}, nil
	case *rangeSweep:
		if to != "int" && to != "float" {
			return nil, errorf(KindValue, "Range can only be cast to int or float")
		}
		bounds, err := cast(to, []any{v.start, v.stop, v.step})
		if err != nil {
			return nil, err
		}
		b := bounds.([]any)
		return &rangeSweep{start: b[0], stop: b[1], step: b[2]}, nil
	case *intervalSweep:
		if to != "int" && to != "float" {
			return nil, errorf(KindValue, "Intervals cannot be cast to %s", to)
		}
		bounds, err := cast(to, []any{v.start, v.end})
		if err != nil {
			return nil, err
		}
		b := bounds.([]any)
		return &intervalSweep{start: b[0], end: b[1]}, nil
	}
	switch to {
	case "bool":
		return castBool(v)
	case "str":
		if b, ok := v.(bool); ok {
			return strings.ToLower(pyStr(b)), nil
		}
		if v != nil {
			return pyStr(v), nil
		}
	case "int":
		switch v := v.(type) {
		case string:
			return parseInt(v)
		case float64:
			return truncate(v)
		case bool:
			if v {
				return int64(1), nil
			}
			return int64(0), nil
		case int64, *big.Int:
			return v, nil
		}
	case "float":
		if s, ok := v.(string); ok {
			f, err := parseFloat(s)
			if err != nil {
				return nil, err
			}
			return f, nil
		}
		if x, ok := v.(float64); ok {
			return x, nil
		}
		if x, ok := asNumber(v); ok {
			f, _ := x.Float64()
			if math.IsInf(f, 0) {
				return nil, errorf(KindOverflow, "int too large to convert to float")
			}
			return f, nil
		}
	}
	return nil, errorf(KindAssertion, "")
}

func castBool(v any) (any, *Error) {
	switch v := v.(type) {
	case nil:
		return false, nil
	case string:
		switch strings.ToLower(v) {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return nil, errorf(KindValue, "Cannot cast '%s' to bool", v)
	case float64:
		return v != 0, nil // NaN is true, as in Python
	}
	x, ok := asNumber(v)
	return !ok || x.Sign() != 0, nil
}

// truncate is Python's int(f).
func truncate(f float64) (any, *Error) {
	switch {
	case math.IsInf(f, 0):
		return nil, errorf(KindOverflow, "cannot convert float infinity to integer")
	case math.IsNaN(f):
		return nil, errorf(KindValue, "cannot convert float NaN to integer")
	}
	i, _ := big.NewFloat(f).Int(nil)
	return smallest(i), nil
}

func evalChoice(args arguments) (any, *Error) {
	if len(args.positional) == 0 {
		return nil, errorf(KindValue, "empty choice is not legal")
	}
	if inner, ok := args.positional[0].(*choiceSweep); ok && len(args.positional) == 1 {
		if !inner.simple {
			return nil, errorf(KindValue, "nesting choices is not supported")
		}
		return &choiceSweep{items: inner.items, shuffle: inner.shuffle}, nil
	}
	return &choiceSweep{items: args.positional}, nil
}

func evalRange(args arguments) (any, *Error) {
	r := &rangeSweep{start: args.named["start"], stop: args.named["stop"], step: args.named["step"]}
	if r.stop == nil {
		r.start, r.stop = int64(0), r.start
	}
	if r.step == nil {
		r.step = int64(1)
	}
	return r, nil
}

func evalInterval(args arguments) (any, *Error) {
	bounds, err := cast("float", []any{args.named["start"], args.named["end"]})
	if err != nil {
		return nil, err
	}
	b := bounds.([]any)
	return &intervalSweep{start: b[0], end: b[1]}, nil
}

// evalTag returns the sweep that is tagged. Tags are for sweepers that
// optimise; the basic one has no use for them.
func evalTag(args arguments) (any, *Error) {
	if len(args.positional) < 1 {
		return nil, errorf(KindValue, "Not enough arguments to tag, must take at least a sweep")
	}
	all := args.positional
	if s := args.named["sweep"]; s != nil {
		all = append(all, s)
	}
	last, ok := all[len(all)-1].(sweep)
	if !ok {
		return nil, errorf(KindValue, "Last argument to tag() must be a choice(), range() or interval(), got NoneType")
	}
	for _, tag := range all[:len(all)-1] {
		if _, ok := tag.(string); !ok {
			return nil, errorf(KindValue, "tag arguments type must be string, got %s", pyType(tag))
		}
	}
	return last, nil
}

func evalShuffle(args arguments) (any, *Error) {
	all := args.positional
	for _, name := range []string{"list", "sweep"} {
		if v := args.named[name]; v != nil {
			all = []any{v}
			break
		}
	}
	if len(all) != 1 {
		choice, err := simpleChoice(all)
		if err != nil {
			return nil, err
		}
		choice.shuffle = true
		return choice, nil
	}
	switch v := all[0].(type) {
	case *choiceSweep:
		return &choiceSweep{items: v.items, simple: v.simple, shuffle: true}, nil
	case *rangeSweep:
		return &rangeSweep{start: v.start, stop: v.stop, step: v.step, shuffle: true}, nil
	case []any:
		items := slices.Clone(v)
		rand.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
		return items, nil
	}
	return all, nil
}

func evalSort(args arguments) (any, *Error) {
	reverse := args.named["reverse"] == true
	all := args.positional
	for _, name := range []string{"list", "sweep"} {
		if v := args.named[name]; v != nil {
			all = []any{v}
			break
		}
	}
	switch len(all) {
	case 0:
		return nil, errorf(KindValue, "empty sort input")
	case 1:
		switch v := all[0].(type) {
		case *choiceSweep:
			items, err := sorted(v.items, reverse)
			if err != nil {
				return nil, err
			}
			return &choiceSweep{items: items, simple: v.simple, shuffle: v.shuffle}, nil
		case *rangeSweep:
			return v.sorted(reverse), nil
		case []any:
			items, err := sorted(v, reverse)
			if err != nil {
				return nil, err
			}
			return items, nil
		}
		return all[0], nil
	}
	for _, v := range all {
		switch v.(type) {
		case []any, Map, sweep:
			return nil, errorf(KindType, "Invalid arguments: (%s)", strings.Trim(pyRepr(all), "[]"))
		}
	}
	items, err := sorted(all, reverse)
	if err != nil {
		return nil, err
	}
	return &choiceSweep{items: items, simple: true}, nil
}

// sorted returns a sorted copy of items, stable in both directions.
func sorted(items []any, reverse bool) ([]any, *Error) {
	out := slices.Clone(items)
	var failure *Error
	slices.SortStableFunc(out, func(a, b any) int {
		if reverse {
			a, b = b, a
		}
		order, err := compare(a, b)
		if err != nil && failure == nil {
			failure = err
		}
		return order
	})
	return out, failure
}

// compare orders numbers, strings and lists of them, as Python does.
func compare(a, b any) (int, *Error) {
	if x, ok := asNumber(a); ok {
		if y, ok := asNumber(b); ok {
			return x.Cmp(y), nil
		}
	}
	switch a := a.(type) {
	case string:
		if b, ok := b.(string); ok {
			return cmp.Compare(a, b), nil
		}
	case []any:
		if b, ok := b.([]any); ok {
			for i := range min(len(a), len(b)) {
				if pyEqual(a[i], b[i]) {
					continue
				}
				return compare(a[i], b[i])
			}
			return cmp.Compare(len(a), len(b)), nil
		}
	}
	if isNumber(a) && isNumber(b) {
		return 0, nil // one of them is NaN, which has no order
	}
	return 0, errorf(KindType, "'<' not supported between instances of '%s' and '%s'", pyType(a), pyType(b))
}

func isNumber(v any) bool {
	switch v.(type) {
	case bool, int64, *big.Int, float64:
		return true
	}
	return false
}

func evalGlob(args arguments) (any, *Error) {
	list := func(v any) []string {
		switch v := dequote(v).(type) {
		case string:
			return []string{v}
		case []any:
			out := make([]string, len(v))
			for i, item := range v {
				out[i] = pyStr(item)
			}
			return out
		}
		return nil
	}
	return &globSweep{include: list(args.named["include"]), exclude: list(args.named["exclude"])}, nil
}
