#!/usr/bin/env bash
# Fuzzes every target of the workspace, or those whose name begins with $1, for $FUZZTIME each. Two targets at a time with a
# worker each: more would share two cores. What is interesting is hardly minimised: left to itself, that takes all of five
# seconds. What fails is printed whole, and its input stays in the package's testdata.
set -euo pipefail
cd "$(dirname "$0")/.."
export FUZZTIME=${FUZZTIME:-5s} GOWORK=off

one() { # module package target
	cd "$1"
	if said=$(go test -run "^$3\$" -fuzz "^$3\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 100x -parallel 1 "$2" 2>&1); then
		printf '%-28s %s\n' "$3" "$(grep '^fuzz: elapsed' <<<"$said" | tail -1 | sed 's/^fuzz: elapsed: //')"
	else
		printf '%s %s\n%s\n' "$1" "$3" "$said"
		return 255 # xargs starts no other
	fi
}
export -f one

list=$(mktemp)
trap 'rm -f "$list"' EXIT
for module in $(GOWORK= go list -m -f '{{.Dir}}'); do
	# Without following links: scripts/simulation has the rules of others.
	(cd "$module" && grep -rHo --include='*_test.go' "^func ${1:-Fuzz}[A-Za-z0-9]*" . || :) |
		sed -E "s|^(.*)/[^/]*:func (.*)$|$module \1 \2|"
done | sort -u >"$list"
echo "$(wc -l <"$list") targets, $FUZZTIME each"
xargs -a "$list" -P 2 -L 1 bash -c 'one "$@"' fuzz
