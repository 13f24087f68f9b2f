#!/usr/bin/env bash
# Installs what the tests need and runs everything.
#   tests/run.sh          unit, property, end-to-end and fault tests
#   tests/run.sh --lint   formatting and lints first
# With KAFKA_BROKERS=host:port and REDIS_URL=redis://host:port the tests that leave a server as it is use these, under
# names of their own that they take away again; tests that kill or configure a server start their own all the same.
# With CI=true a tool that cannot be had is a failure; otherwise it is said and its tests are left out.
set -euo pipefail
cd "$(dirname "$0")/.."

# Outside the checkout, so that checkouts share what they build.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/stratus-target}"
export CARGO_TERM_COLOR=never

say() { printf '\n== %s\n' "$*"; }

missing() {
    if [ "${CI:-}" = true ]; then
        echo "error: $1 is needed and could not be installed" >&2
        exit 1
    fi
    echo "warning: $1 is missing and could not be installed; its tests are left out" >&2
}

# Debian packages, if this is Debian and we may.
debian() {
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        say "installing $*"
        apt-get update -qq && apt-get install -y -qq "$@" || true
    fi
}

install_psql() {
    command -v psql >/dev/null || debian postgresql-client
    command -v psql >/dev/null || missing psql
}

# Apache Kafka, from its artifacts, into a folder beside the build.
install_kafka() {
    local version
    version=$(sed -n 's/.*<version>\(4\..*\)<\/version>.*/\1/p' tests/servers/kafka/pom.xml)
    export STRATUS_TEST_KAFKA="$CARGO_TARGET_DIR/kafka-$version"
    command -v java >/dev/null || debian default-jre-headless
    if [ ! -e "$STRATUS_TEST_KAFKA/complete" ]; then
        command -v mvn >/dev/null || debian maven
        say "fetching Apache Kafka $version"
        mvn -q -B -f tests/servers/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime \
            -DoutputDirectory="$STRATUS_TEST_KAFKA" && touch "$STRATUS_TEST_KAFKA/complete" || true
    fi
    if ! command -v java >/dev/null || [ ! -e "$STRATUS_TEST_KAFKA/complete" ]; then
        missing "Apache Kafka"
    fi
}

# A Redis server for the tests of the Redis store, which start one each for themselves.
install_redis() {
    command -v redis-server >/dev/null || debian redis-server
    command -v redis-server >/dev/null || missing redis-server
}

# kcat, a producer that we did not write.
install_kcat() {
    command -v kcat >/dev/null || debian kcat
    command -v kcat >/dev/null || missing kcat
}

# Clients in Python, in a virtual environment of its own, beside the build.
install_python_clients() {
    local venv="$CARGO_TARGET_DIR/test-python"
    if ! "$venv/bin/python" -c 'import psycopg, confluent_kafka' 2>/dev/null; then
        python3 -c 'import venv, ensurepip' 2>/dev/null || debian python3 python3-venv
        say "installing psycopg and confluent-kafka"
        python3 -m venv "$venv" && "$venv/bin/pip" install -q 'psycopg[binary]==3.*' 'confluent-kafka==2.*' || true
    fi
    if "$venv/bin/python" -c 'import psycopg, confluent_kafka' 2>/dev/null; then
        export STRATUS_TEST_PYTHON="$venv/bin/python"
    else
        missing "psycopg or confluent-kafka"
    fi
}

# Two versions of one of these in a binary do not understand each other's types.
check_lattice() {
    say "dependencies that may occur only once"
    local name count
    for name in arrow arrow-array datafusion object_store tonic prost pgwire; do
        count=$(grep -c "^name = \"$name\"\$" Cargo.lock || true)
        if [ "$count" -gt 1 ]; then
            echo "error: $name occurs $count times in Cargo.lock: keep the versions in Cargo.toml together" >&2
            exit 1
        fi
    done
}

command -v cargo >/dev/null || { echo "error: cargo is needed: install a Rust toolchain first" >&2; exit 1; }
command -v cc >/dev/null && command -v make >/dev/null || debian build-essential
check_lattice
if [ "${1:-}" = --lint ]; then
    say "cargo fmt --check"
    cargo fmt --all --check
    say "cargo clippy"
    cargo clippy --workspace --all-targets --locked -- -D warnings
fi
install_psql
install_kafka
install_redis
install_kcat
install_python_clients
# Always the whole workspace: another selection of packages would build the dependencies again with other features.
say "build"
cargo build --workspace --all-targets --locked
for server in KAFKA_BROKERS REDIS_URL; do
    if [ -n "${!server:-}" ]; then
        say "$server is set: tests that leave a server as it is use that one, the others start their own"
    fi
done
say "unit, property, conformance, end-to-end and fault tests"
cargo test --workspace --locked --no-fail-fast
