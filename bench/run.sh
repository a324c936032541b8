#!/usr/bin/env bash
# Reruns every measurement and prints Markdown tables. `bench/run.sh --help` says what can be chosen.
#   KEELGATE_BIN=…   measures that binary instead of building one
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case " $* " in
  *" --help "* | *" -h "* | *"--without keelgate"*) ;;
  *)
    if [ -z "${KEELGATE_BIN:-}" ]; then
      cargo build --release --locked -p keelgate
      KEELGATE_BIN="${CARGO_TARGET_DIR:-target}/release/keelgate"
    fi
    export KEELGATE_BIN
    ;;
esac
exec python3 bench/bench.py "$@"
