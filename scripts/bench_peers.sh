#!/usr/bin/env bash
# Measure what a user would pick instead, each in a virtual environment of its own, in turns with ours.
#   scripts/bench_peers.sh                                  all of them: half an hour, and 6 GB of environments once
#   scripts/bench_peers.sh llama pipecat                    some of them; --list shows the names
#   scripts/bench_peers.sh --full --write docs/benchmarks.md   with all 7 s of audiolm-pytorch, the table into the page
# Environments lie in ${XDG_CACHE_HOME:-~/.cache}/audiolm-streamer/peers (--environments FOLDER: elsewhere).
set -euo pipefail
cd "$(dirname "$0")/.."

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" MKL_NUM_THREADS="${MKL_NUM_THREADS:-1}"
exec .venv/bin/python -m benchmarks.peers "$@"
