"""The command ``audiolm``: train the parts of a bundle, one after the other, and look at bundles.

::

    audiolm train prepare SOUNDS data/train              # a folder of sound to a corpus
    audiolm train codec data/train out --minutes 40
    audiolm train semantic data/train out --minutes 30
    audiolm train ears data/train out                    # k-means, then codec and tokenizer as they will ship
    audiolm train tokenize data/train out/train.safetensors out/ears
    audiolm train tokenize data/dev out/dev.safetensors out/ears
    audiolm train stage semantic out out/ears out/train.safetensors --dev-tokens out/dev.safetensors
    audiolm train stage coarse ...                       # and fine
    audiolm train export out BUNDLE out/ears --name piano --card card.md

Everything heavy is imported by the command that needs it, so that ``--help`` answers at once.
"""

import json
import logging
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audiolm.errors import AudioLMError, InputError

if TYPE_CHECKING:
    from audiolm.train.data import Corpus

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Train and inspect AudioLM bundles.",
    epilog="Exit codes: 0 done; 2 wrong input; 1 another failure; 130, 143 interrupted, with the weights saved.",
)
train = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="From a folder of sound to a bundle, by steps.")
app.add_typer(train, name="train")

Minutes = Annotated[float, typer.Option(help="the run stops itself after this time")]
Steps = Annotated[int | None, typer.Option(min=1, help="stop after so many steps too")]
Batch = Annotated[int, typer.Option(min=1, help="crops a step")]
Threads = Annotated[int, typer.Option(min=1, help="of torch; one is best where several runs share a machine")]
Device = Annotated[str, typer.Option(help="cpu or cuda")]
From = Annotated[Path | None, typer.Option("--from", help="weights to start from")]
Corpora = Annotated[list[str], typer.Argument(help="corpus folders, each as FOLDER or FOLDER=SHARE")]
Out = Annotated[Path, typer.Argument(help="folder of the run's weights and logs")]
Ears = Annotated[Path, typer.Argument(help="bundle whose codec and tokenizer are used")]


def _corpora(items: list[str]) -> "list[tuple[Corpus, float]]":
    from audiolm.train.data import Corpus

    out = []
    for item in items:
        folder, _, share = item.rpartition("=") if "=" in item else (item, "", "1")
        out.append((Corpus.open(folder), _number(share, f"the share of {folder}")))
    return out


def _number(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"{what} is {text!r}; expected a number") from error
    if not math.isfinite(value) or value <= 0:
        raise InputError(f"{what} is {text!r}; expected a positive number")
    return value


def _part(text: str) -> tuple[int, int]:
    """``i/n`` as numbers."""
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise InputError(f"part is {text!r}; expected i/n with i from 0 to n - 1, such as 0/2")
    return int(index), int(count)


def _setup(threads: int, device: str = "cpu") -> None:
    """Torch's settings, checked, and the log of the training on standard output."""
    import torch

    if device not in ("cpu", "cuda"):
        raise InputError(f"device is {device!r}; expected cpu or cuda", device=device)
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device here; use --device cpu", device=device)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)


@app.command()
def bundles() -> None:
    """List the shipped bundles."""
    from audiolm.bundle import read_config, shipped

    for name in shipped():
        stages = read_config(name)["stages"]
        typer.echo(f"{name}: " + ", ".join(f"{k} {v['layers']}x{v['width']}" for k, v in stages.items()))


@train.command()
def prepare(
    folder: Annotated[Path, typer.Argument(help="folder of sound files")],
    out: Annotated[Path, typer.Argument(help="folder of the corpus")],
    split: Annotated[str | None, typer.Option(help="only the files that FOLDER/manifest.csv puts there")] = None,
) -> None:
    """Read every sound file of FOLDER into the corpus OUT; OUT/refused.json says what was refused and why."""
    from audiolm.train.prepare import REFUSED
    from audiolm.train.prepare import prepare as run

    corpus = run(folder, out, split)
    refused = len(json.loads((out / REFUSED).read_text(encoding="utf8")))
    typer.echo(f"{len(corpus.names)} clips, {corpus.seconds / 3600:.2f} h in {out}; {refused} refused")


@train.command()
def codec(
    corpora: Corpora,
    out: Out,
    *,
    minutes: Minutes = 40.0,
    steps: Steps = None,
    batch: Batch = 4,
    threads: Threads = 1,
    device: Device = "cpu",
    start: From = None,
) -> None:
    """Train the codec: OUT/codec.safetensors."""
    from audiolm.codec import CodecConfig
    from audiolm.train.codec import CodecRecipe, train_codec

    _setup(threads, device)
    recipe = CodecRecipe(minutes=minutes, batch=batch, steps=steps)
    train_codec(_corpora(corpora), out, CodecConfig(), recipe, device=device, weights_from=start)


@train.command()
def semantic(
    corpora: Corpora,
    out: Out,
    *,
    minutes: Minutes = 30.0,
    steps: Steps = None,
    batch: Batch = 8,
    threads: Threads = 1,
    device: Device = "cpu",
    start: From = None,
) -> None:
    """Train the encoder of the semantic tokenizer: OUT/encoder.safetensors."""
    from audiolm.tokenizer import TokenizerConfig
    from audiolm.train.semantic import SemanticRecipe, train_semantic

    _setup(threads, device)
    recipe = SemanticRecipe(minutes=minutes, batch=batch, steps=steps)
    train_semantic(_corpora(corpora), out, TokenizerConfig(), recipe, device=device, weights_from=start)


@train.command()
def ears(
    corpora: Corpora,
    out: Out,
    *,
    clusters: Annotated[int, typer.Option(help="semantic tokens")] = 512,
    layer: Annotated[int, typer.Option(help="of the encoder, whose output is clustered")] = 4,
    ticks: Annotated[int, typer.Option(min=1, help="embeddings that the clusters are fitted to")] = 60000,
    threads: Threads = 1,
) -> None:
    """Fit k-means on LAYER and write codec and tokenizer as they will ship to OUT/ears."""
    from audiolm.codec import SoundStream
    from audiolm.tokenizer import SemanticTokenizer, TokenizerConfig
    from audiolm.train.export import ears_bundle
    from audiolm.train.loop import load_weights
    from audiolm.train.semantic import embeddings, fit_clusters

    _setup(threads)
    tokenizer = SemanticTokenizer(TokenizerConfig(clusters=clusters, layer=layer)).eval()
    model = SoundStream()
    load_weights(out / "encoder.safetensors", tokenizer.encoder)
    load_weights(out / "codec.safetensors", model)
    explained = fit_clusters(tokenizer, embeddings(tokenizer, _corpora(corpora), layer, ticks))
    ears_bundle(model, tokenizer, out / "ears")
    typer.echo(json.dumps({"layer": layer, "clusters": clusters, "variance_explained": round(explained, 4)}))


@train.command()
def tokenize(
    corpus: Annotated[Path, typer.Argument(help="corpus folder")],
    out: Annotated[Path, typer.Argument(help="the token file")],
    ears: Ears,
    *,
    hours: Annotated[float, typer.Option(help="stop after so much sound")] = 100.0,
    part: Annotated[str, typer.Option(metavar="i/n", help="every n-th stream from i, to share the work")] = "0/1",
    threads: Threads = 1,
) -> None:
    """Write the tokens of CORPUS to OUT."""
    import numpy as np

    from audiolm.bundle import load_bundle
    from audiolm.train.data import Corpus
    from audiolm.train.tokens import streams
    from audiolm.train.tokens import tokenize as run

    index, count = _part(part)
    _setup(threads)
    parts = load_bundle(ears)
    sounds = streams(Corpus.open(corpus))
    order = np.random.default_rng(0).permutation(len(sounds))[index::count]
    tokens = run(parts.codec, parts.tokenizer, [sounds[i] for i in order], out, hours=hours)
    typer.echo(f"{tokens.ticks / 25 / 3600:.2f} h of tokens in {out}")


@train.command()
def stage(
    name: Annotated[str, typer.Argument(help="semantic, coarse or fine")],
    out: Out,
    ears: Ears,
    train_tokens: Annotated[list[Path], typer.Argument(help="token files")],
    *,
    dev_tokens: Annotated[Path, typer.Option(help="held-out token file")],
    minutes: Minutes = 15.0,
    steps: Steps = None,
    batch: Batch = 4,
    crop: Annotated[float, typer.Option(help="seconds of a crop; about twice the window")] = 20.0,
    depth_share: Annotated[float, typer.Option(min=0.01, max=1, help="share of frames predicted")] = 1.0,
    threads: Threads = 1,
    device: Device = "cpu",
    start: From = None,
) -> None:
    """Train the stage NAME on token files: OUT/NAME.safetensors."""
    from audiolm.bundle import load_bundle
    from audiolm.parts import STAGES
    from audiolm.train.stages import StageRecipe, train_stage
    from audiolm.train.tokens import Tokens

    if name not in STAGES:
        raise InputError(f"unknown stage {name!r}; expected one of {', '.join(STAGES)}", stage=name)
    _setup(threads, device)
    parts = load_bundle(ears)
    recipe = StageRecipe(minutes=minutes, batch=batch, crop=crop, depth_share=depth_share, steps=steps)
    data, held = Tokens.join([Tokens.open(path) for path in train_tokens]), Tokens.open(dev_tokens)
    levels = parts.codec.config.coarse_levels
    spec = parts.stages[name].spec
    train_stage(spec, data, held, out, recipe, coarse_levels=levels, device=device, weights_from=start)


@train.command()
def export(
    out: Out,
    bundle: Annotated[Path, typer.Argument(help="folder of the bundle to write")],
    ears: Ears,
    *,
    name: Annotated[str, typer.Option(help="of the bundle")],
    card: Annotated[Path, typer.Option(help="text of its model card")],
) -> None:
    """Put the trained stages of OUT behind the EARS and write BUNDLE."""
    from audiolm.bundle import load_bundle
    from audiolm.parts import STAGES
    from audiolm.train.export import assemble

    weights = {stage_name: out / f"{stage_name}.safetensors" for stage_name in STAGES}
    try:
        text = card.read_text(encoding="utf8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the card {card} cannot be read ({error}); give a text file") from error
    assemble(load_bundle(ears), weights, name, bundle, card=text)
    typer.echo(f"{sum(path.stat().st_size for path in bundle.iterdir()) / 1e6:.1f} MB in {bundle}")


def main() -> None:
    """Run the command; an error that we raise on purpose ends it with its exit code and one line."""
    try:
        app()
    except AudioLMError as error:
        typer.echo(f"audiolm: error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
