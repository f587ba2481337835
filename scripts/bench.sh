#!/usr/bin/env bash
# Measure speed and print it: one JSON line a figure and a table at the end; kept in out/bench.jsonl. Nothing is asserted.
#   scripts/bench.sh                      all of them, a few minutes
#   scripts/bench.sh decode_step frames   some of them
set -euo pipefail
cd "$(dirname "$0")/.."

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" MKL_NUM_THREADS="${MKL_NUM_THREADS:-1}"
exec .venv/bin/python -m benchmarks "$@"
