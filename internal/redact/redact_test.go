package redact

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/memwatch"
)

func TestURL(t *testing.T) {
	for address, want := range map[string]string{
		"":                                    "",
		"./mlruns":                            "./mlruns",
		"data/user@home/mlruns":               "data/user@home/mlruns",
		"sqlite:///mlflow.db":                 "sqlite:///mlflow.db",
		"sqlite:////data/ann@lab/mlflow.db":   "sqlite:////data/ann@lab/mlflow.db",
		"file:///data/ann@lab/runs":           "file:///data/ann@lab/runs",
		"http://localhost:5000":               "http://localhost:5000",
		"https://track.example/prefix/":       "https://track.example/prefix/",
		"http://[::1]:5000/x":                 "http://[::1]:5000/x",
		"https://me:hunter2@track.example/p":  "https://track.example/p",
		"https://hunter2@track.example":       "https://track.example",
		"http://u:hunter/two@track:5000":      "http://track:5000",
		"http://u:hunter@two@track:5000/p":    "http://track:5000/p",
		"http://u:hun:ter?two#@track":         "http://track",
		"http://u:hunter2":                    "http://…",
		"http://track/?password=hunter2":      "http://track/",
		"http://track?x=1&token=hunter2#abc":  "http://track",
		"http://track/#hunter2":               "http://track/",
		"postgresql://ann:pw@db/o?sslmode=no": "postgresql://db/o?sslmode=no",
		"postgresql://db/o?password=a&tls=1":  "postgresql://db/o?tls=1",
		"mysql+pymysql://a:sec%ret@db/optuna": "mysql+pymysql://db/optuna",
		"me:hunter2@track:5000":               "…@track:5000",
		"sqlite://u:hunter2@/x.db":            "sqlite:///x.db",
		"http://track/?tls=hunter2,hunter":    "http://track/",
		"http://track/?password=hun@ter":      "http://…", // or the host ter
		"http://u:1234/hun@track/":            "http://…", // or the host u
		"http://u:hun@ter/2@track/":           "http://…", // or the host ter
		"http://u:hun/te@r2@track/":           "http://…",
	} {
		if got := URL(address); got != want {
			t.Errorf("%q is shown as %q, want %q", address, got, want)
		}
	}
}

// secrets returns passwords of all sorts of characters. None of their parts of
// four characters may be a part of anything else in the tests below.
func secrets(r *rand.Rand) string {
	const alphabet = `QXZjw/@:?#&=%+ '"\[]{},;<>|^~$!*().-_äß😀`
	letters := []rune(alphabet)
	var b strings.Builder
	b.WriteString("Zq")
	for range 4 + r.IntN(12) {
		b.WriteRune(letters[r.IntN(len(letters))])
	}
	b.WriteString("qZ")
	return b.String()
}

// requireNone fails if a part of the secret, of four characters or more, is in
// what is shown.
func requireNone(t *testing.T, where, secret, shown string) {
	t.Helper()
	runes := []rune(secret)
	for i := range len(runes) - 3 {
		if part := string(runes[i : i+4]); strings.Contains(shown, part) {
			t.Fatalf("%s: %q is a part of the secret %q, and of %q", where, part, secret, shown)
		}
	}
}

func TestNoPartOfASecret(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	forms := []string{
		"http://user:%s@track.example:5000/prefix", "https://%s@track.example", "https://:%s@track.example/",
		"postgresql://ann:%s@db/optuna?sslmode=require", "mysql+pymysql://ann:%s@db:3306/optuna?charset=utf8mb4",
		"http://track.example/?password=%s", "http://track.example/p?token=%s", "http://track.example?a=1&Sig=%s",
		"http://track.example/p#%s", "HTTP://user:%s@track.example", "user:%s@track.example:5000",
		"postgresql://db/optuna?password=%s&user=ann", "http:///user:%s@track.example", "sqlite:///x.db?key=%s",
	}
	for range 300 {
		secret := secrets(r)
		for _, form := range forms {
			for _, written := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret)} {
				address := fmt.Sprintf(form, written)
				requireNone(t, address, written, URL(address))
				requireNone(t, address, written, Setting("mlflow.tracking_uri="+address))
				requireNone(t, address, written, Setting("+x=['"+address+"',1]"))
			}
			// In a text an address ends with a space or quote.
			if written := url.QueryEscape(secret); !strings.HasPrefix(form, "user:") {
				address := fmt.Sprintf(form, written)
				requireNone(t, address, written, Text("open "+address+": it is away"))
			}
			if written := secret; strings.Contains(form, "%s@") && !strings.HasPrefix(form, "user:") {
				address := fmt.Sprintf(form, written)
				requireNone(t, address, written, Text("open "+address+": it is away"))
				requireNone(t, address, written, Text("open '"+address+"': it is away"))
				if !strings.Contains(written, `"`) {
					requireNone(t, address, written, Text(fmt.Sprintf("open %q: it is away", address)))
				}
			}
		}
		for _, key := range []string{"db.password", "+hub.token", "x.API_KEY", "aws.secret", "passwd"} {
			requireNone(t, key, secret, Setting(key+"="+secret))
		}
	}
}

func TestSetting(t *testing.T) {
	for line, want := range map[string]string{
		"train.seed=1":                                "train.seed=1",
		"mlflow.tracking_uri=http://a:b@c:1":          "mlflow.tracking_uri=http://c:1",
		"mlflow.tracking_uri='http://a:b@c:1'":        "mlflow.tracking_uri='http://…'",
		"hpo.storage=sqlite:///x.db":                  "hpo.storage=sqlite:///x.db",
		"++mlflow.tracking_uri=https://a:b=c@d/e":     "++mlflow.tracking_uri=https://d/e",
		"+db.password=hunter2":                        "+db.password=…",
		"~mlflow":                                     "~mlflow",
		"model.checkpoint=owner/name@main":            "model.checkpoint=owner/name@main",
		"model.head.dropout=choice(0.1,0.2)":          "model.head.dropout=choice(0.1,0.2)",
		"x=\"http://track/?password=hunter2&a=b c\"":  "x=\"http://track/\"",
		"tokenizer.max_length=128":                    "tokenizer.max_length=128",
		"data.text=a sentence with user:word@example": "data.text=…@example",
	} {
		if got := Setting(line); got != want {
			t.Errorf("%s is shown as %s, want %s", line, got, want)
		}
	}
}

func TestText(t *testing.T) {
	for text, want := range map[string]string{
		`Get "http://a:b@c/d?token=x": EOF`:  `Get "http://c/d": EOF`,
		`see http://a:b@c/d, and more`:       `see http://c/d, and more`,
		`sqlite:///x.db is locked`:           `sqlite:///x.db is locked`,
		`open http://a:b c"d@e/f now`:        `open http://e/f now`,
		"http://a/b\nask c@d":                "http://a/b\nask c@d",
		`no address: a@b`:                    `no address: a@b`,
		`invalid proxy "http://u:p \"w@h:1"`: `invalid proxy "http://h:1"`,
	} {
		if got := Text(text); got != want {
			t.Errorf("%s is shown as %s, want %s", text, got, want)
		}
	}
}

func TestError(t *testing.T) {
	if Error(nil) != nil {
		t.Error("nil became an error")
	}
	plain := errors.New("sqlite:///x.db is locked")
	if Error(plain) != plain {
		t.Error("an error without a secret was changed")
	}
	cause := &url.Error{Op: "Get", URL: "http://a:hunter2@b/?token=hunter2", Err: context.Canceled}
	err := Error(fmt.Errorf("ask: %w", cause))
	if !errors.Is(err, context.Canceled) {
		t.Error("the cause is lost")
	}
	var found *url.Error
	if errors.As(err, &found) || strings.Contains(fmt.Sprintf("%v %+v %s", err, err, errors.Unwrap(err)), "hunter2") {
		t.Errorf("the secret is still there: %v", err)
	}
}

func FuzzURL(f *testing.F) {
	f.Add("http://u:hunter/two@track:5000/?a=b#c", "hunter2")
	f.Fuzz(func(t *testing.T, address, password string) {
		memwatch.Start(t, len(address)+len(password))
		for _, shown := range []string{URL(address), Setting(address), Text(address)} {
			if len(shown) > len(address)+2*len(hidden) {
				t.Errorf("%q became %q", address, shown)
			}
		}
		if got := URL("http://u:" + password + "@host/"); got != "http://host/" && got != "http://…" {
			t.Errorf("the password %q leaves %q", password, got)
		}
	})
}
