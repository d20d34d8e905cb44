package hydra

import (
	"fmt"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// A configuration value outside of the tree is one of
//
//	nil, bool, int64, *big.Int (only beyond int64), float64, string, []byte,
//	[]any and Map
//
// and is written in Python's way wherever it becomes text, because that is what
// users see in messages, in interpolated strings and in .hydra/*.yaml.

// Entry is a key of a [Map] and its value. Keys are strings, integers, floats,
// booleans or bytes.
type Entry struct{ Key, Value any }

// Map is a mapping that keeps the order of its entries, as configuration files
// and everything written from them do.
type Map []Entry

// Get returns the value of key. It takes time linear in the number of entries.
func (m Map) Get(key any) (value any, ok bool) {
	id := keyID(key)
	for _, e := range m {
		if keyID(e.Key) == id {
			return e.Value, true
		}
	}
	return nil, false
}

// missing is the value of an option that has none yet and must be given one.
const missing = "???"

func isMissing(v any) bool { return v == missing }

// isInterpolation tells whether v is a string to be resolved when it is read.
// An escaped \${…} counts, since reading it removes the backslash.
func isInterpolation(v any) bool {
	s, ok := v.(string)
	return ok && strings.Contains(s, "${")
}

// intKey, bigKey and bytesKey keep the identities of keys of different types apart.
type (
	intKey   int64
	bigKey   string
	bytesKey string
)

// keyID maps keys that Python holds equal to one comparable value: 1, 1.0 and
// true are the same key.
func keyID(key any) any {
	switch k := key.(type) {
	case bool:
		if k {
			return intKey(1)
		}
		return intKey(0)
	case int:
		return intKey(k)
	case int64:
		return intKey(k)
	case float64:
		if k == math.Trunc(k) && math.Abs(k) < 1<<62 {
			return intKey(k)
		}
		return k
	case *big.Int:
		return bigKey(k.String())
	case []byte:
		return bytesKey(k)
	case string, nil:
		return k
	}
	// Nothing else gets past the check of keys; the text serves the message.
	return fmt.Sprintf("%T %v", key, key)
}

// mapBuilder collects entries like a Python dict: a repeated key keeps its
// place and its first spelling, and takes the last value.
type mapBuilder struct {
	entries Map
	index   map[any]int
}

func (b *mapBuilder) set(key, value any) {
	if b.index == nil {
		b.index = make(map[any]int)
	}
	id := keyID(key)
	if i, ok := b.index[id]; ok {
		b.entries[i].Value = value
		return
	}
	b.index[id] = len(b.entries)
	b.entries = append(b.entries, Entry{key, value})
}

// build returns the map; an empty one is not nil.
func (b *mapBuilder) build() Map {
	if b.entries == nil {
		return Map{}
	}
	return b.entries
}

// normalize turns the Go values that callers hand in into the types listed
// above. Go maps are ordered by key.
func normalize(v any) (any, error) {
	switch v := v.(type) {
	case nil, bool, int64, float64, string, []byte, quotedString, sweep, enumValue, posixPath:
		return v, nil
	case *big.Int:
		return smallest(v), nil
	case Map:
		out := mapBuilder{}
		for _, e := range v {
			key, err := normalize(e.Key)
			if err != nil {
				return nil, err
			}
			value, err := normalize(e.Value)
			if err != nil {
				return nil, err
			}
			out.set(key, value)
		}
		return out.build(), nil
	}
	rv := reflect.ValueOf(v)
	switch rv.Kind() {
	case reflect.Bool:
		return rv.Bool(), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return rv.Int(), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return smallest(new(big.Int).SetUint64(rv.Uint())), nil
	case reflect.Float32:
		// The shortest decimal of the float32, not the digits that the
		// conversion to float64 adds.
		return strconv.ParseFloat(strconv.FormatFloat(rv.Float(), 'g', -1, 32), 64)
	case reflect.Float64:
		return rv.Float(), nil
	case reflect.String:
		return rv.String(), nil
	case reflect.Pointer:
		if rv.IsNil() {
			return nil, nil
		}
		return normalize(rv.Elem().Interface())
	case reflect.Slice, reflect.Array:
		out := make([]any, rv.Len())
		for i := range out {
			item, err := normalize(rv.Index(i).Interface())
			if err != nil {
				return nil, err
			}
			out[i] = item
		}
		return out, nil
	case reflect.Map:
		if rv.Type().Key().Kind() != reflect.String {
			break
		}
		keys := rv.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		out := make(Map, len(keys))
		for i, k := range keys {
			value, err := normalize(rv.MapIndex(k).Interface())
			if err != nil {
				return nil, err
			}
			out[i] = Entry{k.String(), value}
		}
		return out, nil
	}
	return nil, errorf(KindUnsupportedValue, "Value of type %T is not a supported configuration value", v)
}

// smallest returns i as int64 if it fits.
func smallest(i *big.Int) any {
	if i.IsInt64() {
		return i.Int64()
	}
	return i
}

// pyType returns the name of the Python type of v.
func pyType(v any) string {
	switch v := v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case int64, *big.Int:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case []byte:
		return "bytes"
	case []any:
		return "list"
	case Map:
		return "dict"
	case enumValue:
		return v.schema.name
	case posixPath:
		return "PosixPath"
	case quotedString:
		return "QuotedString"
	case sweep:
		return v.pyType()
	case foreign:
		return v.typ
	}
	return fmt.Sprintf("%T", v)
}

// pyStr is Python's str(v).
func pyStr(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case enumValue:
		return v.schema.name + "." + v.name
	case posixPath:
		return string(v)
	}
	return pyRepr(v)
}

// pyRepr is Python's repr(v).
func pyRepr(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case int64:
		return strconv.FormatInt(v, 10)
	case *big.Int:
		return v.String()
	case float64:
		return floatRepr(v)
	case string:
		return strRepr(v)
	case []byte:
		return "b" + strRepr(string(v))
	case enumValue:
		return fmt.Sprintf("<%s.%s: %d>", v.schema.name, v.name, v.number())
	case posixPath:
		return "PosixPath(" + strRepr(string(v)) + ")"
	case quotedString:
		return strRepr(v.text)
	case []any:
		items := make([]string, len(v))
		for i, item := range v {
			items[i] = pyRepr(item)
		}
		return "[" + strings.Join(items, ", ") + "]"
	case Map:
		items := make([]string, len(v))
		for i, e := range v {
			items[i] = pyRepr(e.Key) + ": " + pyRepr(e.Value)
		}
		return "{" + strings.Join(items, ", ") + "}"
	}
	return fmt.Sprint(v)
}

// floatRepr is Python's repr of a float: the shortest digits that read back to
// the same value, with an exponent below 1e-4 and from 1e16 on.
func floatRepr(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	scientific := strconv.FormatFloat(f, 'e', -1, 64)
	exponent, err := strconv.Atoi(scientific[strings.IndexByte(scientific, 'e')+1:])
	if err != nil || exponent < -4 || exponent >= 16 {
		return scientific
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// strRepr is Python's repr of a string.
func strRepr(s string) string {
	quote := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	var b strings.Builder
	b.WriteByte(quote)
	for _, r := range s {
		switch {
		case r == rune(quote) || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	b.WriteByte(quote)
	return b.String()
}

// asNumber returns the value of a number or a boolean, which Python counts as
// a number.
func asNumber(v any) (*big.Float, bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return big.NewFloat(1), true
		}
		return big.NewFloat(0), true
	case int64:
		return new(big.Float).SetInt64(v), true
	case *big.Int:
		return new(big.Float).SetInt(v), true
	case float64:
		if math.IsNaN(v) {
			return nil, false
		}
		return big.NewFloat(v), true
	}
	return nil, false
}

// pyEqual is Python's v == w.
func pyEqual(v, w any) bool {
	if a, ok := asNumber(v); ok {
		b, ok := asNumber(w)
		return ok && a.Cmp(b) == 0
	}
	switch v := v.(type) {
	case nil:
		return w == nil
	case string:
		s, ok := w.(string)
		return ok && s == v
	case []byte:
		b, ok := w.([]byte)
		return ok && string(b) == string(v)
	case []any:
		l, ok := w.([]any)
		return ok && slices.EqualFunc(v, l, pyEqual)
	case Map:
		m, ok := w.(Map)
		if !ok || len(v) != len(m) {
			return false
		}
		for _, e := range v {
			other, ok := m.Get(e.Key)
			if !ok || !pyEqual(e.Value, other) {
				return false
			}
		}
		return true
	case enumValue:
		e, ok := w.(enumValue)
		return ok && e == v
	case posixPath:
		return w == v
	}
	return false
}

// maxDigits is the length from which on Python refuses to convert a decimal
// string to an integer; it keeps the conversion from being quadratic.
const maxDigits = 4300

// parseInt is Python's int(s) for s in decimal.
func parseInt(s string) (any, *Error) {
	digits, ok := stripUnderscores(strings.TrimFunc(s, isSpace))
	if unsigned := strings.TrimLeft(digits, "+-"); ok && len(digits)-len(unsigned) <= 1 && allDigits(unsigned) {
		if len(unsigned) > maxDigits {
			return nil, errorf(KindValue, "Exceeds the limit (%d digits) for integer string conversion: value has %d digits",
				maxDigits, len(unsigned))
		}
		i, _ := new(big.Int).SetString(digits, 10)
		return smallest(i), nil
	}
	return nil, errorf(KindValue, "invalid literal for int() with base 10: %s", strRepr(s))
}

// parseFloat is Python's float(s).
func parseFloat(s string) (float64, *Error) {
	text, ok := stripUnderscores(strings.TrimFunc(s, isSpace))
	if ok && isFloatText(text) {
		if strings.EqualFold(strings.TrimLeft(text, "+-"), "nan") {
			return math.NaN(), nil // Go knows no signed NaN
		}
		// The only error left is one of range, whose result is what Python gives.
		f, _ := strconv.ParseFloat(text, 64)
		return f, nil
	}
	return 0, errorf(KindValue, "could not convert string to float: %s", strRepr(s))
}

// isFloatText tells whether s, without spaces and underscores, is what Python
// takes for a float. Go's syntax is wider (hexadecimal).
func isFloatText(s string) bool {
	s = strings.ToLower(s)
	if s != "" && (s[0] == '+' || s[0] == '-') {
		s = s[1:]
	}
	switch s {
	case "inf", "infinity", "nan":
		return true
	}
	mantissa, exponent, hasExponent := strings.Cut(s, "e")
	if hasExponent {
		if exponent != "" && (exponent[0] == '+' || exponent[0] == '-') {
			exponent = exponent[1:]
		}
		if !allDigits(exponent) {
			return false
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	return allDigits(whole + fraction)
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// stripUnderscores removes the underscores of a number. Each must stand
// between two digits.
func stripUnderscores(s string) (string, bool) {
	if !strings.Contains(s, "_") {
		return s, true
	}
	for i := range len(s) {
		if s[i] == '_' && (i == 0 || i == len(s)-1 || !isDigit(s[i-1]) || !isDigit(s[i+1])) {
			return s, false
		}
	}
	return strings.ReplaceAll(s, "_", ""), true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isSpace is Python's str.isspace.
func isSpace(r rune) bool { return unicode.IsSpace(r) || '\x1c' <= r && r <= '\x1f' }

// asciiDigits replaces the decimal digits of other scripts, which Python reads
// as numbers too, by a digit.
func asciiDigits(s string) string {
	return strings.Map(func(r rune) rune {
		if r > unicode.MaxASCII && unicode.Is(unicode.Nd, r) {
			return '1'
		}
		return r
	}, s)
}
