#!/usr/bin/env bash
# Measure speed and print it, one JSON line each and a table. Nothing is asserted here.
set -euo pipefail
cd "$(dirname "$0")/.."

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" MKL_NUM_THREADS="${MKL_NUM_THREADS:-1}"
exec .venv/bin/streamer bench "$@"
