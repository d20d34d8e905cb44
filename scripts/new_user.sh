#!/usr/bin/env bash
# new_user.sh BEST_MODEL: go the way of a newcomer to the library: make a module in
# an empty folder, do what docs/installing.md says about a module of one's own,
# with the program it shows, and have the model in BEST_MODEL answer. Only the
# commands and the program of that page are run, so it cannot promise what does
# not work.
set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
best_model=$(cd "$1" && pwd)
page=$checkout/docs/installing.md
heading='## In a module of your own'

# block LANGUAGE prints the first block of that language below the heading.
block() {
	awk -v heading="$heading" -v fence="\`\`\`$1" '
		/^## / { here = $0 == heading }
		here && $0 == fence { inside = 1; next }
		inside && /^```$/ { exit }
		inside' "$page"
}
commands=$(block sh) program=$(block go)
case $commands in
*"REPOSITORY ../criteria"*"go run ."*) ;;
*)
	echo "new_user: $page has no commands with REPOSITORY below \"$heading\"" >&2
	exit 1
	;;
esac
case $program in
*criteria.Load*) ;;
*)
	echo "new_user: $page has no program that loads a model below \"$heading\"" >&2
	exit 1
	;;
esac

work=$(mktemp -d)
trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT
mkdir "$work/mine"
cd "$work/mine"
printf '%s\n' "$program" >main.go
cp -r "$best_model" best_model
# Nothing of the checkout's own environment helps.
unset CGO_LDFLAGS CRITERIA_ORT_LIB CRITERIA_BLAS_LIB GOFLAGS GOWORK
go mod init example.com/mine
script=${commands//REPOSITORY/"file://$checkout"}
printf '%s\n' "$script"
answers=$(bash -euo pipefail -c "$script")
printf '%s\n' "$answers"
[[ $answers =~ [0-9]\.[0-9] ]] || {
	echo "new_user: the program printed no probability" >&2
	exit 1
}
