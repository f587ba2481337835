#!/usr/bin/env bash
# Get a run of docs/gpu-backlog.md ready to travel, here, and print the calls of the `device` tool that make it.
#
#   scripts/gpu_stage.sh speech DATA        tokens of a folder or manifest of speech, for the stages of that bundle
#   scripts/gpu_stage.sh piano KIT          tokens of the piano kit's pieces, rendered INSTRUMENTS times (2)
#   scripts/gpu_stage.sh sound DATA KIT     the sound itself and the libraries to read it, for the codec and the encoders
#   scripts/gpu_stage.sh aside | back       move the shipped bundles out of the tree before the calls, and back after
#
# Everything lies in train/, which git ignores. A second call goes on where the first was interrupted.
#   BUNDLE=FOLDER    tokens are made by this bundle's codec and tokenizer, not by the shipped one's
#   LIMIT=N          render so many pieces, to try it out
#   MIB=45           of a call, see scripts/gpu_pieces.py
# Weights in train/from/{speech,piano,codec,encoders} (scripts/gpu_pieces.py back) are taken along and begun from.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-.venv/bin/python}"
WHEELS="soundfile soxr cffi pycparser mido" # what the image of the GPU machine lacks, to read and to render sound

fail() { printf 'gpu_stage: %s\n' "$*" >&2; exit 1; }

bundle() { # the folder of the bundle $1
    local folder="${BUNDLE:-audiolm/bundles/$1}"
    [ -f "$folder/config.json" ] || fail "$folder is no bundle; give BUNDLE=FOLDER, or first: $0 back"
    printf '%s' "$folder"
}

render() { # kit, folder
    local limit=(); if [ -n "${LIMIT:-}" ]; then limit=(--limit "$LIMIT"); fi
    if [ -f "$2.done" ]; then return; fi
    "$PYTHON" "$1/render_all.py" "$2/train" --split train --augment --instruments "${INSTRUMENTS:-2}" "${limit[@]}"
    "$PYTHON" "$1/render_all.py" "$2/dev" --split dev "${limit[@]}"
    touch "$2.done"
}

tokens() { # name, corpora, bundle: tokens in train/load/NAME/tokens; made once for each codec and tokenizer
    local key made
    key=$(cat "$3/codec.safetensors" "$3/tokenizer.safetensors" | sha256sum | cut -c1-12)
    made="train/made/$1/tokens-$key"
    mkdir -p "$made" "train/load/$1/tokens"
    for split in train dev; do
        if [ ! -f "$made/$split.safetensors" ]; then
            "$PYTHON" - "$3" "$2/$split" "$made/$split.safetensors" <<'END'
import logging, sys
from pathlib import Path
from audiolm.bundle import load_bundle
from audiolm.train.data import Corpus
from audiolm.train.tokenizing import tokenize_corpus
logging.basicConfig(level=logging.INFO, format="%(message)s")
tokens = tokenize_corpus(load_bundle(sys.argv[1]), Corpus.open(sys.argv[2]), Path(sys.argv[3]))
print(f"{tokens.ticks / 25 / 3600:.2f} h of tokens")
END
        fi
        cp "$made/$split.safetensors" "train/load/$1/tokens/"
    done
    cp "$3/config.json" "train/load/$1/$1.json"
}

weights() { # from folder, to folder: earlier results to begin from, small
    local path
    mkdir -p "$2"
    for path in "$1"/*.safetensors; do
        if [ ! -f "$path" ]; then continue; fi
        "$PYTHON" -c "import sys; from pathlib import Path; sys.path[:0] = ['.', 'scripts']
from gpu_pieces import squeeze; squeeze(*map(Path, sys.argv[1:]))" "$path" "$2/$(basename "$path")"
    done
}

calls() { # name, commands on the device: pack, and print what to call
    local name="$1" piece left; shift
    "$PYTHON" -c "import sys; from pathlib import Path; sys.path[:0] = ['scripts']
from gpu_pieces import pack; pack(Path('train/load/$name'), Path('train'), '$name', ${MIB:-45})"
    left=$(find train -maxdepth 1 -name "$name.*of*" | wc -l)
    printf 'Ready: %s. Now, without a pause, since the machine is given back after 30 s:\n\n%s aside\n' \
        "$(du -ch train/"$name".*of* | tail -1 | cut -f1) in $left pieces" "$0"
    for piece in $(find train -maxdepth 1 -name "$name.*of*" | sort); do
        left=$((left - 1))
        if [ "$left" -gt 0 ]; then
            printf 'run(command="python3 scripts/gpu_pieces.py keep train out/gpu/pieces", carry=["%s"], timeout_s=60)\n' "$piece"
        else
            printf 'run(command="PYTHONUNBUFFERED=1 %s", carry=["%s"], timeout_s=600)\n' "$1" "$piece"; shift
        fi
    done
    for command in "$@"; do printf 'run(command="PYTHONUNBUFFERED=1 %s", carry=[], timeout_s=600)\n' "$command"; done
    printf '%s back\n' "$0"
}

stages() { # name, corpora
    local folder; folder=$(bundle "$1")
    rm -rf "train/load/$1"
    tokens "$1" "$2" "$folder"
    weights "train/from/$1" "train/load/$1/weights"
    calls "$1" "python3 scripts/gpu_train.py stages \$OUT --bundle $1"
}

sound() { # speech, kit
    local load=train/load/sound folder; folder=$(bundle speech)
    [ -d "$1" ] || fail "$1 is no folder"
    rm -rf "$load"; mkdir -p "$load/weights" "$load/wheels"
    cp -r "$1" "$load/speech"; cp -r "$2" "$load/kit"
    cp "$folder/config.json" "$load/codec.json"
    cp "$folder/codec.safetensors" "$load/weights/codec.safetensors"
    chmod -R u+w "$load"
    weights train/from/codec "$load/weights"
    for name in speech piano; do
        for part in encoder encoder_heads; do
            if [ ! -f "train/from/encoders/$name-$part.safetensors" ]; then continue; fi
            mkdir -p "train/made/$name-from"
            cp "train/from/encoders/$name-$part.safetensors" "train/made/$name-from/$part.safetensors"
            weights "train/made/$name-from" "$load/encoders/$name/weights"
        done
    done
    # shellcheck disable=SC2086 # several names
    "$PYTHON" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
        --python-version 3.12 --abi cp312 --abi abi3 --abi none --platform manylinux_2_28_x86_64 --platform any \
        --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        -d "$load/wheels" $WHEELS
    calls sound "python3 scripts/gpu_train.py sound \$OUT" "python3 scripts/gpu_train.py codec \$OUT" \
        "python3 scripts/gpu_train.py encoders \$OUT"
}

back() {
    local folder
    for folder in train/aside/*/; do
        if [ ! -d "$folder" ]; then continue; fi
        if [ -e "audiolm/bundles/$(basename "$folder")" ]; then fail "$folder and a bundle of its name are both there"; fi
        mv "$folder" audiolm/bundles/
    done
}

aside() {
    local folder
    trap back ERR INT TERM
    mkdir -p train/aside
    for folder in audiolm/bundles/*/; do
        if [ -f "$folder/config.json" ]; then mv "$folder" train/aside/; fi
    done
}

case "${1:-} $#" in
"speech 2") "$PYTHON" -m audiolm.cli train prepare "$2" train/made/speech/corpus; stages speech train/made/speech/corpus ;;
"piano 2")
    render "$2" train/made/piano/rendered
    "$PYTHON" -m audiolm.cli train prepare train/made/piano/rendered train/made/piano/corpus \
        --set prepare.near_duplicates=false
    stages piano train/made/piano/corpus
    ;;
"sound 3") sound "$2" "$3" ;;
"aside 1") aside ;;
"back 1") back ;;
*) sed -n '2,15p' "$0"; exit 2 ;;
esac
