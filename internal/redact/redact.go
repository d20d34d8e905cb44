// Package redact takes the secrets out of addresses that are going to be shown
// or stored. It does not ask whether an address is well formed: a password with
// a slash or an at sign in it makes another of it, for every parser, than its
// author meant. What might be a secret goes; what is left may be too little.
package redact

import (
	"errors"
	"net/url"
	"regexp"
	"strings"
)

// hidden stands for what was taken away where something must stand.
const hidden = "…"

var (
	schemeForm = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://`)
	// hostForm is a host, with or without a port. A user with a password has
	// the same form as soon as that password consists of digits, but is followed
	// by an at sign.
	hostForm = regexp.MustCompile(`^([\w.-]*|\[[0-9A-Fa-f:.]+(%25[\w.-]+)?\])(:\d{0,5})?$`)
	// valueForm is what the values of harmless options consist of.
	valueForm = regexp.MustCompile(`^[\w.-]{0,64}$`)
	// noScheme is user:password@host without what belongs before it.
	noScheme = regexp.MustCompile(`^[^/\\]*:.*@`)
	// secretKey is a setting whose name says that its value is a secret.
	secretKey = regexp.MustCompile(`(?i)(pass(word|wd|phrase)?|pwd|secret|token|credentials?|api_?key|access_?key|private_?key)$`)
)

// harmless are the options in the query of an address that are shown. No list
// of those that are secret could be complete.
var harmless = map[string]bool{
	"application_name": true, "cache": true, "charset": true, "connect_timeout": true, "mode": true,
	"sslmode": true, "target_session_attrs": true, "timeout": true, "tls": true,
}

// URL returns an address without user, password, fragment and all options that
// are not known to be harmless. A path without a scheme is returned as it is.
func URL(address string) string {
	at := schemeForm.FindStringIndex(address)
	if at == nil || at[0] != 0 {
		if noScheme.MatchString(address) {
			return hidden + address[strings.LastIndexByte(address, '@'):]
		}
		return address
	}
	scheme, rest := address[:at[1]], address[at[1]:]
	if !isFile(scheme, rest) {
		var ok bool
		if rest, ok = withoutUser(rest); !ok {
			return scheme + hidden
		}
	}
	rest, _, _ = strings.Cut(rest, "#")
	rest, query, _ := strings.Cut(rest, "?")
	host, path, slash := strings.Cut(rest, "/")
	if !hostForm.MatchString(host) {
		return scheme + hidden
	}
	if slash {
		path = "/" + path
	}
	if query = options(query); query != "" {
		query = "?" + query
	}
	return scheme + host + path + query
}

// withoutUser returns what follows the scheme of an address without its user
// and password. It is not ok if that can be read in two ways: the password may
// have a slash in it, or the path or the query an at sign.
func withoutUser(rest string) (_ string, ok bool) {
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority, tail := rest[:end], rest[end:]
	switch strings.Count(tail, "@") {
	case 0:
		return rest[strings.LastIndexByte(authority, '@')+1:], true
	case 1: // user:pass/word@host, unless what is before the slash is a host
		ok := !strings.Contains(authority, "@") && !hostForm.MatchString(authority)
		return rest[strings.LastIndexByte(rest, '@')+1:], ok
	}
	return "", false
}

// isFile reports whether what follows a scheme is the path of a file, which
// may have an at sign in it.
func isFile(scheme, rest string) bool {
	name, _, _ := strings.Cut(strings.ToLower(strings.TrimSuffix(scheme, "://")), "+")
	return (name == "file" || name == "sqlite") && strings.HasPrefix(rest, "/")
}

// options returns those of a query that are harmless.
func options(query string) string {
	var kept []string
	for option := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(option, "=")
		if harmless[key] && valueForm.MatchString(value) {
			kept = append(kept, option)
		}
	}
	return strings.Join(kept, "&")
}

// Setting returns a line KEY=VALUE, an override of Hydra for example, without
// the secrets of the addresses in VALUE, and without VALUE if KEY says that it
// is one. As VALUE may be a list, everything from the first address on is taken
// to belong to it.
func Setting(line string) string {
	key, value, assigned := strings.Cut(line, "=")
	if assigned && secretKey.MatchString(strings.TrimSpace(key)) {
		return key + "=" + hidden
	}
	if !assigned {
		key, value = "", line
	}
	if at := schemeForm.FindStringIndex(value); at != nil && strings.Contains(value[:at[0]], ":") {
		value = hidden // perhaps of user:pass://word@host
	} else if at != nil {
		address := value[at[0]:]
		shown := URL(address)
		if end := closing(value[:at[0]]); shown != address && end != "" && !strings.HasSuffix(shown, end) {
			shown += end
		}
		value = value[:at[0]] + shown
	} else {
		value = URL(value) // user:password@host, perhaps
	}
	if assigned {
		return key + "=" + value
	}
	return value
}

// closing returns the bracket or quote that closes what begin opens.
func closing(begin string) string {
	if begin == "" {
		return ""
	}
	switch last := begin[len(begin)-1]; last {
	case '"', '\'':
		return string(last)
	case '[':
		return "]"
	case '{':
		return "}"
	}
	return ""
}

var textForm = regexp.MustCompile(
	`"[A-Za-z][A-Za-z0-9+.-]*://(\\.|[^"\\\n])*"|[A-Za-z][A-Za-z0-9+.-]*://([^\n]*@)?[^\s"<>]*`)

// Text returns a text, such as the message of an error, without the secrets of
// the addresses in it. Where one of them ends is a guess: at the closing quote
// if it is quoted, otherwise at the next space after the last at sign of the
// line.
func Text(text string) string {
	return textForm.ReplaceAllStringFunc(text, func(found string) string {
		if strings.HasPrefix(found, `"`) {
			return `"` + URL(found[1:len(found)-1]) + `"`
		}
		address := strings.TrimRight(found, ".,:;)")
		return URL(address) + found[len(address):]
	})
}

// Error returns err, or an error with its message and chain, without the
// secrets of the addresses in its message.
func Error(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if clean := Text(text); clean != text {
		return &cleaned{clean, err}
	}
	return err
}

type cleaned struct {
	text string
	err  error
}

func (e *cleaned) Error() string { return e.text }

// Is, like As, looks at what was cleaned, but Unwrap does not hand it out: its own
// message still has the secret.
func (e *cleaned) Is(target error) bool { return errors.Is(e.err, target) }

// As finds a cause by its type, but no error of net/url, whose message has the
// address in it.
func (e *cleaned) As(target any) bool {
	if _, ok := target.(**url.Error); ok {
		return false
	}
	return errors.As(e.err, target)
}
