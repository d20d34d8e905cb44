package hydra

import (
	"strings"
	"testing"
)

// TestPathValues: what OmegaConf 2.3 makes of the paths that PyYAML writes, and
// how it writes them again.
func TestPathValues(t *testing.T) {
	const tag = "!!python/object/apply:pathlib."
	for _, c := range []struct {
		text, want string // the value, "" if it is refused
		dumped     string // without the tag
	}{
		{tag + "PosixPath [x, y]", "x/y", "\n- x\n- 'y'\n"},
		{tag + "Path [x, y]", "x/y", "\n- x\n- 'y'\n"},
		{tag + "PosixPath\n- x\n- y", "x/y", "\n- x\n- 'y'\n"},
		{"!<tag:yaml.org,2002:python/object/apply:pathlib.PosixPath> [x]", "x", "\n- x\n"},
		{tag + "PosixPath []", ".", " []\n"},
		{tag + "PosixPath [.]", ".", " []\n"},
		{tag + "PosixPath [/, a]", "/a", "\n- /\n- a\n"},
		{tag + "PosixPath [a/b, ../c, ./d, '']", "a/b/../c/d", "\n- a\n- b\n- ..\n- c\n- d\n"},
		{tag + "PosixPath ['a//b', c/]", "a/b/c", "\n- a\n- b\n- c\n"},
		{tag + "PosixPath [a, /b]", "/b", "\n- /\n- b\n"},
		{tag + "PosixPath ['1']", "1", "\n- '1'\n"},
		{tag + "PosixPath ['${oc.env:NOPE}', x]", "${oc.env:NOPE}/x", "\n- ${oc.env:NOPE}\n- x\n"},
		{tag + "WindowsPath [x, y]", "", "cannot instantiate 'WindowsPath' on your system"},
		{tag + "PosixPath x", "", "expected a sequence node, but found scalar"},
		{tag + "PosixPath {args: [x]}", "", "expected a sequence node, but found mapping"},
		{tag + "PosixPath [x, 1]", "", "expected str, bytes or os.PathLike object, not int"},
		{tag + "PosixPath [[x]]", "", "expected str, bytes or os.PathLike object, not list"},
		{tag + "PosixPath [a, null]", "", "expected str, bytes or os.PathLike object, not NoneType"},
		{tag + "PosixPath [a, true]", "", "expected str, bytes or os.PathLike object, not bool"},
		{tag + "PurePosixPath [x]", "", "could not determine a constructor for the tag"},
		{"!!python/object/new:pathlib.PosixPath [x]", "", "could not determine a constructor for the tag"},
		{"!!python/object:pathlib.PosixPath {}", "", "could not determine a constructor for the tag"},
		{"!!python/name:pathlib.PosixPath", "", "could not determine a constructor for the tag"},
		{"!!python/tuple [x]", "", "could not determine a constructor for the tag"},
	} {
		app := App{Name: "p", ConfigName: "config", ConfigFS: mapFS(map[string]string{
			"config.yaml": "p: " + c.text + "\nq: [1]\nr: ${p}\ns: ${p}/t\n",
		}), LookupEnv: func(string) (string, bool) { return "", false }}
		config, err := app.Compose()
		if c.want == "" {
			if err == nil || !strings.Contains(err.Error(), c.dumped) {
				t.Errorf("%s: %v, want %q", c.text, err, c.dumped)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		for key, want := range map[string]string{"p": c.want, "r": c.want, "s": c.want + "/t"} {
			if got, err := config.Get(key); err != nil || got != want {
				t.Errorf("%s: %s is %v, %v, want %s", c.text, key, got, err, want)
			}
		}
		text, err := config.YAML()
		if want := "p: " + tag + "PosixPath" + c.dumped + "q:\n- 1\n"; err != nil || !strings.HasPrefix(string(text), want) {
			t.Errorf("%s is written as\n%s(%v), want\n%s", c.text, text, err, want)
		}
	}
	app := App{Name: "p", ConfigName: "config", ConfigFS: mapFS(map[string]string{
		"config.yaml": "l:\n- " + tag + "PosixPath [x]\n- 2\n",
	})}
	config, err := app.Compose()
	if err != nil {
		t.Fatal(err)
	}
	if text, err := config.YAML(); err != nil || string(text) != "l:\n- "+tag+"PosixPath\n  - x\n- 2\n" {
		t.Errorf("in a list: %s, %v", text, err)
	}
	app.ConfigFS = mapFS(map[string]string{"config.yaml": "? " + tag + "PosixPath [x]\n: 1\n"})
	if _, err := app.Compose(); err == nil || !strings.Contains(err.Error(), "PosixPath") {
		t.Errorf("as a key: %v", err)
	}
}
