#!/usr/bin/env bash
# The tests that go by chance, for as long as one likes: random topologies, Trident behind faults, real processes and
# servers that are killed, and the model of the seam.
#   tests/soak.sh          more than an hour: 200 kills of each pair alone take about forty minutes
#   tests/soak.sh 10       ten times as long
# Each prints its seeds; a failure names the one to repeat.
set -euo pipefail
cd "$(dirname "$0")/.."
times="${1:-1}"
case "$times" in *[!0-9]* | "" | 0) echo "error: \"$times\" is no number of times" >&2; exit 2 ;; esac

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/stratus-target}"
kafka=$(sed -n 's/.*<version>\(4\..*\)<\/version>.*/\1/p' tests/servers/kafka/pom.xml)
export STRATUS_TEST_KAFKA="${STRATUS_TEST_KAFKA:-$CARGO_TARGET_DIR/kafka-$kafka}"
[ -e "$STRATUS_TEST_KAFKA/complete" ] || { echo "error: no Apache Kafka in $STRATUS_TEST_KAFKA: run tests/run.sh first" >&2; exit 1; }

run() {
    printf '\n== %s\n' "$1"
    cargo test --workspace --locked --test "$1" -- --nocapture "$2"
}

export TOPOLOGY_SECONDS=$((600 * times)) TRIDENT_RUNS=$((1000 * times)) MAP_STATES_RUNS=$((50 * times))
export EXACTLY_ONCE_KILLS=$((200 * times)) SEAM_RUNS=$((20000 * times))
run topology random
run trident chaos
run maps chaos
run connectors exactly_once
run model ''
