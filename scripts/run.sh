#!/usr/bin/env bash
# Continue a prompt: run.sh PROMPT SECONDS SEED BUNDLE. `make run` calls it with its defaults.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p out
exec .venv/bin/streamer run configs/continue_file.yaml \
    --input "$1" --output out/continued.wav --seconds "$2" --seed "$3" --bundle "$4"
