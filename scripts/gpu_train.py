"""Trains on a lent GPU what `gpu_stage.sh` staged. Runs there; torch, numpy, safetensors and PyYAML are enough.

::

    python3 scripts/gpu_train.py stages $OUT --bundle speech    # the three stages, a process each, all at once
    python3 scripts/gpu_train.py sound $OUT                     # decode the speech, render the piano, ready for:
    python3 scripts/gpu_train.py codec $OUT                     # the codec with critics, from the shipped weights
    python3 scripts/gpu_train.py encoders $OUT                  # the semantic encoders of both, a process each

Sizes are those of `gpu_preset.yaml`. Each stops itself after --minutes and sends its weights back in $OUT. While the
machine stays warm, the same command with more --minutes goes on where it was; on a fresh machine a run begins from the
weights that were staged with it, or afresh where there are none.
"""

import argparse
import dataclasses
import json
import logging
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from gpu_pieces import join, keep, send, widen  # noqa: E402

PARTS = {"stages": ("semantic", "coarse", "fine"), "codec": ("codec",), "encoders": ("speech", "piano")}


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*PARTS, "sound"))
    parser.add_argument("out", type=Path, help="what comes back")
    parser.add_argument("--bundle", choices=("speech", "piano"), default="speech", help="whose stages")
    parser.add_argument("--minutes", type=float, default=8.5, help="of training; a call may last ten")
    parser.add_argument("--instruments", type=int, default=2, help="renders of each piece of piano")
    parser.add_argument("--limit", type=int, help="pieces that are rendered, to try it out")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change the preset")
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "gpu", help="folder that lasts while it is warm")
    parser.add_argument("--carried", type=Path, default=ROOT / "train")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Take what was carried, train in processes of their own, send back."""
    args = options()
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.INFO)
    name = args.bundle if args.what == "stages" else "sound"
    load, run = args.work / "load" / name, args.work / "runs" / f"{args.what}-{name}"
    if args.only:
        train(args, load, run)
        return
    keep(args.carried, args.work / "pieces")
    join(args.work / "pieces", name, load)
    if args.what == "sound":
        make_sound(args, load)
        return
    run.mkdir(parents=True, exist_ok=True)
    calls = {part: [sys.executable, __file__, *sys.argv[1:], "--only", part] for part in PARTS[args.what]}
    begun = {part: subprocess.Popen(call) for part, call in calls.items()}
    failed = [part for part, process in begun.items() if process.wait()]
    args.out.mkdir(parents=True, exist_ok=True)
    send(run, args.out, args.what)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; what the others made was sent")


def train(args: argparse.Namespace, load: Path, run: Path) -> None:
    """One part, in this process."""
    import torch

    torch.set_num_threads(1 if args.device == "cpu" else 4)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    from audiolm.errors import AudioLMError

    try:
        {"stages": train_stage, "codec": train_codec, "encoders": train_encoder}[args.what](args, load, run)
    except AudioLMError as error:
        raise SystemExit(f"{args.only}: {error}") from error


def preset_of(args: argparse.Namespace, config: dict[str, Any]) -> Any:
    """The preset of GPU runs behind the codec of a bundle."""
    from audiolm.bundle import codec_config
    from audiolm.train.presets import load

    preset = load(ROOT / "scripts" / "gpu_preset.yaml", args.set)
    return dataclasses.replace(preset, codec=dataclasses.replace(preset.codec, model=codec_config(config)))


def start_of(load: Path, run: Path, *names: str) -> Path | None:
    """The first of these weights, widened in ``run/start`` with the others beside it; None where it was not staged."""
    staged = [path for name in names if (path := load / "weights" / f"{name}.safetensors").is_file()]
    made = [widen(path, run / "start" / path.name) for path in staged]
    return made[0] if made and made[0].stem == names[0] else None


def config_of(load: Path, name: str) -> dict[str, Any]:
    """The config of a bundle."""
    return dict(json.loads((load / f"{name}.json").read_text(encoding="utf8")))


def train_stage(args: argparse.Namespace, load: Path, run: Path) -> None:
    """The stage ``args.only``, on tokens."""
    from audiolm.train.stages import train_stage as one
    from audiolm.train.steps import fitting_crop
    from audiolm.train.tokens import Tokens

    config = config_of(load, args.bundle)
    preset = preset_of(args, config)
    spec, recipe = preset.spec(args.only, config["tokenizer"]["clusters"]), preset.plan(args.only).recipe
    train, dev = (Tokens.open(load / "tokens" / f"{split}.safetensors") for split in ("train", "dev"))
    crop = fitting_crop(recipe.crop, spec.ahead, train, dev)
    recipe = dataclasses.replace(recipe, minutes=args.minutes, crop=crop)
    levels, start = config["codec"]["coarse_levels"], start_of(load, run, args.only)
    one(spec, train, dev, run, recipe, coarse_levels=levels, device=args.device, weights_from=start)


def train_codec(args: argparse.Namespace, load: Path, run: Path) -> None:
    """The codec of all bundles, half speech and half piano."""
    from audiolm.train.codec import train_codec as one

    plan = preset_of(args, config_of(load, "codec")).codec
    recipe = dataclasses.replace(plan.recipe, minutes=args.minutes)
    parts = [(corpus(args, name), 0.5) for name in ("speech", "piano")]
    one(parts, run, plan.model, recipe, device=args.device, weights_from=start_of(load, run, "codec"))


def train_encoder(args: argparse.Namespace, load: Path, run: Path) -> None:
    """The semantic encoder of the bundle ``args.only``; piano hears and is told what the preset `music` says."""
    from audiolm.train.presets import load as preset
    from audiolm.train.semantic import train_semantic as one

    plan = preset_of(args, config_of(load, "codec")).semantic
    model, recipe = plan.model, dataclasses.replace(plan.recipe, minutes=args.minutes)
    if args.only == "piano":
        music = preset("music").semantic
        model = dataclasses.replace(model, pitches=music.model.pitches)
        recipe = dataclasses.replace(recipe, views=music.recipe.views, warp=music.recipe.warp)
    part, parts = run / args.only, [(corpus(args, args.only), 1.0)]
    start = start_of(load / "encoders" / args.only, part, "encoder", "encoder_heads")
    one(parts, part, model, recipe, device=args.device, precision="bf16", weights_from=start)
    for path in part.glob("encoder*.*"):  # one folder comes back
        if ".state." not in path.name:
            shutil.copyfile(path, run / f"{args.only}-{path.name}")


def corpus(args: argparse.Namespace, name: str) -> Any:
    """A corpus that :func:`make_sound` made."""
    from audiolm.train.data import Corpus

    return Corpus.open(args.work / "corpus" / name / "train")


def make_sound(args: argparse.Namespace, load: Path) -> None:
    """Decode the speech and render the piano, on all cores, with the wheels that came along."""
    site = args.work / "site"
    for wheel in (load / "wheels").glob("*.whl"):
        if find_spec(wheel.name.partition("-")[0]) is None:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(site), str(ROOT)])  # for the processes that read and render
    sys.path.append(str(site))
    from audiolm.train.prepare import PrepareRecipe, prepare_data

    corpora, jobs = args.work / "corpus", os.cpu_count() or 1
    recipe = PrepareRecipe(jobs=jobs)
    print(prepare_data(load / "speech", corpora / "speech", recipe).summary)
    for split, many in (
        ("train", ["--augment", "--instruments", str(args.instruments)]),
        ("dev", ["--max-seconds", "60"]),
    ):
        out = args.work / "rendered" / split
        few = [] if args.limit is None else ["--limit", str(args.limit)]
        call = [sys.executable, str(load / "kit" / "render_all.py"), str(out), "--split", split, "--jobs", str(jobs)]
        subprocess.run([*call, *many, *few], check=True)
    recipe = dataclasses.replace(recipe, near_duplicates=False)  # renders of one piece are meant to be alike
    print(prepare_data(args.work / "rendered", corpora / "piano", recipe).summary)


if __name__ == "__main__":
    main()
