#!/usr/bin/env bash
# Fuzzes every target of the workspace, or those whose name begins with $1, for $FUZZTIME each. Two targets at a time with a
# worker each: more would share two cores. What is interesting is hardly minimised: left to itself, that takes all of five
# seconds. What fails is printed whole, and its input stays in the package's testdata.
set -euo pipefail
cd "$(dirname "$0")/.."
export FUZZTIME=${FUZZTIME:-5s} GOWORK=off

# overtime says that a run failed by nothing but its end: Go sometimes reports the deadline itself as the failure, with no input
# (go.dev/issue/75804, until 1.27). A target that fails names the input that it failed with, or says that it hung.
overtime() { [ "$(grep -A1 '^--- FAIL: ' <<<"$1" | tail -n +2)" = '    context deadline exceeded' ] && ! grep -q 'Failing input' <<<"$1"; }
one() { # module package target
	local said
	cd "$1"
	for _ in 1 2 3; do
		if said=$(go test -run "^$3\$" -fuzz "^$3\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 100x -parallel 1 "$2" 2>&1); then
			printf '%-28s %s\n' "$3" "$(grep '^fuzz: elapsed' <<<"$said" | tail -1 | sed 's/^fuzz: elapsed: //')"
			return
		fi
		overtime "$said" || break
	done
	printf '%s %s\n%s\n' "$1" "$3" "$said"
	return 255 # xargs starts no other
}
export -f overtime one

list=$(mktemp)
trap 'rm -f "$list"' EXIT
for module in $(GOWORK= go list -m -f '{{.Dir}}'); do
	# Without following links: scripts/simulation has the rules of others.
	(cd "$module" && grep -rHo --include='*_test.go' "^func ${1:-Fuzz}[A-Za-z0-9]*" . || :) |
		sed -E "s|^(.*)/[^/]*:func (.*)$|$module \1 \2|"
done | sort -u >"$list"
echo "$(wc -l <"$list") targets, $FUZZTIME each"
xargs -a "$list" -P 2 -L 1 bash -c 'one "$@"' fuzz
