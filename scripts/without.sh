#!/usr/bin/env bash
# Takes a feature out, one after the other, and demands that a test of docs/failure-modes.md fails: each row of the platform's
# failure table is a feature only if something notices that it is gone. Nothing in the tree is changed: the compiler is told to
# read another file in the place of the one that the feature is in. With an argument: only the rows whose name contains it.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOWORK=off

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rows=0 unnoticed=()

# without NAME MODULE FILE SUBSTITUTION PACKAGE TESTS
without() {
	[[ "$1" == *"$only"* ]] || return 0
	rows=$((rows + 1))
	local file=$PWD/$2/$3 changed=$work/$rows.go began=$SECONDS said
	perl -0pe "$4" "$file" >"$changed"
	if cmp -s "$file" "$changed"; then
		echo "$1: $2/$3 has no such place any more: $4" >&2
		exit 2
	fi
	printf '{"Replace":{"%s":"%s"}}' "$file" "$changed" >"$work/overlay.json"
	if ! (cd "$2" && go build -overlay "$work/overlay.json" ./...) 2>"$work/said"; then
		echo "$1: does not compile without it:" >&2
		cat "$work/said" >&2
		exit 2
	fi
	touch "$work/began"
	if said=$(cd "$2" && go test -overlay "$work/overlay.json" -count=1 -timeout 3m -run "$6" "$5" 2>&1); then
		unnoticed+=("$1")
		printf '%-52s NOT NOTICED by %s %s\n%s\n' "$1" "$5" "$6" "$said"
	else
		printf '%-52s noticed by %s (%d s)\n' "$1" "$(sed -nE 's/^ *--- FAIL: ([^ ]+).*/\1/p' <<<"$said" | tail -1 | grep . || tail -1 <<<"$said")" $((SECONDS - began))
	fi
	find "$2" -path '*/testdata/rapid/*' -newer "$work/began" -delete # what rapid keeps of a failure
}

only=${1:-}
without "order: waiting for the database" services/order internal/postgres/patience.go \
	's/!pg\.Retryable\(err\)/(true || $&)/' ./internal/intake TestDatabaseAway
without "order: asking inventory again" services/order internal/saga/sweeper.go \
	's/w\.reserver\.Offer\(d\.Order\)/_ = d/' ./internal/saga 'TestSweepersFindWhatWasNotAnswered|TestLostAnswers'
without "order: a ticket where a compensation fails" services/order internal/saga/executor.go \
	's/t\.s\.tickets\.Raise\(u, x\)/_ = x/' ./internal/saga .
without "payment: the third retry" services/payment internal/payment/payment.go \
	's/, 800 \* time\.Millisecond\}/}/' ./internal/processor TestTestValues
without "payment: asking before charging again" services/payment internal/payment/payment.go \
	's/Step\{Ask: true, Charge: true\}/Step{Charge: true}/' ./internal/processor 'TestTestValues|TestLies|TestKilledBetweenCallAndOutcome'
without "payment: its failure cancels the order" services/order internal/order/lifecycle.go \
	's/\{Paying, PaymentFailed, Cancelled, sends\(event\.OrderCancelled\)\}/{Paying, PaymentFailed, Cancelled, nil}/' ./internal/order .
without "payment: which releases the stock" services/inventory internal/stock/lifecycle.go \
	's/(\{Pinned, Closed\}: +)Released/$1Pinned/' ./internal/... .
without "payment: the answer to a duplicate" libs inbox/idempotency.go \
	's/(func \(rs \*Responses\) Get\(r Request\) \(Response, bool, error\) \{\n)/$1\tif true {\n\t\treturn Response{}, false, nil\n\t}\n/' ./inbox 'Duplicate'
without "inventory: row locks" services/inventory internal/postgres/store.go \
	's/(ORDER BY p\.tenant, p\.product_id) FOR UPDATE/$1/g' ./internal/postgres 'TestHotProduct|TestHammer'
without "inventory: their order" services/inventory internal/postgres/store.go \
	's/ORDER BY p\.tenant, p\.product_id FOR UPDATE/ORDER BY random() FOR UPDATE/g' ./internal/postgres 'TestLockOrder|TestHammer'
without "inventory: a pin does not expire" services/inventory internal/postgres/sweep.go \
	"s/state = 'HELD' AND due_at/state IN ('HELD', 'PINNED') AND due_at/" ./internal/postgres 'TestExpireHeld|TestExpiryAgainstPin|TestOldPins'
without "inventory: a hold does" services/inventory internal/postgres/sweep.go \
	"s/state = 'HELD' AND due_at/state = 'NONE' AND due_at/" ./internal/postgres 'TestExpireHeld|TestExpiryAgainstPin'
without "inventory: the comparison with a count" services/inventory internal/recount/stocktake.go \
	's/case l\.Difference == 0:/case true:/' ./internal/... TestStockTake
without "shipping: trying the carrier again" services/shipping internal/dispatch/dispatch.go \
	's/return shipment\.Change\{Again: pause\}/return shipment.Change{Report: shipment.Report{Status: shipment.Failed}}/' ./internal/dispatch .
without "shipping: checking the address first" services/order internal/order/request.go \
	's/\tr\.address\(&c\)\n//' ./internal/order TestRefusedRequests
without "shipping: a ticket where it fails for good" services/order internal/saga/executor.go \
	's/\treturn TicketShipping\n/\treturn ""\n/' ./internal/saga .
without "shipping: the customer is told" services/notification internal/notice/events.go \
	's/\tk = Attention\n//' ./internal/notice .

[ $rows -gt 0 ] || { echo "no row is named like $only" >&2; exit 2; }
if [ ${#unnoticed[@]} -gt 0 ]; then
	printf '%d of %d were NOT noticed\n' ${#unnoticed[@]} $rows
	exit 1
fi
echo "$rows of $rows noticed"
