"""The command ``audiolm``: train the parts of a bundle, one after the other, and look at bundles.

::

    audiolm train prepare SOUNDS data/train              # a folder of sound to a corpus
    audiolm train codec data/train out --minutes 40
    audiolm train semantic data/train out --minutes 30
    audiolm train ears data/train out                    # k-means, then codec and tokenizer as they will ship
    audiolm train tokenize data/train out/train.safetensors --ears out/ears
    audiolm train stage semantic out --minutes 15        # and coarse, and fine
    audiolm train export out BUNDLE --name piano --card card.md
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from audiolm.errors import AudioLMError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train and inspect AudioLM bundles.")
train = typer.Typer(no_args_is_help=True, help="From a folder of sound to a bundle, step by step.")
app.add_typer(train, name="train")
Minutes = Annotated[float, typer.Option(help="the run stops itself after this time")]
Device = Annotated[str, typer.Option(help="cpu or cuda")]
From = Annotated[Path | None, typer.Option("--from", help="weights to start from")]
Corpora = Annotated[list[str], typer.Argument(help="corpus folders, each as FOLDER or FOLDER=SHARE")]


def _corpora(items: list[str]) -> list:  # type: ignore[type-arg]
    from audiolm.train.data import Corpus

    pairs = [item.rpartition("=") if "=" in item else (item, "=", "1") for item in items]
    return [(Corpus.open(folder), float(share)) for folder, _, share in pairs]


def _threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)
    torch.set_flush_denormal(True)


@app.command()
def bundles() -> None:
    """List the shipped bundles."""
    from audiolm.bundle import read_config, shipped

    for name in shipped():
        stages = read_config(name)["stages"]
        typer.echo(f"{name}: " + ", ".join(f"{k} {v['layers']}x{v['width']}" for k, v in stages.items()))


@train.command()
def prepare(folder: Path, out: Path, split: str | None = None) -> None:
    """Read every sound file of FOLDER (those of SPLIT, where a manifest.csv says so) into the corpus OUT."""
    from audiolm.train.prepare import prepare as run

    corpus = run(folder, out, split)
    typer.echo(f"{len(corpus.names)} clips, {corpus.seconds / 3600:.2f} h in {out}")


@train.command()
def codec(
    corpora: Corpora, out: Path, minutes: Minutes = 40.0, batch: int = 4, threads: int = 1, device: Device = "cpu", start: From = None
) -> None:
    """Train the codec."""
    from audiolm.codec import CodecConfig
    from audiolm.train.codec import CodecRecipe, train_codec

    _threads(threads)
    train_codec(_corpora(corpora), out, CodecConfig(), CodecRecipe(minutes=minutes, batch=batch), device=device, weights_from=start)


@train.command()
def semantic(
    corpora: Corpora, out: Path, minutes: Minutes = 30.0, batch: int = 8, threads: int = 1, device: Device = "cpu", start: From = None
) -> None:
    """Train the encoder of the semantic tokenizer."""
    from audiolm.tokenizer import TokenizerConfig
    from audiolm.train.semantic import SemanticRecipe, train_semantic

    _threads(threads)
    train_semantic(_corpora(corpora), out, TokenizerConfig(), SemanticRecipe(minutes=minutes, batch=batch), device=device, weights_from=start)


@train.command()
def ears(corpora: Corpora, out: Path, clusters: int = 512, layer: int = 4, ticks: int = 60000, threads: int = 1) -> None:
    """Fit k-means on LAYER and write codec and tokenizer as they will ship to OUT/ears."""
    from safetensors.torch import load_file

    from audiolm.codec import SoundStream
    from audiolm.tokenizer import SemanticTokenizer, TokenizerConfig
    from audiolm.train.export import ears_bundle
    from audiolm.train.semantic import embeddings, fit_clusters

    _threads(threads)
    tokenizer = SemanticTokenizer(TokenizerConfig(clusters=clusters, layer=layer)).eval()
    tokenizer.encoder.load_state_dict(load_file(out / "encoder.safetensors"))
    explained = fit_clusters(tokenizer, embeddings(tokenizer, _corpora(corpora), layer, ticks))
    model = SoundStream()
    model.load_state_dict(load_file(out / "codec.safetensors"), strict=False)
    ears_bundle(model, tokenizer, out / "ears")
    typer.echo(json.dumps({"layer": layer, "clusters": clusters, "variance_explained": round(explained, 4)}))


@train.command()
def tokenize(corpus: Path, out: Path, ears: Path, hours: float = 100.0, part: str = "0/1", threads: int = 1) -> None:
    """Tokens of CORPUS into OUT; PART i/n takes every n-th stream from i, so that several processes can share the work."""
    import numpy as np

    from audiolm.bundle import load_bundle
    from audiolm.train.data import Corpus
    from audiolm.train.tokens import streams
    from audiolm.train.tokens import tokenize as run

    _threads(threads)
    parts = load_bundle(ears)
    index, count = (int(value) for value in part.split("/"))
    sounds = streams(Corpus.open(corpus))
    order = np.random.default_rng(0).permutation(len(sounds))[index::count]
    tokens = run(parts.codec, parts.tokenizer, [sounds[i] for i in order], out, hours=hours)
    typer.echo(f"{tokens.ticks / 25 / 3600:.2f} h of tokens in {out}")


@train.command()
def stage(
    name: str, out: Path, ears: Path, train_tokens: list[Path], dev_tokens: Annotated[Path, typer.Option()],
    minutes: Minutes = 15.0, batch: int = 4, crop: float = 20.0, depth_share: float = 1.0, threads: int = 1,
    device: Device = "cpu", start: From = None,
) -> None:  # fmt: skip
    """Train the stage NAME (semantic, coarse or fine) on token files."""
    from audiolm.bundle import load_bundle
    from audiolm.train.stages import StageRecipe, train_stage
    from audiolm.train.tokens import Tokens

    _threads(threads)
    parts = load_bundle(ears)
    recipe = StageRecipe(minutes=minutes, batch=batch, crop=crop, depth_share=depth_share)
    data, held = Tokens.join([Tokens.open(path) for path in train_tokens]), Tokens.open(dev_tokens)
    train_stage(parts.stages[name].spec, data, held, out, recipe, parts.codec.config.coarse_levels, device=device, weights_from=start)


@train.command()
def export(out: Path, bundle: Path, name: str, card: Path, ears: Path) -> None:
    """Put the trained stages of OUT behind the ears and write BUNDLE."""
    from audiolm.bundle import load_bundle
    from audiolm.parts import STAGES
    from audiolm.train.export import assemble

    weights = {stage_name: out / f"{stage_name}.safetensors" for stage_name in STAGES}
    assemble(load_bundle(ears), weights, name, bundle, card.read_text(encoding="utf8"))
    typer.echo(f"{sum(path.stat().st_size for path in bundle.iterdir()) / 1e6:.1f} MB in {bundle}")


def main() -> None:
    """Run the command; what is wrong with the input ends with exit code 2 and one line."""
    try:
        app()
    except AudioLMError as error:
        print(f"audiolm: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
