#!/usr/bin/env bash
# Stages of a shipped bundle go on training, on one core each: train_longer.sh NAME DATA WORK MINUTES [STAGE...] (default: semantic and coarse).
#
# DATA is a folder of sound with a manifest.csv, or one with train/ and dev/ of sound. Codec and tokenizer stay as they are, sizes too. It prepares
# and tokenizes DATA (10 h take 15 minutes), then trains from the shipped weights with a new optimizer, MINUTES a stage, side by side, and writes
# WORK/bundle: the bundle NAME with those stages. A call after an interruption goes on where it was, one with more MINUTES goes on longer.
# Look at `dev_nll` in WORK/run/*.jsonl; what to do with the new bundle is in docs/training.md, under "Longer".
# AUDIOLM and PYTHON are the commands (of .venv), PRESET has the recipes, RATE is the highest learning rate, CROP the seconds of the semantic crops.
set -euo pipefail
cd "$(dirname "$0")/.."
name="$1" data="$2" work="$3" minutes="$4"
shift 4
if [ $# = 0 ]; then set -- semantic coarse; fi
audiolm="${AUDIOLM:-.venv/bin/audiolm}" python="${PYTHON:-.venv/bin/python}"
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
mkdir -p "$work/from" "$work/run"

if [ -f "$data/manifest.csv" ]; then data="$data/manifest.csv"; fi
"$audiolm" train prepare "$data" "$work/corpus" # once
for split in train dev; do
    [ -f "$work/$split.safetensors" ] || "$audiolm" train tokenize "$work/corpus/$split" "$work/$split.safetensors" "$name"
done
bundle="$("$python" -c 'import sys; from audiolm.bundle import find; print(find(sys.argv[1]))' "$name")"
running=()
for stage; do
    [ -f "$work/from/$stage.safetensors" ] || "$python" scripts/gpu_pieces.py widen "$bundle/$stage.safetensors" "$work/from/$stage.safetensors"
    crop=()
    if [ "$stage" = semantic ] && [ -n "${CROP:-}" ]; then crop=(--crop "$CROP"); fi
    "$audiolm" train stage "$stage" "$work/run" "$name" "$work/train.safetensors" --dev-tokens "$work/dev.safetensors" --preset "${PRESET:-default}" \
        --from "$work/from/$stage.safetensors" --set "stages.$stage.recipe.rate=${RATE:-8e-4}" "${crop[@]}" --minutes "$minutes" &
    running+=($!)
done
failed=0
for one in "${running[@]}"; do wait "$one" || failed=1; done
[ "$failed" = 0 ] || exit 1
"$python" scripts/longer_bundle.py "$name" "$work/run" "$work/bundle"
