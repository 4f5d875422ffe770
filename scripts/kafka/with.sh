#!/usr/bin/env bash
# Runs a command beside an Apache Kafka of its own, which is stopped and forgotten afterwards.
#
#   scripts/kafka/with.sh go test ./...      # KAFKA_PORT=19092
#
# The command finds the broker's address in WAYBILL_TEST_KAFKA and WAYBILL_E2E_KAFKA, and in WAYBILL_TEST_KAFKA_RESTART a
# command that kills the broker with -9 and returns when it is there again, with its data.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }
start() {
	"$here/run.sh" "$port" "$dir" >>"$dir/log.txt" 2>&1 </dev/null &
	disown
	for _ in $(seq 240); do
		answers && return
		kill -0 $! 2>/dev/null || break
		sleep 0.5
	done
	echo "Apache Kafka did not start:" >&2
	tail -20 "$dir/log.txt" >&2
	exit 1
}
# A broker that no longer answers still writes its log for a while: it has ended when its process has. One that nobody reaps is
# a zombie as soon as its first thread has ended, while others still hold its ports.
runs() {
	case $(ps -o stat= -p "$1" 2>/dev/null) in
	'') return 1 ;;
	Z*) answers ;;
	esac
}
end() { # signal
	local pid
	pid=$(cat "$dir/pid" 2>/dev/null) || return 0
	kill "-$1" "$pid" 2>/dev/null || :
	for _ in $(seq 300); do
		runs "$pid" || return 0
		sleep 0.1
	done
	kill -KILL "$pid" 2>/dev/null || :
	while runs "$pid"; do sleep 0.1; done
}

if [ "$1" = --restart ]; then
	port=$2 dir=$3
	end KILL
	start
	exit
fi

"$here/run.sh" --check
port=${KAFKA_PORT:-19092}
if answers; then
	echo "port $port is taken; KAFKA_PORT names another" >&2
	exit 1
fi
dir=$(mktemp -d)
trap 'end TERM; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
start
export WAYBILL_TEST_KAFKA=127.0.0.1:$port WAYBILL_E2E_KAFKA=127.0.0.1:$port
export WAYBILL_TEST_KAFKA_RESTART="'$here/with.sh' --restart $port '$dir'"
"$@"
