#!/usr/bin/env bash
# Runs Apache Kafka (KRaft, one broker) on loopback, in the foreground; Ctrl-C or SIGTERM stops it.
#
#   scripts/kafka/run.sh                     # 127.0.0.1:9092, data in .waybill/apache-kafka
#   scripts/kafka/run.sh 19092 /tmp/kafka    # another port and directory; its pid is in /tmp/kafka/pid
#   scripts/kafka/run.sh --check             # exit 0 where it can run here, else says what is missing
#
# Needs Maven (resolves the broker's jars once, 54 MB) and a Java runtime, 17 or later.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

missing() { echo "Apache Kafka cannot run here: $1" >&2; exit 3; }
command -v mvn >/dev/null || missing "Maven (mvn) is not installed"
command -v java >/dev/null || missing "there is no Java runtime (java), 17 or later"
version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1)
[ "${version:-0}" -ge 17 ] || missing "Java ${version:-?} is too old; it needs 17 or later"
[ "${1:-}" != --check ] || exit 0

port=${1:-9092}
data=${2:-$root/.waybill/apache-kafka}
controller=$((port + 1))
jars=$root/.waybill/kafka-jars
mkdir -p "$data"
if [ ! -e "$jars/.complete" ]; then
	echo "resolving the jars of Apache Kafka …" >&2
	mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$jars"
	touch "$jars/.complete"
fi
cat >"$data/server.properties" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$data/log
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=500
EOF
echo $$ >"$data/pid"
java=(java -Dlog4j2.configurationFile="$here/log4j2.properties" -cp "$jars/*")
[ -e "$data/log/meta.properties" ] ||
	"${java[@]}" -Xmx128m kafka.tools.StorageTool format --cluster-id 5L6g3nShT-eMCtK--X86sw --config "$data/server.properties" --ignore-formatted >/dev/null
exec "${java[@]}" -Xms256m -Xmx512m kafka.Kafka "$data/server.properties"
