"""Put what came back from a GPU into a bundle: gpu_bundle.py NAME WEIGHTS OUT [EARS]. Runs here.

WEIGHTS is a folder that `gpu_pieces.py back` filled. The codec is WEIGHTS/codec.safetensors where that is there, else
that of the bundle EARS (a name or a folder; NAME by default), as is the tokenizer. The stages are of the sizes of
`gpu_preset.yaml` with the weights in WEIGHTS. Without those they stay untrained: such a bundle is for tokenizing.
"""

import dataclasses
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main(name: str, weights: Path, out: Path, ears: str) -> None:
    """Write the bundle ``out``."""
    from audiolm.bundle import find, load_bundle, save_bundle
    from audiolm.parts import STAGES, Parts
    from audiolm.stage import Stage
    from audiolm.train.loop import load_weights
    from audiolm.train.presets import load

    old, preset = load_bundle(ears), load(ROOT / "scripts" / "gpu_preset.yaml")
    codec = dataclasses.replace(preset.codec, model=old.codec.config)
    preset = dataclasses.replace(preset, codec=codec)
    if (weights / "codec.safetensors").is_file():
        load_weights(weights / "codec.safetensors", old.codec)
    stages = {stage: Stage(preset.spec(stage, old.tokenizer.config.clusters)) for stage in STAGES}
    trained = [stage for stage in STAGES if (weights / f"{stage}.safetensors").is_file()]
    for stage in trained:
        load_weights(weights / f"{stage}.safetensors", stages[stage])
    card = (find(ears) / "CARD.md").read_text(encoding="utf8")
    card += f"\n## GPU\n\nTrained on a GPU since the figures above: {', '.join(trained) or 'none of the stages'}.\n"
    parts = Parts(old.codec, old.tokenizer, stages, old.sampling, name)
    save_bundle(parts, out, card=card, dtypes=dataclasses.asdict(preset.export.dtypes))
    load_bundle(out)  # whole, and of the sizes that it says
    size = sum(path.stat().st_size for path in out.iterdir()) / 1e6
    print(f"{size:.1f} MB in {out}; trained stages: {', '.join(trained) or 'none, for tokenizing only'}")


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        raise SystemExit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[-1] if len(sys.argv) == 5 else sys.argv[1])
