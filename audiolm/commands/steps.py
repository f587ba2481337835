"""The steps of the training recipe as commands of their own, for whoever wants to run them by hand or elsewhere.

::

    audiolm train prepare SOUNDS data                    # data/train, data/dev
    audiolm train codec data/train out --minutes 40
    audiolm train semantic data/train out --minutes 30
    audiolm train sweep data/train data/dev out          # which layer, how many clusters
    audiolm train ears data/train out                    # k-means, then codec and tokenizer as they will ship
    audiolm train tokenize data/train out/train.safetensors out/ears
    audiolm train tokenize data/dev out/dev.safetensors out/ears
    audiolm train stage semantic out out/ears out/train.safetensors --dev-tokens out/dev.safetensors
    audiolm train stage coarse ...                       # and fine
    audiolm train export out BUNDLE out/ears --name piano --card card.md
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from audiolm.commands.options import (
    Batch,
    Corpora,
    Device,
    Ears,
    From,
    Minutes,
    Out,
    Precision,
    PresetName,
    Restart,
    Sets,
    Steps,
    Threads,
    corpora_of,
    given,
    part_of,
    preset_of,
    setup,
    text_of,
)
from audiolm.errors import InputError

steps_app = typer.Typer(rich_markup_mode=None)


def _how(device: str, precision: str | None, start: Path | None, *, restart: bool) -> dict[str, Any]:
    """How a run is called; a precision that was not given is the run's own."""
    how = {"device": device, "weights_from": start, "restart": restart}
    return how if precision is None else how | {"precision": precision}


@steps_app.command()
def prepare(
    data: Annotated[Path, typer.Argument(help="folder of sound files, or a manifest (CSV with a column file)")],
    out: Annotated[Path, typer.Argument(help="folder of the corpora")],
    *,
    split: Annotated[str | None, typer.Option(help="one corpus, of the files that the manifest puts there")] = None,
    preset: PresetName = "default",
    sets: Sets = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="processes that read files")] = None,
) -> None:
    """Read, check and level all sound of DATA into OUT/train and OUT/dev; OUT/report.json says what was refused."""
    from audiolm.train.prepare import prepare as one
    from audiolm.train.prepare import prepare_data

    setup(1)
    recipe = given(preset_of(preset, sets).prepare, jobs=jobs)
    if split is None:
        typer.echo(prepare_data(data, out, recipe).summary, nl=False)
    else:
        corpus = one(data, out, split, recipe)
        typer.echo(f"{len(corpus.names)} clips, {corpus.seconds / 3600:.2f} h in {out}")


@steps_app.command()
def codec(
    corpora: Corpora,
    out: Out,
    *,
    preset: PresetName = "default",
    sets: Sets = None,
    minutes: Minutes = None,
    steps: Steps = None,
    batch: Batch = None,
    threads: Threads = 1,
    device: Device = "cpu",
    precision: Precision = None,
    start: From = None,
    restart: Restart = False,
) -> None:
    """Train the codec: OUT/codec.safetensors."""
    from audiolm.train.codec import train_codec

    setup(threads, device)
    plan = preset_of(preset, sets).codec
    recipe = given(plan.recipe, minutes=minutes, steps=steps, batch=batch)
    how = _how(device, precision, start, restart=restart)
    train_codec(corpora_of(corpora), out, plan.model, recipe, **how)


@steps_app.command()
def semantic(
    corpora: Corpora,
    out: Out,
    *,
    preset: PresetName = "default",
    sets: Sets = None,
    minutes: Minutes = None,
    steps: Steps = None,
    batch: Batch = None,
    threads: Threads = 1,
    device: Device = "cpu",
    precision: Precision = None,
    start: From = None,
    restart: Restart = False,
) -> None:
    """Train the encoder of the semantic tokenizer: OUT/encoder.safetensors."""
    from audiolm.train.semantic import train_semantic

    setup(threads, device)
    plan = preset_of(preset, sets).semantic
    recipe = given(plan.recipe, minutes=minutes, steps=steps, batch=batch)
    how = _how(device, precision, start, restart=restart)
    train_semantic(corpora_of(corpora), out, plan.model, recipe, **how)


@steps_app.command()
def sweep(
    train: Annotated[Path, typer.Argument(help="corpus that clusters are fitted to")],
    dev: Annotated[Path, typer.Argument(help="corpus that they are measured on")],
    out: Out,
    *,
    preset: PresetName = "default",
    sets: Sets = None,
    phones: Annotated[Path | None, typer.Option(help="JSON of phone times of the clips of DEV")] = None,
    threads: Threads = 1,
) -> None:
    """Try layers and numbers of clusters (semantic.sweep of the preset): OUT/sweep.json and sweep.md."""
    from audiolm.eval.phones import load_phones
    from audiolm.train.data import Corpus
    from audiolm.train.ears import choose, trained_tokenizer
    from audiolm.train.sweep import Held

    setup(threads)
    recipe = preset_of(preset, sets)
    known = load_phones(phones) if phones is not None else None
    held = Held.of(Corpus.open(dev), phones=known, music=recipe.semantic.sweep.music)
    made = choose(recipe, trained_tokenizer(recipe, out), Corpus.open(train), held)
    made.save(out)
    typer.echo(made.markdown(), nl=False)


@steps_app.command()
def ears(
    corpora: Corpora,
    out: Out,
    *,
    preset: PresetName = "default",
    sets: Sets = None,
    clusters: Annotated[int | None, typer.Option(help="semantic tokens; else as in the preset")] = None,
    layer: Annotated[int | None, typer.Option(help="whose output is clustered; else as in the preset")] = None,
    ticks: Annotated[int | None, typer.Option(min=1, help="embeddings that the clusters are fitted to")] = None,
    threads: Threads = 1,
) -> None:
    """Fit k-means on LAYER and write codec and tokenizer as they will ship to OUT/ears."""
    from audiolm.codec import SoundStream
    from audiolm.parts import STAGES
    from audiolm.train.ears import trained_tokenizer
    from audiolm.train.export import ears_bundle
    from audiolm.train.loop import load_weights
    from audiolm.train.semantic import embeddings, fit_clusters

    setup(threads)
    recipe = preset_of(preset, sets)
    plan = given(recipe.semantic, model=given(recipe.semantic.model, clusters=clusters, layer=layer))
    recipe = given(recipe, semantic=plan)
    tokenizer, model, config = trained_tokenizer(recipe, out), SoundStream(recipe.codec.model), plan.model
    load_weights(out / "codec.safetensors", model)
    points = embeddings(tokenizer, corpora_of(corpora), config.layer, ticks or plan.sweep.ticks)
    explained = fit_clusters(tokenizer, points)
    specs = {name: recipe.spec(name) for name in STAGES}
    ears_bundle(model, tokenizer, out / "ears", specs, dtypes=dataclasses.asdict(recipe.export.dtypes))
    found = {"layer": config.layer, "clusters": config.clusters, "variance_explained": round(explained, 4)}
    typer.echo(json.dumps(found))


@steps_app.command()
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

    index, count = part_of(part)
    setup(threads)
    parts = load_bundle(ears)
    sounds = streams(Corpus.open(corpus))
    order = np.random.default_rng(0).permutation(len(sounds))[index::count]
    tokens = run(parts.codec, parts.tokenizer, [sounds[i] for i in order], out, hours=hours)
    typer.echo(f"{tokens.ticks / 25 / 3600:.2f} h of tokens in {out}")


@steps_app.command()
def stage(
    name: Annotated[str, typer.Argument(help="semantic, coarse or fine")],
    out: Out,
    ears: Ears,
    train_tokens: Annotated[list[Path], typer.Argument(help="token files")],
    *,
    dev_tokens: Annotated[Path, typer.Option(help="held-out token file")],
    preset: PresetName = "default",
    sets: Sets = None,
    minutes: Minutes = None,
    steps: Steps = None,
    batch: Batch = None,
    crop: Annotated[float | None, typer.Option(help="seconds of a crop; about twice the window")] = None,
    depth_share: Annotated[float | None, typer.Option(min=0.01, max=1, help="share of frames predicted")] = None,
    threads: Threads = 1,
    device: Device = "cpu",
    precision: Precision = None,
    start: From = None,
    restart: Restart = False,
) -> None:
    """Train the stage NAME, of the sizes it has in EARS, on token files: OUT/NAME.safetensors."""
    from audiolm.bundle import load_bundle
    from audiolm.parts import STAGES
    from audiolm.train.stages import train_stage
    from audiolm.train.tokens import Tokens

    if name not in STAGES:
        raise InputError(f"unknown stage {name!r}; expected one of {', '.join(STAGES)}", stage=name)
    setup(threads, device)
    parts, recipe = load_bundle(ears), preset_of(preset, sets).plan(name).recipe
    recipe = given(recipe, minutes=minutes, steps=steps, batch=batch, crop=crop, depth_share=depth_share)
    data, held = Tokens.join([Tokens.open(path) for path in train_tokens]), Tokens.open(dev_tokens)
    levels, spec = parts.codec.config.coarse_levels, parts.stages[name].spec
    how = _how(device, precision, start, restart=restart)
    train_stage(spec, data, held, out, recipe, coarse_levels=levels, **how)


@steps_app.command()
def export(
    out: Out,
    bundle: Annotated[Path, typer.Argument(help="folder of the bundle to write")],
    ears: Ears,
    *,
    name: Annotated[str, typer.Option(help="of the bundle")],
    card: Annotated[Path, typer.Option(help="text of its model card")],
    preset: PresetName = "default",
    sets: Sets = None,
) -> None:
    """Put the trained stages of OUT behind the EARS and write BUNDLE."""
    from audiolm.bundle import load_bundle
    from audiolm.parts import STAGES
    from audiolm.train.export import assemble

    weights = {stage_name: out / f"{stage_name}.safetensors" for stage_name in STAGES}
    text, plan = text_of(card, "card"), preset_of(preset, sets).export
    sampling = {stage_name: getattr(plan.sampling, stage_name) for stage_name in STAGES}
    dtypes = dataclasses.asdict(plan.dtypes)
    assemble(load_bundle(ears), weights, name, bundle, card=text, sampling=sampling, dtypes=dtypes)
    typer.echo(f"{sum(path.stat().st_size for path in bundle.iterdir()) / 1e6:.1f} MB in {bundle}")
