package mlflow

import (
	"cmp"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/criteria-go/criteria/internal/redact"
)

// An OriginError says that a run was recorded by a server which is not the one
// that the credentials of the environment are for.
type OriginError struct {
	Found string // address of the server, from the run's journal
	Want  string // what MLFLOW_TRACKING_URI says, "" if it is not set
}

func (e *OriginError) Error() string {
	want := "which MLFLOW_TRACKING_URI does not name"
	if e.Want != "" {
		want = "and MLFLOW_TRACKING_URI names " + e.Want
	}
	return fmt.Sprintf("mlflow: the run was recorded at %s, %s: it gets no credentials; "+
		"if it is the right server, give its address with --tracking_uri", e.Found, want)
}

// Trusted returns the address to open for a store that a journal names. The
// credentials of the environment are for the server that MLFLOW_TRACKING_URI
// names, not for any that a journal could name: another one is an
// [OriginError], unless there is nothing that could get into wrong hands.
func Trusted(from string, getenv func(string) string) (string, error) {
	configured := getenv("MLFLOW_TRACKING_URI")
	switch {
	case !isServer(from):
		return from, nil
	case sameOrigin(from, configured):
		if prefix(from) == prefix(configured) {
			return configured, nil // which may have user and password
		}
		return from, nil
	case !hasCredentials(getenv):
		return from, nil
	}
	return "", &OriginError{Found: redact.URL(from), Want: redact.URL(configured)}
}

// hasCredentials reports whether the environment says who we are.
func hasCredentials(getenv func(string) string) bool {
	for _, name := range []string{
		"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_CLIENT_CERT_PATH",
	} {
		if getenv(name) != "" {
			return true
		}
	}
	user, password := credentialsFile(getenv)
	return cmp.Or(user, password) != ""
}

func isServer(uri string) bool {
	scheme, _, _ := strings.Cut(uri, ":")
	return strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https")
}

// sameOrigin reports whether two addresses agree in scheme, host and port.
func sameOrigin(a, b string) bool {
	x, err := url.Parse(a)
	y, err2 := url.Parse(b)
	return err == nil && err2 == nil && x.Host != "" && x.Scheme == y.Scheme &&
		strings.EqualFold(x.Hostname(), y.Hostname()) && port(x) == port(y)
}

func port(u *url.URL) string {
	return cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
}

func prefix(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return ""
	}
	return strings.TrimRight(u.Path, "/")
}

// ownFolder returns the folder that a server's artifact location names on this
// machine. A server could name any: only what lies below root is followed.
func ownFolder(location, root string) (string, error) {
	dir, err := localFolder(location)
	if err != nil {
		return "", err
	}
	if root != "" {
		if root, err = localFolder(root); err != nil {
			return "", err
		}
		absRoot, err := filepath.Abs(root)
		if err != nil {
			return "", fmt.Errorf("mlflow: %w", err)
		}
		absDir, err := filepath.Abs(dir)
		if err != nil {
			return "", fmt.Errorf("mlflow: %w", err)
		}
		if below, err := filepath.Rel(absRoot, absDir); err == nil && filepath.IsLocal(below) {
			return absDir, nil
		}
	}
	return "", &APIError{Op: "find artifacts", Code: codeInvalid, Message: fmt.Sprintf(
		"the server keeps artifacts in the folder %q, which is not followed on this machine: start the server with "+
			"--serve-artifacts (the default) and use a new experiment, or, if it shares its disk with this machine, "+
			"set MLFLOW_DEFAULT_ARTIFACT_ROOT to that folder here, too", dir)}
}
