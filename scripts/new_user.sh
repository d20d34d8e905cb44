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
mkdir "$work/mine" "$work/bin" "$work/cache"
cd "$work/mine"
printf '%s\n' "$program" >main.go
cp -r "$best_model" best_model

# Nothing of the checkout's own environment helps, and of the machine only Go, a C
# compiler, git and a shell.
for tool in go cc gcc as ld git bash sh uname; do
	found=$(command -v "$tool") && ln -s "$(readlink -f "$found")" "$work/bin/$tool"
done
bare() {
	env -i PATH="$work/bin" HOME="$work" XDG_CACHE_HOME="$work/cache" GOCACHE="$(go env GOCACHE)" \
		GOMODCACHE="$(go env GOMODCACHE)" GOPROXY="$(go env GOPROXY)" GONOSUMDB="$(go env GONOSUMDB)" GOTOOLCHAIN=local \
		${SSL_CERT_FILE:+"SSL_CERT_FILE=$SSL_CERT_FILE"} ${HTTPS_PROXY:+"HTTPS_PROXY=$HTTPS_PROXY"} \
		${PIP_INDEX_URL:+"PIP_INDEX_URL=$PIP_INDEX_URL"} "$@"
}
answered() {
	printf '%s\n' "$2"
	[[ $2 =~ [0-9]\.[0-9] ]] || {
		echo "new_user: $1 printed no probability" >&2
		exit 1
	}
}
bare go mod init example.com/mine
script=${commands//REPOSITORY/"file://$checkout"}
printf '%s\n' "$script"
answered "the program" "$(bare bash -euo pipefail -c "$script")"

# What a deployed program has: what the page puts into an image, the libraries that
# distroless/cc has, /proc, and a user who may write nowhere.
app=$work/root/app
mkdir -p "$app" "$work/root/proc"
bare go build -o "$app/predict" .
bare go run github.com/criteria-go/criteria/cmd/criteria-deps -o "$app/lib"
cp -r best_model "$app/best_model"
ldd "$app/predict" "$app"/lib/* | grep -o '/[^ )]*' | grep -v ':$' | sort -u | while read -r library; do
	[ -f "$library" ] && [ "${library#"$work"}" = "$library" ] || continue
	mkdir -p "$work/root$(dirname "$library")"
	cp -L "$library" "$work/root$library"
done
chmod -R a+rX "$work/root"
chmod 755 "$work"
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo -n)
answered "the deployed program" "$("${as_root[@]}" unshare --mount sh -c \
	'mount --rbind /proc "$1/proc" && exec env -i unshare --root="$1" --wd=/app --setgid=65532 --setuid=65532 /app/predict' \
	sh "$work/root")"
