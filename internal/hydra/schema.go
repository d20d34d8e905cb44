package hydra

import (
	"math/big"
	"strings"
)

// schema is the declared type of a node. A nil *schema is Any: such a node takes
// every value. Hydra's own configuration is typed; that of the program is not.
type schema struct {
	kind     schemaKind
	name     string // of a struct or an enumeration
	optional bool
	element  *schema // of a list or dict
	fields   []field
	members  []member
}

type schemaKind int

const (
	boolSchema schemaKind = iota
	intSchema
	floatSchema
	stringSchema
	enumSchema
	structSchema
	listSchema
	dictSchema
)

// field is a field of a struct with its default.
type field struct {
	name   string
	schema *schema
	value  any // an empty Map for a struct with its own defaults
}

// member is a member of an enumeration.
type member struct {
	name  string
	value int64
}

// enumValue is a value of an enumeration.
type enumValue struct {
	schema *schema
	name   string
}

// number returns the value behind the name.
func (e enumValue) number() int64 {
	for _, m := range e.schema.members {
		if m.name == e.name {
			return m.value
		}
	}
	return 0
}

// isContainer tells whether nodes of the type hold other nodes.
func (s *schema) isContainer() bool {
	return s != nil && (s.kind == structSchema || s.kind == listSchema || s.kind == dictSchema)
}

func (s *schema) isMapping() bool { return s.isContainer() && s.kind != listSchema }

// String returns the type as Python prints it.
func (s *schema) String() string {
	if s == nil {
		return "Any"
	}
	name := s.name
	switch s.kind {
	case boolSchema:
		name = "bool"
	case intSchema:
		name = "int"
	case floatSchema:
		name = "float"
	case stringSchema:
		name = "str"
	case listSchema:
		name = "List[" + s.element.String() + "]"
	case dictSchema:
		name = "Dict[str, " + s.element.String() + "]"
	}
	if s.optional {
		return "Optional[" + name + "]"
	}
	return name
}

// convert returns the value of a scalar type that v stands for. The message of
// the error is not located yet.
func (s *schema) convert(v any) (any, *Error) {
	if v == nil {
		if s.optional {
			return nil, nil
		}
		return nil, errorf(KindValidation, "Incompatible value 'None' for field of type '%s'", s)
	}
	switch s.kind {
	case boolSchema:
		if b, ok := asBool(v); ok {
			return b, nil
		}
		return nil, errorf(KindValidation, "Value '%s' is not a valid bool (type %s)", pyStr(v), pyType(v))
	case intSchema:
		switch v := v.(type) {
		case int64, *big.Int:
			return v, nil
		case string:
			if i, err := parseInt(v); err == nil {
				return i, nil
			}
		}
		return nil, conversionError(v, "Integer")
	case floatSchema:
		switch pyType(v) {
		case "int", "float", "str":
			if f, err := cast("float", v); err == nil {
				return f, nil
			}
		}
		return nil, conversionError(v, "Float")
	case stringSchema:
		switch v.(type) {
		case []any, Map, []byte:
			return nil, errorf(KindValidation, "Cannot convert '%s' to string: '%s'", pyType(v), pyStr(v))
		}
		return pyStr(v), nil
	case enumSchema:
		return s.member(v)
	}
	return v, nil
}

func conversionError(v any, want string) *Error {
	return errorf(KindValidation, "Value '%s' of type '%s' could not be converted to %s", pyStr(v), pyType(v), want)
}

// asBool is OmegaConf's reading of a value for a boolean field.
func asBool(v any) (value, ok bool) {
	switch v := v.(type) {
	case bool:
		return v, true
	case int64:
		return v != 0, true
	case *big.Int:
		return true, true
	case string:
		if i, err := parseInt(v); err == nil {
			return i != int64(0), true
		}
		switch strings.ToLower(v) {
		case "yes", "y", "on", "true":
			return true, true
		case "no", "n", "off", "false":
			return false, true
		}
	}
	return false, false
}

// member returns the member of an enumeration by name or by value.
func (s *schema) member(v any) (any, *Error) {
	names := make([]string, len(s.members))
	for i, m := range s.members {
		names[i] = m.name
	}
	switch v := v.(type) {
	case enumValue:
		if v.schema == s {
			return v, nil
		}
	case string:
		name := strings.TrimPrefix(v, s.name+".")
		for _, m := range s.members {
			if m.name == name {
				return enumValue{s, m.name}, nil
			}
		}
	case int64:
		for _, m := range s.members {
			if m.value == v {
				return enumValue{s, m.name}, nil
			}
		}
	case bool, *big.Int:
	default:
		return nil, errorf(KindValidation, "Value %s (%s) is not a valid input for <enum '%s'>", pyStr(v), pyType(v), s.name)
	}
	return nil, errorf(KindValidation, "Invalid value '%s', expected one of [%s]", pyStr(v), strings.Join(names, ", "))
}
