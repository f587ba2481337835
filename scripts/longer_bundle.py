"""A bundle whose stages have gone on training: longer_bundle.py NAME WEIGHTS OUT. See train_longer.sh.

OUT is the bundle NAME with the stages of its sizes that WEIGHTS has (semantic.safetensors and so on); every other file
is as it was. The detector is too, and knows the old continuations: make it again.
"""

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path


def stored_as(path: Path) -> str:
    """How a bundle's file holds its matrices: int8 or fp16."""
    import torch
    from safetensors.torch import load_file

    return "int8" if any(value.dtype == torch.int8 for value in load_file(path).values()) else "fp16"


def main(name: str, weights: Path, out: Path) -> None:
    """Write the bundle ``out``."""
    from audiolm.bundle import find, load_bundle, save_bundle
    from audiolm.parts import STAGES
    from audiolm.train.loop import load_weights

    trained = [stage for stage in STAGES if (weights / f"{stage}.safetensors").is_file()]
    if not trained:
        raise SystemExit(f"{weights} has no weights of a stage ({', '.join(STAGES)}); train_longer.sh makes them")
    parts = load_bundle(name)
    for stage in trained:
        load_weights(weights / f"{stage}.safetensors", parts.stages[stage])
    shutil.copytree(find(name), out, dirs_exist_ok=True)
    config = json.loads((out / "config.json").read_text(encoding="utf8"))
    with tempfile.TemporaryDirectory() as folder:
        dtypes = {stage: stored_as(find(name) / f"{stage}.safetensors") for stage in trained}
        save_bundle(parts, folder, card="", dtypes=dtypes)
        for file in (f"{stage}.safetensors" for stage in trained):
            shutil.copyfile(Path(folder) / file, out / file)
            config["checksums"][file] = hashlib.sha256((out / file).read_bytes()).hexdigest()
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf8")
    load_bundle(out)  # whole, and of the sizes that it says
    print(f"{out}: {', '.join(trained)} trained longer, all else as in {name}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
