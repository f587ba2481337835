#!/usr/bin/env bash
# Run the tests, in up to four processes; arguments go to pytest, e.g. `scripts/test.sh tests/audiolm -k door -n 0`.
set -euo pipefail
cd "$(dirname "$0")/.."

# One thread: two torch threads collapse as soon as the second core is busy.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" MKL_NUM_THREADS="${MKL_NUM_THREADS:-1}"
exec .venv/bin/python -m pytest -n logical --maxprocesses 4 --dist loadfile "$@"
