#!/usr/bin/env bash
# Train the three stages of a bundle on a lent GPU: gpu_stages.sh MINUTES OUT [BUNDLE]. Runs on the machine with the GPU, in the repository.
#
# Needs there: python3 with torch, numpy, safetensors and typer; audiolm/bundles/BUNDLE (its codec and tokenizer made the tokens) and
# the token files train/BUNDLE/train*.safetensors and dev.safetensors, which `audiolm train tokenize` wrote here and which are ignored by git.
# Starts from OUT/NAME.safetensors where it exists, so that a second call goes on; each stage gets a third of MINUTES.
set -euo pipefail
minutes="$1" out="$2" bundle="${3:-piano}"
mkdir -p "$out"
share=$(python3 -c "print($minutes / 3)")
train() { # name, crop in seconds, batch
    local from=()
    if [ -f "$out/$1.safetensors" ]; then from=(--from "$out/$1.safetensors"); fi
    python3 -m audiolm.cli train stage "$1" "$out" "audiolm/bundles/$bundle" train/"$bundle"/train*.safetensors \
        --dev-tokens "train/$bundle/dev.safetensors" --minutes "$share" --crop "$2" --batch "$3" --device cuda "${from[@]}"
}
train semantic 60 16
train coarse 20 16
train fine 6 32
