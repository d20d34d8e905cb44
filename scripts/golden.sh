#!/bin/sh
# golden.sh DIR REGEX: run the golden tests whose names match REGEX on the cases
# in DIR, which is laid out like testdata/golden.
set -eu
[ -d "$1" ] || { echo "golden: no folder $1 (GOLDEN=DIR)" >&2; exit 1; }
CRITERIA_GOLDEN=$(cd "$1" && pwd)
export CRITERIA_GOLDEN
packages=$(find . -name '*_test.go' -exec grep -l '^func TestGolden' {} + | xargs -n 1 dirname | sort -u)
[ -n "$packages" ] || { echo "golden: there are no golden tests" >&2; exit 1; }
# shellcheck disable=SC2086 # one word per package
exec go run ./internal/cmd/gotest -v -some -- -count=1 -timeout 30m -run "$2" $packages
