#!/usr/bin/env bash
# The order of the steps that made the shipped bundles: default_bundles.sh WORK SPEECH PIANO (on two cores, about three hours of runs).
#
# SPEECH is a folder with a manifest.csv, PIANO one with train/ and dev/ of rendered pieces. One codec serves both bundles, so it is trained first, on
# both; the rest is `audiolm train all` taken step by step. Every run goes on where it was when the script is called again. The minutes of the shipped
# bundles stand in their cards and are not always the presets'. Since then semantic and coarse stage of speech, and the coarse stage of piano, went on
# training (train_longer.sh; cards, "Longer"), and the detectors were made again.
set -euo pipefail
work="$1" speech="$2" piano="$3"
train() { audiolm train "$@"; }

train prepare "$speech/manifest.csv" "$work/data/speech"
train prepare "$piano" "$work/data/piano"
train codec "$work/data/speech/train=0.5" "$work/data/piano/train=0.5" "$work/codec"

bundle() { # name, preset, kind of its sound, name and kind of the other
    local out="$work/$1" data="$work/data/$1" ears="$work/$1/ears" tokens="$work/$1/tokens"
    mkdir -p "$out" "$tokens"
    cp -n "$work/codec/codec.safetensors" "$out/"
    train semantic "$data/train" "$out" --preset "$2"
    train ears "$data/train" "$out" --preset "$2"
    for split in train dev; do train tokenize "$data/$split" "$tokens/$split.safetensors" "$ears" --hours 8; done
    for name in semantic coarse fine; do
        local crop=()
        if [ "$name" = semantic ] && [ "$1" = speech ]; then crop=(--crop 45); fi # no speaker's stream is a minute long
        train stage "$name" "$out" "$ears" "$tokens/train.safetensors" --dev-tokens "$tokens/dev.safetensors" --preset "$2" "${crop[@]}"
    done
    echo "see the logs beside it" >"$out/card.md"
    train export "$out" "$work/bundles/$1" "$ears" --name "$1" --card "$out/card.md" --preset "$2"
    audiolm eval all "$work/bundles/$1" --data "$data/dev=$3" --train-tokens "$tokens/train.safetensors" --out "$out/eval"
    audiolm eval card "$out/eval" "$work/bundles/$1/CARD.md"
    train detector "$work/bundles/$1" --data "$data/train=$3" --other "$work/data/$4/train=$5" --minutes 15 --steps 400 \
        --work "$out/pairs" --out "$work/bundles/$1/detector.safetensors"
}
bundle speech default speech piano music
bundle piano music music speech speech
