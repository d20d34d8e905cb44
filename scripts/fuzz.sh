#!/bin/sh
# fuzz.sh TIME: run every fuzz target of the module in turn, each for TIME.
# What one finds is left under testdata/fuzz, where go test runs it from then on.
set -eu
failed=0
for file in $(find . -name '*_test.go' -exec grep -l '^func Fuzz' {} + | sort); do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		echo "== $target in $(dirname "$file")"
		go test "$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "$1" || failed=$((failed + 1))
	done
done
[ "$failed" -eq 0 ] || { echo "fuzz: $failed targets failed" >&2; exit 1; }
